"""`trl-balcap caption`: captions images into a file, with any image-text-to-text model."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from trl_balcap.captioning.engine import Captioner, Generation, trained_prompt
from trl_balcap.data import DEFAULT_PROMPT
from trl_balcap.data.folders import image_files, list_of, sidecar_text, written_path
from trl_balcap.data.images import (
    DEFAULT_MAX_PIXELS,
    IMAGE_SUFFIXES,
    ImageError,
    bounded_size,
    image_problem,
    open_image,
)
from trl_balcap.data.rows import (
    TABLE_SUFFIXES,
    BadRowsError,
    cut_half_row,
    read_jsonl,
    read_table,
)
from trl_balcap.data.scored import IMAGE_COLUMNS, REFERENCE_COLUMNS, first_of, row_image
from trl_balcap.judge import JudgeError

__all__ = ["CaptionRun", "Engine", "ImageRow", "caption_images", "list_images"]

Engine = Literal["auto", "transformers", "vllm", "api"]


@dataclass(frozen=True)
class ImageRow:
    """An image to caption, with its id and its reference, if any."""

    id: str
    path: Path
    reference: str | None = None


@dataclass(frozen=True)
class CaptionRun:
    """
    What a captioning run did.

    Args:
        out (`Path`):
            The caption file.
        written, kept (`int`):
            New captions, and captions that were already there.
        skipped (`list[str]`):
            One message per image that could not be read or captioned.
    """

    out: Path
    written: int
    kept: int
    skipped: list[str]


def list_images(source: str | Path, *, image_folder: str | Path | None = None) -> list[ImageRow]:
    """
    List the images of a source: a folder (by its list, or searched recursively, with references in
    `.txt` files next to the images), a JSONL, CSV or JSON file with images, or one image.

    Args:
        source (`str` or `Path`):
            The folder or file.
        image_folder (`str` or `Path`, *optional*):
            Folder that paths in a file are relative to. Defaults to the file's own folder.

    Returns:
        `list[ImageRow]`: in the order of the list, or sorted by path.

    Raises:
        `FileNotFoundError`: if `source` does not exist.
        [`~data.BadRowsError`]: if rows have no image, an image outside the folder, or a repeated
            id, with one message each.
        `ValueError`: if there are no images.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"File or folder not found: {source}.")
    if image_folder is not None and not Path(image_folder).is_dir():
        raise FileNotFoundError(f"Image folder not found: {image_folder}.")
    listed = source if source.suffix.lower() in TABLE_SUFFIXES else None
    if source.is_dir():
        listed = list_of(source)
    if listed is not None:
        rows = _listed_images(listed, Path(image_folder or listed.parent))
    elif source.is_dir():
        rows = [
            ImageRow(path.relative_to(source).as_posix(), path, sidecar_text(path))
            for path in image_files(source)
        ]
    else:
        problem = image_problem(source)
        if problem is not None:
            raise ValueError(
                f"{source}: {problem}. Pass an image, a folder of images, or a list of them "
                f"({', '.join(TABLE_SUFFIXES)})."
            )
        rows = [ImageRow(source.name, source)]
    if not rows:
        raise ValueError(f"{source} contains no images ({', '.join(IMAGE_SUFFIXES)}).")
    return rows


def _listed_images(path: Path, folder: Path) -> list[ImageRow]:
    rows: list[ImageRow] = []
    problems = []
    places: dict[str, str] = {}
    for where, row in read_table(path):
        try:
            file = row_image(row, folder)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        if file is None:
            problems.append(
                f'{where}: the row has no "image" (it has {", ".join(row)}). Rename yours.'
            )
            continue
        identity = str(row.get("id", Path(first_of(row, IMAGE_COLUMNS)).name))
        if identity in places:
            problems.append(
                f"{where}: the id {identity!r} is already at {places[identity]}. Give each row its "
                'own "id".'
            )
            continue
        places[identity] = where
        rows.append(ImageRow(identity, Path(file), _reference(row)))
    if problems:
        raise BadRowsError(problems)
    return rows


def _reference(row: Mapping[str, Any]) -> str | None:
    # "caption" may be a model's output, so it is not a reference.
    columns = ("reference",) if "model" in row else REFERENCE_COLUMNS
    reference = first_of(row, columns)
    return reference if isinstance(reference, str) else None


def caption_images(
    model: str,
    images: str | Path | Sequence[ImageRow],
    out: str | Path,
    *,
    prompt: str | None = None,
    engine: Engine = "auto",
    api_base: str | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    batch_size: int = 8,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    on_total: Callable[[int, int], None] | None = None,
    on_caption: Callable[[], None] | None = None,
) -> CaptionRun:
    """
    Caption images into a JSONL file. Each row is written as soon as it is done, with "id", "image"
    (relative to the file if it is below the file's folder), "caption", "reference" if known, and
    how it was made: "model", "prompt", "temperature", "max_new_tokens", "max_pixels". An
    interrupted run resumes where it stopped.

    Args:
        model (`str`):
            A checkpoint or a PEFT adapter, on disk or on the Hub; for `"api"` a litellm model
            string.
        images (`str`, `Path` or `Sequence[ImageRow]`):
            Images to caption, see [`list_images`].
        out (`str` or `Path`):
            Output file.
        prompt (`str`, *optional*):
            The user's message. Defaults to the one the model was trained with, if saved in its
            folder or Hub repository (see [`~captioning.engine.trained_prompt`]), else to
            `"Describe the image in detail."`.
        engine (`str`, *optional*, defaults to `"auto"`):
            `"transformers"`, `"vllm"`, or `"api"` for an OpenAI-compatible server or any provider
            of litellm. `"auto"` is `"api"` if `api_base` is given, else `"vllm"` if it is
            installed, else `"transformers"`.
        api_base (`str`, *optional*):
            URL of the server.
        max_new_tokens (`int`, *optional*, defaults to `512`):
            Maximum tokens of a caption; longer ones are cut off there.
        temperature (`float`, *optional*, defaults to `0.0`):
            Sampling temperature; 0 is greedy.
        batch_size (`int`, *optional*, defaults to `8`):
            Images at a time (for the API, concurrent requests).
        max_pixels (`int`, *optional*, defaults to `401408`):
            Larger images are scaled down, see [`~data.images.bounded_size`].
        on_total (`Callable`, *optional*):
            Called once with the total number of images and the number already done.
        on_caption (`Callable`, *optional*):
            Called when an image is done or skipped.

    Returns:
        [`CaptionRun`]

    Raises:
        `FileNotFoundError`: if the images or the model do not exist.
        `ValueError`: if there is nothing to caption, an argument is out of range, or `out` has
            captions made with other settings.
        [`~judge.JudgeConfigError`]: if the API does not work.
    """
    if engine == "auto":
        has_vllm = find_spec("vllm") is not None
        engine = "api" if api_base is not None else "vllm" if has_vllm else "transformers"
    if prompt is None:
        is_ours = engine != "api" or Path(model).is_dir()  # and not a provider's name
        prompt = (trained_prompt(model) if is_ours else None) or DEFAULT_PROMPT
    how = Generation(prompt, max_new_tokens, temperature, batch_size)
    bounded_size(1, 1, max_pixels)
    out = Path(out)
    if out.is_dir():
        raise ValueError(f"{out} is a folder. Pass a file, such as {out}/out.jsonl.")
    start = _captioner(model, engine, api_base)
    rows = list_images(images) if isinstance(images, str | Path) else list(images)
    made = {
        "model": model,
        "prompt": prompt,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "max_pixels": max_pixels,
    }
    done = _captions_there(out, made, rows)
    left = [row for row in rows if row.id not in done]
    if on_total is not None:
        on_total(len(rows), len(rows) - len(left))
    skipped: list[str] = []
    written = 0
    if left:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a", encoding="utf-8") as file:
            captioner = _started(start, how, model)
            for batch in _readable_batches(left, batch_size, max_pixels, skipped, on_caption):
                captions = captioner([image for _, image in batch])
                for (row, _), caption in zip(batch, captions, strict=True):
                    if isinstance(caption, JudgeError):
                        skipped.append(f"{row.path}: no caption: {caption}")
                    else:
                        file.write(_line(row, caption, out, made))
                        written += 1
                    if on_caption is not None:
                        on_caption()
                file.flush()
    return CaptionRun(out, written, len(rows) - len(left), skipped)


def _captioner(model: str, engine: Engine, api_base: str | None) -> Callable[..., Captioner]:
    """A function that loads the captioner. Problems with model and engine are reported now."""
    if engine == "api":
        from trl_balcap.captioning.api import api_captioner

        return lambda how: api_captioner(model, how, api_base)
    if api_base is not None:
        raise ValueError(f"api_base {api_base!r} needs engine 'api', not {engine!r}.")
    if (model.startswith((".", "/", "~")) or model.count("/") > 1) and not Path(model).exists():
        raise FileNotFoundError(
            f"Model not found: {model}. Pass the folder of a checkpoint or adapter, or its name "
            "on the Hub (owner/name)."
        )
    if engine == "vllm":
        from trl_balcap.captioning.vllm import vllm_captioner

        return lambda how: vllm_captioner(model, how)
    from trl_balcap.captioning.transformers import transformers_captioner

    return lambda how: transformers_captioner(model, how)


def _started(start: Callable[..., Captioner], how: Generation, model: str) -> Captioner:
    """Load the captioner, with a one-line error if neither a folder nor the Hub has `model`."""
    try:
        return start(how)
    except OSError as error:
        if Path(model).exists():
            raise
        why = str(error).partition("\n")[0].rstrip(".")
        raise FileNotFoundError(
            f"Model not found: no folder {model}, and no such model on the Hub ({why}). Pass the "
            "folder of a checkpoint or adapter, or a name on the Hub (owner/name), which must be "
            "in the local cache if you are offline."
        ) from error


def _readable_batches(
    rows: Sequence[ImageRow],
    batch_size: int,
    max_pixels: int,
    skipped: list[str],
    on_skip: Callable[[], None] | None,
) -> Iterator[list[tuple[ImageRow, Image.Image]]]:
    """Batches of readable images; the others are reported in `skipped`."""
    batch: list[tuple[ImageRow, Image.Image]] = []
    for row in rows:
        problem = image_problem(row.path)
        if problem is None:
            try:
                batch.append((row, open_image(row.path, max_pixels)))
            except ImageError as error:  # broken in a way that only decoding reveals
                problem = str(error)
        if problem is not None:
            skipped.append(f"{row.path}: {problem}.")
            if on_skip is not None:
                on_skip()
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _captions_there(out: Path, made: Mapping[str, Any], rows: Sequence[ImageRow]) -> set[str]:
    """Ids that are already captioned. A partial row left by a killed run is cut off."""
    if not out.is_file():
        return set()
    cut_half_row(out)
    paths = {row.id: os.path.realpath(row.path) for row in rows}
    done = set()
    for number, row in read_jsonl(out):
        for name, value in made.items():
            if row.get(name) != value:
                raise ValueError(
                    f"{out}:{number} was captioned with {name} {row.get(name)!r}, but this run has "
                    f"{value!r}. Choose another --out, or remove that file."
                )
        there = os.path.realpath(out.parent / row["image"])
        if paths.get(row["id"], there) != there:
            raise ValueError(
                f"{out}:{number} is the caption of {there}, but {row['id']!r} is now another "
                "image. Choose another --out, or remove that file."
            )
        done.add(row["id"])
    return done


def _line(row: ImageRow, caption: str, out: Path, made: Mapping[str, Any]) -> str:
    fields = {
        "id": row.id,
        "image": written_path(row.path, out),
        "caption": caption,
        **({} if row.reference is None else {"reference": row.reference}),
        **made,
    }
    return json.dumps(fields, ensure_ascii=False) + "\n"

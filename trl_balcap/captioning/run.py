"""`trl-balcap caption`: images in, a file of captions out, by any image-text-to-text model."""

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
    """An image to caption, its id, and the reference that rides along where there is one."""

    id: str
    path: Path
    reference: str | None = None


@dataclass(frozen=True)
class CaptionRun:
    """
    What a captioning run did.

    Args:
        out (`Path`):
            The file of captions.
        written, kept (`int`):
            Captions made now, and captions that were there already.
        skipped (`list[str]`):
            One message for each image that could not be read or captioned.
    """

    out: Path
    written: int
    kept: int
    skipped: list[str]


def list_images(source: str | Path, *, image_folder: str | Path | None = None) -> list[ImageRow]:
    """
    Images of a source: a folder (its list, or searched in depth, with the reference in a `.txt`
    file beside each image), a JSONL, CSV or JSON file with images, or one image.

    Args:
        source (`str` or `Path`):
            The folder or file.
        image_folder (`str` or `Path`, *optional*):
            What relative paths in a file are relative to. `None` is the file's own folder.

    Returns:
        `list[ImageRow]`: in the order of the list, or of the paths.

    Raises:
        `FileNotFoundError`: if there is nothing at `source`.
        [`~data.BadRowsError`]: if rows name no image, none that they may name, or an id twice, with
            one message for each.
        `ValueError`: if there is no image.
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
                f"{source}: {problem}. Give an image, a folder of images, or a list of them "
                f"({', '.join(TABLE_SUFFIXES)})."
            )
        rows = [ImageRow(source.name, source)]
    if not rows:
        raise ValueError(f"{source} holds no image ({', '.join(IMAGE_SUFFIXES)}).")
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
    # What a model wrote into "caption" is no reference.
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
    Caption images into a JSONL file, one row as soon as it is there: "id", "image" (relative to the
    file where it lies beneath it), "caption", "reference" where known, and how it was made:
    "model", "prompt", "temperature", "max_new_tokens", "max_pixels". A run that was stopped goes on
    where it stopped.

    Args:
        model (`str`):
            A checkpoint or a PEFT adapter, on disk or on the Hub; for `"api"` a litellm model
            string.
        images (`str`, `Path` or `Sequence[ImageRow]`):
            What to caption, see [`list_images`].
        out (`str` or `Path`):
            The file.
        prompt (`str`, *optional*):
            The user's message. `None` is the one that the model was trained with, where its folder
            keeps it, see [`~captioning.engine.trained_prompt`]; else
            `"Describe the image in detail."`.
        engine (`str`, *optional*, defaults to `"auto"`):
            `"transformers"`, `"vllm"`, or `"api"` for an OpenAI-compatible server or any provider
            of litellm. `"auto"` is the api where `api_base` is given, vLLM where it is installed,
            else transformers.
        api_base (`str`, *optional*):
            URL of the server.
        max_new_tokens (`int`, *optional*, defaults to `512`):
            Longest caption in tokens; one that reaches it is kept as far as it goes.
        temperature (`float`, *optional*, defaults to `0.0`):
            0 is greedy.
        batch_size (`int`, *optional*, defaults to `8`):
            Images at a time (requests at a time for the api).
        max_pixels (`int`, *optional*, defaults to `401408`):
            Larger images are made smaller, see [`~data.images.bounded_size`].
        on_total (`Callable`, *optional*):
            Called once with the number of images in all and of those done already.
        on_caption (`Callable`, *optional*):
            Called when an image is done or skipped.

    Returns:
        [`CaptionRun`]

    Raises:
        `FileNotFoundError`: if there are no images there, or no model.
        `ValueError`: if there is nothing to caption, an argument is out of range, or `out` holds
            captions made in another way.
        [`~judge.JudgeConfigError`]: if the server of an api does not work.
    """
    if prompt is None:
        prompt = trained_prompt(model) or DEFAULT_PROMPT
    how = Generation(prompt, max_new_tokens, temperature, batch_size)
    bounded_size(1, 1, max_pixels)
    out = Path(out)
    if out.is_dir():
        raise ValueError(f"{out} is a folder: the captions go to a file, such as {out}/out.jsonl.")
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
    """What makes the captioner; what is wrong with model and engine is said now."""
    if engine == "auto":
        has_vllm = find_spec("vllm") is not None
        engine = "api" if api_base is not None else "vllm" if has_vllm else "transformers"
    if engine == "api":
        from trl_balcap.captioning.api import api_captioner

        return lambda how: api_captioner(model, how, api_base)
    if api_base is not None:
        raise ValueError(f"api_base {api_base!r} needs engine 'api', not {engine!r}.")
    if (model.startswith((".", "/", "~")) or model.count("/") > 1) and not Path(model).exists():
        raise FileNotFoundError(
            f"There is no model {model}. Give a checkpoint's or an adapter's folder, or its name "
            "on the Hub (owner/name)."
        )
    if engine == "vllm":
        from trl_balcap.captioning.vllm import vllm_captioner

        return lambda how: vllm_captioner(model, how)
    from trl_balcap.captioning.transformers import transformers_captioner

    return lambda how: transformers_captioner(model, how)


def _started(start: Callable[..., Captioner], how: Generation, model: str) -> Captioner:
    """The captioner; one line where `model` is no folder, and the Hub did not give it either."""
    try:
        return start(how)
    except OSError as error:
        if Path(model).exists():
            raise
        why = str(error).partition("\n")[0].rstrip(".")
        raise FileNotFoundError(
            f"There is no folder {model}, and the Hub gave no model of that name: {why}. Give a "
            "checkpoint's or an adapter's folder, or a name on the Hub (owner/name); without a "
            "network, one that is in its cache."
        ) from error


def _readable_batches(
    rows: Sequence[ImageRow],
    batch_size: int,
    max_pixels: int,
    skipped: list[str],
    on_skip: Callable[[], None] | None,
) -> Iterator[list[tuple[ImageRow, Image.Image]]]:
    """Batches of images that can be read; the others are told of in `skipped`."""
    batch: list[tuple[ImageRow, Image.Image]] = []
    for row in rows:
        problem = image_problem(row.path)
        if problem is None:
            try:
                batch.append((row, open_image(row.path, max_pixels)))
            except ImageError as error:  # broken where only decoding looks
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
    """Ids that are captioned already. Half a row, left by a killed run, is cut off."""
    if not out.is_file():
        return set()
    cut_half_row(out)
    paths = {row.id: os.path.realpath(row.path) for row in rows}
    done = set()
    for number, row in read_jsonl(out):
        for name, value in made.items():
            if row.get(name) != value:
                raise ValueError(
                    f"{out}:{number} was captioned with {name} {row.get(name)!r}, this run has "
                    f"{value!r}. Choose another --out, or remove that file."
                )
        there = os.path.realpath(out.parent / row["image"])
        if paths.get(row["id"], there) != there:
            raise ValueError(
                f"{out}:{number} is the caption of {there}, and {row['id']!r} is another image "
                "now. Choose another --out, or remove that file."
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

"""`trl-balcap caption`: images in, a file of captions out, by any image-text-to-text model."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from trl_balcap.data import DEFAULT_PROMPT
from trl_balcap.data.images import DEFAULT_MAX_PIXELS, bounded_image, image_problem
from trl_balcap.evals.asking import chat
from trl_balcap.evals.captions import IMAGE_COLUMNS, BadRowsError, read_jsonl
from trl_balcap.judge import Judge, JudgeError
from trl_balcap.judge.images import encode_image

__all__ = ["CaptionRun", "ImageRow", "caption_images", "list_images"]

Engine = Literal["auto", "transformers", "vllm", "api"]
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
LISTS = ("metadata.jsonl", "captions.jsonl")

Captioner = Callable[[Sequence[Image.Image]], Sequence[str | JudgeError]]
"""A batch of images to their captions; an error in place of a caption that was not given."""


@dataclass(frozen=True)
class ImageRow:
    """An image to caption, its id, and the reference caption that rides along where there is one."""

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
            One message per image that could not be read or captioned.
    """

    out: Path
    written: int
    kept: int
    skipped: list[str]


def list_images(source: str | Path) -> list[ImageRow]:
    """
    Images of a source: a folder (searched in depth, or its metadata.jsonl or captions.jsonl), a JSONL file with an
    "image" column, or one image.

    Raises:
        FileNotFoundError: If there is nothing at `source`.
        BadRowsError: If rows of the JSONL name no image, or an id twice, with one message per bad row.
        ValueError: If there is no image.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"There is no file or folder {source}.")
    listed = source if source.suffix == ".jsonl" else None
    if source.is_dir():
        listed = next((source / name for name in LISTS if (source / name).is_file()), None)
    if listed is not None:
        rows = _listed_images(listed)
    elif source.is_dir():
        paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
        rows = [ImageRow(path.relative_to(source).as_posix(), path) for path in paths]
    else:
        rows = [ImageRow(source.name, source)]
    if not rows:
        raise ValueError(f"{source} holds no image ({', '.join(SUFFIXES)}).")
    return rows


def _listed_images(path: Path) -> list[ImageRow]:
    rows: list[ImageRow] = []
    problems = []
    lines: dict[str, int] = {}
    for number, row in read_jsonl(path):
        name = next((row[c] for c in IMAGE_COLUMNS if isinstance(row.get(c), str)), None)
        if name is None:
            problems.append(
                f'{path}:{number}: the row has no "image" (it has {", ".join(row)}). Rename yours.'
            )
            continue
        identity = str(row.get("id", Path(name).name))
        if identity in lines:
            problems.append(
                f"{path}:{number}: the id {identity!r} is already at line {lines[identity]}. Give each "
                'row its own "id".'
            )
            continue
        lines[identity] = number
        reference = row.get("reference")
        rows.append(
            ImageRow(
                identity, path.parent / name, reference if isinstance(reference, str) else None
            )
        )
    if problems:
        raise BadRowsError(problems)
    return rows


def caption_images(
    model: str,
    images: str | Path | Sequence[ImageRow],
    out: str | Path,
    *,
    prompt: str = DEFAULT_PROMPT,
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
    Caption images into a JSONL file, one row as soon as it is there: "id", "image" (relative to the file), "caption",
    "reference" where known, "model", "prompt". A run that was stopped goes on where it stopped.

    Args:
        model (`str`):
            A checkpoint or a PEFT adapter, on disk or on the Hub; for `"api"` a litellm model string.
        images (`str`, `Path` or `Sequence[ImageRow]`):
            What to caption, see [`list_images`].
        out (`str` or `Path`):
            The file.
        prompt (`str`, *optional*, defaults to `"Describe the image in detail."`):
            The user's message.
        engine (`str`, *optional*, defaults to `"auto"`):
            `"transformers"`, `"vllm"`, or `"api"` for an OpenAI-compatible server or any provider of litellm. `"auto"`
            is the api where `api_base` is given, vLLM where it is installed, else transformers.
        api_base (`str`, *optional*):
            URL of the server.
        max_new_tokens (`int`, *optional*, defaults to `512`):
            Longest caption in tokens.
        temperature (`float`, *optional*, defaults to `0.0`):
            0 is greedy.
        batch_size (`int`, *optional*, defaults to `8`):
            Images at a time (requests at a time for the api).
        max_pixels (`int`, *optional*, defaults to `401408`):
            Larger images are made smaller, see [`~images.bounded_size`].
        on_total (`Callable`, *optional*):
            Called once with the number of images in all and of those done already.
        on_caption (`Callable`, *optional*):
            Called when an image is done or skipped.

    Returns:
        [`CaptionRun`]

    Raises:
        ValueError: If there is nothing to caption, or `out` holds captions of another model or prompt.
    """
    out = Path(out)
    rows = images if isinstance(images, Sequence) and not isinstance(images, str) else None
    rows = list_images(images) if rows is None else list(rows)  # type: ignore[arg-type]
    done = _captions_there(out, model, prompt)
    left = [row for row in rows if row.id not in done]
    if on_total is not None:
        on_total(len(rows), len(rows) - len(left))
    skipped: list[str] = []
    written = 0
    if left:
        captioner = _captioner(
            model, prompt, engine, api_base, max_new_tokens, temperature, batch_size
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a", encoding="utf-8") as file:
            for batch in _readable_batches(left, batch_size, max_pixels, skipped, on_caption):
                captions = captioner([image for _, image in batch])
                for (row, _), caption in zip(batch, captions, strict=True):
                    if isinstance(caption, JudgeError):
                        skipped.append(f"{row.path}: no caption: {caption}")
                    else:
                        file.write(_line(row, caption, out, model, prompt))
                        written += 1
                    if on_caption is not None:
                        on_caption()
                file.flush()
    return CaptionRun(out, written, len(rows) - len(left), skipped)


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
        if problem is not None:
            skipped.append(f"{row.path}: {problem}.")
            if on_skip is not None:
                on_skip()
            continue
        with Image.open(row.path) as image:
            batch.append((row, bounded_image(image, max_pixels)))
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _captions_there(out: Path, model: str, prompt: str) -> set[str]:
    """Ids that are captioned already. Half a row, left by a killed run, is cut off."""
    if not out.is_file():
        return set()
    text = out.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        temporary = out.with_name(out.name + ".part")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(out)
    done = set()
    for number, row in read_jsonl(out):
        for name, value in (("model", model), ("prompt", prompt)):
            if row.get(name) != value:
                raise ValueError(
                    f"{out}:{number} was captioned with {name} {row.get(name)!r}, this run has {value!r}. "
                    "Choose another --out, or remove that file."
                )
        done.add(row["id"])
    return done


def _line(row: ImageRow, caption: str, out: Path, model: str, prompt: str) -> str:
    fields = {
        "id": row.id,
        "image": os.path.relpath(row.path, out.parent),
        "caption": caption,
        "reference": row.reference,
        "model": model,
        "prompt": prompt,
    }
    if row.reference is None:
        del fields["reference"]
    return json.dumps(fields, ensure_ascii=False) + "\n"


# ---- engines -----------------------------------------------------------------------------------


def _captioner(
    model: str,
    prompt: str,
    engine: Engine,
    api_base: str | None,
    max_new_tokens: int,
    temperature: float,
    batch_size: int,
) -> Captioner:
    if engine == "auto":
        has_vllm = find_spec("vllm") is not None
        engine = "api" if api_base is not None else "vllm" if has_vllm else "transformers"
    if engine == "api":
        return _api(model, prompt, api_base, max_new_tokens, temperature, batch_size)
    if api_base is not None:
        raise ValueError(f"api_base {api_base!r} needs engine 'api', not {engine!r}.")
    if engine == "vllm":
        return _vllm(model, prompt, max_new_tokens, temperature)
    return _transformers(model, prompt, max_new_tokens, temperature, batch_size)


def _transformers(
    model: str, prompt: str, max_new_tokens: int, temperature: float, batch_size: int
) -> Captioner:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from trl_balcap.captioning.local import generate_captions

    device = "cuda" if torch.cuda.is_available() else "cpu"
    # An adapter's folder loads as its base model with the adapter on it.
    loaded: Any = AutoModelForImageTextToText.from_pretrained(model, dtype="auto")
    loaded.to(device)
    processor = AutoProcessor.from_pretrained(_processor_source(model))

    def captions(images: Sequence[Image.Image]) -> list[str | JudgeError]:
        return [
            *generate_captions(
                loaded,
                processor,
                images,
                prompt=prompt,
                batch_size=batch_size,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
            )
        ]

    return captions


def _vllm(model: str, prompt: str, max_new_tokens: int, temperature: float) -> Captioner:
    if find_spec("vllm") is None:
        raise ValueError("vLLM is not installed: pip install vllm, or take --engine transformers.")
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]
    from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

    base = _adapter_base(model)
    if base is None:
        llm, lora = LLM(model=model), None
    else:
        rank = json.loads((Path(model) / "adapter_config.json").read_text(encoding="utf-8"))["r"]
        llm = LLM(model=base, enable_lora=True, max_lora_rank=max(8, rank))
        lora = LoRARequest("adapter", 1, str(Path(model).resolve()))
    sampling = SamplingParams(temperature=temperature, max_tokens=max_new_tokens)

    def captions(images: Sequence[Image.Image]) -> list[str | JudgeError]:
        conversations = [_user_turn(prompt, image) for image in images]
        outputs = llm.chat(conversations, sampling, lora_request=lora, use_tqdm=False)
        return [output.outputs[0].text.strip() for output in outputs]

    return captions


def _api(
    model: str,
    prompt: str,
    api_base: str | None,
    max_new_tokens: int,
    temperature: float,
    batch_size: int,
) -> Captioner:
    # Not a judge, but the same engine: retries, limits, one place that talks to litellm.
    client = Judge(model, api_base=api_base, max_concurrency=batch_size)

    async def caption(image: Image.Image) -> str | JudgeError:
        try:
            replies = await client.complete(
                _user_turn(prompt, image),
                temperature=temperature,
                max_tokens=max_new_tokens,
                tag="caption",
            )
        except JudgeError as error:
            return error
        return replies[0].strip()

    async def all_captions(images: Sequence[Image.Image]) -> list[str | JudgeError]:
        return list(await asyncio.gather(*map(caption, images)))

    return lambda images: asyncio.run(all_captions(images))


def _user_turn(prompt: str, image: Image.Image) -> list[dict[str, Any]]:
    return chat("", prompt, image=encode_image(image).url)[1:]


def _adapter_base(model: str) -> str | None:
    """The base model of a PEFT adapter's folder, `None` for anything else."""
    config = Path(model) / "adapter_config.json"
    if not config.is_file():
        return None
    return json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]


def _processor_source(model: str) -> str:
    """An adapter saved without its processor has its base model's."""
    base = _adapter_base(model)
    names = ("processor_config.json", "preprocessor_config.json")
    if base is None or any((Path(model) / name).is_file() for name in names):
        return model
    return base


# ---- command -----------------------------------------------------------------------------------

"""`trl-balcap caption`: captions images into a file, with any image-text-to-text model."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from trl_balcap.captioning.api import ServerCaptioner, server_captioner
from trl_balcap.captioning.engine import Captioner, Generation, Placement, trained_prompt
from trl_balcap.captioning.left import Done, Left, captions_left
from trl_balcap.captioning.listing import (
    ImageRow,
    Images,
    list_images,
    open_images,
    written_columns,
)
from trl_balcap.captioning.shards import begin_shard
from trl_balcap.captioning.window import append_rows
from trl_balcap.data import DEFAULT_PROMPT
from trl_balcap.data.images import (
    DEFAULT_MAX_PIXELS,
    ImageError,
    bounded_size,
    image_problem,
    open_image,
)
from trl_balcap.data.row_file import appending
from trl_balcap.data.rows import only_writer
from trl_balcap.judge import Judge

__all__ = [
    "CaptionRun",
    "Engine",
    "ImageRow",
    "caption_images",
    "caption_row",
    "captions_left",
    "list_images",
]

Engine = Literal["auto", "transformers", "vllm", "api"]


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


def caption_images(
    model: str,
    images: str | Path | Images | Sequence[ImageRow],
    out: str | Path,
    *,
    prompt: str | None = None,
    engine: Engine = "auto",
    api_base: str | Sequence[str] | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    batch_size: int = 8,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    seed: int | None = None,
    shard: str | None = None,
    placement: Placement | None = None,
    client: Judge | None = None,
    on_total: Callable[[int | None, int], None] | None = None,
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
        images (`str`, `Path`, `Images` or `Sequence[ImageRow]`):
            Images to caption, see [`list_images`]; those of [`~captioning.listing.open_images`] are
            read only as they are needed.
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
        api_base (`str` or `Sequence[str]`, *optional*):
            URL of the server, or of several servers of the same model that share the work.
        max_new_tokens (`int`, *optional*, defaults to `512`):
            Maximum tokens of a caption; longer ones are cut off there.
        temperature (`float`, *optional*, defaults to `0.0`):
            Sampling temperature; 0 is greedy.
        batch_size (`int`, *optional*, defaults to `8`):
            Images at a time; with servers, requests in flight at each.
        max_pixels (`int`, *optional*, defaults to `401408`):
            Larger images are scaled down, see [`~data.images.bounded_size`].
        seed (`int`, *optional*):
            Sampling seed, see [`~captioning.engine.Generation`].
        shard (`str`, *optional*):
            Part of the images to caption, such as `"2/8"`, see [`~captioning.shards.begin_shard`].
            Parts made on several machines are merged by [`~captioning.shards.merge_shards`].
        placement ([`~captioning.engine.Placement`], *optional*):
            Placement of a model that is too large for one GPU.
        client ([`~judge.Judge`], *optional*):
            Client for the `"api"` engine, for callers that read its statistics.
        on_total (`Callable`, *optional*):
            Called once with the total number of images, `None` if unknown, and the number already
            done.
        on_caption (`Callable`, *optional*):
            Called when an image is done or skipped.

    Returns:
        [`CaptionRun`]

    Raises:
        `FileNotFoundError`: if the images or the model do not exist.
        `ValueError`: if there is nothing to caption, an argument is out of range, `out` has
            captions made with other settings, or another run is writing to it.
        [`~judge.JudgeConfigError`]: if the API does not work.
    """
    if engine == "auto":
        has_vllm = find_spec("vllm") is not None
        engine = "api" if api_base is not None else "vllm" if has_vllm else "transformers"
    if prompt is None:
        is_ours = engine != "api" or Path(model).is_dir()  # and not a provider's name
        prompt = (trained_prompt(model) if is_ours else None) or DEFAULT_PROMPT
    how = Generation(prompt, max_new_tokens, temperature, batch_size, seed)
    bounded_size(1, 1, max_pixels)
    out = Path(out)
    if out.is_dir():
        raise ValueError(f"{out} is a folder. Pass a file, such as {out}/out.jsonl.")
    start = _captioner(model, engine, api_base, placement or Placement(), client)
    if isinstance(images, str | Path):
        images = open_images(images, out=out)
    elif not isinstance(images, Images):
        listed = list(images)
        images = Images.of(lambda: listed)
    made = {
        "model": model,
        "prompt": prompt,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "max_pixels": max_pixels,
        **({} if seed is None else {"seed": seed}),
        **({} if images.has_ids else {"dataset": images.listed[:16]}),
    }
    with only_writer(out):
        number, of = (1, 1) if shard is None else begin_shard(out, images, shard, made)
        done = Done(out, made, lambda row: row, verb="captioned")
        left = Left(images, done, out, on_caption)
        rows = left.rows(number, of, noted=shard is not None)
        if on_total is not None:
            total = images.total
            on_total(None if total is None else len(range(number - 1, total, of)), len(done))
        first = next(rows, None)
        out.touch()  # a shard may have no image, but it has a file
        if first is None:
            return CaptionRun(out, 0, left.kept, left.problems)
        captioner = _started(start, how, model, _most_images(images, engine))

        def line(row: ImageRow, found: Mapping[str, Any]) -> dict[str, Any]:
            return caption_row(row, found, out, made)

        to_do = itertools.chain([first], rows)
        if isinstance(captioner, ServerCaptioner):
            written, skipped = asyncio.run(
                append_rows(
                    to_do,
                    out,
                    lambda row: captioner.caption(row, max_pixels),
                    line,
                    name="caption",
                    width=captioner.width,
                    on_row=on_caption,
                )
            )
        else:
            written, skipped = 0, []
            batches = _readable_batches(to_do, batch_size, max_pixels, skipped, on_caption)
            with appending(out) as append:
                for batch in batches:
                    captions = captioner([images for _, images in batch])
                    for (row, _), caption in zip(batch, captions, strict=True):
                        append(line(row, {"caption": caption}))
                        written += 1
                        if on_caption is not None:
                            on_caption()
    return CaptionRun(out, written, left.kept, [*left.problems, *skipped])


def _most_images(images: Images, engine: Engine) -> int:
    if images.most is None and engine == "vllm":
        raise ValueError(
            "Rows of a stream may have any number of images, and vLLM wants to know the largest. "
            "Serve the model with `vllm serve --limit-mm-per-prompt` and pass --api-base."
        )
    return images.most or 1


def _captioner(
    model: str,
    engine: Engine,
    api_base: str | Sequence[str] | None,
    placement: Placement,
    client: Judge | None,
) -> Callable[[Generation, int], Captioner | ServerCaptioner]:
    """A function that loads the captioner. Problems with model and engine are reported now."""
    if engine == "api":
        if placement != Placement():
            raise ValueError(
                f"{model} is on a server, which has its own GPUs: leave {placement} out."
            )
        return lambda how, most: server_captioner(model, how, api_base, client)
    if api_base is not None:
        raise ValueError(f"api_base {api_base!r} needs engine 'api', not {engine!r}.")
    if (model.startswith((".", "/", "~")) or model.count("/") > 1) and not Path(model).exists():
        raise FileNotFoundError(
            f"Model not found: {model}. Pass the folder of a checkpoint or adapter, or its name "
            "on the Hub (owner/name)."
        )
    if engine == "vllm":
        from trl_balcap.captioning.vllm import vllm_captioner

        if placement.device_map is not None:
            raise ValueError(
                "A device map is for --engine transformers; vLLM shares layers itself."
            )
        return lambda how, most: vllm_captioner(model, how, placement, most)
    from trl_balcap.captioning.transformers import transformers_captioner

    if placement.tensor_parallel_size is not None:
        raise ValueError(
            "tensor_parallel_size is for --engine vllm; give transformers a device_map."
        )
    return lambda how, most: transformers_captioner(model, how, placement)


def _started(
    start: Callable[[Generation, int], Captioner | ServerCaptioner],
    how: Generation,
    model: str,
    most_images: int,
) -> Captioner | ServerCaptioner:
    """Load the captioner, with a one-line error if neither a folder nor the Hub has `model`."""
    try:
        return start(how, most_images)
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
    rows: Iterable[ImageRow],
    batch_size: int,
    max_pixels: int,
    skipped: list[str],
    on_skip: Callable[[], None] | None,
) -> Iterator[list[tuple[ImageRow, list[Image.Image]]]]:
    """Batches of rows with readable images; the others are reported in `skipped`."""
    batch: list[tuple[ImageRow, list[Image.Image]]] = []
    for row in rows:
        found = ((path, image_problem(path)) for path in row.paths)
        path, problem = next((one for one in found if one[1] is not None), (row.path, None))
        if problem is None:
            try:
                batch.append((row, [open_image(path, max_pixels) for path in row.paths]))
            except ImageError as error:  # broken in a way that only decoding reveals
                problem = str(error)
        if problem is not None:
            skipped.append(f"{path}: {problem}.")
            if on_skip is not None:
                on_skip()
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def caption_row(
    row: ImageRow, found: Mapping[str, Any], out: Path, made: Mapping[str, Any]
) -> dict[str, Any]:
    """The row to write to `out` for an image: what was found, and how it was made."""
    return {
        **written_columns(row, out),
        **found,
        **({} if row.reference is None else {"reference": row.reference}),
        **made,
    }

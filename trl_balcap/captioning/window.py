"""Processes images in a sliding window, and appends each result to a file when it is ready."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from trl_balcap.captioning.listing import ImageRow
from trl_balcap.data.images import ImageError, image_problem, open_image
from trl_balcap.data.rows import cut_half_row, json_line, read_jsonl
from trl_balcap.judge import JudgeError

__all__ = ["WINDOW", "append_rows", "done_ids", "opened"]

WINDOW = 512
"""Maximum number of images at a time, so that we never hold a hundred thousand in memory."""


async def append_rows(
    rows: Sequence[ImageRow],
    out: Path,
    make: Callable[[ImageRow], Awaitable[Mapping[str, Any] | str]],
    line: Callable[[ImageRow, Mapping[str, Any]], Mapping[str, Any]],
    *,
    name: str,
    width: int = WINDOW,
    on_row: Callable[[], None] | None = None,
) -> tuple[int, list[str]]:
    """
    Make new columns for each image, and append them as soon as they are done. When an image is
    done, the next one starts, so no image waits for the slowest of a batch.

    Args:
        rows (`Sequence[ImageRow]`):
            The images.
        out (`Path`):
            Output file.
        make (`Callable`):
            Returns the new columns of an image, or the reason why there are none.
        line (`Callable`):
            Returns the row to write for an image and its new columns.
        name (`str`):
            Name of what is made, such as `"reference"`, for messages.
        width (`int`, *optional*, defaults to `512`):
            Images at a time.
        on_row (`Callable`, *optional*):
            Called when an image is done or skipped.

    Returns:
        `tuple[int, list[str]]`: number of rows written, and one message per skipped image. When
        the budget is spent, the run ends with one message.
    """
    skipped: list[str] = []
    spent: list[JudgeError] = []
    written = 0
    left = iter(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:

        async def one(row: ImageRow) -> None:
            nonlocal written
            found: Mapping[str, Any] | str
            try:
                found = await make(row)
            except JudgeError as error:
                if error.reason == "over_budget":
                    spent.append(error)
                    return
                found = f"no {name}: {error}"
            if isinstance(found, str):
                skipped.append(f"{row.path}: {found}")
            else:
                file.write(json_line(line(row, found)))
                file.flush()
                written += 1
            if on_row is not None:
                on_row()

        async def hand() -> None:
            for row in left:
                if spent:
                    return
                await one(row)

        hands = [asyncio.ensure_future(hand()) for _ in range(min(width, len(rows)))]
        try:
            await asyncio.gather(*hands)
        finally:
            for one_hand in hands:  # no worker may write to a closed file
                one_hand.cancel()
    if spent:
        skipped.append(f"{spent[0].message} Rerun to continue from here.")
    return written, skipped


def done_ids(
    out: Path,
    rows: Sequence[ImageRow],
    made: Mapping[str, Any],
    made_before: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    *,
    verb: str = "made",
) -> set[str]:
    """
    Ids that are already done in `out`. A partial row left by a killed run is cut off.

    Args:
        out (`Path`):
            Output file, which may not exist yet.
        rows (`Sequence[ImageRow]`):
            The images of this run.
        made (`Mapping[str, Any]`):
            This run's settings.
        made_before (`Callable`):
            Returns the settings in a row of `out`.
        verb (`str`, *optional*, defaults to `"made"`):
            What was done to the rows, for messages.

    Raises:
        `ValueError`: if a row was made with other settings, or from another image of the same id.
    """
    if not out.is_file():
        return set()
    cut_half_row(out)
    paths = {row.id: os.path.realpath(row.path) for row in rows}
    done = set()
    for number, row in read_jsonl(out):
        before = made_before(row)
        for name, value in made.items():
            if before.get(name) != value:
                raise ValueError(
                    f"{out}:{number} was {verb} with {name} {before.get(name)!r}, but this run has "
                    f"{value!r}. Choose another --out, or remove that file."
                )
        there = os.path.realpath(out.parent / row["image"])
        if paths.get(row["id"], there) != there:
            raise ValueError(
                f"{out}:{number} was {verb} from {there}, but {row['id']!r} is now another image. "
                "Choose another --out, or remove that file."
            )
        done.add(row["id"])
    return done


async def opened(row: ImageRow, max_pixels: int) -> list[Image.Image] | str:
    """All images of a row, or a message that says what is wrong with one of them."""
    images = []
    for path in row.paths:
        image = await asyncio.to_thread(_opened, path, max_pixels)
        if isinstance(image, str):
            return image if path == row.path else f"{path}: {image}"
        images.append(image)
    return images


def _opened(path: Path, max_pixels: int) -> Image.Image | str:
    problem = image_problem(path)
    if problem is not None:
        return f"{problem}."
    try:
        return open_image(path, max_pixels)
    except ImageError as error:  # only decoding reveals this error
        return f"{error}."

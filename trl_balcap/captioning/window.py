"""Processes images in a sliding window, and appends each result to a file when it is ready."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from trl_balcap.captioning.listing import ImageRow
from trl_balcap.data.images import ImageError, image_problem, open_image
from trl_balcap.data.row_file import appending
from trl_balcap.judge import JudgeError

__all__ = ["WINDOW", "append_rows", "in_window", "opened"]

WINDOW = 512
"""Maximum number of images at a time, so that we never hold a hundred thousand in memory."""

Item = TypeVar("Item")
_NONE: Any = object()


async def in_window(
    items: Iterable[Item], work: Callable[[Item], Awaitable[bool]], width: int = WINDOW
) -> None:
    """
    Work on items, `width` at a time: when one is done, the next one starts. They are read in a
    thread, and only as they are needed.

    Args:
        items (`Iterable`):
            The items.
        work (`Callable`):
            Awaited for each item; returns `False` to start no more.
        width (`int`, *optional*, defaults to `512`):
            Items at a time.
    """
    left = iter(items)
    reading = asyncio.Lock()
    goes_on = True

    async def hand() -> None:
        nonlocal goes_on
        while goes_on:
            async with reading:
                item = await asyncio.to_thread(next, left, _NONE) if goes_on else _NONE
            if item is _NONE or not await work(item):
                goes_on = False

    hands = [asyncio.ensure_future(hand()) for _ in range(width)]
    try:
        await asyncio.gather(*hands)
    finally:
        for one in hands:  # after an error, none may go on
            one.cancel()


async def append_rows(
    rows: Iterable[ImageRow],
    out: Path,
    make: Callable[[ImageRow], Awaitable[Mapping[str, Any] | str]],
    line: Callable[[ImageRow, Mapping[str, Any]], Mapping[str, Any]],
    *,
    name: str,
    width: int = WINDOW,
    on_row: Callable[[], None] | None = None,
) -> tuple[int, list[str]]:
    """
    Make new columns for each image, and append them as soon as they are done. No image waits for
    the slowest of a batch, see [`in_window`].

    Args:
        rows (`Iterable[ImageRow]`):
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
    with appending(out) as append:

        async def one(row: ImageRow) -> bool:
            nonlocal written
            found: Mapping[str, Any] | str
            try:
                found = await make(row)
            except JudgeError as error:
                if error.reason == "over_budget":
                    spent.append(error)
                    return False
                found = f"no {name}: {error}"
            if isinstance(found, str):
                skipped.append(f"{row.path}: {found}")
            else:
                append(line(row, found))
                written += 1
            if on_row is not None:
                on_row()
            return True

        await in_window(rows, one, width)
    if spent:
        skipped.append(f"{spent[0].message} Rerun to continue from here.")
    return written, skipped


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

"""Writes a JSONL file row by row, one row per image, and resumes interrupted runs."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trl_balcap.captioning.left import Done
from trl_balcap.captioning.listing import ImageRow, written_columns
from trl_balcap.captioning.run import CaptionRun
from trl_balcap.captioning.window import append_rows
from trl_balcap.data.rows import only_writer

__all__ = ["Agree", "write_rows"]

Agree = Callable[[int, int], bool]
"""Called once with the total number of images and the number done; returns `False` to stop."""


async def write_rows(
    rows: Sequence[ImageRow],
    out: str | Path,
    made: Mapping[str, Any],
    make: Callable[[ImageRow], Awaitable[Mapping[str, Any] | str]],
    check: Callable[[], Awaitable[None]],
    *,
    name: str,
    agree: Agree | None = None,
    on_row: Callable[[], None] | None = None,
) -> CaptionRun:
    """
    Make new columns for each image that has none yet, and append each row as soon as it is done,
    with "id", "image", the other columns of its list, and "made_by".

    Failed images are skipped and reported. When the budget is spent, the run ends, and another run
    can do the rest.

    Args:
        rows (`Sequence[ImageRow]`):
            The images.
        out (`str` or `Path`):
            Output file.
        made (`Mapping[str, Any]`):
            Settings used to make the columns. A file made with others is rejected.
        make (`Callable`):
            Returns the new columns of an image, or the reason why there are none.
        check (`Callable`):
            Called before the first image; raises if nothing would work.
        name (`str`):
            Name of what is made, such as `"reference"`, for messages.
        agree, on_row (`Callable`, *optional*):
            See `Agree`; called when an image is done or skipped.

    Returns:
        [`~captioning.run.CaptionRun`]

    Raises:
        `ValueError`: if `out` is a folder, has rows made with other settings or from other images,
            or another run is writing to it.
    """
    out = Path(out)
    if out.is_dir():
        raise ValueError(f"{out} is a folder. Pass a file, such as {out}/{name}s.jsonl.")

    def line(row: ImageRow, found: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**written_columns(row, out), **row.columns, **found, "made_by": made}

    with only_writer(out):
        done = Done(out, made, lambda row: row.get("made_by") or {})
        left = [row for row in rows if not done.has(row)]
        if agree is not None and not agree(len(rows), len(rows) - len(left)):
            return CaptionRun(out, 0, len(rows) - len(left), [])
        if left:
            await check()
        written, skipped = await append_rows(left, out, make, line, name=name, on_row=on_row)
    return CaptionRun(out, written, len(rows) - len(left), skipped)

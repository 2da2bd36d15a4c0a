"""Writes a JSONL file row by row, one row per image, and resumes interrupted runs."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trl_balcap.captioning.run import CaptionRun, ImageRow
from trl_balcap.captioning.window import append_rows
from trl_balcap.data.folders import written_path
from trl_balcap.data.rows import cut_half_row, read_jsonl

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
    with "id", "image" and "made_by".

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
        `ValueError`: if `out` is a folder, or has rows made with other settings.
    """
    out = Path(out)
    if out.is_dir():
        raise ValueError(f"{out} is a folder. Pass a file, such as {out}/{name}s.jsonl.")
    done = _ids_there(out, made)
    left = [row for row in rows if row.id not in done]
    if agree is not None and not agree(len(rows), len(rows) - len(left)):
        return CaptionRun(out, 0, len(rows) - len(left), [])
    if left:
        await check()

    def line(row: ImageRow, found: Mapping[str, Any]) -> Mapping[str, Any]:
        image = {"id": row.id, "image": written_path(row.path, out)}
        return {**image, **found, "made_by": made}

    written, skipped = await append_rows(left, out, make, line, name=name, on_row=on_row)
    return CaptionRun(out, written, len(rows) - len(left), skipped)


def _ids_there(out: Path, made: Mapping[str, Any]) -> set[str]:
    """Ids that are already done. A partial row left by a killed run is cut off."""
    if not out.is_file():
        return set()
    cut_half_row(out)
    done = set()
    for number, row in read_jsonl(out):
        before = row.get("made_by") or {}
        for name, value in made.items():
            if before.get(name) != value:
                raise ValueError(
                    f"{out}:{number} was made with {name} {before.get(name)!r}, but this run has "
                    f"{value!r}. Choose another --out, or remove that file."
                )
        done.add(row["id"])
    return done

"""Captions to score that stay on disk, for files larger than memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from trl_balcap.data.formats import known_row
from trl_balcap.data.row_file import RowFile
from trl_balcap.data.rows import BadRowsError, is_utf8, table_rows
from trl_balcap.data.scored import Caption, Needs, checked_captions, folder_of, read_row

__all__ = ["open_captions"]


def open_captions(
    path: str | Path,
    *,
    images: str | Path | None = None,
    need_images: bool = False,
    need_references: bool = False,
    allow_empty: bool = False,
) -> Sequence[Caption]:
    """
    The captions of [`read_captions`], all checked, but those of a JSONL file are read again
    whenever they are asked for, so that it may be larger than memory.

    Args:
        path, images, need_images, need_references, allow_empty:
            As for [`read_captions`].

    Raises:
        `FileNotFoundError`: if there is no such file or folder.
        [`BadRowsError`]: if any row cannot be scored, with one message each, or if there are none.
    """
    path = Path(path)
    needs = Needs(folder_of(path, images), need_images, need_references, allow_empty)
    n = 0
    for _ in checked_captions(lambda: table_rows(path), path, needs):
        n += 1
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        rows = RowFile(path)
        if len(rows) == n and is_utf8(path):
            return _CaptionFile(rows, needs.folder)
    return list(checked_captions(lambda: table_rows(path), path, needs))


class _CaptionFile(Sequence[Caption]):
    """Checked captions that stay on disk."""

    def __init__(self, rows: RowFile, folder: Path):
        self._rows = rows
        self._folder = folder

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Caption: ...
    @overload
    def __getitem__(self, place: slice) -> list[Caption]: ...
    def __getitem__(self, place: int | slice) -> Caption | list[Caption]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        return self._caption(place, self._rows[place])

    def __iter__(self) -> Iterator[Caption]:
        for place, row in enumerate(self._rows):
            yield self._caption(place, row)

    def _caption(self, place: int, row: dict[str, Any]) -> Caption:
        checked = Needs(self._folder, images=False, references=False, allow_empty=True)
        problem, caption = read_row(self._rows.where(place), known_row(row), checked)
        if caption is None:
            raise BadRowsError(
                [f"{self._rows.where(place)}: changed since it was checked: {problem}"]
            )
        return caption

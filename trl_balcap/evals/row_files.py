"""The files of scored rows that interrupted runs have written, and how files are replaced."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trl_balcap.data.ids import IdTable
from trl_balcap.data.row_file import RowFile
from trl_balcap.data.rows import BadRowsError, cut_half_row

__all__ = ["EarlierRows", "replace_file", "written_rows"]


class EarlierRows:
    """
    The rows that earlier runs have written. A partial row that a killed run left is cut off.

    Args:
        path (`Path`): The file, which may not exist yet.
    """

    def __init__(self, path: Path):
        self.rows: Sequence[dict[str, Any]] = ()
        if path.is_file():
            cut_half_row(path)
            self.rows = RowFile(path)
        self._places = IdTable()  # twice the place, and one more for a row to keep

    def add(self, identity: str, place: int, *, final: bool) -> None:
        """Use the row at a place. Rows that are not final are tried again."""
        self._places[identity] = 2 * place + final

    def keeps(self, identity: str) -> bool:
        """Whether the caption with this id has a row that stays."""
        return (self._places.get(identity) or 0) % 2 == 1

    def of(self, identity: str) -> dict[str, Any]:
        """The row of a caption that is tried again; empty if there is none."""
        place = self._places.get(identity)
        return {} if place is None else self.rows[place // 2]


def written_rows(path: Path) -> Iterator[dict[str, Any]]:
    """
    Rows of a run that may have been killed: a partial row at the end is left out.

    Raises:
        `BadRowsError`: if any other line is not a row.
    """
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                return
            raise BadRowsError([f"{path}:{number}: not JSON ({error.msg})."]) from error


def replace_file(path: Path, text: str) -> None:
    """Replace a file atomically, so that a killed run leaves either the old or the new one."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)

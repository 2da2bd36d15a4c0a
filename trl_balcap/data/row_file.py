"""JSONL files whose rows stay on disk."""

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from trl_balcap.data.rows import BadRowsError

__all__ = ["RowFile"]


class RowFile(Sequence[dict[str, Any]]):
    """
    The rows of a JSONL file in UTF-8, read whenever they are asked for: 8 bytes of memory each.

    Args:
        path (`str` or `Path`): The file.

    Raises:
        `FileNotFoundError`: if there is no such file.
        [`~data.BadRowsError`]: on reading a line that is not a JSON object.

    Example:

    ```python
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "captions.jsonl"
    >>> _ = path.write_text('{"id": "a"}\\n{"id": "b"}\\n')
    >>> rows = RowFile(path)
    >>> len(rows), rows[1], [row["id"] for row in rows]
    (2, {'id': 'b'}, ['a', 'b'])

    ```
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._starts = array("q")
        start = 0
        with self.path.open("rb") as file:
            for line in file:
                if line.strip():
                    self._starts.append(start)
                start += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        with self.path.open("rb") as file:
            file.seek(self._starts[place])
            return self._row(file.readline(), place)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self.path.open("rb") as file:
            lines = (line for line in file if line.strip())
            for place, line in zip(range(len(self)), lines, strict=False):
                yield self._row(line, place)

    def _row(self, line: bytes, place: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            said = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            raise BadRowsError([f"{self.path}:{place + 1}: not JSON ({said})."]) from error
        if not isinstance(row, dict):
            said = f"a row must be a JSON object, not {type(row).__name__}"
            raise BadRowsError([f"{self.path}:{place + 1}: {said}."])
        return row

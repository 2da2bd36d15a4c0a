"""Rows that stay on disk: appended one by one, and read when they are asked for."""

import contextlib
import json
import os
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from trl_balcap.data.rows import BadRowsError, json_line

__all__ = ["Chosen", "RowFile", "appending"]

Item = TypeVar("Item")


class RowFile(Sequence[dict[str, Any]]):
    """
    The rows of a JSONL file in UTF-8, read whenever they are asked for: 16 bytes of memory each.

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
        self._lines = array("q")
        start = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    self._starts.append(start)
                    self._lines.append(number)
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

    def where(self, place: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.path}:{self._lines[place]}"

    def _row(self, line: bytes, place: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            said = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            raise BadRowsError([f"{self.where(place)}: not JSON ({said})."]) from error
        if not isinstance(row, dict):
            said = f"a row must be a JSON object, not {type(row).__name__}"
            raise BadRowsError([f"{self.where(place)}: {said}."])
        return row


class Chosen(Sequence[Item]):
    """
    Some items of a sequence, which is asked for them whenever they are.

    Args:
        items (`Sequence`): The sequence.
        places (`Sequence[int]`): Places of the chosen ones.

    Example:

    ```python
    >>> some = Chosen("abcdefg", range(1, 7, 3))
    >>> len(some), list(some), some[1:]
    (2, ['b', 'e'], ['e'])

    ```
    """

    def __init__(self, items: Sequence[Item], places: Sequence[int]):
        self._items = items
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        if isinstance(place, slice):
            return [self._items[one] for one in self._places[place]]
        return self._items[self._places[place]]


@contextlib.contextmanager
def appending(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """
    Open a JSONL file to append rows, each of which is in it as a whole or not at all, unless the
    process is killed.

    Yields:
        `Callable`: Appends a row. Raises `OSError` with the file's name, for example if the disk is
            full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:  # a buffer would be written again on closing

        def append(row: Mapping[str, Any]) -> None:
            left = json_line(row).encode()
            size = os.fstat(file.fileno()).st_size
            try:
                while left:  # a disk that is nearly full takes a part
                    left = left[file.write(left) :]
            except OSError as error:
                with contextlib.suppress(OSError):  # the next run cuts off half a row, too
                    os.truncate(path, size)
                said = f"{error.strerror}; the rows so far are kept, make room and run again"
                raise OSError(error.errno, said, str(path)) from error

        yield append

"""What an interrupted captioning run has left to do."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trl_balcap.captioning.listing import ImageRow, Images
from trl_balcap.captioning.shards import noted_ids
from trl_balcap.data.ids import IdTable
from trl_balcap.data.rows import cut_half_row, jsonl_rows

__all__ = ["Done", "Left", "captions_left"]


def captions_left(out: Path, rows: Sequence[ImageRow]) -> list[ImageRow]:
    """The rows that have no caption in `out` yet."""
    if not out.is_file():
        return list(rows)
    cut_half_row(out)
    done = {row.get("id") for _, row in jsonl_rows(out)}
    return [row for row in rows if row.id not in done]


class Done:
    """
    Ids of the rows that an interrupted run has written. A partial row that it left is cut off.

    Args:
        out (`Path`):
            Output file, which may not exist yet.
        made (`Mapping[str, Any]`):
            This run's settings.
        made_before (`Callable`):
            Returns the settings in a row of `out`.
        verb (`str`, *optional*, defaults to `"made"`):
            What was done to the rows, for messages.

    Raises:
        `ValueError`: if a row was made with other settings.
    """

    def __init__(
        self,
        out: Path,
        made: Mapping[str, Any],
        made_before: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        *,
        verb: str = "made",
    ):
        self._out = out
        self._verb = verb
        self._paths = IdTable()
        if not out.is_file():
            return
        cut_half_row(out)
        for number, row in jsonl_rows(out):
            before = made_before(row)
            for name, value in made.items():
                if before.get(name) != value:
                    raise ValueError(
                        f"{out}:{number} was {verb} with {name} {before.get(name)!r}, but this run "
                        f"has {value!r}. Choose another --out, or remove that file."
                    )
            self._paths[str(row["id"])] = _path_number(out.parent / row["image"])

    def __len__(self) -> int:
        return len(self._paths)

    def __contains__(self, identity: str) -> bool:
        return identity in self._paths

    def has(self, row: ImageRow) -> bool:
        """
        Whether a row is done.

        Raises:
            `ValueError`: if another image of the same id is.
        """
        there = self._paths.get(row.id)
        if there is not None and there != _path_number(row.path):
            raise ValueError(
                f"{self._out} has a row {self._verb} from it, but {row.id!r} is now another image, "
                f"{row.path}. Choose another --out, or remove that file."
            )
        return there is not None


class Left:
    """
    Finds the images that have no caption yet, as they are read.

    Args:
        images ([`~captioning.listing.Images`]): The images.
        done ([`Done`]): Those that have one.
        out (`Path`): The caption file.
        on_skip (`Callable`, *optional*): Called when a row cannot be used.

    Attributes:
        kept (`int`): Number of images read so far that have one.
        problems (`list[str]`): One message per row read so far that cannot be used.
    """

    def __init__(self, images: Images, done: Done, out: Path, on_skip: Callable[[], None] | None):
        self.kept = 0
        self.problems: list[str] = []
        self._images = images
        self._done = done
        self._out = out
        self._on_skip = on_skip

    def rows(self, number: int, of: int, *, noted: bool) -> Iterator[ImageRow]:
        """The rows of a part; their images are written to files only now."""
        found = self._distinct(self._images.read(number, of))
        for identity, make in noted_ids(self._out, found) if noted else found:
            if self._images.total is None and identity in self._done:
                self.kept += 1  # its image is not written to a file again
                continue
            try:
                row = make()
            except ValueError as error:
                self._skip(f"{identity}: {error}")
                continue
            if self._done.has(row):
                self.kept += 1
            else:
                yield row

    def _distinct(
        self, rows: Iterator[tuple[str, Callable[[], ImageRow]]]
    ) -> Iterator[tuple[str, Callable[[], ImageRow]]]:
        met = IdTable()
        for place, (identity, make) in enumerate(rows):
            if identity in met:
                self._skip(f"{identity}: an earlier row has the same id. Give each row its own.")
            else:
                met[identity] = place
                yield identity, make

    def _skip(self, problem: str) -> None:
        self.problems.append(problem)
        if self._on_skip is not None:
            self._on_skip()


def _path_number(path: str | Path) -> int:
    """A number for a path, to compare it with one that is not kept."""
    content = os.path.realpath(path).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(content).digest()[:7], "big")

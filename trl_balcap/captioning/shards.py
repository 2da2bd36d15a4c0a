"""Captions, or their scores, made in shards on several machines, and merged into one file."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from trl_balcap.captioning.listing import Images
from trl_balcap.data.folders import written_path
from trl_balcap.data.ids import IdTable
from trl_balcap.data.row_file import RowFile
from trl_balcap.data.rows import BadRowsError, json_line, read_text

__all__ = ["Merged", "begin_shard", "merge_shards", "noted_ids", "shard_place"]

Row = TypeVar("Row")


@dataclass(frozen=True)
class _Shard:
    """
    What a shard is of, stored in a file next to its rows.

    Args:
        number, of (`int`): Its number, starting at 1, and the number of shards.
        listed (`str`): Digest of all ids, or of the dataset's files, not only of this shard's.
        by_files (`bool`): Whether it has consecutive rows, else every N-th.
        made (`dict`): How its rows are made.
    """

    number: int
    of: int
    listed: str
    by_files: bool
    made: dict[str, Any]


@dataclass(frozen=True)
class Merged:
    """
    Result of merging shards.

    Args:
        out (`Path`): The merged file.
        written (`int`): Number of captions in it.
        missing (`list[str]`): Ids of images without a caption, if these were allowed.
    """

    out: Path
    written: int
    missing: list[str]


def shard_place(shard: str) -> tuple[int, int]:
    """
    The number of a shard, starting at 1, and the number of shards.

    Raises:
        `ValueError`: if there is no such shard.

    Example:

    ```python
    >>> shard_place("2/8")
    (2, 8)
    >>> shard_place("0/8")
    Traceback (most recent call last):
    ValueError: shard must be I/N with I from 1 to N, such as 2/8, got '0/8'.

    ```
    """
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", shard)
    number, of = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= of:
        raise ValueError(f"shard must be I/N with I from 1 to N, such as 2/8, got {shard!r}.")
    return number, of


def begin_shard(out: Path, images: Images, shard: str, made: Mapping[str, Any]) -> tuple[int, int]:
    """
    Write a note next to `out` about the shard it has, for [`merge_shards`]. Of N shards of a list,
    the I-th has every N-th row, starting at the I-th; of a dataset with at least N files, each has
    consecutive files.

    Returns:
        `tuple[int, int]`: I and N.

    Raises:
        `ValueError`: if there is no such shard, or `out` has another shard, list or settings.
    """
    number, of = shard_place(shard)
    if images.total is not None and of > images.total:
        raise ValueError(
            f"{images.total} rows cannot make {of} shards: use {images.total} or fewer."
        )
    settings = json.loads(json.dumps(made))  # as the note will have them
    begun = _Shard(number, of, images.listed, images.by_files(of), settings)
    note = _note(out)
    if note.is_file():
        if _read_note(out) != begun:
            raise ValueError(
                f"{out} was begun as another shard, or with other images or settings (see {note}). "
                "Choose another --out, or remove both files."
            )
    elif out.is_file() and out.stat().st_size:
        raise ValueError(f"{out} has rows of no shard. Choose another --out, or remove it.")
    else:
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary = note.with_name(note.name + ".part")
        temporary.write_text(json.dumps(asdict(begun), ensure_ascii=False), encoding="utf-8")
        temporary.replace(note)
    return number, of


def noted_ids(out: Path, rows: Iterable[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
    """The rows of a shard. When all were read, their ids are in a second note next to `out`."""
    temporary = _ids(out).with_name(_ids(out).name + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        for identity, make in rows:
            file.write(json.dumps(identity) + "\n")
            yield identity, make
    temporary.replace(_ids(out))


def merge_shards(
    shards: Sequence[str | Path], out: str | Path, *, allow_missing: bool = False
) -> Merged:
    """
    Merge the caption files of all shards into one, in the order of the images.

    Args:
        shards (`Sequence[str or Path]`):
            The caption files, in any order.
        out (`str` or `Path`):
            Output file, which must not exist.
        allow_missing (`bool`, *optional*, defaults to `False`):
            Whether to allow images without a caption, such as unreadable ones.

    Returns:
        [`Merged`]

    Raises:
        `FileNotFoundError`: if a file, or the note next to it, does not exist.
        `ValueError`: if `out` exists, if a shard is missing or given twice, or if the shards have
            different lists of images or settings.
        [`~data.BadRowsError`]: if captions are missing, duplicated, or from another shard. Lists
            all of them.

    Example:

    ```python
    >>> import tempfile
    >>> from trl_balcap.captioning.listing import ImageRow
    >>> from trl_balcap.data.rows import json_line, read_jsonl
    >>> folder = Path(tempfile.mkdtemp())
    >>> rows = [ImageRow(name, folder / name) for name in ("a.png", "b.png", "c.png")]
    >>> images = Images.of(lambda: rows)
    >>> files = [folder / "1.jsonl", folder / "2.jsonl"]
    >>> for number, file in enumerate(files, start=1):
    ...     with file.open("w") as shard:
    ...         dealt = images.read(*begin_shard(file, images, f"{number}/2", {"model": "m"}))
    ...         for name, _ in noted_ids(file, dealt):
    ...             row = {"id": name, "image": name, "caption": "A cup.", "model": "m"}
    ...             _ = shard.write(json_line(row))
    >>> merged = merge_shards(files, folder / "all.jsonl")
    >>> [row["id"] for _, row in read_jsonl(merged.out)]
    ['a.png', 'b.png', 'c.png']

    ```
    """
    paths, out = [Path(path) for path in shards], Path(out)
    if out.exists():
        raise ValueError(f"{out} already exists. Choose another --out, or remove it.")
    notes = {path: _read_note(path) for path in paths}
    _check_notes(notes)
    for path, note in notes.items():
        if not path.is_file() or not _ids(path).is_file():
            raise ValueError(
                f"{path} (shard {_name(note)}) was stopped before all of its rows were read. Run "
                "it again."
            )
    parts = [
        _Part(path, note, RowFile(path))
        for path, note in sorted(notes.items(), key=lambda item: item[1].number)
    ]
    problems: list[str] = []
    shard_of = _shards_of_ids(parts, problems)
    place_of = IdTable()
    for k, part in enumerate(parts):
        for place, row in enumerate(part.rows):
            where, identity = part.rows.where(place), row.get("id")
            made = part.note.made
            different = [name for name, value in made.items() if row.get(name) != value]
            if not isinstance(identity, str) or shard_of.get(identity) != k:
                problems.append(f"{where}: {identity!r} is no image of shard {part.name}.")
            elif identity in place_of:
                problems.append(f"{where}: {identity!r} is there twice.")
            elif different:
                problems.append(f"{where}: made with another {', '.join(different)}.")
            else:
                place_of[identity] = place
    missing: list[str] = []
    for k, identity in _in_order(parts):
        if identity not in place_of:
            missing.append(identity)
            if not allow_missing:
                problems.append(f"{parts[k].path}: no row of {identity!r} (shard {parts[k].name}).")
    if problems:
        raise BadRowsError(
            problems,
            rule="The shards cannot be merged:",
            way_out="Run those shards again, which makes what is missing, or pass --allow-missing "
            "for images that cannot be captioned or scored.",
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".part")
    written = 0
    with temporary.open("w", encoding="utf-8") as file:
        for k, identity in _in_order(parts):
            place = place_of.get(identity)
            if place is not None:
                file.write(json_line(_moved(parts[k].rows[place], parts[k].path, out)))
                written += 1
    temporary.replace(out)
    return Merged(out, written, missing)


class _Part(NamedTuple):
    """A shard to merge: its file, its note and its rows."""

    path: Path
    note: _Shard
    rows: RowFile

    @property
    def name(self) -> str:
        return _name(self.note)

    def ids(self) -> Iterator[str]:
        with _ids(self.path).open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def _shards_of_ids(parts: Sequence[_Part], problems: list[str]) -> IdTable:
    """The shard that each id is of."""
    found = IdTable()
    for k, part in enumerate(parts):
        for identity in part.ids():
            other = found.get(identity)
            if other is None:
                found[identity] = k
            else:
                problems.append(
                    f"{part.path}: the id {identity!r} is also in shard {parts[other].name}. Give "
                    "each row of the dataset its own."
                )
    return found


def _in_order(parts: Sequence[_Part]) -> Iterator[tuple[int, str]]:
    """Shard and id of each row, in the order of the list that [`begin_shard`] dealt out."""
    if parts[0].note.by_files:
        for k, part in enumerate(parts):
            for identity in part.ids():
                yield k, identity
        return
    for dealt in zip_longest(*(part.ids() for part in parts)):
        for k, identity in enumerate(dealt):
            if identity is not None:
                yield k, identity


def _check_notes(notes: Mapping[Path, _Shard]) -> None:
    """Check that all shards of one list are given once, with the same settings."""
    if not notes:
        raise ValueError("There are no shards to merge.")
    first_path, first = next(iter(notes.items()))
    by_number: dict[int, Path] = {}
    for path, note in notes.items():
        if (note.of, note.listed, note.by_files) != (first.of, first.listed, first.by_files):
            raise ValueError(
                f"{path} (shard {_name(note)}) and {first_path} (shard {_name(first)}) are not "
                "shards of the same list of images."
            )
        for name in dict.fromkeys([*first.made, *note.made]):
            if note.made.get(name) != first.made.get(name):
                raise ValueError(
                    f"{path} was made with {name} {note.made.get(name)!r}, but {first_path} with "
                    f"{first.made.get(name)!r}."
                )
        if note.number in by_number:
            raise ValueError(f"{path} and {by_number[note.number]} are both shard {_name(note)}.")
        by_number[note.number] = path
    absent = [f"{n}/{first.of}" for n in range(1, first.of + 1) if n not in by_number]
    if absent:
        raise ValueError(f"Shards are missing: {', '.join(absent)}. Pass the files of all.")


def _moved(row: Mapping[str, Any], source: Path, out: Path) -> dict[str, Any]:
    """The row with image paths that are valid in `out`. Those of scored rows are not relative."""
    if "metric" in row:
        return dict(row)

    def path(written: str) -> str:
        return written_path(source.parent / written, out)

    moved = {**row, "image": path(row["image"])}
    if "images" in row:
        moved["images"] = [path(one) for one in row["images"]]
    return moved


def _name(note: _Shard) -> str:
    return f"{note.number}/{note.of}"


def _note(out: Path) -> Path:
    return out.with_name(out.name + ".shard.json")


def _ids(out: Path) -> Path:
    return out.with_name(out.name + ".shard.ids")


def _read_note(out: Path) -> _Shard:
    note = _note(out)
    if not note.is_file():
        raise FileNotFoundError(
            f"{out} is no shard: {note.name}, which --shard writes, is not beside it."
        )
    try:
        return _Shard(**json.loads(read_text(note)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{note} is damaged ({error}). Run its shard again.") from error

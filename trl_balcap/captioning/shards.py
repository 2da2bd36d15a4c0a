"""Captions made in shards on several machines, and merged into one file."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trl_balcap.captioning.listing import ImageRow
from trl_balcap.data.folders import written_path
from trl_balcap.data.rows import BadRowsError, read_jsonl, read_text

__all__ = ["Merged", "begin_shard", "merge_shards", "shard_place"]


@dataclass(frozen=True)
class _Shard:
    """
    The expected content of a shard, stored in a file next to its captions.

    Args:
        number, of (`int`): Its number, starting at 1, and the number of shards.
        listed (`str`): Digest of the ids of all images, not only of this shard's.
        ids (`list[str]`): Ids of its images, in order.
        made (`dict`): How the captions are made.
    """

    number: int
    of: int
    listed: str
    ids: list[str]
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


def begin_shard(
    out: Path, rows: Sequence[ImageRow], shard: str, made: Mapping[str, Any]
) -> list[ImageRow]:
    """
    The rows of a shard: of N shards, the I-th has every N-th row, starting at the I-th. Also writes
    a note next to `out` that lists them, for [`merge_shards`].

    Raises:
        `ValueError`: if there is no such shard, or `out` has another shard, list or settings.
    """
    number, of = shard_place(shard)
    if of > len(rows):
        raise ValueError(f"{len(rows)} images cannot make {of} shards: use {len(rows)} or fewer.")
    mine = list(rows[number - 1 :: of])
    listed = _digest([row.id for row in rows])
    begun = _Shard(number, of, listed, [row.id for row in mine], dict(made))
    note = _note(out)
    if note.is_file():
        if _read_note(out) != begun:
            raise ValueError(
                f"{out} was begun as another shard, or with other images or settings (see {note}). "
                "Choose another --out, or remove both files."
            )
    elif out.is_file() and out.stat().st_size:
        raise ValueError(f"{out} has captions of no shard. Choose another --out, or remove it.")
    else:
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary = note.with_name(note.name + ".part")
        temporary.write_text(json.dumps(asdict(begun), ensure_ascii=False), encoding="utf-8")
        temporary.replace(note)
    return mine


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
    >>> folder = Path(tempfile.mkdtemp())
    >>> rows = [ImageRow(name, folder / name) for name in ("a.png", "b.png", "c.png")]
    >>> files = [folder / "1.jsonl", folder / "2.jsonl"]
    >>> for number, file in enumerate(files, start=1):
    ...     with file.open("w") as shard:
    ...         for row in begin_shard(file, rows, f"{number}/2", {"model": "m"}):
    ...             line = {"id": row.id, "image": row.id, "caption": "A cup.", "model": "m"}
    ...             print(json.dumps(line), file=shard)
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
    found: dict[str, dict[str, Any]] = {}
    problems = []
    for path, note in notes.items():
        mine = set(note.ids)
        for number, row in read_jsonl(path) if path.is_file() else ():
            where, identity = f"{path}:{number}", row.get("id")
            different = [name for name, value in note.made.items() if row.get(name) != value]
            if identity not in mine:
                problems.append(f"{where}: {identity!r} is no image of shard {_name(note)}.")
            elif identity in found:
                problems.append(f"{where}: {identity!r} is there twice.")
            elif different:
                problems.append(f"{where}: made with another {', '.join(different)}.")
            else:
                found[identity] = _moved(row, path, out)
    missing = [
        (identity, f"{path}: no caption of {identity!r} (shard {_name(note)}).")
        for path, note in notes.items()
        for identity in note.ids
        if identity not in found
    ]
    if not allow_missing:
        problems += [problem for _, problem in missing]
    if problems:
        raise BadRowsError(
            problems,
            rule="The shards cannot be merged:",
            way_out="Run those shards again, which captions what is missing, or pass "
            "--allow-missing for images that cannot be captioned.",
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".part")
    order = _interleaved([note.ids for note in sorted(notes.values(), key=lambda n: n.number)])
    with temporary.open("w", encoding="utf-8") as file:
        for identity in order:
            if identity in found:
                file.write(json.dumps(found[identity], ensure_ascii=False) + "\n")
    temporary.replace(out)
    return Merged(out, len(found), [identity for identity, _ in missing])


def _check_notes(notes: Mapping[Path, _Shard]) -> None:
    """Check that all shards of one list are given once, with the same settings."""
    if not notes:
        raise ValueError("There are no shards to merge.")
    first_path, first = next(iter(notes.items()))
    by_number: dict[int, Path] = {}
    for path, note in notes.items():
        if (note.of, note.listed) != (first.of, first.listed):
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


def _interleaved(parts: Sequence[Sequence[str]]) -> list[str]:
    """The complete list of ids, from the parts that [`begin_shard`] dealt out in turn."""
    return [part[place] for place in range(len(parts[0])) for part in parts if place < len(part)]


def _moved(row: Mapping[str, Any], source: Path, out: Path) -> dict[str, Any]:
    """The row with image paths that are valid in `out`."""

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


def _read_note(out: Path) -> _Shard:
    note = _note(out)
    if not note.is_file():
        raise FileNotFoundError(
            f"{out} is no shard: {note.name}, which `trl-balcap caption --shard` writes, is not "
            "beside it."
        )
    try:
        return _Shard(**json.loads(read_text(note)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{note} is damaged ({error}). Run its shard again.") from error


def _digest(ids: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()

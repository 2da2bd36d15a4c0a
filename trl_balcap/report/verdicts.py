"""
Verdict rows: one per judged completion, kept as Parquet files that survive a killed run.

A folder of verdicts holds `rows-<number>-<mark>.parquet`, one file per call of
[`VerdictWriter.write`], and `images-<number>-<mark>.parquet` with the thumbnails, each image once.
A file is written under a name that starts with a dot, synced, and renamed, so a reader only sees
complete files.
"""

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trl_balcap.data.ids import IdTable
from trl_balcap.report.thumbnails import Thumbnail, image_digest, opened, thumbnail

__all__ = ["VERDICT_SCHEMA", "VerdictWriter", "as_kept", "read_thumbnails", "read_verdicts"]

ASSERTION = pa.struct([("text", pa.string()), ("correct", pa.bool_()), ("pointable", pa.bool_())])
UNIT = pa.struct([("text", pa.string()), ("covered", pa.bool_())])
NUMBERS = pa.map_(pa.string(), pa.float64())
SPLITS = ("train", "eval", "score")

VERDICT_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),  # optimizer steps done when the completion was made; 0 for scores
        ("split", pa.string()),  # "train", "eval" or "score"
        ("id", pa.string()),  # of the completion, unique in a step and split
        ("group", pa.string()),  # of an image and prompt at a step, shared by its rollouts
        ("prompt", pa.string()),
        ("image", pa.string()),  # digest of the pixels, the key of the thumbnail
        ("completion", pa.string()),
        ("reference", pa.string()),
        ("assertions", pa.list_(ASSERTION)),  # null: not judged; empty: the caption asserts nothing
        ("units", pa.list_(UNIT)),  # of the reference
        ("clarity", pa.float64()),  # grades, 0 to 10
        ("fluency", pa.float64()),
        ("coherency", pa.float64()),
        ("length_ratio", pa.float64()),  # rho: completion tokens over reference tokens
        ("gated", pa.bool_()),  # whether the length gate took away a reward
        ("rewards", NUMBERS),  # raw, by name; null where the judge gave no verdict
        ("gated_rewards", NUMBERS),  # as the advantages saw them
        ("reasons", pa.map_(pa.string(), pa.string())),  # why a reward is null, by name
        ("advantage_shares", NUMBERS),  # what each reward adds to the advantage
        ("advantage", pa.float64()),
        ("tokens", pa.int64()),
        ("latency", pa.float64()),  # seconds from the start of judging to its last verdict
        ("usd", pa.float64()),  # for the questions first asked for this caption
        ("extra", pa.string()),  # the user's own fields, as JSON
    ],
    metadata={"trl_balcap_verdicts": "1"},
)
"""
Columns of a verdict row. A row is a plain `dict` with any of them; missing ones are null. `image`
is the image itself (`PIL.Image.Image` or a path) on writing, and its digest on reading. `rewards`,
`reasons`, ... and `extra` are plain dicts in both cases.
"""

_THUMBNAILS = pa.schema(
    [
        ("image", pa.string()),
        ("data", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
_MAPS = ("rewards", "gated_rewards", "reasons", "advantage_shares")


class VerdictWriter:
    """
    Keeps verdict rows in a folder, one file per call of `write`.

    A killed run loses at most the call in progress. A writer on a folder with rows adds to them. If
    a resumed run writes a step again, readers get its rows instead of the earlier ones.

    Args:
        folder (`str` or `Path`):
            Folder for the files; created if missing.
        max_groups (`int`, *optional*):
            Maximum number of groups to keep per call, with all their rollouts. By default, all are
            kept.

    Raises:
        `ValueError`: if `max_groups` is less than 1.

    Example:

    ```python
    >>> import tempfile
    >>> from PIL import Image
    >>> folder = tempfile.mkdtemp()
    >>> with VerdictWriter(folder) as writer:
    ...     writer.write([{
    ...         "step": 10, "split": "train", "id": "10-0", "group": "10-0",
    ...         "image": Image.new("RGB", (84, 84), "red"), "completion": "A red circle.",
    ...         "assertions": [{"text": "There is a circle.", "correct": True, "pointable": True}],
    ...         "rewards": {"precision_reward": 1.0, "recall_reward": None},
    ...         "reasons": {"recall_reward": "timeout"},
    ...         "extra": {"brevity": 0.5},
    ...     }])
    >>> row = read_verdicts(folder)[0]
    >>> row["rewards"], row["reasons"], row["extra"]
    ({'precision_reward': 1.0, 'recall_reward': None}, {'recall_reward': 'timeout'}, {'brevity': 0.5})
    >>> row["units"] is None  # not judged
    True

    ```
    """  # noqa: E501

    def __init__(self, folder: str | Path, *, max_groups: int | None = None):
        if max_groups is not None and max_groups < 1:
            raise ValueError(
                f"max_groups must be at least 1, got {max_groups}. Use None to keep all."
            )
        self.folder = Path(folder)
        self.max_groups = max_groups
        self.folder.mkdir(parents=True, exist_ok=True)
        self._number = 1 + max(map(_number, self.folder.glob("*.parquet")), default=-1)
        self._session = str(self._number)
        self._pictured = IdTable()  # of a million images, too
        for place, digest in enumerate(_column(self.folder.glob("images-*.parquet"), "image")):
            self._pictured[digest] = place

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """
        Write rows to a new file. Call it once per batch.

        Raises:
            `ValueError`: if a row has a field that is not a column, no step, or an unknown split.
        """
        chosen = _first_groups(rows, self.max_groups)
        if not chosen:
            return
        digests: dict[tuple[Any, Any], str | None] = {}  # rollouts of a group share their image
        pictures: dict[str, Thumbnail] = {}
        kept = []
        for row in chosen:
            _check(row)
            group = (row["step"], row.get("group") or row.get("id"))
            if group not in digests:
                digests[group] = self._digest(row.get("image"), pictures)
            fields = {**row, "image": digests[group], "extra": _json(row.get("extra"))}
            kept.append(_encodable(fields))
        if pictures:  # written first, so that no row refers to a missing picture
            table = [{"image": name, **p._asdict()} for name, p in pictures.items()]
            self._save("images", pa.Table.from_pylist(table, _THUMBNAILS))
            for place, digest in enumerate(pictures):
                self._pictured[digest] = place
        schema = VERDICT_SCHEMA.with_metadata(
            {**(VERDICT_SCHEMA.metadata or {}), "session": self._session}
        )
        self._save("rows", pa.Table.from_pylist(kept, schema))
        self._number += 1

    def close(self) -> None:
        """Does nothing, since each call of `write` writes its rows. Exists for use with `with`."""

    def __enter__(self) -> "VerdictWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _digest(self, image: Any, pictures: dict[str, Thumbnail]) -> str | None:
        if image is None or (isinstance(image, str) and image in self._pictured):
            return image
        picture = opened(image)
        digest = image_digest(picture)
        if digest not in self._pictured and digest not in pictures:
            pictures[digest] = thumbnail(picture)
        return digest

    def _save(self, kind: str, table: pa.Table) -> None:
        # The mark separates two writers on one folder, such as training and its evaluation.
        path = self.folder / f"{kind}-{self._number:06d}-{uuid.uuid4().hex[:8]}.parquet"
        hidden = path.with_name(f".{path.name}")
        with hidden.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        hidden.rename(path)


def as_kept(name: str, value: Any, kind: pa.DataType) -> Any:
    """
    A value as a column of this type keeps it.

    Raises:
        `ValueError`: if it is of another type, or lacks a field.

    Example:

    ```python
    >>> as_kept("clarity", 7, pa.float64())
    7.0
    >>> as_kept("units", ["A dog."], pa.list_(UNIT))
    Traceback (most recent call last):
        ...
    ValueError: 'units' must be list<item: struct<text: string, covered: bool>>, got ['A dog.']

    ```
    """
    wrong = ValueError(f"{name!r} must be {kind}, got {shorten(repr(value), 200)}")
    try:
        kept = pa.array([_encodable(value)], kind).to_pylist()[0]
    except (pa.ArrowException, TypeError, ValueError, RecursionError) as error:
        raise wrong from error
    # Arrow makes a struct of nulls from a dict with other keys.
    if isinstance(kept, list) and not all(one and None not in one.values() for one in kept):
        raise wrong
    return kept


def read_verdicts(paths: str | Path | Sequence[str | Path]) -> list[dict[str, Any]]:
    """
    Verdict rows as plain dicts, by step, in the order in which they were written.

    A run resumed from a checkpoint repeats the steps after it. So rows of an earlier session are
    omitted from the first step of a later session on. Of two rows with the same split, step and id,
    the later one counts.

    Args:
        paths (`str`, `Path` or a sequence of them):
            Folders of a [`VerdictWriter`], or single files in them.

    Returns:
        `list[dict]`: rows with the columns of [`VERDICT_SCHEMA`].

    Raises:
        `FileNotFoundError`: if there are no verdicts at a path.

    Example:

    ```python
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with VerdictWriter(folder) as writer:
    ...     writer.write([{"step": 3, "split": "train", "id": "a", "completion": "A dog."}])
    >>> [row["completion"] for row in read_verdicts(folder)]
    ['A dog.']

    ```
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    rows: list[dict[str, Any]] = []
    for path in map(Path, given):
        files = sorted(path.glob("rows-*.parquet")) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise FileNotFoundError(
                f"{path} has no verdicts. Pass a folder with rows-*.parquet files: `verdicts` in a "
                "run's output_dir or in a folder of scores."
            )
        rows += _rows_of(files)
    return rows


def read_thumbnails(paths: str | Path | Sequence[str | Path]) -> dict[str, Thumbnail]:
    """
    Thumbnails in folders of verdicts, by image digest; empty if no row has an image.

    Args:
        paths (`str`, `Path` or a sequence of them):
            Folders of a [`VerdictWriter`].
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found: dict[str, Thumbnail] = {}
    for folder in map(Path, given):
        for file in sorted(folder.glob("images-*.parquet")):
            for row in _whole(file).to_pylist():
                found[row["image"]] = Thumbnail(row["data"], row["width"], row["height"])
    return found


def _rows_of(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Rows of one folder, sorted by step, without those replaced by a later session."""
    sessions: dict[int, list[dict[str, Any]]] = {}
    for file in files:
        table = _whole(file)
        session = int((table.schema.metadata or {}).get(b"session", b"0"))
        sessions.setdefault(session, []).extend(map(_plain, table.to_pylist()))
    latest: dict[tuple[str, int, str], dict[str, Any]] = {}
    begins: dict[str, float] = {}  # by split: the first step of any later session
    for session in sorted(sessions, reverse=True):
        rows = sessions[session]
        for row in reversed(rows):
            superseded = row["split"] != "score" and row["step"] >= begins.get(
                row["split"], float("inf")
            )
            if not superseded:
                latest.setdefault((row["split"], row["step"], row["id"]), row)
        for row in rows:
            begins[row["split"]] = min(row["step"], begins.get(row["split"], float("inf")))
    as_written = list(latest.values())[::-1]
    return iter(sorted(as_written, key=lambda row: row["step"]))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    row |= {name: dict(row[name] or ()) for name in _MAPS}
    row["extra"] = json.loads(row["extra"] or "{}")
    return row


def _first_groups(
    rows: Iterable[Mapping[str, Any]], max_groups: int | None
) -> list[Mapping[str, Any]]:
    rows = list(rows)
    groups = dict.fromkeys(row.get("group") or row.get("id") for row in rows)
    chosen = set(list(groups)[:max_groups])
    return [row for row in rows if (row.get("group") or row.get("id")) in chosen]


def _check(row: Mapping[str, Any]) -> None:
    unknown = sorted(row.keys() - set(VERDICT_SCHEMA.names))
    if unknown:
        raise ValueError(
            f"A verdict row has no column {', '.join(map(repr, unknown))}. Its columns are "
            f"{', '.join(VERDICT_SCHEMA.names)}; put fields of your own into `extra`."
        )
    if not isinstance(row.get("step"), int) or row.get("split") not in SPLITS or not row.get("id"):
        raise ValueError(
            f"A verdict row needs a step (a whole number), a split (one of {', '.join(SPLITS)}) "
            f"and an id, got {row.get('step')!r}, {row.get('split')!r} and {row.get('id')!r}."
        )


def _json(extra: Mapping[str, Any] | None) -> str:
    # Values that JSON does not support (a tensor, a date) are kept as text rather than lost.
    return json.dumps(extra or {}, ensure_ascii=False, default=str)


def _encodable(value: Any) -> Any:
    """The value with lone surrogates, which a judge's JSON may contain, replaced by `?`."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_encodable(key): _encodable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(part) for part in value]
    return value


def _number(file: Path) -> int:
    return int(file.name.split("-")[1])


def _column(files: Iterable[Path], name: str) -> Iterator[str]:
    for file in files:
        yield from _whole(file, [name])[name].to_pylist()


def _whole(file: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.ParquetFile(file).read(columns)
    except pa.ArrowException as error:
        raise ValueError(
            f"{file} is not a complete Parquet file ({error}). It was cut off, or is still being "
            "copied: copy it again, or remove it."
        ) from error

"""Rows of datasets that are read as they are needed: Parquet, WebDataset shards, saved, the Hub."""

import glob
import hashlib
import json
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from trl_balcap.data.formats import known_row
from trl_balcap.data.stored import BUILDERS, finding, is_saved, load_rows

if TYPE_CHECKING:
    from datasets import IterableDataset

__all__ = ["Stream", "open_stream"]

_AT_ONCE = 64  # rows of a Parquet file
_BROKEN = (OSError, ValueError, EOFError, tarfile.TarError, zlib.error, pa.ArrowException)


@dataclass(frozen=True)
class Stream:
    """
    Rows of a dataset, read one at a time with their images as stored.

    Args:
        source (`str`):
            Where they are read from, for messages.
        dataset (`datasets.IterableDataset`):
            The dataset, with undecoded images.
        columns (`Sequence[str]`):
            Its columns.
        listed (`str`):
            Digest of the names of its files, and of their sizes if its rows have no ids.
    """

    source: str
    dataset: "IterableDataset"
    columns: Sequence[str]
    listed: str

    @property
    def folder(self) -> Path:
        """The folder that paths in it are relative to."""
        path = Path(self.source)
        return path if path.is_dir() else path.parent

    @property
    def has_ids(self) -> bool:
        """Whether rows have ids. If not, only their places tell them apart."""
        return _has_ids(self.columns)

    def by_files(self, of: int) -> bool:
        """Whether each of several parts reads only its own files: rows must have ids, and there
        must be enough files."""
        return self.has_ids and self.dataset.num_shards >= of

    def rows(self, number: int = 1, of: int = 1) -> Iterator[tuple[str, dict[str, Any]]]:
        """
        Id and row of each row of the I-th of N parts: consecutive files, or every N-th row. A
        WebDataset's row has its shard's name and its key as id, a row without an id its place.

        Raises:
            `ValueError`: if the dataset cannot be read on, or a row has no id where others have.
        """
        apart = self.by_files(of)
        dataset = self.dataset.shard(of, number - 1) if apart else self.dataset
        rows = iter(dataset)
        place = -1
        identity = ""
        while True:
            try:
                row = next(rows, None)
            except _BROKEN as error:
                where = f"after {identity!r}, its row {place}" if place >= 0 else "at all"
                raise ValueError(
                    f"{self.source} cannot be read {where}: {_said(error)}. Repair that file, and "
                    "run again."
                ) from error
            if row is None:
                return
            place += 1
            if not apart and place % of != number - 1:
                continue
            known = known_row(row)
            if known.get("id") is None and "id" in self.columns:
                raise ValueError(
                    f"{self.source}: row {place} has no id, but others have. Give it one, or "
                    "remove that column."
                )
            identity = str(known.get("id", place))
            yield identity, known


def open_stream(source: str | Path, split: str, *, download: bool = False) -> Stream:
    """
    Open a dataset without reading its rows.

    Args:
        source (`str` or `Path`):
            As for [`~data.stored.load_rows`]; `*` stands for several files.
        split (`str`):
            The split.
        download (`bool`, *optional*, defaults to `False`):
            Whether to load a dataset on the Hub into the local cache first, or from it.

    Raises:
        `FileNotFoundError`: if there is no such dataset, or no such split.
        `ValueError`: if it is empty or damaged.
    """
    import datasets  # takes a second, and image files do not need it

    path = Path(source)
    builder_name = BUILDERS.get(path.suffix)
    if path.is_dir() and not is_saved(path) and not any(path.rglob("*.parquet")):
        builder_name = "webdataset"
    is_local = path.is_dir() or builder_name is not None
    if (path.is_dir() and is_saved(path)) or (download and not is_local):
        saved = load_rows(source, split)
        files = [file["filename"] for file in saved.cache_files]
        return _stream(source, saved.to_iterable_dataset(), files, split)
    if builder_name is None:
        with finding(source, split):
            builder = datasets.load_dataset_builder(str(source))
            stream = _streaming(builder, split)
    else:
        files, split = _files(path), "train"
        try:
            files = _with_members(files) if builder_name == "webdataset" else files
            if not files:
                raise FileNotFoundError(f"There are no rows in {source}: no files, or empty ones.")
            builder = datasets.load_dataset_builder(builder_name, data_files=files)
            stream = _streaming(builder, split)
        except FileNotFoundError:
            raise
        except (*_BROKEN, IndexError) as error:
            raise ValueError(
                f"{source} cannot be read as {builder_name}: {_said(error)}."
            ) from error
    files = list((builder.config.data_files or {}).get(split, ())) or [str(builder.hash)]
    return _stream(source, stream, files, split)


def _streaming(builder: Any, split: str) -> Any:
    if builder.name == "parquet":
        builder.config.batch_size = _AT_ONCE  # the default is the first file's whole row group
    return builder.as_streaming_dataset(split=split)


def _stream(source: str | Path, dataset: Any, files: Sequence[str], split: str) -> Stream:
    columns = dataset.column_names
    if columns is None:  # only the rows tell
        columns = [name for row in islice(dataset, 1) for name in row]
    parts = [_named(file, sized=not _has_ids(columns)) for file in files]
    listed = hashlib.sha256(json.dumps([*parts, split]).encode()).hexdigest()
    return Stream(str(source), dataset.decode(False), columns, listed)


def _has_ids(columns: Sequence[str]) -> bool:
    return "id" in columns or "__key__" in columns


def _files(path: Path) -> list[str]:
    if path.is_dir():
        return sorted(str(file) for file in path.rglob("*.tar"))
    return [str(path)] if path.is_file() else sorted(glob.glob(str(path), recursive=True))


def _with_members(shards: Sequence[str]) -> list[str]:
    """The shards that are not empty. Columns are those of the first, so it must have rows."""
    found = [shard for shard in shards if Path(shard).stat().st_size]
    while found:
        with tarfile.open(found[0]) as shard:
            if shard.next() is not None:
                break
        del found[0]
    return found


def _named(file: str, *, sized: bool) -> list[Any]:
    """What a file is called on every machine; a URL of the Hub stays as it is."""
    path = Path(file)
    if not path.is_file():
        return [file]
    return [path.name, path.stat().st_size] if sized else [path.name]


def _said(error: Exception) -> str:
    cause = error.__cause__ or error
    return str(cause).strip().partition("\n")[0].rstrip(".") or type(cause).__name__

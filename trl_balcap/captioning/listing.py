"""Images to caption, from whatever they are in."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from trl_balcap.data.folders import image_files, list_of, sidecar_text, written_path
from trl_balcap.data.formats import SHARD_IMAGES
from trl_balcap.data.ids import IdTable
from trl_balcap.data.images import IMAGE_SUFFIXES, image_problem, stored_content
from trl_balcap.data.rows import TABLE_SUFFIXES, BadRowsError, table_rows
from trl_balcap.data.scored import (
    IMAGE_COLUMNS,
    REFERENCE_COLUMNS,
    first_of,
    image_path,
    row_image,
)
from trl_balcap.data.stored import is_dataset, written_images
from trl_balcap.data.streams import open_stream

__all__ = [
    "ImageRow",
    "Images",
    "image_column",
    "list_images",
    "open_images",
    "stored_files",
    "written_columns",
]

SEVERAL_COLUMNS = ("images", "image_paths")
"""Where a row of several images, as CaptionQA has them, lists their paths."""

_OWN = frozenset({"id", *IMAGE_COLUMNS, *SEVERAL_COLUMNS, *REFERENCE_COLUMNS})


@dataclass(frozen=True)
class ImageRow:
    """
    An image to caption, with its id and its reference, if any. `more` are further images of the
    same row, which share one caption; `columns` are the row's other columns, if they were asked
    for.
    """

    id: str
    path: Path
    reference: str | None = None
    more: tuple[Path, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All images in the row."""
        return (self.path, *self.more)


@dataclass(frozen=True)
class Images:
    """
    Images to caption, which are read as they are needed, as often as they are needed.

    Args:
        read (`Callable`):
            Given I and N, reads the I-th of N parts: an id, and a function that makes the row, for
            each row.
        listed (`str`):
            Digest of what is read: of all ids, or of a dataset's files.
        total (`int`, *optional*):
            Number of rows; `None` if only reading all of them would tell.
        most (`int`, *optional*):
            Largest number of images in a row; `None` if only reading would tell.
        by_files (`Callable`):
            Whether N parts are of consecutive rows; else the I-th has every N-th row.
        has_ids (`bool`, *optional*, defaults to `True`):
            Whether ids name images, and not just places in this dataset.
    """

    read: Callable[[int, int], Iterator[tuple[str, Callable[[], ImageRow]]]]
    listed: str
    total: int | None = None
    most: int | None = None
    by_files: Callable[[int], bool] = lambda of: False
    has_ids: bool = True

    @classmethod
    def of(cls, rows: Callable[[], Iterable[ImageRow]]) -> "Images":
        """
        Images of a list, which is read once for its ids.

        Example:

        ```python
        >>> rows = [ImageRow(name, Path(name)) for name in ("a.png", "b.png", "c.png")]
        >>> images = Images.of(lambda: rows)
        >>> images.total, [identity for identity, _ in images.read(1, 2)]
        (3, ['a.png', 'c.png'])

        ```
        """
        digest, total, most = hashlib.sha256(), 0, 0
        for row in rows():
            digest.update(json.dumps(row.id).encode() + b"\n")
            total, most = total + 1, max(most, len(row.paths))

        def read(number: int, of: int) -> Iterator[tuple[str, Callable[[], ImageRow]]]:
            for row in islice(rows(), number - 1, None, of):
                yield row.id, lambda row=row: row

        return cls(read, digest.hexdigest(), total, most)


def open_images(
    source: str | Path,
    *,
    image_folder: str | Path | None = None,
    split: str = "train",
    store: str | Path | None = None,
    out: str | Path | None = None,
    columns: bool = False,
) -> Images:
    """
    The images of [`list_images`], without holding them: a list is checked and then read again row
    by row, a dataset is read as a stream, and its images are written to files one by one.

    Args:
        source, image_folder, split, store, out, columns:
            As for [`list_images`]. Of a dataset, `*` stands for several files.

    Raises:
        `FileNotFoundError`: if `source` does not exist.
        [`~data.BadRowsError`]: if rows of a list cannot be used, with one message each.
        `ValueError`: if there are no images.
    """
    if store is not None and is_dataset(source):
        return _streamed_images(source, image_folder, split, Path(store))
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"File or folder not found: {source}.")
    if image_folder is not None and not Path(image_folder).is_dir():
        raise FileNotFoundError(f"Image folder not found: {image_folder}.")
    listed = source if source.suffix.lower() in TABLE_SUFFIXES else None
    if source.is_dir():
        listed = list_of(source, but=out)
    if listed is not None:
        folder = Path(image_folder or listed.parent)
        _check_list(listed, folder)
        images = Images.of(lambda: _rows_of_list(listed, folder, columns))
    elif source.is_dir():
        images = Images.of(
            lambda: (
                ImageRow(path.relative_to(source).as_posix(), path, sidecar_text(path))
                for path in image_files(source)
            )
        )
    else:
        problem = image_problem(source)
        if problem is not None:
            raise ValueError(
                f"{source}: {problem}. Pass an image, a folder of images, or a list of them "
                f"({', '.join(TABLE_SUFFIXES)})."
            )
        images = Images.of(lambda: [ImageRow(source.name, source)])
    if not images.total:
        raise ValueError(f"{source} contains no images ({', '.join(IMAGE_SUFFIXES)}).")
    return images


def list_images(
    source: str | Path,
    *,
    image_folder: str | Path | None = None,
    split: str = "train",
    store: str | Path | None = None,
    out: str | Path | None = None,
    columns: bool = False,
) -> list[ImageRow]:
    """
    List the images of a source: a folder (by its list, or searched recursively, with references in
    `.txt` files next to the images), a JSONL, CSV or JSON file with images, one image, or a dataset
    that contains images (saved, in Parquet, in WebDataset shards, or on the Hub), which are first
    written to files.

    Args:
        source (`str` or `Path`):
            The folder, file or dataset.
        image_folder (`str` or `Path`, *optional*):
            Folder that paths in a file are relative to. Defaults to the file's own folder.
        split (`str`, *optional*, defaults to `"train"`):
            Split of a dataset.
        store (`str` or `Path`, *optional*):
            Folder that a dataset's images are written to; without it, datasets are not accepted.
        out (`str` or `Path`, *optional*):
            File that results go to. If it is in the folder, it is not the folder's list, whatever
            its name: it only has the images that are done.
        columns (`bool`, *optional*, defaults to `False`):
            Whether to keep the other columns of a list's rows.

    Returns:
        `list[ImageRow]`: in the order of the list, or sorted by path.

    Raises:
        `FileNotFoundError`: if `source` does not exist.
        [`~data.BadRowsError`]: if rows have no image, an image outside the folder, or a repeated
            id, with one message each.
        `ValueError`: if there are no images.
    """
    if store is not None and is_dataset(source):
        images = _streamed_images(source, image_folder, split, Path(store), download=True)
    else:
        images = open_images(source, image_folder=image_folder, out=out, columns=columns)
    rows = [make() for _, make in images.read(1, 1)]
    twice = [name for name, n in Counter(row.id for row in rows).items() if n > 1]
    if twice:
        raise BadRowsError(
            [f"{source}: the id {name!r} is there more than once." for name in twice]
        )
    return rows


def written_columns(row: ImageRow, out: Path) -> dict[str, Any]:
    """
    The columns that identify a row in a file of results: its id, and its image or images.

    Example:

    ```python
    >>> written_columns(ImageRow("7", Path("/data/a.png")), Path("/data/out.jsonl"))
    {'id': '7', 'image': 'a.png'}

    ```
    """
    several = {"images": [written_path(path, out) for path in row.paths]} if row.more else {}
    return {"id": row.id, "image": written_path(row.path, out), **several}


def _check_list(path: Path, folder: Path) -> None:
    """Find all bad rows of a list before the first one is used."""
    problems = []
    places = IdTable()
    for place, (where, found) in enumerate(_read_list(path, folder)):
        if isinstance(found, str):
            problems.append(f"{where}: {found}")
            continue
        earlier = places.get(found.id)
        if earlier is None:
            places[found.id] = place
        else:
            there, _ = next(islice(table_rows(path), earlier, None))
            problems.append(
                f'{where}: the id {found.id!r} is already at {there}. Give each row its own "id".'
            )
    if problems:
        raise BadRowsError(problems)


def _rows_of_list(path: Path, folder: Path, columns: bool) -> Iterator[ImageRow]:
    return (row for _, row in _read_list(path, folder, columns) if isinstance(row, ImageRow))


def _read_list(
    path: Path, folder: Path, columns: bool = False
) -> Iterator[tuple[str, ImageRow | str]]:
    """Place of each row of a list, and the row, or what is wrong with it."""
    for where, row in table_rows(path):
        try:
            files = _row_images(row, folder)
        except ValueError as error:
            yield where, str(error)
            continue
        if not files:
            yield where, f'the row has no "image" (it has {", ".join(row)}). Rename yours.'
            continue
        identity = str(row.get("id", files[0].name))
        others = {name: row[name] for name in row if name not in _OWN} if columns else {}
        yield where, ImageRow(identity, files[0], _reference(row), tuple(files[1:]), others)


def _streamed_images(
    source: str | Path,
    image_folder: str | Path | None,
    split: str,
    store: Path,
    *,
    download: bool = False,
) -> Images:
    stream = open_stream(source, split, download=download)
    column = image_column(stream.columns)
    folder = Path(image_folder or stream.folder)

    def made(identity: str, row: Mapping[str, Any]) -> ImageRow:
        files = stored_files(row.get(column), folder, store, identity)
        return ImageRow(identity, files[0], _reference(row), tuple(files[1:]))

    def read(number: int, of: int) -> Iterator[tuple[str, Callable[[], ImageRow]]]:
        for identity, row in stream.rows(number, of):
            # CaptionQA's own captioner also skips rows that list no image.
            if row.get(column) or column not in SEVERAL_COLUMNS:
                yield identity, partial(made, identity, row)

    most = None if column in SEVERAL_COLUMNS else 1
    return Images(read, stream.listed, most=most, by_files=stream.by_files, has_ids=stream.has_ids)


def stored_files(value: Any, folder: Path, store: Path, identity: str) -> list[Path]:
    """
    The files of a dataset row's images: those that its paths name, or that are written now.

    Args:
        value (`Any`): The row's image or images, as stored.
        folder (`Path`): Folder that paths are relative to.
        store (`Path`): Folder that images are written to.
        identity (`str`): The row's id, which names the files.

    Raises:
        `ValueError`: if a path is not allowed, see [`~data.scored.image_path`], or it is no image.
    """
    values = []
    for one in (value if isinstance(value, list) else [value]) or [None]:
        content = stored_content(one)
        values.append(image_path(content, folder) if isinstance(content, str) else content)
    return written_images(values, store, identity)


def image_column(columns: Sequence[str]) -> str:
    """
    The column with the images of a dataset's rows, after [`~data.formats.known_row`].

    Raises:
        `ValueError`: if there is none.
    """
    if "__key__" in columns:
        columns = ["image" for name in SHARD_IMAGES if name in columns] or columns
    column = next((name for name in ("images", *IMAGE_COLUMNS) if name in columns), None)
    if column is None:
        raise ValueError(
            f"The dataset has no column of images: its columns are {', '.join(columns)}."
        )
    return column


def _row_images(row: Mapping[str, Any], folder: Path) -> list[Path]:
    """The image of a row, or all images if it lists several."""
    several, first = first_of(row, SEVERAL_COLUMNS), first_of(row, IMAGE_COLUMNS)
    # Files of results have both.
    if isinstance(several, list) and several and first in (None, several[0]):
        return [Path(image_path(str(name), folder)) for name in several]
    file = row_image(row, folder)
    return [] if file is None else [Path(file)]


def _reference(row: Mapping[str, Any]) -> str | None:
    # "caption" may be a model's output, so it is not a reference.
    columns = ("reference",) if "model" in row else REFERENCE_COLUMNS
    reference = first_of(row, columns)
    return reference if isinstance(reference, str) else None

"""Images to caption, from whatever they are in."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trl_balcap.data.folders import image_files, list_of, sidecar_text, written_path
from trl_balcap.data.images import IMAGE_SUFFIXES, image_problem
from trl_balcap.data.rows import TABLE_SUFFIXES, BadRowsError, read_table
from trl_balcap.data.scored import (
    IMAGE_COLUMNS,
    REFERENCE_COLUMNS,
    first_of,
    image_path,
    row_image,
)
from trl_balcap.data.stored import is_dataset, load_rows, stored_images

__all__ = ["ImageRow", "list_images", "written_columns"]

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
    that contains images (saved, in Parquet, or on the Hub), which are first written to files.

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
        return _dataset_images(source, split, store)
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"File or folder not found: {source}.")
    if image_folder is not None and not Path(image_folder).is_dir():
        raise FileNotFoundError(f"Image folder not found: {image_folder}.")
    listed = source if source.suffix.lower() in TABLE_SUFFIXES else None
    if source.is_dir():
        listed = list_of(source, but=out)
    if listed is not None:
        rows = _listed_images(listed, Path(image_folder or listed.parent), columns)
    elif source.is_dir():
        rows = [
            ImageRow(path.relative_to(source).as_posix(), path, sidecar_text(path))
            for path in image_files(source)
        ]
    else:
        problem = image_problem(source)
        if problem is not None:
            raise ValueError(
                f"{source}: {problem}. Pass an image, a folder of images, or a list of them "
                f"({', '.join(TABLE_SUFFIXES)})."
            )
        rows = [ImageRow(source.name, source)]
    if not rows:
        raise ValueError(f"{source} contains no images ({', '.join(IMAGE_SUFFIXES)}).")
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


def _listed_images(path: Path, folder: Path, columns: bool) -> list[ImageRow]:
    rows: list[ImageRow] = []
    problems = []
    places: dict[str, str] = {}
    for where, row in read_table(path):
        try:
            files = _row_images(row, folder)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        if not files:
            problems.append(
                f'{where}: the row has no "image" (it has {", ".join(row)}). Rename yours.'
            )
            continue
        identity = str(row.get("id", files[0].name))
        if identity in places:
            problems.append(
                f"{where}: the id {identity!r} is already at {places[identity]}. Give each row its "
                'own "id".'
            )
            continue
        places[identity] = where
        others = {name: row[name] for name in row if name not in _OWN} if columns else {}
        rows.append(ImageRow(identity, files[0], _reference(row), tuple(files[1:]), others))
    if problems:
        raise BadRowsError(problems)
    return rows


def _row_images(row: Mapping[str, Any], folder: Path) -> list[Path]:
    """The image of a row, or all images if it lists several."""
    several, first = first_of(row, SEVERAL_COLUMNS), first_of(row, IMAGE_COLUMNS)
    # Files of results have both.
    if isinstance(several, list) and several and first in (None, several[0]):
        return [Path(image_path(str(name), folder)) for name in several]
    file = row_image(row, folder)
    return [] if file is None else [Path(file)]


def _dataset_images(source: str | Path, split: str, store: str | Path) -> list[ImageRow]:
    dataset = load_rows(source, split)
    names = dataset.column_names
    ids = dataset["id"] if "id" in names else range(len(dataset))
    column = next((name for name in REFERENCE_COLUMNS if name in names), None)
    references = dataset[column] if column is not None else [None] * len(dataset)
    rows = [
        ImageRow(str(identity), files[0], reference, tuple(files[1:]))
        for identity, files, reference in zip(
            ids, stored_images(dataset, store), references, strict=True
        )
        if files  # CaptionQA's own captioner also skips rows without an image
    ]
    twice = [name for name, n in Counter(row.id for row in rows).items() if n > 1]
    if twice:
        raise BadRowsError(
            [f"{source}: the id {name!r} is there more than once." for name in twice]
        )
    return rows


def _reference(row: Mapping[str, Any]) -> str | None:
    # "caption" may be a model's output, so it is not a reference.
    columns = ("reference",) if "model" in row else REFERENCE_COLUMNS
    reference = first_of(row, columns)
    return reference if isinstance(reference, str) else None

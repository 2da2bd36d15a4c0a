"""
Reads rows for scoring: the names of their columns, their images, and the captions to score.

All problems of a caption file are found here, before any judge is asked: one line per bad row, with
the file, the line, and what to do.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from PIL.Image import Image as PILImage

from trl_balcap.data.completions import is_empty
from trl_balcap.data.ids import IdTable
from trl_balcap.data.images import check_name, image_problem
from trl_balcap.data.rows import BadRowsError, read_table

__all__ = [
    "CAPTION_COLUMNS",
    "IMAGE_COLUMNS",
    "REFERENCE_COLUMNS",
    "Caption",
    "Needs",
    "caption_words",
    "captions_of",
    "checked_captions",
    "first_of",
    "folder_of",
    "image_file",
    "image_name",
    "image_path",
    "read_captions",
    "read_row",
    "row_image",
]

IMAGE_COLUMNS = ("image", "file_name", "image_path", "image_name")
"""Columns for a row's image or its path; the first one present is used."""

REFERENCE_COLUMNS = ("reference", "caption", "text")
"""Columns for a row's reference caption, in data to train on or to caption."""

CAPTION_COLUMNS = ("caption",)
"""Columns for the caption to score; its reference is in "reference"."""


@dataclass(frozen=True)
class Caption:
    """
    One caption to score.

    Args:
        id (`str`):
            Unique name of the row: its "id", or the image's file name without one.
        caption (`str`):
            The text.
        image (`Path` or `PIL.Image.Image`, *optional*):
            The image, or its file.
        reference (`str`, *optional*):
            The reference caption.
        where (`str`, *optional*, defaults to `""`):
            File and line, for messages.
    """

    id: str
    caption: str
    image: Path | PILImage | None = None
    reference: str | None = None
    where: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether the text has nothing visible."""
        return is_empty(self.caption)


def image_file(caption: Caption) -> Path:
    """
    The image file of a caption.

    Raises:
        `ValueError`: if there is none.
    """
    if not isinstance(caption.image, Path):
        raise ValueError(f"{caption.where}: {caption.id!r} needs an image file.")
    return caption.image


def image_name(caption: Caption) -> str:
    """
    The name of an image in the published benchmarks: its file name, or the id without a file.

    Example:

    ```python
    >>> image_name(Caption("7", "A cup.", Path("images/test_7.jpg")))
    'test_7.jpg'
    >>> image_name(Caption("7", "A cup."))
    '7'

    ```
    """
    return caption.image.name if isinstance(caption.image, Path) else caption.id


def caption_words(caption: str) -> int:
    """
    Number of words in a caption, separated by white space.

    Example:

    ```python
    >>> caption_words("a  red cup\\n"), caption_words("")
    (3, 0)

    ```
    """
    return len(caption.split())


def read_captions(
    path: str | Path,
    *,
    images: str | Path | None = None,
    need_images: bool = False,
    need_references: bool = False,
    allow_empty: bool = False,
) -> list[Caption]:
    """
    Read and check captions.

    A row has "caption", "image" (a path, relative to the file or to `images`) and, optionally, "id"
    and "reference". Files are read by [`~data.rows.read_table`]: JSONL, CSV, or a `.json` object
    from id to caption, whose ids are image file names if images are needed.

    Args:
        path (`str` or `Path`):
            The file.
        images (`str` or `Path`, *optional*):
            Folder that the image paths are relative to.
        need_images (`bool`, *optional*, defaults to `False`):
            Whether each row must have an image that can be read.
        need_references (`bool`, *optional*, defaults to `False`):
            Whether each row must have a reference caption.
        allow_empty (`bool`, *optional*, defaults to `False`):
            Whether to score empty captions rather than report them.

    Returns:
        `list[Caption]`: in the file's order.

    Raises:
        `FileNotFoundError`: if there is no such file or folder.
        [`BadRowsError`]: if any row cannot be scored, with one message each, or if there are none.
    """
    return captions_of(
        read_table(path),
        path,
        images=images,
        need_images=need_images,
        need_references=need_references,
        allow_empty=allow_empty,
    )


def captions_of(
    rows: Iterable[tuple[str, dict[str, Any]]],
    path: str | Path,
    *,
    images: str | Path | None = None,
    need_images: bool = False,
    need_references: bool = False,
    allow_empty: bool = False,
) -> list[Caption]:
    """
    Captions from rows already read; otherwise the same as [`read_captions`].

    Args:
        rows (`Iterable[tuple[str, dict]]`):
            Place and row, from [`~data.rows.read_table`].
        path (`str` or `Path`):
            The file they were read from.
    """
    found = list(rows)
    needs = Needs(folder_of(path, images), need_images, need_references, allow_empty)
    return list(checked_captions(lambda: found, path, needs))


class Needs(NamedTuple):
    """What a row must have, and the folder of its image."""

    folder: Path
    images: bool
    references: bool
    allow_empty: bool


def folder_of(path: str | Path, images: str | Path | None) -> Path:
    """
    The folder that image paths are relative to.

    Raises:
        `FileNotFoundError`: if it does not exist.
    """
    folder = Path(images) if images is not None else Path(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"Image folder not found: {folder}.")
    return folder


def checked_captions(
    rows: Callable[[], Iterable[tuple[str, dict[str, Any]]]], path: str | Path, needs: Needs
) -> Iterator[Caption]:
    """The captions in rows, which can be read several times. Raises after the last one."""
    problems: list[str] = []
    places = IdTable()
    found = 0
    for place, (where, row) in enumerate(rows()):
        problem, caption = read_row(where, row, needs)
        earlier = None if caption is None else places.get(caption.id)
        if caption is not None and earlier is not None:
            there, _ = next(islice(rows(), earlier, None))
            problem = (
                f"the id {caption.id!r} is already at {there}. Give each row its own "
                f'"id", or remove one of the two.'
            )
        if problem is not None or caption is None:
            problems.append(f"{where}: {problem}")
            continue
        places[caption.id] = place
        found += 1
        yield caption
    if problems:
        raise BadRowsError(problems)
    if not found:
        raise BadRowsError([f"{path}: no captions in this file."])


def read_row(where: str, row: dict[str, Any], needs: Needs) -> tuple[str | None, Caption | None]:
    """The row's first problem, or its caption."""
    folder = needs.folder
    columns = ", ".join(row) or "no column"
    text = first_of(row, CAPTION_COLUMNS)
    if not isinstance(text, str):
        said = "has no" if "caption" not in row else "must have text in its"
        return f'the row {said} "caption" column (it has {columns}). Rename yours.', None
    name = first_of(row, IMAGE_COLUMNS)
    identity = row.get("id", Path(name).name if isinstance(name, str) else None)
    if identity is None:
        return f'the row has neither "id" nor "image" (it has {columns}). Add one of them.', None
    identity = str(identity)
    if not text.strip() and not needs.allow_empty:
        return (
            f"the caption of {identity!r} is empty. Caption the image again, remove the row, or "
            "score it with --empty-captions score.",
            Caption(identity, text),
        )
    try:
        image = row_image(row, folder)
    except ValueError as error:
        if needs.images:
            return f"{error}", Caption(identity, text)
        image = None  # nobody will open it
    if needs.images:
        if image is None:
            return f'the row has no "image" column (it has {columns}). Rename yours.', None
        problem = image_problem(image)
        if problem is not None:
            return (
                f"the image {image}: {problem}. Paths are relative to {folder}; --images names "
                "another folder.",
                Caption(identity, text),
            )
    reference = row.get("reference")
    if needs.references and (not isinstance(reference, str) or not reference.strip()):
        return (
            f'the row has no reference caption in "reference" (it has {columns}). Add it, or drop '
            "the metric that needs it.",
            Caption(identity, text),
        )
    return None, Caption(identity, text, None if image is None else Path(image), reference, where)


def first_of(row: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """
    The row's value in the first of `columns` with a value, else `None`.

    Example:

    ```python
    >>> first_of({"image_path": "b.jpg", "file_name": "a.jpg"}, IMAGE_COLUMNS)
    'a.jpg'

    ```
    """
    return next((row[name] for name in columns if row.get(name) is not None), None)


def row_image(
    row: Mapping[str, Any],
    folder: str | Path,
    columns: Sequence[str] = IMAGE_COLUMNS,
    *,
    allow_urls: bool = False,
) -> str | None:
    """
    The image file of a row, or `None` if it has none.

    Raises:
        `ValueError`: if the row's path is not allowed, see [`image_path`].
    """
    name = first_of(row, columns)
    if name is None or name == "":
        return None
    if not isinstance(name, str):
        raise ValueError(f"the image is a {type(name).__name__}, not a path.")
    return image_path(name, folder, allow_urls=allow_urls)


def image_path(name: str, folder: str | Path, *, allow_urls: bool = False) -> str:
    """
    The path of a row's image file.

    A relative path must stay inside `folder`, without leaving it through `..`, so that a list can
    only use the images that came with it. Absolute paths are allowed, since they explicitly name a
    file on this machine. URLs are only fetched on request.

    Args:
        name (`str`): The path in the row.
        folder (`str` or `Path`): Folder that relative paths are relative to.
        allow_urls (`bool`, *optional*, defaults to `False`): Whether URLs are allowed.

    Returns:
        `str`: The path, or the URL.

    Raises:
        `ValueError`: if the path is outside the folder, or is a URL and URLs are not allowed.

    Example:

    ```python
    >>> image_path("photos/1.jpg", "data"), image_path("/pool/1.jpg", "data")
    ('data/photos/1.jpg', '/pool/1.jpg')

    ```
    """
    if "://" in name:
        if allow_urls:
            return name
        raise ValueError(
            f"the image {name!r} is a URL, and URLs are not fetched. Download it and use its path."
        )
    if "\0" in name:
        raise ValueError(f"the image {name!r} is not a path.")
    check_name(name)
    if os.path.normpath(name).split(os.sep)[0] == os.pardir:
        raise ValueError(
            f"the image {name!r} is outside {folder}. Set the folder that paths are relative to, "
            "or use absolute paths."
        )
    return str(Path(folder) / name)

"""
Captions to be scored, as a user has them: a JSONL file, or the JSON object that other benchmarks
exchange.

Everything that is wrong with the file is found here, before any judge is asked: one line for each
bad row, with the file, the line, and what to do.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image as PILImage

from trl_balcap.data.folders import row_image
from trl_balcap.data.images import image_problem
from trl_balcap.data.jsonl import CAPTION_COLUMNS, IMAGE_COLUMNS, BadRowsError, first_of
from trl_balcap.data.tables import read_rows

__all__ = ["Caption", "caption_words", "image_file", "image_name", "read_captions"]


@dataclass(frozen=True)
class Caption:
    """
    One caption to score.

    Args:
        id (`str`):
            Unique name of the row: its "id", or the image's file name where there is none.
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


def image_file(caption: Caption) -> Path:
    """
    The file of a caption's image.

    Raises:
        `ValueError`: if it has none.
    """
    if not isinstance(caption.image, Path):
        raise ValueError(f"{caption.where}: the image file of {caption.id!r} is needed.")
    return caption.image


def image_name(caption: Caption) -> str:
    """
    What the published benchmarks call an image: its file's name, or the id where there is no file.

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
    Words of a caption: what white space separates.

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

    A row has "caption", "image" (a path, relative to the file or to `images`), and perhaps "id" and
    "reference". Files are read by [`~data.tables.read_rows`]: JSONL, CSV, or a `.json` object from
    id to caption, where the id is the image's file name where an image is needed.

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
            Whether an empty caption may be scored instead of being an error.

    Returns:
        `list[Caption]`: in the file's order.

    Raises:
        `FileNotFoundError`: if there is no such file or folder.
        [`BadRowsError`]: if any row cannot be scored, with one message for each; or if there is no
            row.
    """
    path = Path(path)
    folder = Path(images) if images is not None else path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder} to look for images in.")
    captions: list[Caption] = []
    problems: list[str] = []
    seen: dict[str, str] = {}
    for where, row in read_rows(path):
        problem, caption = _read_row(where, row, folder, need_images, need_references, allow_empty)
        if caption is not None and caption.id in seen:
            problem = (
                f"the id {caption.id!r} is already at {seen[caption.id]}. Give each row its own "
                f'"id", or remove one of the two.'
            )
        if problem is not None or caption is None:
            problems.append(f"{where}: {problem}")
            continue
        seen[caption.id] = where
        captions.append(caption)
    if problems:
        raise BadRowsError(problems)
    if not captions:
        raise BadRowsError([f"{path}: there is no caption in this file."])
    return captions


def _read_row(
    where: str,
    row: dict[str, Any],
    folder: Path,
    need_images: bool,
    need_references: bool,
    allow_empty: bool,
) -> tuple[str | None, Caption | None]:
    """The row's problem, or the caption; the first problem of a row is the only one told."""
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
    if not text.strip() and not allow_empty:
        return (
            f"the caption of {identity!r} is empty. Caption the image again, remove the row, or "
            "score it as it is with --empty-captions score.",
            Caption(identity, text),
        )
    try:
        image = row_image(row, folder)
    except ValueError as error:
        if need_images:
            return f"{error}", Caption(identity, text)
        image = None  # nobody will open it
    if need_images:
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
    if need_references and (not isinstance(reference, str) or not reference.strip()):
        return (
            f'the row has no reference caption in "reference" (it has {columns}). Add it, or leave '
            "out the metric that needs it.",
            Caption(identity, text),
        )
    return None, Caption(identity, text, None if image is None else Path(image), reference, where)

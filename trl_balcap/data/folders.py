"""Which files a folder or a row names: lists, images, and the paths that a row may point at."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trl_balcap.data.images import IMAGE_SUFFIXES
from trl_balcap.data.jsonl import IMAGE_COLUMNS, first_of
from trl_balcap.data.text import read_text

__all__ = [
    "LIST_NAMES",
    "image_files",
    "image_path",
    "list_of",
    "row_image",
    "sidecar_text",
    "written_path",
]

LIST_NAMES = ("metadata.jsonl", "captions.jsonl", "metadata.csv")
"""A folder with one of these beside its images is read by it; the first that is there counts."""


def list_of(folder: Path) -> Path | None:
    """The list of images and captions in a folder, or `None` where there is none."""
    return next((folder / name for name in LIST_NAMES if (folder / name).is_file()), None)


def image_files(folder: Path) -> list[Path]:
    """Files beneath a folder that are images by their names, in the order of their paths."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)


def sidecar_text(image: Path) -> str | None:
    """The caption in the `.txt` file beside an image, or `None` where there is no such file."""
    text = image.with_suffix(".txt")
    return read_text(text).strip() if text.is_file() else None


def image_path(name: str, folder: str | Path, *, allow_urls: bool = False) -> str:
    """
    The image file that a row names.

    A relative path is one inside `folder`; it may not climb out of it by `..`, so that a list that
    came with its images names no others. An absolute path is taken as it stands: who writes one
    says openly which file of this machine is meant. A URL is fetched by nobody who did not ask.

    Args:
        name (`str`): What the row says.
        folder (`str` or `Path`): What relative paths are relative to.
        allow_urls (`bool`, *optional*, defaults to `False`): Whether a URL is passed on.

    Returns:
        `str`: The path, or the URL.

    Raises:
        `ValueError`: if the path leads out of the folder, or is a URL and those are not allowed.

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
            f"the image {name!r} is a URL, and URLs are not fetched. Download it and give its path."
        )
    if "\0" in name:
        raise ValueError(f"the image {name!r} is no path.")
    if os.path.normpath(name).split(os.sep)[0] == os.pardir:
        raise ValueError(
            f"the image {name!r} lies outside of {folder}. Name the folder that paths are relative "
            "to, or write absolute paths."
        )
    return str(Path(folder) / name)


def written_path(image: str | Path, file: Path) -> str:
    """
    How a file names an image: relative to it where the image lies beneath its folder, so that both
    can be moved together, absolute otherwise.

    Example:

    ```python
    >>> written_path("/data/photos/1.jpg", Path("/data/captions.jsonl"))
    'photos/1.jpg'
    >>> written_path("/pool/1.jpg", Path("/data/captions.jsonl"))
    '/pool/1.jpg'

    ```
    """
    path, folder = os.path.abspath(image), os.path.abspath(file.parent)
    inside = os.path.commonpath([path, folder]) == folder
    return os.path.relpath(path, folder) if inside else path


def row_image(
    row: Mapping[str, Any],
    folder: str | Path,
    columns: Sequence[str] = IMAGE_COLUMNS,
    *,
    allow_urls: bool = False,
) -> str | None:
    """
    The file of a row's image, or `None` where the row names none.

    Raises:
        `ValueError`: if what it names is no path that a row may name; see [`image_path`].
    """
    name = first_of(row, columns)
    if name is None or name == "":
        return None
    if not isinstance(name, str):
        raise ValueError(f"the image is a {type(name).__name__}, not a path.")
    return image_path(name, folder, allow_urls=allow_urls)

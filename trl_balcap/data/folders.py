"""The lists, images and captions in a folder, and the paths that files use for them."""

import os
from collections.abc import Iterator
from pathlib import Path

from trl_balcap.data.images import IMAGE_SUFFIXES
from trl_balcap.data.rows import read_text

__all__ = [
    "LIST_NAMES",
    "check_out_folder",
    "image_files",
    "list_of",
    "sidecar_text",
    "written_path",
]

LIST_NAMES = ("metadata.jsonl", "captions.jsonl", "metadata.csv")
"""If a folder has one of these lists, its rows are used; the first one found wins."""


def check_out_folder(out: str | Path) -> None:
    """
    Check early that results can be written to a folder.

    Raises:
        `ValueError`: if `out`, or one of its parents, is a file.
    """
    there = next(path for path in (Path(out), *Path(out).absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(
            f"{there} is a file, but results need a folder. Choose another with --out."
        )


def list_of(folder: Path, *, but: str | Path | None = None) -> Path | None:
    """The list of images and captions in a folder, other than `but`; `None` if there is none."""
    found = (folder / name for name in LIST_NAMES if (folder / name).is_file())
    return next((file for file in found if but is None or not _is_same(file, Path(but))), None)


def _is_same(file: Path, other: Path) -> bool:
    return other.exists() and file.samefile(other)


def image_files(folder: Path) -> Iterator[Path]:
    """Files below a folder with image extensions, sorted by path, one folder at a time."""
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    for name, is_folder in names:
        if is_folder:
            yield from image_files(folder / name)
        elif os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
            yield folder / name


def sidecar_text(image: Path) -> str | None:
    """The caption in the `.txt` file next to an image, or `None` if there is no such file."""
    text = image.with_suffix(".txt")
    return read_text(text).strip() if text.is_file() else None


def written_path(image: str | Path, file: Path) -> str:
    """
    The path to write into a file for an image: relative if the image is below the file's folder, so
    that both can be moved together, else absolute.

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

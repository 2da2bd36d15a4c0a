"""Which files a folder holds, lists, images and captions, and how a file names them."""

import os
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
"""A folder with one of these beside its images is read by it; the first that is there counts."""


def check_out_folder(out: str | Path) -> None:
    """
    Say at once that results cannot go to a folder.

    Raises:
        `ValueError`: if `out`, or what it would lie in, is a file.
    """
    there = next(path for path in (Path(out), *Path(out).absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is a file, and results go to a folder. Name another with --out.")


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

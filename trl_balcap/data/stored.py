"""Datasets that contain their images: reads the rows, and writes the images to disk."""

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, UnidentifiedImageError

from trl_balcap.data.folders import image_files

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "BUILDERS",
    "finding",
    "is_dataset",
    "is_saved",
    "load_rows",
    "written_images",
]

_OF_DATASETS = ("dataset_info.json", "dataset_dict.json")
BUILDERS = {".parquet": "parquet", ".tar": "webdataset"}
"""Builder of `datasets` for a file, by its extension."""
_LONGEST = 80  # characters of an id's part in a file name


def is_dataset(source: str | Path) -> bool:
    """
    Whether a source is a dataset (saved, in Parquet, in WebDataset shards, or on the Hub), not a
    folder of images. `*` stands for several Parquet files or shards.
    """
    path = Path(source)
    if path.is_dir():
        # A folder of images may have an archive beside them.
        return (
            is_saved(path)
            or any(path.rglob("*.parquet"))
            or (any(path.rglob("*.tar")) and not any(image_files(path)))
        )
    name = str(source)
    if path.suffix or path.exists():
        return path.suffix in BUILDERS
    is_path = name.startswith((".", "/", "~")) or Path(name.partition("/")[0]).is_dir()
    return name.count("/") == 1 and not is_path


def is_saved(path: Path) -> bool:
    """Whether a folder was written by `Dataset.save_to_disk`."""
    return any((path / name).is_file() for name in _OF_DATASETS)


def load_rows(source: str | Path, split: str) -> "Dataset":
    """
    The rows of one split of a dataset.

    Args:
        source (`str` or `Path`):
            A folder written by `Dataset.save_to_disk`, a Parquet file or a folder of them, or a
            name on the Hub, which requires network access.
        split (`str`):
            The split. For a dataset saved without splits, selects the rows with this "domain",
            unless it is "all" or "train".

    Raises:
        `FileNotFoundError`: if the dataset cannot be loaded from the Hub.
        `ValueError`: if there is no such split.
    """
    import datasets  # takes a second, and image files do not need it

    path = Path(source)
    if path.is_dir() and is_saved(path):
        loaded = datasets.load_from_disk(str(path))
        if isinstance(loaded, datasets.Dataset):
            if split in ("all", "train") or "domain" not in loaded.column_names:
                return loaded
            wanted = [row for row, said in enumerate(loaded["domain"]) if said == split]
            return loaded.select(wanted)
        if split not in loaded:
            have = ", ".join(map(str, loaded))
            raise ValueError(f"{path} has no split {split!r}, only {have}.")
        return loaded[split]
    with finding(source, split):
        if path.suffix in BUILDERS:
            dataset = datasets.load_dataset(
                BUILDERS[path.suffix], data_files=str(path), split="train"
            )
        else:
            dataset = datasets.load_dataset(str(source), split=split)
    assert isinstance(dataset, datasets.Dataset)
    return dataset


@contextlib.contextmanager
def finding(source: str | Path, split: str) -> Iterator[None]:
    """Say in one line that a dataset, or its split, cannot be found."""
    try:
        yield
    except (OSError, ValueError) as error:  # no such dataset, no network, no such split
        said = str(error).strip().partition("\n")[0]
        raise FileNotFoundError(
            f"There is no dataset {source} here, and the Hub gave none (split {split!r}): {said}"
        ) from error


def written_images(images: Sequence[Any], folder: Path, identity: str) -> list[Path]:
    """
    Write the images stored in a row to files named after the row's id, and return the files. A
    slash in the id makes a folder.

    Args:
        images (`Sequence[bytes or str or None]`):
            The content of each image's file, or its path, which is returned unchanged.
        folder (`Path`):
            Folder for the files.
        identity (`str`):
            The id.
    """
    stem = _file_stem(identity)
    return [
        _written(image, folder, f"{stem}-{place}" if len(images) > 1 else stem)
        for place, image in enumerate(images)
    ]


def _file_stem(identity: str) -> str:
    """A file name for an id, without suffix. Ids that differ have names that differ."""
    parts = [re.sub(r"[^\w.+-]+", "_", part)[:_LONGEST] for part in identity.split("/")]
    parts = [part if part.strip(".") else "_" for part in parts]
    stem = "/".join(parts)
    if stem == identity:
        return stem
    return f"{stem}-{hashlib.sha256(identity.encode('utf-8', 'replace')).hexdigest()[:12]}"


def _written(image: Any, folder: Path, stem: str) -> Path:
    """Write one stored image to a file; the path of an existing file is returned unchanged."""
    if isinstance(image, str):
        return Path(image)
    if image is None:
        return folder / f"{stem}.missing"  # reported when opened
    if not isinstance(image, bytes):
        raise ValueError(f"the image is a {type(image).__name__}, not a path or a file's content.")
    file = folder / f"{stem}.{_kind(image)}"
    if not file.is_file() or file.stat().st_size != len(image):
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(file.name + ".part")
        part.write_bytes(image)
        part.replace(file)
    return file


def _kind(content: bytes) -> str:
    """The file extension for an image with this content."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            kind = (image.format or "bin").lower()
    except UnidentifiedImageError:  # reported when it is opened
        return "bin"
    return "jpg" if kind == "jpeg" else kind

"""Datasets that contain their images: reads the rows, and writes the images to disk."""

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, UnidentifiedImageError

from trl_balcap.data.opened import stored

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["is_dataset", "load_rows", "stored_images"]

_OF_DATASETS = ("dataset_info.json", "dataset_dict.json")


def is_dataset(source: str | Path) -> bool:
    """Whether a source is a dataset (saved, in Parquet, or on the Hub), not a folder of images."""
    path = Path(source)
    if path.is_dir():
        saved = any((path / name).is_file() for name in _OF_DATASETS)
        return saved or any(path.rglob("*.parquet"))
    name = str(source)
    if path.suffix or path.exists():
        return path.suffix == ".parquet"
    is_path = name.startswith((".", "/", "~")) or Path(name.partition("/")[0]).is_dir()
    return name.count("/") == 1 and not is_path


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
    if path.is_dir() and any((path / name).is_file() for name in _OF_DATASETS):
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
    try:
        if path.suffix == ".parquet":
            dataset = datasets.load_dataset("parquet", data_files=str(path), split="train")
        else:
            dataset = datasets.load_dataset(str(source), split=split)
    except (OSError, ValueError) as error:  # no such dataset, no network, no such split
        said = str(error).strip().partition("\n")[0]
        raise FileNotFoundError(
            f"There is no dataset {source} here, and the Hub gave none (split {split!r}): {said}"
        ) from error
    assert isinstance(dataset, datasets.Dataset)
    return dataset


def stored_images(dataset: "Dataset", folder: str | Path) -> Iterator[list[Path]]:
    """
    Write the images of a dataset's rows to files, with the exact bytes stored, and yield the files
    of each row. An existing file of the same size is kept.

    Args:
        dataset (`datasets.Dataset`):
            Rows with "image" or "images", and an "id", used to name the files.
        folder (`str` or `Path`):
            Folder for the files.

    Raises:
        `ValueError`: if there is no image column.
    """
    column = next((name for name in ("images", "image") if name in dataset.column_names), None)
    if column is None:
        raise ValueError(
            f"The dataset has no column of images: its columns are "
            f"{', '.join(dataset.column_names)}."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ids = dataset["id"] if "id" in dataset.column_names else range(len(dataset))
    for name, value in zip(ids, stored(dataset, column), strict=True):
        images = value.as_py()
        if column == "image":
            images = [images]
        stem = re.sub(r"[^\w.+-]+", "_", str(name))
        several = len(images or ()) > 1
        yield [
            _written(image, folder, f"{stem}-{place}" if several else stem)
            for place, image in enumerate(images or ())
        ]


def _written(image: Any, folder: Path, stem: str) -> Path:
    """Write one stored image to a file; the path of an existing file is returned unchanged."""
    if isinstance(image, str):
        return Path(image)
    content = image.get("bytes") if isinstance(image, Mapping) else None
    if content is None:
        path = image.get("path") if isinstance(image, Mapping) else None
        return folder / f"{stem}.missing" if path is None else Path(path)  # reported when opened
    file = folder / f"{stem}.{_kind(content)}"
    if not file.is_file() or file.stat().st_size != len(content):
        part = file.with_name(file.name + ".part")
        part.write_bytes(content)
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

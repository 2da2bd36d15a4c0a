"""Where rows come from: a file, a folder, a saved dataset, the Hub."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from trl_balcap.data.folders import image_files, list_of, row_image
from trl_balcap.data.jsonl import BadRowsError
from trl_balcap.data.tables import TABLE_SUFFIXES, read_rows
from trl_balcap.data.text import read_text

__all__ = ["Rows", "read_source"]


class Rows:
    """
    Names a row of a source as its user finds it: by its place in the file, or by its number.

    Args:
        source (`str`): What the user gave.
        places (`Sequence[str]`, *optional*): Place of each row, such as "captions.jsonl:3".
    """

    def __init__(self, source: str, places: Sequence[str] | None = None):
        self.source = source
        self._places = places

    def __call__(self, row: int) -> str:
        return self._places[row] if self._places is not None else f"row {row} of {self.source}"

    def column(self, what: str, asked: Sequence[str], columns: Sequence[str]) -> str:
        """
        The first of the columns `asked` for that is there.

        Raises:
            `ValueError`: If none of them is.
        """
        found = next((name for name in asked if name in columns), None)
        if found is not None:
            return found
        have = f"its columns are {', '.join(columns)}"
        if len(asked) == 1:
            raise ValueError(f"{self.source} has no column {asked[0]!r} for {what}_column: {have}.")
        raise ValueError(
            f"{self.source} has no {what} column, none of {', '.join(asked)}: {have}. Name it with "
            f"{what}_column."
        )


def read_source(
    path: str | Path,
    *,
    split: str | None,
    image_columns: Sequence[str],
    image_folder: str | Path | None,
    allow_urls: bool,
) -> tuple[datasets.Dataset, Rows]:
    """
    The rows of a source, with a column `image` of paths or stored images.

    Args:
        path, split, image_folder, allow_urls:
            As for [`load_captions`].
        image_columns (`Sequence[str]`):
            Where the image is looked for.

    Raises:
        `FileNotFoundError`: If nothing is at `path`.
        `ValueError`: If it is no source, or has no such split or column.
    """
    reader = _Reader(image_columns, image_folder, allow_urls)
    source = Path(path)
    if source.is_file():
        _no_split(source, split)
        return reader.file(source)
    if source.is_dir():
        return reader.folder(source, split or "train")
    name = str(path)
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or source.suffix:
        raise FileNotFoundError(
            f"There is nothing at {name}. Give a JSONL file, a folder with images and captions, or "
            "the name of a dataset on the Hub (owner/name)."
        )
    return reader.named(datasets.load_dataset(name, split=split or "train"), name)


def _no_split(source: Path, split: str | None) -> None:
    if split not in (None, "train"):
        raise ValueError(
            f"{source} has no split {split!r}. Give that split's own file or folder as the path, "
            "or leave split out."
        )


class _Reader:
    def __init__(
        self, image_columns: Sequence[str], image_folder: str | Path | None, allow_urls: bool
    ):
        self.image_columns = image_columns
        self.image_folder = image_folder
        self.allow_urls = allow_urls

    def file(self, file: Path) -> tuple[datasets.Dataset, Rows]:
        suffix = file.suffix.lower()
        if suffix == ".parquet":
            return self.named(datasets.Dataset.from_parquet(str(file)), str(file))
        if suffix in TABLE_SUFFIXES:
            return self.table(file)
        raise ValueError(
            f"{file} holds no captions that can be read: give one of {', '.join(TABLE_SUFFIXES)}, "
            ".parquet, or a folder."
        )

    def folder(self, folder: Path, split: str) -> tuple[datasets.Dataset, Rows]:
        if (folder / "dataset_dict.json").is_file():
            saved = datasets.load_from_disk(folder)
            if split not in saved:
                have = ", ".join(map(str, saved))
                raise ValueError(f"{folder} has no split {split!r}, only {have}.")
            return self.named(saved[split], f"{folder}, split {split}")
        if (folder / "state.json").is_file():
            _no_split(folder, split)
            return self.named(datasets.load_from_disk(folder), str(folder))
        if (folder / split).is_dir():
            return self.folder(folder / split, "train")
        if (folder / f"{split}.jsonl").is_file():
            return self.table(folder / f"{split}.jsonl")
        listed = list_of(folder)
        if listed is not None:
            _no_split(folder, split)
            return self.table(listed)
        if any(folder.rglob("*.parquet")):
            return self.named(datasets.load_dataset(str(folder), split=split), str(folder))
        _no_split(folder, split)
        return self.sidecars(folder)

    def named(self, dataset: Any, source: str) -> tuple[datasets.Dataset, Rows]:
        rows = Rows(source)
        column = rows.column("image", self.image_columns, dataset.column_names)
        dataset = dataset.with_format(None)
        if column != "image":
            kept = [other for other in dataset.column_names if other != "image"]
            dataset = dataset.select_columns(kept).rename_column(column, "image")
        return dataset, rows

    def sidecars(self, folder: Path) -> tuple[datasets.Dataset, Rows]:
        images = image_files(folder)
        if not images:
            raise ValueError(
                f"{folder} holds no captions: it needs a metadata.jsonl or captions.jsonl, or "
                "images with a .txt file of the same name beside each."
            )
        columns: dict[str, list[Any]] = {
            "image": [str(file) for file in images],
            "file_name": [file.relative_to(folder).as_posix() for file in images],
        }
        texts = [file.with_suffix(".txt") for file in images]
        if any(text.is_file() for text in texts):
            # A missing file reads as no reference, and is named with the empty ones.
            columns["reference"] = [
                read_text(text).strip() if text.is_file() else "" for text in texts
            ]
        return datasets.Dataset.from_dict(columns), Rows(str(folder), list(map(str, images)))

    def table(self, file: Path) -> tuple[datasets.Dataset, Rows]:
        found = read_rows(file)
        if not found:
            raise ValueError(f"{file} is empty: it must hold one row a line.")
        places = [place for place, _ in found]
        rows = Rows(str(file), places)
        names = list(dict.fromkeys(itertools.chain.from_iterable(row for _, row in found)))
        rows.column("image", self.image_columns, names)
        columns = {name: [row.get(name) for _, row in found] for name in names}
        # The path as it was written rides along under its own name.
        columns["image"] = self._images(file, found)
        for name, values in columns.items():
            try:
                pa.array(values)
            except pa.ArrowException as error:
                raise ValueError(
                    f"{file}: the values of {name!r} are not all of one kind ({error}). A column "
                    "has one type: write them all as text, say."
                ) from error
        return datasets.Dataset.from_dict(columns), rows

    def _images(self, file: Path, found: Sequence[tuple[str, dict[str, Any]]]) -> list[str | None]:
        folder = self.image_folder or file.parent
        images: list[str | None] = []
        problems: list[str] = []
        for place, row in found:
            try:
                images.append(
                    row_image(row, folder, self.image_columns, allow_urls=self.allow_urls)
                )
            except ValueError as error:
                problems.append(f"{place}: {error}")
        if problems:
            raise BadRowsError(problems)
        return images

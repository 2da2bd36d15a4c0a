"""Loads rows from a file, a folder, a saved dataset, or the Hub."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetGenerationError
from PIL import Image

from trl_balcap.data.checks import raise_for
from trl_balcap.data.folders import image_files, list_of, sidecar_text
from trl_balcap.data.formats import known_dataset
from trl_balcap.data.images import IMAGE_SUFFIXES
from trl_balcap.data.opened import stored, with_column
from trl_balcap.data.rows import TABLE_SUFFIXES, BadRowsError, read_table
from trl_balcap.data.scored import image_path, row_image
from trl_balcap.data.stored import BUILDERS

__all__ = ["Rows", "read_source"]

logger = logging.getLogger(__name__)

_KNOWN_SUFFIXES = (*TABLE_SUFFIXES, *BUILDERS, *IMAGE_SUFFIXES, ".txt", ".zip")


class Rows:
    """
    Names rows so that users can find them: by their place in the file, or by number.

    Args:
        source (`str`): The source, as given by the user.
        places (`Sequence[str]`, *optional*): Place of each row, such as "captions.jsonl:3".
    """

    def __init__(self, source: str, places: Sequence[str] | None = None):
        self.source = source
        self._places = places

    def __call__(self, row: int) -> str:
        return self._places[row] if self._places is not None else f"row {row} of {self.source}"

    def column(self, what: str, asked: Sequence[str], columns: Sequence[str]) -> str:
        """
        The first column of `asked` that exists.

        Raises:
            `ValueError`: if none of them exists.
        """
        found = next((name for name in asked if name in columns), None)
        if found is not None:
            return found
        have = f"its columns are {', '.join(columns)}"
        if len(asked) == 1:
            raise ValueError(f"{self.source} has no column {asked[0]!r} for {what}_column: {have}.")
        without = (
            ", write references with `trl-balcap recaption`, or load only images with "
            "references=False (then train without recall, with length_gate_tokens or "
            "length_gate='none')"
        )
        raise ValueError(
            f"{self.source} has no {what} column ({', '.join(asked)}): {have}. Name it with "
            f"{what}_column{without if what == 'reference' else ''}."
        )


def read_source(
    source: Any,
    *,
    split: str | None,
    name: str | None,
    image_columns: Sequence[str],
    image_folder: str | Path | None,
    allow_urls: bool,
) -> tuple[datasets.Dataset, Rows]:
    """
    Load the rows of a source, with a column `image` of paths or stored images.

    Args:
        source, split, name, image_folder, allow_urls:
            As for [`load_captions`].
        image_columns (`Sequence[str]`):
            Columns to look for the image in.

    Raises:
        `FileNotFoundError`: if `source` does not exist.
        `ValueError`: if it is not a valid source, or has no such split or column.
    """
    if image_folder is not None and not Path(image_folder).is_dir():
        raise FileNotFoundError(f"Image folder not found: {image_folder}.")
    reader = _Reader(image_columns, image_folder, allow_urls)
    if not isinstance(source, str | PathLike):
        return reader.given(source, split)
    path = Path(source)
    if name is not None and path.exists():
        raise ValueError(
            f"name={name!r} is only for datasets on the Hub, but {path} is a local path."
        )
    if path.is_file():
        _no_split(path, split)
        return reader.file(path)
    if path.is_dir():
        return reader.folder(path, split or "train")
    if path.exists():
        raise ValueError(f"{path} is neither a file nor a folder.")
    return reader.hub(str(source), split or "train", name)


def _no_split(source: Path, split: str | None) -> None:
    if split not in (None, "train"):
        raise ValueError(
            f"{source} has no split {split!r}. Pass the path of that split's file or folder, or "
            "leave split out."
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
        if suffix in TABLE_SUFFIXES:
            return self.table(file)
        builder = BUILDERS.get(suffix)
        if builder is None:
            raise ValueError(
                f"{file} is not a supported file: use {', '.join(TABLE_SUFFIXES)}, "
                f"{', '.join(BUILDERS)}, or a folder of images."
            )
        return self.built(builder, [file], str(file), file.parent)

    def folder(self, folder: Path, split: str) -> tuple[datasets.Dataset, Rows]:
        if (folder / "dataset_dict.json").is_file():
            saved = datasets.load_from_disk(folder)
            if split not in saved:
                have = ", ".join(map(str, saved))
                raise ValueError(f"{folder} has no split {split!r}, only {have}.")
            return self.named(saved[split], f"{folder}, split {split}", folder)
        if (folder / "state.json").is_file():
            _no_split(folder, split)
            return self.named(datasets.load_from_disk(folder), str(folder), folder)
        if (folder / split).is_dir():
            return self.folder(folder / split, "train")
        if (folder / f"{split}.jsonl").is_file():
            return self.table(folder / f"{split}.jsonl")
        listed = list_of(folder)
        if listed is not None:
            _no_split(folder, split)
            return self.table(listed)
        if any(folder.rglob("*.parquet")):
            return self.named(datasets.load_dataset(str(folder), split=split), str(folder), folder)
        _no_split(folder, split)
        shards = sorted(folder.rglob("*.tar"))
        if shards:
            return self.built("webdataset", shards, str(folder), folder)
        return self.sidecars(folder)

    def built(
        self, builder: str, files: Sequence[Path], source: str, folder: Path
    ) -> tuple[datasets.Dataset, Rows]:
        try:
            dataset = datasets.load_dataset(builder, data_files=list(map(str, files)))["train"]
        except (OSError, ValueError, DatasetGenerationError) as error:
            cause = error.__cause__ or error
            raise ValueError(f"{source} cannot be read as {builder}: {cause}") from error
        return self.named(dataset, source, folder)

    def hub(self, repo: str, split: str, name: str | None) -> tuple[datasets.Dataset, Rows]:
        """Load a dataset from the Hub, if the name can be one and does not look like a path."""
        nothing = (
            f"File or folder not found: {repo}. Pass a JSONL file, a folder with images and "
            "captions, or the name of a dataset on the Hub (owner/name)."
        )
        owner = repo.partition("/")[0]
        is_name = repo.count("/") == 1 and not repo.startswith((".", "/", "~"))
        if not is_name or Path(repo).suffix in _KNOWN_SUFFIXES or Path(owner).is_dir():
            raise FileNotFoundError(nothing)
        logger.warning("No local folder %s; looking for a dataset %s on the Hub.", repo, repo)
        try:
            dataset = datasets.load_dataset(repo, name, split=split)
        except (OSError, ValueError) as error:  # no such dataset, no network, no such split or name
            said = str(error).strip().partition("\n")[0]
            raise FileNotFoundError(f"{nothing} The Hub answered: {said}") from error
        return self.named(dataset, repo, None)

    def given(self, source: Any, split: str | None) -> tuple[datasets.Dataset, Rows]:
        """A dataset, rows or images in memory."""
        if isinstance(source, datasets.IterableDataset | datasets.IterableDatasetDict):
            raise ValueError(
                "load_captions checks every row before training, which an IterableDataset does not "
                "allow. Pass it directly to the trainer, with the columns prompt, image and "
                "reference, or load it with streaming=False."
            )
        if isinstance(source, datasets.DatasetDict):
            split = split or "train"
            if split not in source:
                have = ", ".join(map(str, source))
                raise ValueError(f"The DatasetDict has no split {split!r}, only {have}.")
            source, split = source[split], None
        if isinstance(source, list | tuple) and source:
            source = datasets.Dataset.from_list([self._storable(row) for row in source])
        if not isinstance(source, datasets.Dataset):
            raise ValueError(
                "load_captions takes a file, a folder, the name of a dataset, a Dataset, or a list "
                f"of rows or images; got {type(source).__name__}."
            )
        _no_split(Path("The dataset"), split)
        return self.named(source, "the dataset", Path())

    def named(
        self, dataset: Any, source: str, folder: Path | None
    ) -> tuple[datasets.Dataset, Rows]:
        rows = Rows(source)
        dataset = known_dataset(dataset.with_format(None))
        columns = dataset.column_names
        if "images" in columns and not any(name in columns for name in self.image_columns):
            dataset = _single_images(dataset, rows)
        column = rows.column("image", self.image_columns, dataset.column_names)
        if column != "image":
            kept = [other for other in dataset.column_names if other != "image"]
            dataset = dataset.select_columns(kept).rename_column(column, "image")
        if dataset.features["image"] == datasets.Value("string"):
            found = [
                (rows(row), {"image": p.as_py()}) for row, p in enumerate(stored(dataset, "image"))
            ]
            folder = Path(self.image_folder) if self.image_folder is not None else folder
            if folder is None:
                raise ValueError(
                    f"The images of {source} are paths. Set the folder that they are relative to "
                    "with image_folder."
                )
            images: Any = self._images(folder, found, ("image",))
            dataset = with_column(dataset, "image", images, instead_of="image")
        return dataset, rows

    def sidecars(self, folder: Path) -> tuple[datasets.Dataset, Rows]:
        images = list(image_files(folder))
        if not images:
            raise ValueError(
                f"{folder} contains no captions: it needs a metadata.jsonl or captions.jsonl, or "
                "a .txt file of the same name next to each image."
            )
        names = [file.relative_to(folder).as_posix() for file in images]
        found = [(str(file), {"image": name}) for file, name in zip(images, names, strict=True)]
        columns: dict[str, list[Any]] = {
            "image": self._images(folder, found, ("image",)),
            "file_name": names,
        }
        texts = [sidecar_text(file) for file in images]
        if any(text is not None for text in texts):
            # A missing file gives an empty reference, and is reported with the other empty ones.
            columns["reference"] = [text or "" for text in texts]
        return datasets.Dataset.from_dict(columns), Rows(str(folder), list(map(str, images)))

    def table(self, file: Path) -> tuple[datasets.Dataset, Rows]:
        found = read_table(file)
        if not found:
            raise ValueError(f"{file} is empty: it must have one row per line.")
        places = [place for place, _ in found]
        rows = Rows(str(file), places)
        names = list(dict.fromkeys(itertools.chain.from_iterable(row for _, row in found)))
        rows.column("image", self.image_columns, names)
        columns = {name: [row.get(name) for _, row in found] for name in names}
        # Keep the original path under its own column name.
        folder = Path(self.image_folder) if self.image_folder is not None else file.parent
        columns["image"] = self._images(folder, found, self.image_columns)
        for name, values in columns.items():
            try:
                pa.array(values)
            except pa.ArrowException as error:
                raise ValueError(
                    f"{file}: the values of {name!r} have different types ({error}). Write them "
                    "all as strings, for example."
                ) from error
        return datasets.Dataset.from_dict(columns), rows

    def _storable(self, row: Any) -> dict[str, Any]:
        """A row, or an image as a row, with an image that Arrow can store."""
        row = row if isinstance(row, Mapping) else {"image": row}
        if "image" not in row:
            return dict(row)
        image = row["image"]
        if isinstance(image, PathLike | str):
            path = image_path(fspath(image), self.image_folder or "", allow_urls=self.allow_urls)
            image = {"bytes": None, "path": path}
        elif isinstance(image, bytes):
            image = {"bytes": image, "path": None}
        elif isinstance(image, Image.Image):
            image = datasets.Image().encode_example(image)
        elif not isinstance(image, Mapping):
            raise ValueError(
                f"A list for load_captions must contain images, paths or rows, got {image!r}."
            )
        return {**row, "image": image}

    def _images(
        self, folder: Path, found: Sequence[tuple[str, Mapping[str, Any]]], columns: Sequence[str]
    ) -> list[str | None]:
        images: list[str | None] = []
        problems: list[str] = []
        for place, row in found:
            try:
                images.append(row_image(row, folder, columns, allow_urls=self.allow_urls))
            except ValueError as error:
                problems.append(f"{place}: {error}")
        if problems:
            raise BadRowsError(problems)
        return images


def _single_images(dataset: Any, rows: Rows) -> datasets.Dataset:
    """Replace the column `images`, with one image per row, by `image`."""
    images = [value.as_py() for value in stored(dataset, "images")]
    raise_for(
        (
            f"{rows(row)}: {len(found or ())} images"
            for row, found in enumerate(images)
            if not found or len(found) != 1
        ),
        f"Every row of {rows.source} needs exactly one image",
        "Leave these rows out, or pass the dataset directly to the trainer.",
    )
    features = datasets.Image(decode=False)
    single: Any = [found[0] for found in images]
    dataset = with_column(dataset, "image", single, instead_of="images")
    return dataset if isinstance(single[0], str) else dataset.cast_column("image", features)

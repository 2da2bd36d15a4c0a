"""
A captioning dataset from what users have: a JSONL file, a folder of images, or a `datasets` name.

Two public functions. [`load_captions`] gives the columns that training reads (`prompt`, `image`,
`reference`); [`check_columns`] says, before a model is loaded, what a dataset lacks for the rewards
it is to be trained with.
"""

import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from PIL import Image

from trl_balcap.data.images import (
    DEFAULT_MAX_PIXELS,
    bounded_image,
    bounded_size,
    image_problem,
)

__all__ = ["DEFAULT_PROMPT", "check_columns", "load_captions"]

DEFAULT_PROMPT = "Describe the image in detail."

_IMAGE_COLUMNS = ("image", "file_name", "image_path")
_REFERENCE_COLUMNS = ("reference", "caption", "text")
_IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_LISTS = ("metadata.jsonl", "captions.jsonl")
# Names that TRL's trainers give to a reward function themselves: a column of that name breaks the
# call or is lost.
_TAKEN = (
    "completion",
    "completions",
    "completion_ids",
    "environments",
    "images",
    "log_extra",
    "log_metric",
    "prompts",
    "trainer_state",
)
_THREADS = 16  # reading headers waits for the disk, not for the CPU
_CHUNK = 200
_NAMED_PROBLEMS = 5


def load_captions(
    path: str | Path,
    *,
    split: str | None = None,
    prompt: str | None = None,
    image_column: str | None = None,
    reference_column: str | None = None,
    references: bool = True,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> datasets.Dataset:
    """
    Loads images with reference captions as the dataset that [`BalCapTrainer`] and the rewards read.

    `path` is one of

    - a JSONL file, one object a line, with the image's path relative to that file;
    - a folder with `metadata.jsonl` or `captions.jsonl` in it (`datasets`' "imagefolder" layout),
      or with one `.txt` file of the same name beside each image;
    - a dataset saved by `Dataset.save_to_disk`, or a folder of parquet files;
    - the name of a dataset on the Hub (the only source that needs a network).

    Images stay where they are. A row's image is opened when the row is read, turned upright by its
    EXIF orientation, converted to RGB (transparency on white) and bounded by
    [`~images.bounded_size`]. Before that, every image is checked: header, sides, and whether the
    file ends where its format ends ([`~images.image_problem`]).

    Args:
        path (`str` or `Path`):
            File, folder or dataset name.
        split (`str`, *optional*):
            Split to load. In a folder, a sub-folder or a JSONL file of that name. `None` is the
            whole of a source that has no splits, and `"train"` of one that has.
        prompt (`str`, *optional*):
            The user's message. `None` takes each row's own `prompt` column, and where there is none
            `"Describe the image in detail."`.
        image_column (`str`, *optional*):
            Column with the image or its path. `None` is the first there is of `image`, `file_name`,
            `image_path`.
        reference_column (`str`, *optional*):
            Column with the reference caption. `None` is the first there is of `reference`,
            `caption`, `text`.
        references (`bool`, *optional*, defaults to `True`):
            `False` loads images without captions, to caption them or to train without recall and
            without a gate.
        max_pixels (`int`, *optional*, defaults to `401408`):
            Bound on an image's width times height; 401408 is 512 visual tokens of Qwen2.5-VL.

    Returns:
        `datasets.Dataset`: Columns `prompt` (conversational), `image` (`PIL.Image.Image` when
            read), `reference`, and
        every other column of the source.

    Raises:
        FileNotFoundError: Nothing is at `path`.
        ValueError: A missing column, an empty reference, an image that cannot be read, a column
            that TRL does not allow. The message names the row and the path, and what to do.

    Example:
        >>> import json, pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> Image.new("L", (64, 48)).save(folder / "night.png")
        >>> _ = (folder / "captions.jsonl").write_text(
        ...     json.dumps({"image": "night.png", "caption": "Nothing."})
        ... )
        >>> row = load_captions(folder)[0]
        >>> row["prompt"], row["image"].mode, row["reference"]
        ([{'role': 'user', 'content': 'Describe the image in detail.'}], 'RGB', 'Nothing.')
    """
    bounded_size(1, 1, max_pixels)  # a bad bound is an error now, not at the first row
    dataset, rows = _read(path, split, image_column)
    dataset = _with_image(dataset, rows)
    if references:
        dataset = _with_reference(dataset, reference_column, rows)
    dataset = _with_prompt(dataset, prompt, rows)
    taken = [name for name in _TAKEN if name in dataset.column_names]
    if taken:
        raise ValueError(
            f"{path} has the columns {', '.join(taken)}: TRL keeps these names for itself. Rename "
            "them."
        )
    first = [name for name in ("prompt", "image", "reference") if name in dataset.column_names]
    rest = [name for name in dataset.column_names if name not in first]
    dataset = dataset.select_columns(first + rest)
    return dataset.with_transform(functools.partial(_bounded_batch, max_pixels=max_pixels))


def check_columns(
    dataset: Any,
    needs: Mapping[str, Sequence[str]],
    *,
    name: str = "train_dataset",
    first_rows: int = 8,
) -> None:
    """
    Says what `dataset` lacks for the rewards that it is to be trained with. Reads no model and
    decodes no sound image, so it belongs before both are loaded.

    A `Dataset` is checked in whole: references in no time, images at 0.2 ms each on a local
    disk (20 s for 100,000). Of anything else that gives rows (an `IterableDataset`, a list)
    the first `first_rows` are read.

    Args:
        dataset (`Dataset`, `IterableDataset` or iterable of rows):
            What is given to the trainer.
        needs (`Mapping[str, Sequence[str]]`):
            Who needs which columns, e.g. `{"recall_reward": ("reference",)}`. `"image"` is also met
            by `"images"`.
        name (`str`, *optional*, defaults to `"train_dataset"`):
            What the message calls the dataset.
        first_rows (`int`, *optional*, defaults to `8`):
            How many rows of an iterable are read.

    Raises:
        ValueError: A column is missing, a reference is empty or no text, an image is missing or
            unreadable. The message names the reward, the row and the path, and the way out.

    Example:
        >>> rows = datasets.Dataset.from_dict({"prompt": ["Describe."], "reference": [" "]})
        >>> check_columns(rows, {"recall_reward": ("reference",)})
        Traceback (most recent call last):
        ...
        ValueError: recall_reward needs a reference in every row of train_dataset, and 1 has none:
          row 0: the reference is empty
        Leave these rows out, or write a reference caption for them.
    """
    whole = isinstance(dataset, datasets.Dataset)
    rows = [] if whole else _first_rows(dataset, first_rows, name)
    columns = dataset.column_names if whole else list(rows[0]) if rows else []
    asked: dict[str, str] = {}  # column -> who needs it
    for who, needed in needs.items():
        for column in needed:
            found = _column_for(column, columns)
            if found is None:
                raise ValueError(_missing(who, column, columns, name))
            asked[found] = f"{asked[found]}, {who}" if found in asked else who
    for column, who in asked.items():
        values = _stored(dataset, column) if whole else (row.get(column) for row in rows)
        if column == "reference":
            _raise_for(
                _reference_problems(values, lambda row: f"row {row}"),
                f"{who} needs a reference in every row of {name}",
                "Leave these rows out, or write a reference caption for them.",
            )
        elif column in ("image", "images"):
            _raise_for(
                _image_problems(values, lambda row: f"row {row}"),
                f"{who} needs an image in every row of {name}",
                "Leave these rows out, or mend the files.",
            )


# --- where rows come from ---


class _Rows:
    """Names a row of a source as its user finds it: by its number, and its line in a JSONL file."""

    def __init__(self, source: str, lines: Sequence[int] | None = None) -> None:
        self.source = source
        self.lines = lines

    def __call__(self, row: int) -> str:
        if self.lines is not None:
            return f"row {row} ({self.source}, line {self.lines[row]})"
        return f"row {row} ({self.source})"


def _read(
    path: str | Path, split: str | None, image_column: str | None
) -> tuple[datasets.Dataset, _Rows]:
    """The rows of the source, with a column `image` of paths or images."""
    source = Path(path)
    if source.is_file():
        _no_split(source, split)
        return _read_jsonl(source, image_column)
    if source.is_dir():
        return _read_folder(source, split or "train", image_column)
    name = str(path)
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or source.suffix:
        raise FileNotFoundError(
            f"There is nothing at {name}. Give a JSONL file, a folder with images and captions, or "
            "the name of a dataset on the Hub (owner/name)."
        )
    return _named(datasets.load_dataset(name, split=split or "train"), image_column, name)


def _no_split(source: Path, split: str | None) -> None:
    if split not in (None, "train"):
        raise ValueError(
            f"{source} has no split {split!r}. Give that split's own file or folder as the path, "
            "or leave split out."
        )


def _read_folder(
    folder: Path, split: str, image_column: str | None
) -> tuple[datasets.Dataset, _Rows]:
    if (folder / "dataset_dict.json").is_file():
        saved = datasets.load_from_disk(folder)
        if split not in saved:
            raise ValueError(f"{folder} has no split {split!r}, only {', '.join(map(str, saved))}.")
        return _named(saved[split], image_column, f"{folder}, split {split}")
    if (folder / "state.json").is_file():
        _no_split(folder, split)
        return _named(datasets.load_from_disk(folder), image_column, str(folder))
    if (folder / split).is_dir():
        return _read_folder(folder / split, "train", image_column)
    if (folder / f"{split}.jsonl").is_file():
        return _read_jsonl(folder / f"{split}.jsonl", image_column)
    for name in _LISTS:
        if (folder / name).is_file():
            _no_split(folder, split)
            return _read_jsonl(folder / name, image_column)
    if any(folder.rglob("*.parquet")):
        return _named(datasets.load_dataset(str(folder), split=split), image_column, str(folder))
    _no_split(folder, split)
    return _read_sidecars(folder)


def _named(dataset: Any, image_column: str | None, source: str) -> tuple[datasets.Dataset, _Rows]:
    column = _found(image_column, _IMAGE_COLUMNS, dataset.column_names, source, "image")
    return _renamed(dataset.with_format(None), column, "image"), _Rows(source)


def _read_sidecars(folder: Path) -> tuple[datasets.Dataset, _Rows]:
    images = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _IMAGE_SUFFIXES)
    if not images:
        raise ValueError(
            f"{folder} holds no captions: it needs a metadata.jsonl or captions.jsonl, or images "
            "with a .txt file of the same name beside each."
        )
    columns: dict[str, list[Any]] = {
        "image": [str(file) for file in images],
        "file_name": [str(file.relative_to(folder)) for file in images],
    }
    texts = [file.with_suffix(".txt") for file in images]
    if any(text.is_file() for text in texts):
        # A missing file reads as no reference, and is named with the empty ones.
        columns["reference"] = [
            text.read_text(encoding="utf-8").strip() if text.is_file() else "" for text in texts
        ]
    return datasets.Dataset.from_dict(columns), _Rows(str(folder))


def _read_jsonl(file: Path, image_column: str | None) -> tuple[datasets.Dataset, _Rows]:
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    with file.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                rows.append(_parsed(line, f"{file}, line {number}"))
                lines.append(number)
    if not rows:
        raise ValueError(f"{file} is empty: it must hold one JSON object a line.")
    names = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    column = _found(image_column, _IMAGE_COLUMNS, names, str(file), "image")
    columns = {name: [row.get(name) for row in rows] for name in names}
    # The path as it was written rides along under its own name. "/" lets an absolute path be.
    columns["image"] = [
        str(file.parent / path) if isinstance(path, str) and path else None
        for path in columns[column]
    ]
    for name, values in columns.items():
        try:
            pa.array(values)
        except pa.ArrowException as error:
            raise ValueError(
                f"{file}: the values of {name!r} are not all of one kind ({error}). A column has "
                "one type: write them all as text, say."
            ) from error
    return datasets.Dataset.from_dict(columns), _Rows(str(file), lines)


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where} is not JSON: {error}. The file must hold one JSON object a line."
        ) from error
    if not isinstance(row, dict):
        raise ValueError(
            f"{where} is a {type(row).__name__}, not an object like "
            '{"image": "photo.jpg", "reference": "..."}.'
        )
    return row


# --- the three columns ---


def _found(
    asked: str | None, candidates: Sequence[str], columns: Sequence[str], source: str, what: str
) -> str:
    if asked is not None:
        if asked in columns:
            return asked
        raise ValueError(
            f"{source} has no column {asked!r} for {what}_column. Its columns are "
            f"{', '.join(columns)}."
        )
    for candidate in candidates:
        if candidate in columns:
            return candidate
    raise ValueError(
        f"{source} has no {what} column: none of {', '.join(candidates)} is among "
        f"{', '.join(columns)}. Name it with {what}_column."
    )


def _renamed(dataset: datasets.Dataset, column: str, name: str) -> datasets.Dataset:
    if column == name:
        return dataset
    kept = [other for other in dataset.column_names if other != name]
    return dataset.select_columns(kept).rename_column(column, name)


def _with_image(dataset: datasets.Dataset, rows: _Rows) -> datasets.Dataset:
    dataset = dataset.cast_column("image", datasets.Image())
    _raise_for(
        _image_problems(_stored(dataset, "image"), rows),
        f"Every row of {rows.source} needs an image that can be read",
        "Leave these rows out, or mend the files.",
    )
    return dataset


def _with_reference(
    dataset: datasets.Dataset, reference_column: str | None, rows: _Rows
) -> datasets.Dataset:
    column = _found(
        reference_column, _REFERENCE_COLUMNS, dataset.column_names, rows.source, "reference"
    )
    dataset = _renamed(dataset, column, "reference")
    _raise_for(
        _reference_problems(_stored(dataset, "reference"), rows),
        f"Every row of {rows.source} needs a reference",
        "Leave these rows out, or write a reference caption for them.",
    )
    return dataset


def _with_prompt(dataset: datasets.Dataset, prompt: str | None, rows: _Rows) -> datasets.Dataset:
    if prompt is not None or "prompt" not in dataset.column_names:
        prompts: list[Any] = [prompt or DEFAULT_PROMPT] * len(dataset)
    else:
        prompts = [value.as_py() for value in _stored(dataset, "prompt")]
    for row, value in enumerate(prompts):
        if not value:
            raise ValueError(
                f"{rows(row)}: the prompt is empty. Write one, or give all rows the same with "
                "prompt=..."
            )
        if isinstance(value, str):
            prompts[row] = [{"role": "user", "content": value}]
    if "prompt" in dataset.column_names:
        dataset = dataset.remove_columns("prompt")
    return dataset.add_column("prompt", prompts)  # type: ignore[call-arg]


def _bounded_batch(batch: dict[str, list[Any]], max_pixels: int) -> dict[str, list[Any]]:
    if "image" in batch:
        batch["image"] = [bounded_image(image, max_pixels) for image in batch["image"]]
    return batch


# --- what is wrong with a column ---


def _stored(dataset: datasets.Dataset, column: str) -> Iterator[Any]:
    """The column as it is stored, as pyarrow scalars: no image decoded, no bytes copied."""
    table = dataset.select_columns([column]).with_format("arrow")
    for batch in table.iter(batch_size=1000):
        yield from batch[column]  # type: ignore[call-overload]


def _first_rows(dataset: Iterable[Any], count: int, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    stream = iter(dataset)
    for row in range(count):
        try:
            rows.append(next(stream))
        except StopIteration:
            break
        except (
            OSError,
            SyntaxError,
        ) as error:  # what Pillow raises for an image that it cannot read
            raise ValueError(f"row {row} of {name} cannot be read: {error}") from error
    if not rows:
        raise ValueError(f"{name} has no rows.")
    return rows


def _column_for(needed: str, columns: Sequence[str]) -> str | None:
    accepted = ("image", "images") if needed == "image" else (needed,)
    return next((name for name in accepted if name in columns), None)


def _missing(who: str, column: str, columns: Sequence[str], name: str) -> str:
    wanted = "'image' (or 'images')" if column == "image" else repr(column)
    return (
        f"{who} needs the column {wanted}, and {name} has only {', '.join(columns) or 'none'}. "
        "Rename the column that holds it, load the data with trl_balcap.data.load_captions, or "
        f"train without {who}."
    )


def _reference_problems(values: Iterable[Any], rows: Callable[[int], str]) -> Iterator[str]:
    for row, value in enumerate(values):
        text = value.as_py() if isinstance(value, pa.Scalar) else value
        if text is None or (isinstance(text, str) and not text.strip()):
            yield f"{rows(row)}: the reference is empty"
        elif not isinstance(text, str):
            yield f"{rows(row)}: the reference is a {type(text).__name__}, not text"


def _image_problems(values: Iterable[Any], rows: Callable[[int], str]) -> Iterator[str]:
    stream = iter(values)
    chunks = iter(lambda: list(itertools.islice(stream, _CHUNK)), [])
    with ThreadPoolExecutor(_THREADS) as pool:
        problems = itertools.chain.from_iterable(pool.map(_chunk_problems, chunks))
        for row, problem in enumerate(problems):
            if problem is not None:
                yield f"{rows(row)}: {problem}"


def _chunk_problems(values: Sequence[Any]) -> list[str | None]:
    return [_value_problem(value) for value in values]


def _value_problem(value: Any) -> str | None:
    if isinstance(value, pa.ListScalar):
        value = list(value) if value.is_valid else None
    if isinstance(value, list):
        found = (_value_problem(image) for image in value)
        return (
            next((problem for problem in found if problem), None)
            if value
            else "the image is missing"
        )
    if isinstance(value, Image.Image):
        width, height = value.size
        return None if width and height else f"the image's size is {width} x {height} pixels"
    if isinstance(value, pa.StructScalar) and value.is_valid:
        value = {"path": value["path"].as_py(), "bytes": value["bytes"].as_buffer()}
    elif isinstance(value, pa.Scalar):
        value = value.as_py()
    if isinstance(value, str):
        value = {"path": value, "bytes": None}
    if not isinstance(value, dict) or (value["bytes"] is None and not value["path"]):
        return "the image is missing"
    if value["bytes"] is None and "://" in value["path"]:
        return None  # far away: `datasets` fetches it when the row is read
    problem = image_problem(value["path"] if value["bytes"] is None else value["bytes"])
    return problem and f"the image {value['path'] or ''}: {problem}".replace("image :", "image:")


def _raise_for(problems: Iterator[str], rule: str, way_out: str) -> None:
    found = list(problems)
    if not found:
        return
    shown = "\n  ".join(found[:_NAMED_PROBLEMS])
    more = f"\n  and {len(found) - _NAMED_PROBLEMS} more" if len(found) > _NAMED_PROBLEMS else ""
    have = "1 has none" if len(found) == 1 else f"{len(found)} have none"
    raise ValueError(f"{rule}, and {have}:\n  {shown}{more}\n{way_out}")

"""Checks that a dataset has what its rewards need, before a model is loaded."""

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import datasets
import pyarrow as pa
from PIL import Image

from trl_balcap.data.images import image_problem
from trl_balcap.data.opened import OpenedImages, stored
from trl_balcap.data.rows import BadRowsError

__all__ = [
    "check_columns",
    "check_size",
    "image_problems",
    "raise_for",
    "reference_problems",
]

_THREADS = 16  # reading headers is bound by the disk, not the CPU
_CHUNK = 200
_NAMED_PROBLEMS = 5


def check_columns(
    dataset: Any,
    needs: Mapping[str, Sequence[str]],
    *,
    name: str = "train_dataset",
    first_rows: int = 8,
    allow_urls: bool = False,
) -> None:
    """
    Check that a dataset has what its rewards need. Loads no model and decodes no intact images, so
    it can run first.

    A `Dataset` is checked completely: references instantly, images at 0.2 ms each on a local disk
    (20 s for 100,000). If rows are computed when read (a stream, a list, a `Dataset` with its own
    transform), the first `first_rows` are checked; for a stream with a shuffle buffer, those that
    enter it first, without filling it.

    Args:
        dataset (`Dataset`, `IterableDataset` or iterable of rows):
            The dataset for the trainer.
        needs (`Mapping[str, Sequence[str]]`):
            The columns that each reward needs, e.g. `{"recall_reward": ("reference",)}`. `"images"`
            is accepted for `"image"`.
        name (`str`, *optional*, defaults to `"train_dataset"`):
            Name of the dataset in messages.
        first_rows (`int`, *optional*, defaults to `8`):
            Number of rows to read from an iterable.
        allow_urls (`bool`, *optional*, defaults to `False`):
            Whether images may be URLs, which `datasets` fetches when rows are read. Datasets from
            [`load_captions`] already know this.

    Raises:
        `ValueError`: if a column is missing, a reference is empty or not text, or an image is
            missing or unreadable. The message has the reward, the row, the path, and a fix.

    Example:

    ```python
    >>> rows = datasets.Dataset.from_dict({"prompt": ["Describe."], "reference": [" "]})
    >>> try:
    ...     check_columns(rows, {"recall_reward": ("reference",)})
    ... except ValueError as error:
    ...     print(error)
    recall_reward needs a reference in every row of train_dataset, but 1 does not have one:
      row 0: the reference is empty
    Leave these rows out, or write a reference caption for them.

    ```
    """
    transform = _transform(dataset)
    whole = isinstance(dataset, datasets.Dataset) and (
        transform is None or isinstance(transform, OpenedImages)
    )
    if isinstance(transform, OpenedImages):
        allow_urls = allow_urls or transform.allow_urls
    if whole and not len(dataset):
        raise ValueError(f"{name} has no rows.")
    rows = [] if whole else _first_rows(dataset, first_rows, name)
    columns = dataset.column_names if whole else list(rows[0])
    asked: dict[str, str] = {}  # column -> who needs it
    for who, needed in needs.items():
        for column in needed:
            found = _column_for(column, columns)
            if found is None:
                raise ValueError(_missing(who, column, columns, name))
            asked[found] = f"{asked[found]}, {who}" if found in asked else who
    for column, who in asked.items():
        values = stored(dataset, column) if whole else (row.get(column) for row in rows)
        if column == "reference":
            raise_for(
                reference_problems(values, lambda row: f"row {row}"),
                f"{who} needs a reference in every row of {name}",
                "Leave these rows out, or write a reference caption for them.",
            )
        elif column in ("image", "images"):
            raise_for(
                image_problems(values, lambda row: f"row {row}", allow_urls=allow_urls),
                f"{who} needs an image in every row of {name}",
                "Leave these rows out, or fix the files.",
            )


def check_size(
    rows: int,
    *,
    generation_batch_size: int,
    num_generations: int,
    global_batch_size: int = 1,
    name: str = "train_dataset",
) -> None:
    """
    Check that a dataset is large enough for one generation batch. TRL draws complete generation
    batches and drops the rest, so a run on a smaller dataset would end without a single step.

    Args:
        rows (`int`):
            Rows (prompts) of the dataset.
        generation_batch_size (`int`):
            Completions per generation batch, over all processes, as in [`~trl.GRPOConfig`].
        num_generations (`int`):
            Completions per prompt.
        global_batch_size (`int`, *optional*, defaults to `1`):
            `per_device_train_batch_size` times processes; a generation batch is a multiple of it.
        name (`str`, *optional*, defaults to `"train_dataset"`):
            Name of the dataset in messages.

    Raises:
        `ValueError`: if there are fewer rows than `generation_batch_size / num_generations`. The
            message has both numbers and settings that would work.

    Example:

    ```python
    >>> check_size(9, generation_batch_size=72, num_generations=8)

    ```
    """
    prompts = generation_batch_size // num_generations
    if rows >= prompts and rows > 0:
        return
    if not rows:
        raise ValueError(f"{name} has no rows.")
    step = math.lcm(global_batch_size, num_generations)
    largest = rows * num_generations // step * step
    way_out = (
        f"set generation_batch_size={largest} (or steps_per_generation="
        f"{largest // global_batch_size}), or less"
        if largest
        else f"lower per_device_train_batch_size: {global_batch_size} completions per device step "
        f"(all processes) and {num_generations} per prompt need {step // num_generations} rows"
    )
    raise ValueError(
        f"{name} has {rows} rows, but one generation batch needs {prompts} (generation_batch_size "
        f"{generation_batch_size} / num_generations {num_generations}), so training could not take "
        f"a single step. Add rows, or {way_out}."
    )


# ---- rows of what is given ---------------------------------------------------------------------


def _transform(dataset: Any) -> Any:
    """The transform of a `Dataset`, or `None`."""
    if not isinstance(dataset, datasets.Dataset) or dataset.format["type"] != "custom":
        return None
    return dataset.format["format_kwargs"].get("transform")


def _first_rows(dataset: Any, count: int, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if isinstance(dataset, datasets.Dataset):
        stream: Iterator[Any] = (dataset[row] for row in range(len(dataset)))
    else:
        stream = iter(_undecoded(_unbuffered(dataset)))
    for row in range(count):
        try:
            rows.append(next(stream))
        except StopIteration:
            break
        except (OSError, SyntaxError, ValueError) as error:  # raised by Pillow, and ImageError
            raise ValueError(f"row {row} of {name} cannot be read: {error}") from error
    if not rows:
        raise ValueError(f"{name} has no rows.")
    return rows


def _undecoded(dataset: Any) -> Any:
    """A stream with undecoded images, since checking a URL must not fetch it."""
    if not isinstance(dataset, datasets.IterableDataset) or dataset.features is None:
        return dataset
    return dataset.decode(False)


def _unbuffered(dataset: Any) -> Any:
    """A stream without its shuffle buffers, since filling one would read 2,000 rows to get one."""
    # Not public, so it may disappear; then the buffer is filled, which is only slow.
    if not isinstance(dataset, datasets.IterableDataset) or not hasattr(dataset, "_ex_iterable"):
        return dataset
    unbuffered = object.__new__(type(dataset))  # copy.copy would share what we change here
    unbuffered.__dict__ = {
        **dataset.__dict__,
        "_ex_iterable": _without_buffers(dataset._ex_iterable),
    }
    return unbuffered


def _without_buffers(examples: Any) -> Any:
    while type(examples).__name__ == "BufferShuffledExamplesIterable":
        examples = examples.ex_iterable
    inner = getattr(examples, "ex_iterable", None)
    if inner is not None:
        examples = copy.copy(examples)
        examples.ex_iterable = _without_buffers(inner)
    return examples


def _column_for(needed: str, columns: Sequence[str]) -> str | None:
    accepted = ("image", "images") if needed == "image" else (needed,)
    return next((name for name in accepted if name in columns), None)


def _missing(who: str, column: str, columns: Sequence[str], name: str) -> str:
    wanted = "'image' (or 'images')" if column == "image" else repr(column)
    return (
        f"{who} needs the column {wanted}, but {name} only has {', '.join(columns) or 'none'}. "
        "Rename the column, load the data with trl_balcap.data.load_captions, or "
        f"train without {who}."
    )


# ---- what is wrong with a column ---------------------------------------------------------------


def reference_problems(values: Iterable[Any], where: Callable[[int], str]) -> Iterator[str]:
    """One message for each reference that is empty or not text."""
    for row, value in enumerate(values):
        text = value.as_py() if isinstance(value, pa.Scalar) else value
        if text is None or (isinstance(text, str) and not text.strip()):
            yield f"{where(row)}: the reference is empty"
        elif not isinstance(text, str):
            yield f"{where(row)}: the reference is a {type(text).__name__}, not text"


def image_problems(
    values: Iterable[Any], where: Callable[[int], str], *, allow_urls: bool = False
) -> Iterator[str]:
    """One message for each image that is missing or cannot be read, decoding only when needed."""
    stream = iter(values)
    chunks = iter(lambda: list(itertools.islice(stream, _CHUNK)), [])

    def problems_of(chunk: Sequence[Any]) -> list[str | None]:
        return [_value_problem(value, allow_urls) for value in chunk]

    with ThreadPoolExecutor(_THREADS) as pool:
        problems = itertools.chain.from_iterable(pool.map(problems_of, chunks))
        for row, problem in enumerate(problems):
            if problem is not None:
                yield f"{where(row)}: {problem}"


def raise_for(problems: Iterator[str], rule: str, way_out: str) -> None:
    """
    Raises:
        [`BadRowsError`]: if there is a problem; names the first five and counts the rest.
    """
    found = list(problems)
    if not found:
        return
    have = "1 does not" if len(found) == 1 else f"{len(found)} do not"
    raise BadRowsError(
        found, rule=f"{rule}, but {have} have one:", way_out=way_out, shown=_NAMED_PROBLEMS
    )


def _value_problem(value: Any, allow_urls: bool) -> str | None:
    if isinstance(value, pa.ListScalar):
        value = list(value) if value.is_valid else None
    if isinstance(value, list):
        found = (_value_problem(image, allow_urls) for image in value)
        return next(filter(None, found), None) if value else "the image is missing"
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
    if value["bytes"] is None and "://" in value["path"] and allow_urls:
        return None  # remote: fetched when the row is read
    problem = image_problem(value["path"] if value["bytes"] is None else value["bytes"])
    return problem and f"the image {value['path'] or ''}: {problem}".replace("image :", "image:")

"""[`load_captions`]: turns users' data into a dataset with the columns that training needs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets

from trl_balcap.data.checks import image_problems, raise_for, reference_problems
from trl_balcap.data.images import DEFAULT_MAX_PIXELS, bounded_size
from trl_balcap.data.opened import OpenedImages, stored
from trl_balcap.data.scored import IMAGE_COLUMNS, REFERENCE_COLUMNS
from trl_balcap.data.sources import Rows, read_source

__all__ = ["DEFAULT_PROMPT", "load_captions"]

DEFAULT_PROMPT = "Describe the image in detail."

# Arguments that TRL's trainers pass to reward functions themselves: a column with such a name
# breaks the call or is lost.
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


def load_captions(
    path: Any,
    *,
    split: str | None = None,
    name: str | None = None,
    prompt: str | None = None,
    image_column: str | None = None,
    reference_column: str | None = None,
    references: bool = True,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    image_folder: str | Path | None = None,
    allow_urls: bool = False,
) -> datasets.Dataset:
    """
    Load images with reference captions as a dataset for [`BalCapTrainer`] and the rewards.

    `path` is one of

    - a JSONL, CSV or JSON file of rows, with image paths relative to that file; rows may have the
      format of LLaVA, ShareGPT4V or COCO captions ([`~data.formats.known_row`]);
    - a folder containing `metadata.jsonl`, `captions.jsonl` or `metadata.csv` (the "imagefolder"
      layout of `datasets`), or a `.txt` file of the same name next to each image;
    - a dataset saved with `Dataset.save_to_disk`, or one or a folder of Parquet files or WebDataset
      shards;
    - the name of a dataset on the Hub (the only source that needs a network);
    - a `Dataset` or `DatasetDict`, a list of rows, or a list of images (with `references=False`).

    Images are not copied. A row's image is opened by [`~data.images.open_image`] when the row is
    read: upright, in RGB, and scaled down to `max_pixels`. Before that, every image is checked: its
    header, its sides, and whether the file is complete ([`~data.images.image_problem`]).

    Args:
        path (`str`, `Path`, `Dataset` or `list`):
            File, folder, dataset name, or rows in memory.
        split (`str`, *optional*):
            Split to load. In a folder, a subfolder or JSONL file of that name. `None` loads all of
            a source without splits, and `"train"` of one with splits.
        name (`str`, *optional*):
            Configuration of a dataset on the Hub, as in `datasets.load_dataset`.
        prompt (`str`, *optional*):
            The user's message. Defaults to the `prompt` column or, without one, to
            `"Describe the image in detail."`.
        image_column (`str`, *optional*):
            Column with the image or its path. Defaults to the first present of `image`,
            `file_name`, `image_path`, `image_name`.
        reference_column (`str`, *optional*):
            Column with the reference caption. Defaults to the first present of `reference`,
            `caption`, `text`.
        references (`bool`, *optional*, defaults to `True`):
            `False` loads images without captions, to caption them or to train without recall and
            without a gate.
        max_pixels (`int`, *optional*, defaults to `401408`):
            Maximum width times height of an image; 401408 is 512 visual tokens of Qwen2.5-VL.
        image_folder (`str` or `Path`, *optional*):
            Folder that paths in a file are relative to. Defaults to the file's own folder.
        allow_urls (`bool`, *optional*, defaults to `False`):
            Whether to fetch images given as URLs when rows are read. Otherwise URLs are errors.

    Returns:
        `datasets.Dataset`: Columns `prompt` (conversational), `image` (`PIL.Image.Image` when
            read), `reference`, and every other column of the source.

    Raises:
        `FileNotFoundError`: if `path` does not exist.
        `ValueError`: if a column is missing or not allowed by TRL, a reference is empty, or an
            image cannot be read or is outside the folder. The message has the row, the path, and a
            fix.

    Example:

    ```python
    >>> import json, pathlib, tempfile
    >>> from PIL import Image
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> Image.new("L", (64, 48)).save(folder / "night.png")
    >>> _ = (folder / "captions.jsonl").write_text(
    ...     json.dumps({"image": "night.png", "caption": "Nothing."})
    ... )
    >>> row = load_captions(folder)[0]
    >>> row["prompt"], row["image"].mode, row["reference"]
    ([{'role': 'user', 'content': 'Describe the image in detail.'}], 'RGB', 'Nothing.')

    ```
    """
    bounded_size(1, 1, max_pixels)  # report a bad max_pixels now, not at the first row
    if prompt is not None and (not isinstance(prompt, str) or not prompt.strip()):
        raise ValueError(f"prompt must be a string, the user's message, got {prompt!r}.")
    dataset, rows = read_source(
        path,
        split=split,
        name=name,
        image_columns=IMAGE_COLUMNS if image_column is None else (image_column,),
        image_folder=image_folder,
        allow_urls=allow_urls,
    )
    dataset = _with_image(dataset, rows, allow_urls)
    if references:
        dataset = _with_reference(dataset, reference_column, rows)
    dataset = _with_prompt(dataset, prompt, rows)
    taken = [name for name in _TAKEN if name in dataset.column_names]
    if taken:
        raise ValueError(
            f"{rows.source} has the columns {', '.join(taken)}, but TRL reserves these names. "
            "Rename them."
        )
    first = [name for name in ("prompt", "image", "reference") if name in dataset.column_names]
    rest = [name for name in dataset.column_names if name not in first]
    dataset = dataset.select_columns(first + rest)
    return dataset.with_transform(OpenedImages(max_pixels, allow_urls))


# ---- the three columns -------------------------------------------------------------------------


def _with_image(dataset: datasets.Dataset, rows: Rows, allow_urls: bool) -> datasets.Dataset:
    # Stored, not decoded: the transform opens them, like all images, with errors that name the
    # file.
    dataset = dataset.cast_column("image", datasets.Image(decode=False))
    raise_for(
        image_problems(stored(dataset, "image"), rows, allow_urls=allow_urls),
        f"Every row of {rows.source} needs an image that can be read",
        "Leave these rows out, or fix the files.",
    )
    return dataset


def _with_reference(
    dataset: datasets.Dataset, reference_column: str | None, rows: Rows
) -> datasets.Dataset:
    asked = REFERENCE_COLUMNS if reference_column is None else (reference_column,)
    column = rows.column("reference", asked, dataset.column_names)
    if column != "reference":
        kept = [other for other in dataset.column_names if other != "reference"]
        dataset = dataset.select_columns(kept).rename_column(column, "reference")
    raise_for(
        reference_problems(stored(dataset, "reference"), rows),
        f"Every row of {rows.source} needs a reference",
        "Leave these rows out, or write a reference caption for them.",
    )
    return dataset


def _with_prompt(dataset: datasets.Dataset, prompt: str | None, rows: Rows) -> datasets.Dataset:
    if prompt is not None or "prompt" not in dataset.column_names:
        prompts: list[Any] = [prompt or DEFAULT_PROMPT] * len(dataset)
    else:
        prompts = [value.as_py() for value in stored(dataset, "prompt")]
    raise_for(
        _prompt_problems(prompts, rows),
        f"Every row of {rows.source} needs a prompt",
        "Add one, or set the same prompt for all rows with prompt=...",
    )
    prompts = [
        [{"role": "user", "content": value}] if isinstance(value, str) else value
        for value in prompts
    ]
    if "prompt" in dataset.column_names:
        dataset = dataset.remove_columns("prompt")
    return dataset.add_column("prompt", prompts)  # type: ignore[call-arg]


def _prompt_problems(prompts: Sequence[Any], where: Callable[[int], str]):
    for row, value in enumerate(prompts):
        if not value or (isinstance(value, str) and not value.strip()):
            yield f"{where(row)}: the prompt is empty"
        elif not isinstance(value, str) and not _is_conversation(value):
            yield f"{where(row)}: the prompt is {value!r}, not a string or a list of messages"


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(message, dict) and {"role", "content"} <= message.keys() for message in value
    )

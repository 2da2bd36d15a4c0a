"""Sizes of images and references in a sample of the dataset, from headers and text only."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from trl_balcap.data import load_captions
from trl_balcap.data.images import bounded_size
from trl_balcap.judge.cost import CHARS_PER_TOKEN

__all__ = ["Sample", "sample_dataset"]


@dataclass(frozen=True)
class Sample:
    """Sizes of some rows, as the trainer would see them."""

    rows: int  # of the whole dataset
    sizes: tuple[tuple[int, int], ...]  # in pixels, scaled down
    references: tuple[str, ...]  # empty if the run needs none

    @property
    def reference_tokens(self) -> float | None:
        """Mean length of a reference, estimated from its bytes; `None` without references."""
        if not self.references:
            return None
        lengths = [len(text.encode()) / CHARS_PER_TOKEN for text in self.references]
        return sum(lengths) / len(lengths)


def sample_dataset(
    path: str, *, split: str | None, max_pixels: int, references: bool = True, count: int = 64
) -> Sample:
    """
    The sizes of `count` evenly spaced rows of a local dataset.

    Args:
        path (`str`): As for [`load_captions`].
        split (`str`, *optional*): As for [`load_captions`].
        max_pixels (`int`): Maximum pixels of an image.
        references (`bool`, *optional*, defaults to `True`): As for [`load_captions`].
        count (`int`, *optional*, defaults to `64`): Number of rows.

    Raises:
        `FileNotFoundError`: if `path` does not exist on this disk (the Hub is not used).
        `ValueError`: as for [`load_captions`].
    """
    if not Path(path).exists():
        raise FileNotFoundError(
            f"File or folder not found: {path}. Correct the path (`dataset`), or plan for images "
            "and captions of typical size with --without-data."
        )
    dataset = load_captions(path, split=split, max_pixels=max_pixels, references=references)
    step = max(1, len(dataset) // count)
    rows = dataset.select(range(0, len(dataset), step)).with_format("arrow")[:]
    names = ("image", "reference") if references else ("image",)
    columns: dict[str, Any] = {name: rows[name].to_pylist() for name in names}
    return Sample(
        rows=len(dataset),
        sizes=tuple(bounded_size(*_size(stored), max_pixels) for stored in columns["image"]),
        references=tuple(columns.get("reference", ())),
    )


def _size(stored: dict[str, Any]) -> tuple[int, int]:
    # Only the header, since open_image would decode every image; turned and bounded as it would be.
    source = io.BytesIO(stored["bytes"]) if stored["bytes"] is not None else stored["path"]
    with Image.open(source) as image:
        turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 swap the sides
        width, height = image.size
        return (height, width) if turned else (width, height)

"""The transform of a loaded dataset: images are stored undecoded, and opened when rows are read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from trl_balcap.data.images import DEFAULT_MAX_PIXELS, open_image, reading, stored_content

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["OpenedImages", "stored", "with_column"]


@dataclass(frozen=True)
class OpenedImages:
    """
    Opens the images of a batch with [`~data.images.open_image`], for `Dataset.with_transform`.

    Args:
        max_pixels (`int`, *optional*, defaults to `401408`):
            Maximum width times height.
        allow_urls (`bool`, *optional*, defaults to `False`):
            Whether to fetch images that are URLs.

    Example:

    ```python
    >>> batch = {"image": [Image.new("L", (8, 8))], "reference": ["Nothing."]}
    >>> OpenedImages()(batch)["image"][0].mode
    'RGB'

    ```
    """

    max_pixels: int = DEFAULT_MAX_PIXELS
    allow_urls: bool = False

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """
        The batch with opened images.

        Raises:
            [`~data.images.ImageError`]: if one cannot be read; the message has its path.
        """
        if "image" not in batch:
            return batch
        return {**batch, "image": [self._opened(image) for image in batch["image"]]}

    def _opened(self, image: Any) -> Image.Image:
        content = stored_content(image)
        if self.allow_urls and isinstance(content, str) and "://" in content:
            import datasets  # slow to import, and only needed here

            with reading(image):
                image = datasets.Image().decode_example({"path": content, "bytes": None})
        return open_image(image, self.max_pixels)


def stored(dataset: "Dataset", column: str) -> Iterator[Any]:
    """The column as stored, in pyarrow scalars, without decoding images or copying bytes."""
    table = dataset.select_columns([column]).with_format("arrow")
    for batch in table.iter(batch_size=1000):
        yield from batch[column]  # type: ignore[call-overload]


def with_column(dataset: "Dataset", name: str, values: list[Any], *, instead_of: str) -> "Dataset":
    """The dataset with a column in place of another one, which may be the only one of its file."""
    import datasets
    from datasets.table import InMemoryTable

    dataset = dataset.add_column("a new column", values)  # type: ignore[call-arg]
    dataset = dataset.remove_columns(instead_of).rename_column("a new column", name)
    # Of one piece: `datasets` cannot add a column beside a piece without any.
    table: Any = dataset.with_format("arrow")[:]
    info = datasets.DatasetInfo(features=dataset.features)
    return datasets.Dataset(InMemoryTable(table), info=info)

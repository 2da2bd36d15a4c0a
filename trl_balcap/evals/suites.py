"""The benchmarks of `trl-balcap bench`: each is a metric and a way to caption its images."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from trl_balcap.captioning.listing import ImageRow, list_images
from trl_balcap.data.images import DEFAULT_MAX_PIXELS
from trl_balcap.data.stored import is_dataset

__all__ = ["SUITES", "Suite", "suite_images", "suite_of"]

DECAPBENCH_PROMPT = (
    "Generate a detailed and coherent description of the entire scene by explaining every visible "
    "detail in the image, including each element's appearance, function, and interrelationship."
)


class Suite(NamedTuple):
    """
    One benchmark.

    Args:
        name (`str`), metric (`str`):
            Name for `--suite`, and the metric that scores it.
        prompt (`str`, *optional*):
            The captioner's prompt, from the authors' own script if there is one. `None` means the
            prompt that the model was trained with, or the default prompt.
        max_pixels (`int`):
            Larger images are scaled down; documents keep their size.
        max_new_tokens (`int`):
            Length limit, from the authors' own script if there is one.
        hub (`str`, *optional*):
            The dataset on the Hub that contains its images.
    """

    name: str
    metric: str
    prompt: str | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_new_tokens: int = 512
    hub: str | None = None

    def generation(self) -> dict[str, Any]:
        """Arguments of [`~captioning.run.caption_images`]."""
        return {
            "prompt": self.prompt,
            "max_pixels": self.max_pixels,
            "max_new_tokens": self.max_new_tokens,
        }


SUITES = {
    suite.name: suite
    for suite in (
        Suite("b-capscore", "b-capscore"),
        Suite("decapbench", "dcscore", DECAPBENCH_PROMPT),
        Suite(
            name="captionqa",
            metric="captionqa",
            prompt="Describe this image in detail.",
            max_pixels=12_845_056,
            max_new_tokens=500,
            hub="Borise/CaptionQA",
        ),
        Suite("caparena", "caparena"),
        Suite("prism", "prism", "Please describe this image in detail", 12_845_056, 2048),
    )
}


def suite_of(name: str) -> Suite:
    """
    The benchmark with this name, or with a metric of this name.

    Raises:
        `ValueError`: if there is none.
    """
    for suite in SUITES.values():
        if name in (suite.name, suite.metric):
            return suite
    raise ValueError(f"Unknown suite {name!r}, must be one of {', '.join(SUITES)}.")


def suite_images(
    suite: Suite, source: str | Path | None, *, split: str = "all", store: str | Path
) -> list[ImageRow]:
    """
    List the images to caption for a benchmark, with the benchmark's own ids.

    Args:
        suite ([`Suite`]):
            The benchmark.
        source (`str` or `Path`, *optional*):
            Source of the images, see [`~captioning.listing.list_images`]. Defaults to the suite's
            dataset on the Hub.
        split (`str`, *optional*, defaults to `"all"`):
            CaptionQA split.
        store (`str` or `Path`):
            Folder that a dataset's images are written to.

    Raises:
        `ValueError`: if no source is given and the suite has no dataset of its own.
    """
    source = source or suite.hub
    if source is None:
        raise ValueError(
            f"Captioning {suite.name} needs its images. Pass --images {suite.name}=FOLDER."
        )
    of_suite = split if suite.hub is not None else "train"
    rows = list_images(source, split=of_suite, store=store)
    if suite.hub is None or is_dataset(source) or Path(source).is_file():
        return rows
    # Ids of a folder's images are paths; CaptionQA's are file names without the extension.
    return [replace(row, id=Path(row.id).stem) for row in rows]

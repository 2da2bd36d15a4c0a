"""The benchmarks of `trl-balcap bench`: each is a metric and a way to caption its images."""

from typing import NamedTuple

from trl_balcap.data import DEFAULT_PROMPT
from trl_balcap.data.images import DEFAULT_MAX_PIXELS

__all__ = ["SUITES", "Suite", "suite_of"]

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
        prompt (`str`):
            The captioner's prompt, from the authors' own script if there is one.
        max_pixels (`int`):
            Larger images are scaled down; documents keep their size.
        ids_are_stems (`bool`):
            Whether the benchmark's ids are file names without their extension.
    """

    name: str
    metric: str
    prompt: str = DEFAULT_PROMPT
    max_pixels: int = DEFAULT_MAX_PIXELS
    ids_are_stems: bool = False


SUITES = {
    suite.name: suite
    for suite in (
        Suite("b-capscore", "b-capscore"),
        Suite("decapbench", "dcscore", DECAPBENCH_PROMPT),
        Suite("captionqa", "captionqa", "Describe this image in detail.", 12_845_056, True),
        Suite("caparena", "caparena"),
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

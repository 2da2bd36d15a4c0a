"""Scored rows in the format of the report, the same as for training rollouts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from trl_balcap.data.images import image_problem
from trl_balcap.data.scored import Caption
from trl_balcap.evals.metrics.b_capscore import shown_as_in_training
from trl_balcap.report.verdicts import VerdictWriter

__all__ = ["keep_verdicts"]

AT_ONCE = 64  # rows per file


def keep_verdicts(
    folder: str | Path,
    captions: Sequence[Caption],
    rows: Sequence[Mapping[str, Any]],
    *,
    shown: Callable[[Mapping[str, Any]], dict[str, Any]] = shown_as_in_training,
    step: int = 0,
    split: str = "score",
) -> None:
    """
    Write the verdicts of scored captions, see [`VerdictWriter`].

    Args:
        folder (`str` or `Path`):
            Output folder; existing rows of the same captions are replaced.
        captions (`Sequence[Caption]`):
            Captions with image and reference.
        rows (`Sequence[Mapping]`):
            The scored row of each.
        shown (`Callable`, *optional*):
            Gives the columns of a row: [`Metric.shown`] of its metric. Defaults to b-CapScore's.
        step (`int`, *optional*, defaults to `0`), split (`str`, *optional*, defaults to `"score"`):
            Where in a run they belong.
    """
    writer = VerdictWriter(folder)
    for start in range(0, len(captions), AT_ONCE):
        some = zip(captions[start : start + AT_ONCE], rows[start : start + AT_ONCE], strict=True)
        writer.write(
            [
                _verdict_row(caption, row, shown(row)) | {"step": step, "split": split}
                for caption, row in some
            ]
        )


def _verdict_row(
    caption: Caption, row: Mapping[str, Any], shown: Mapping[str, Any]
) -> dict[str, Any]:
    missing = [name for name, value in shown["rewards"].items() if value is None]
    return {
        "id": caption.id,
        "completion": caption.caption,
        "image": _shown_image(caption),
        "reference": caption.reference,
        "reasons": {name: row["reason"] for name in missing if row["reason"]},
        "assertions": [] if caption.is_empty else None,
        **shown,
    }


def _shown_image(caption: Caption) -> Path | Image | None:
    """The image; `None` if it is not there, which only matters to metrics that look at it."""
    if isinstance(caption.image, Path) and image_problem(caption.image) is not None:
        return None
    return caption.image

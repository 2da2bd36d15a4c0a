"""Scored rows in the format of the report, the same as for training rollouts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trl_balcap.data.scored import Caption
from trl_balcap.report.verdicts import VerdictWriter

__all__ = ["keep_verdicts"]

REWARDS = ("precision", "recall", "linguistic")
SEEN = ("assertions", "units", "clarity", "fluency", "coherency")
AT_ONCE = 64  # rows per file


def keep_verdicts(
    folder: str | Path,
    captions: Sequence[Caption],
    rows: Sequence[Mapping[str, Any]],
    *,
    step: int = 0,
    split: str = "score",
) -> None:
    """
    Write the verdicts of captions scored with b-CapScore, see [`VerdictWriter`].

    Args:
        folder (`str` or `Path`):
            Output folder; existing rows of the same captions are replaced.
        captions (`Sequence[Caption]`):
            Captions with image and reference.
        rows (`Sequence[Mapping]`):
            The row of each from [`evaluate_captions`].
        step (`int`, *optional*, defaults to `0`), split (`str`, *optional*, defaults to `"score"`):
            Where in a run they belong.
    """
    writer = VerdictWriter(folder)
    for start in range(0, len(captions), AT_ONCE):
        some = zip(captions[start : start + AT_ONCE], rows[start : start + AT_ONCE], strict=True)
        writer.write([_verdict_row(*pair) | {"step": step, "split": split} for pair in some])


def _verdict_row(caption: Caption, row: Mapping[str, Any]) -> dict[str, Any]:
    rewards = {f"{name}_reward": row.get(name) for name in REWARDS}
    missing = [name for name, value in rewards.items() if value is None]
    return {
        "id": caption.id,
        "completion": caption.caption,
        "image": caption.image,
        "reference": caption.reference,
        "rewards": rewards,
        "reasons": {name: row["reason"] for name in missing if row["reason"]},
        "assertions": [] if caption.is_empty else None,
        **{name: row[name] for name in SEEN if name in row},
    }

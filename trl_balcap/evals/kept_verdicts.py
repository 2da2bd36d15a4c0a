"""Scored rows as verdict rows, which `trl-balcap report` shows: worst captions first, models side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl_balcap.data.scored import Caption
from trl_balcap.evals.metrics.protocol import Row

__all__ = ["keep_verdicts", "verdict_row"]

REWARDS = ("precision", "recall", "linguistic")


def verdict_row(caption: Caption, row: Row) -> dict[str, Any]:
    """
    One scored caption as a verdict row. Of metrics other than b-CapScore it has the score.

    Example:

    ```python
    >>> row = {"id": "7", "metric": "dcscore", "score": None, "reason": "timeout"}
    >>> made = verdict_row(Caption("7", "A cup."), row)
    >>> made["rewards"], made["reasons"]
    ({'dcscore': None}, {'dcscore': 'timeout'})

    ```
    """
    # A metric that shows the judge no image takes ids that are no files.
    is_missing = isinstance(caption.image, Path) and not caption.image.is_file()
    rewards = {name: row[name] for name in REWARDS if name in row}
    rewards[str(row["metric"])] = row["score"]
    missing = [name for name, value in rewards.items() if value is None]
    return {
        "step": 0,
        "split": "score",
        "id": f"{row['metric']}/{row['id']}",
        "group": str(row["id"]),
        "image": None if is_missing else caption.image,
        "completion": caption.caption,
        "reference": caption.reference,
        "rewards": rewards,
        "reasons": {name: str(row["reason"]) for name in missing},
        **{
            name: row[name]
            for name in ("assertions", "units", "clarity", "fluency", "coherency")
            if name in row
        },
    }


def keep_verdicts(folder: Path, captions: Sequence[Caption], rows: Sequence[Row]) -> None:
    """Add rows to a folder of verdicts; rows of an id that is there take its place."""
    if not rows:
        return
    from trl_balcap.report.verdicts import VerdictWriter  # its pyarrow is not needed to score

    by_id = {caption.id: caption for caption in captions}
    with VerdictWriter(folder) as writer:
        writer.write([verdict_row(by_id[row["id"]], row) for row in rows])

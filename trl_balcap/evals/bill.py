"""The cost of `trl-balcap bench`, written step by step so that killed runs are counted too."""

import json
from collections.abc import Mapping
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trl_balcap.data.rows import cut_half_row, read_jsonl
from trl_balcap.evals.run import spent_since
from trl_balcap.judge import Judge
from trl_balcap.judge.stats import JudgeStats

__all__ = ["Bill", "read_bill"]

COUNTS = ("calls", "prompt tokens", "completion tokens")


class Bill:
    """
    Adds the cost of one run to the bill of all runs in a folder.

    Args:
        folder (`str` or `Path`):
            Folder of `bill.jsonl`.
    """

    def __init__(self, folder: str | Path):
        self._path = Path(folder) / "bill.jsonl"
        if self._path.is_file():
            cut_half_row(self._path)
        self._started = datetime.now(UTC).isoformat()
        self._entered: dict[int, tuple[Judge, JudgeStats]] = {}

    def enter(self, judge: Judge, about: Mapping[str, Any]) -> None:
        """Add what a judge has cost since its last entry; nothing if it was not asked."""
        _, before = self._entered.get(id(judge), (judge, JudgeStats()))
        spent = spent_since(judge, before)
        if not spent["calls"]:
            return
        if spent["dollars"] != "price unknown":
            spent["dollars"] = judge.stats.usd - before.usd  # not rounded: many small amounts
        self._entered[id(judge)] = (judge, copy(judge.stats))
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": self._started, **about, **spent}) + "\n")


def read_bill(folder: Path) -> dict[str, Any]:
    """The total cost of all runs in a folder; dollars are `None` if a price is unknown."""
    path = folder / "bill.jsonl"
    entries = [entry for _, entry in read_jsonl(path)] if path.is_file() else []
    dollars = [entry["dollars"] for entry in entries]
    known = all(isinstance(amount, int | float) for amount in dollars)
    return {
        "runs": len({entry["run"] for entry in entries}),
        **{name: sum(entry[name] for entry in entries) for name in COUNTS},
        "dollars": sum(dollars) if known else None,
    }

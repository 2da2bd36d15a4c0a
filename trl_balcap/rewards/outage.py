"""[`OutageRule`]: when to stop because a judge is down, decided from the reports of all ranks."""

from collections import Counter
from collections.abc import Mapping, Sequence

from trl_balcap.judge.errors import INFRASTRUCTURE_REASONS
from trl_balcap.rewards.hooks import JudgingReport

__all__ = ["OutageRule"]


class OutageRule:
    """
    Tells a judge that is down from rows that it declines to score.

    Only reasons that no caption can cause count: `INFRASTRUCTURE_REASONS`. A batch is lost if they
    left more than `max_unscored` of the completions asked about unscored. A reward is down after
    `patience` lost batches in a row with at least `min_rows` unscored completions in total. Batches
    in which nothing was asked are skipped.

    Args:
        min_rows (`int`, *optional*, defaults to `16`):
            Minimum number of unscored completions.
        patience (`int`, *optional*, defaults to `3`):
            Number of lost batches in a row.

    Example:

    ```python
    >>> rule = OutageRule(min_rows=8, patience=2)
    >>> lost = [JudgingReport("recall_reward", asked=8, unscored={"server_error": 6})]
    >>> rule.observe(lost, {"recall_reward": 0.5}) is None
    True
    >>> print(rule.observe(lost, {"recall_reward": 0.5}))  # doctest: +NORMALIZE_WHITESPACE
    12 completions of 2 batches in a row could not be scored by recall_reward (server_error: 12),
    more than max_unscored=0.5 of each

    ```
    """

    def __init__(self, *, min_rows: int = 16, patience: int = 3):
        self.min_rows = min_rows
        self.patience = patience
        self._lost: dict[str, list[Counter[str]]] = {}  # reward -> batches in a row

    def reset(self) -> None:
        """Forget the batches recorded so far."""
        self._lost.clear()

    def observe(
        self, reports: Sequence[JudgingReport], max_unscored: Mapping[str, float]
    ) -> str | None:
        """
        Record a batch, and say which reward is down, if any.

        Args:
            reports (`Sequence[JudgingReport]`):
                Reports of all ranks on one batch.
            max_unscored (`Mapping[str, float]`):
                Share of a batch that each reward may leave unscored.

        Returns:
            `str` or `None`: what happened, for humans.
        """
        out = None
        for name, share in max_unscored.items():
            mine = [report for report in reports if report.reward == name]
            asked = sum(report.asked for report in mine)
            if not asked:
                continue
            reasons = sum((Counter(report.unscored) for report in mine), Counter())
            lost = Counter({r: n for r, n in reasons.items() if r in INFRASTRUCTURE_REASONS})
            if lost.total() <= share * asked:
                self._lost[name] = []
                continue
            streak = self._lost.setdefault(name, [])
            streak.append(lost)
            rows = sum(streak, Counter())
            if len(streak) >= self.patience and rows.total() >= self.min_rows:
                counted = ", ".join(f"{reason}: {n}" for reason, n in rows.most_common())
                out = out or (
                    f"{rows.total()} completions of {len(streak)} batches in a row could not be "
                    f"scored by {name} ({counted}), more than max_unscored={share:g} of each"
                )
        return out

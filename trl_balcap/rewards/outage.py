"""When judges cannot go on: [`OutageRule`], decided from the reports of all ranks."""

from collections import Counter
from collections.abc import Mapping, Sequence

from trl_balcap.judge.errors import INFRASTRUCTURE_REASONS
from trl_balcap.rewards.hooks import JudgingReport

__all__ = ["OutageRule"]


class OutageRule:
    """
    Tells a judge that is down from rows that it will not score.

    Only what no caption can cause counts: `INFRASTRUCTURE_REASONS`. A batch in which more than
    `max_unscored` of the completions that were asked about stayed unscored for such a reason is a
    lost one. A reward is out when `patience` batches in a row were lost, with `min_rows`
    completions or more among them. A batch in which nothing was asked is not counted.

    Args:
        min_rows (`int`, *optional*, defaults to `16`):
            Completions that must be lost.
        patience (`int`, *optional*, defaults to `3`):
            Batches in a row that must be lost.

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

    def observe(
        self, reports: Sequence[JudgingReport], max_unscored: Mapping[str, float]
    ) -> str | None:
        """
        Take in a batch; say which reward is out, if one is.

        Args:
            reports (`Sequence[JudgingReport]`):
                What all ranks report of one batch.
            max_unscored (`Mapping[str, float]`):
                Share of a batch that each reward may leave unscored.

        Returns:
            `str` or `None`: what happened, for people.
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

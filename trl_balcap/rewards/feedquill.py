"""FEEDQUILL's reward, which the BalCapRL paper compares with: precision and count."""

from collections.abc import Sequence
from typing import Any

from trl_balcap.judge import Judge
from trl_balcap.rewards.balanced import PrecisionReward
from trl_balcap.rewards.row import Row

__all__ = ["FeedQuillReward", "feedquill_score"]


class FeedQuillReward(PrecisionReward):
    r"""
    Share of a caption's N atomic assertions that are correct, pointable or not, plus their number.

    $$r = \left(\frac{1}{N} \sum_i c_i + \alpha \min(1, N / N_0)\right) / (1 + \alpha)$$

    FEEDQUILL comes from DeCapBench, "Painting with Words"
    (https://huggingface.co/papers/2503.07906). It builds preference pairs from the share of correct
    units and from the number of units, trains a reward model on each, and runs PPO on their
    weighted sum. Here the judge gives both directly. The paper does not say at which number more
    units stop paying off, because its reward models limit it: `full_count` is ours, and so is the
    default of `count_weight`. It has no pointability: commentary that nobody would call false is
    correct, and counts.

    Args:
        judge ([`Judge`] or `str`, *optional*):
            The judge, asked the same questions as for [`PrecisionReward`]; both share the verdicts.
        count_weight (`float`, *optional*, defaults to `0.5`):
            $\alpha$.
        full_count (`int`, *optional*, defaults to `50`):
            $N_0$, the number of assertions above which more gain nothing.

    Raises:
        `ValueError`: if `count_weight` is negative or `full_count` below 1.

    Example:

    ```python
    >>> from trl_balcap import Judge
    >>> FeedQuillReward(Judge("scenes/oracle"), full_count=20)
    FeedQuillReward(Judge('scenes/oracle'))

    ```
    """

    __name__ = "feedquill_reward"
    sees = ("assertions",)

    def __init__(
        self, judge: Judge | str | None = None, *, count_weight: float = 0.5, full_count: int = 50
    ):
        if not count_weight >= 0 or full_count < 1:
            raise ValueError(
                "count_weight must be 0 or more and full_count 1 or more, got "
                f"{count_weight} and {full_count}."
            )
        super().__init__(judge)
        self.count_weight, self.full_count = count_weight, full_count

    def __getstate__(self) -> dict[str, Any]:
        own = {"count_weight": self.count_weight, "full_count": self.full_count}
        return super().__getstate__() | own

    def about(self) -> str:
        """The judge, and how the number of assertions counts."""
        counted = f"{self.count_weight:g} x assertions up to {self.full_count}"
        return f"{super().about()}, {counted}"

    async def score(self, row: Row) -> float:
        """[`feedquill_score`] of the verdicts on the caption's assertions."""
        await super().score(row)
        correct = [verdict["correct"] for verdict in row.seen["assertions"]]
        return feedquill_score(correct, count_weight=self.count_weight, full_count=self.full_count)


def feedquill_score(
    correct: Sequence[bool], *, count_weight: float = 0.5, full_count: int = 50
) -> float:
    r"""
    FEEDQUILL's reward of a caption: the share of its N assertions that are correct, and their
    number.

    $$r = \left(\frac{1}{N} \sum_i c_i + \alpha \min(1, N / N_0)\right) / (1 + \alpha)$$

    Args:
        correct (`Sequence[bool]`):
            One per assertion.
        count_weight (`float`, *optional*, defaults to `0.5`):
            $\alpha$, the weight of the count.
        full_count (`int`, *optional*, defaults to `50`):
            $N_0$, the number of assertions above which more gain nothing.

    Returns:
        `float`: from 0 to 1; 0.0 for a caption that asserts nothing.

    Example: (3/4 + 0.5 x 4/10) / 1.5

    ```python
    >>> round(feedquill_score([True, True, True, False], full_count=10), 4)
    0.6333

    ```
    """
    if not correct:
        return 0.0
    share, count = sum(correct) / len(correct), min(1.0, len(correct) / full_count)
    return (share + count_weight * count) / (1 + count_weight)

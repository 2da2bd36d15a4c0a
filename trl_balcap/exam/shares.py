"""Intervals for shares of right answers near 0 and 100%, where resampling sees too little."""

import math
from collections.abc import Sequence

from trl_balcap.evals.bootstrap import LEVEL, Estimate

__all__ = ["widened", "wilson"]


def wilson(counts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """
    Wilson's interval for a share, or for the mean of several: their limits are combined as by
    Newcombe (1998), with the root of the summed squares.

    Args:
        counts (`list[tuple[float, float]]`): How many, and out of how many, for each share.

    Example: 10 of 10 true statements judged correctly, alone and with 10 of 10 false ones.

    ```python
    >>> [round(limit, 3) for limit in wilson([(10, 10)])]
    [0.722, 1.0]
    >>> [round(limit, 3) for limit in wilson([(10, 10), (10, 10)])]
    [0.804, 1.0]

    ```
    """
    from scipy.stats import binomtest  # slow to import

    below = above = mean = 0.0
    for hits, out_of in counts:
        share = hits / out_of
        limits = binomtest(round(hits), round(out_of)).proportion_ci(LEVEL, method="wilson")
        mean += share / len(counts)
        below += ((share - limits.low) / len(counts)) ** 2
        above += ((limits.high - share) / len(counts)) ** 2
    return mean - math.sqrt(below), mean + math.sqrt(above)


def widened(found: Estimate, counts: Sequence[tuple[float, float]]) -> Estimate:
    """The estimate of a mean of shares, with an interval that includes Wilson's."""
    if found.low is None or found.high is None or not all(n for _, n in counts):
        return found
    low, high = wilson(counts)
    return found._replace(low=min(found.low, low), high=max(found.high, high))

"""How far to trust a judge's scores: agreement with itself and with another judge. Pure maths."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from trl_balcap.evals.bootstrap import Statistic, ratio

__all__ = ["JudgeAgreement", "agreement", "retest_spread", "retest_statistic"]

Score = float | None


class JudgeAgreement(NamedTuple):
    """
    Agreement of two judges on the same captions.

    Args:
        n (`int`):
            Number of captions scored by both.
        bias (`float` or `None`):
            Mean of the second judge's scores minus the first's.
        within (`float` or `None`):
            Share of captions on which they differ by at most a tolerance.
        rank_correlation (`float` or `None`):
            Spearman's; `None` with fewer than three captions, or if a judge gives all captions the
            same score.
    """

    n: int
    bias: float | None
    within: float | None
    rank_correlation: float | None


def retest_spread(first: Sequence[Score], second: Sequence[Score]) -> float | None:
    r"""
    Standard deviation of a judge's score around its own mean, from two scores of the same captions.

    $$\sigma = \sqrt{\tfrac{1}{2n} \sum_i (a_i - b_i)^2}$$

    The difference of two scores has twice the variance of one. If the spread within a group is no
    larger, it says nothing about the captions.

    Args:
        first, second (`Sequence[float or None]`):
            Scores of the same captions in the same order, `None` if the judge failed.

    Returns:
        `float` or `None`: `None` if no caption was scored twice.

    Raises:
        `ValueError`: if the two differ in length.

    Example: two captions; the judge gave one of them 0.4 and then 0.6.

    ```python
    >>> round(retest_spread([0.4, 0.9, None], [0.6, 0.9, 0.1]), 4)
    0.1

    ```
    """
    if not _both(first, second):
        return None
    statistic = retest_statistic("", first, second)
    return float(statistic.formula(statistic.columns.sum(axis=0)))


def retest_statistic(name: str, first: Sequence[Score], second: Sequence[Score]) -> Statistic:
    """
    [`retest_spread`] as a formula over sums, from which [`~evals.bootstrap.estimate`] makes an
    interval.
    """
    halves = [
        None if a is None or b is None else (a - b) ** 2 / 2
        for a, b in zip(first, second, strict=True)
    ]
    scored = np.array([half is not None for half in halves], dtype=bool)  # (N,)
    columns = np.array([[half or 0.0, half is not None] for half in halves], dtype=float)  # (N, 2)
    return Statistic(name, columns.reshape(-1, 2), lambda sums: np.sqrt(ratio(sums)), scored)


def agreement(
    first: Sequence[Score], second: Sequence[Score], *, tolerance: float = 0.1
) -> JudgeAgreement:
    """
    Compare two judges on the same captions.

    Args:
        first, second (`Sequence[float or None]`):
            Their scores, in the same order, `None` if a judge failed.
        tolerance (`float`, *optional*, defaults to `0.1`):
            Largest difference of two scores that count as equal.

    Returns:
        [`JudgeAgreement`]

    Raises:
        `ValueError`: if the two differ in length.

    Example: the second judge is more lenient but ranks the captions the same.

    ```python
    >>> n, bias, within, ranks = agreement([0.25, 0.5, 0.625, 0.75], [0.5, 0.5625, 0.6875, 0.875])
    >>> n, bias, within, round(ranks, 6)
    (4, 0.125, 0.5, 1.0)

    ```
    """
    pairs = _both(first, second)
    if not pairs:
        return JudgeAgreement(0, None, None, None)
    n = len(pairs)
    # Scores are ratios of small counts: 0.9 and 0.8 are 0.1 apart, despite float64 rounding.
    within = sum(abs(a - b) <= tolerance + 1e-9 for a, b in pairs) / n
    bias = math.fsum(b - a for a, b in pairs) / n
    columns = [list(column) for column in zip(*pairs, strict=True)]
    ranked = n > 2 and all(len(set(column)) > 1 for column in columns)
    if not ranked:
        return JudgeAgreement(n, bias, within, None)
    from scipy.stats import spearmanr  # slow to import, and only needed here

    ranks: Any = spearmanr(columns[0], columns[1])
    return JudgeAgreement(n, bias, within, float(ranks.statistic))


def _both(first: Sequence[Score], second: Sequence[Score]) -> list[tuple[float, float]]:
    return [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]

"""
Rank correlations of a metric with people, with p-values and bootstrap intervals.

The numbers are those of `scipy.stats`, which takes longer to import than all of this to compute.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = [
    "RankAgreement",
    "correlations",
    "kendall_p",
    "rank_agreement",
    "resampled_models",
    "spearman_p",
]

ROUNDS = 2000


class RankAgreement(NamedTuple):
    """
    Rank correlations of a metric with the human ranking, `None` where the metric tells no models
    apart; their p-values (Spearman's is `None` of 2 models) and 95% intervals; and the human
    position of each model.
    """

    spearman: float | None
    kendall: float | None
    human_positions: list[int]
    spearman_p: float | None = None
    kendall_p: float | None = None
    spearman_interval: tuple[float, float] | None = None
    kendall_interval: tuple[float, float] | None = None


def correlations(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Spearman's rho and Kendall's tau-b of each pair of rows, NaN where all of a row are equal.

    Args:
        x, y (`np.ndarray`):
            Scores of M models in R rounds, shape (R, M).

    Returns:
        Two `np.ndarray`s of shape (R,).

    Example:

    ```python
    >>> rho, tau = correlations(np.array([[1.0, 3.0, 2.0, 4.0]]), np.array([[1.0, 2.0, 3.0, 4.0]]))
    >>> round(float(rho[0]), 6), round(float(tau[0]), 6)  # one swap of four
    (0.8, 0.666667)

    ```
    """
    ranks = [_average_ranks(values) for values in (x, y)]  # (R, M)
    a, b = (values - values.mean(axis=-1, keepdims=True) for values in ranks)
    first, second = np.triu_indices(x.shape[-1], k=1)
    # Of ranks, since differences of scores may round to 0.
    p, q = (np.sign(values[:, first] - values[:, second]) for values in ranks)  # (R, pairs)
    return _normed(a, b), _normed(p, q)


def rank_agreement(
    human_positions: Sequence[int],
    metric: Sequence[float],
    *,
    rounds: np.ndarray | None = None,
    seed: int = 0,
) -> RankAgreement:
    """
    Correlations of a metric's scores with the human positions.

    Args:
        human_positions (`Sequence[int]`):
            1 is best.
        metric (`Sequence[float]`):
            The metric's score of the same models, low is good, as a position is.
        rounds (`np.ndarray`, *optional*):
            The same in R resamples of what the scores come from, shape (R, M), NaN where a model
            was not drawn. By default models are resampled.
        seed (`int`, *optional*, defaults to `0`):
            Seed of that.

    Returns:
        [`RankAgreement`]
    """
    positions = list(human_positions)
    if len(set(metric)) == 1:
        return RankAgreement(None, None, positions)
    human, scores = np.array(positions, dtype=float), np.array(metric, dtype=float)  # (M,)
    rho, tau = (float(value[0]) for value in correlations(scores[None], human[None]))
    if rounds is None:
        drawn = resampled_models(len(positions), seed=seed)  # (R, M)
        found = correlations(scores[drawn], human[drawn])
    else:
        complete = rounds[~np.isnan(rounds).any(axis=1)]
        found = correlations(complete, np.broadcast_to(human, complete.shape))
    intervals = [_interval(values) for values in found]
    if None in intervals:
        intervals = [None, None]
    rho_p = spearman_p(rho, len(positions)) if len(positions) > 2 else None
    return RankAgreement(rho, tau, positions, rho_p, kendall_p(scores, human), *intervals)


def spearman_p(rho: float, n: int) -> float:
    """
    Two-sided p-value of Spearman's rho of n pairs: Student's t with n - 2 degrees of freedom.

    Example:

    ```python
    >>> round(spearman_p(0.8, 4), 3)
    0.2

    ```
    """
    from scipy.special import stdtr

    if abs(rho) >= 1:
        return 0.0
    return float(2 * stdtr(n - 2, -abs(rho) * math.sqrt((n - 2) / ((1 + rho) * (1 - rho)))))


def kendall_p(x: np.ndarray, y: np.ndarray) -> float:
    """
    Two-sided p-value of Kendall's tau-b: exact without ties, else by the normal approximation.

    Of all n! orders, the number of those with k pairs out of order is the coefficient of q^k in
    (1)(1 + q)(1 + q + q^2)...(1 + ... + q^(n - 1)).

    Args:
        x, y (`np.ndarray`):
            Scores of the same M models, shape (M,).

    Example:

    ```python
    >>> kendall_p(np.array([1, 2, 3]), np.array([1, 2, 3]))  # 2 of 6 orders are as far from even
    0.3333333333333333

    ```
    """
    n = len(x)
    first, second = np.triu_indices(n, k=1)
    signs = np.sign(x[first] - x[second]) * np.sign(y[first] - y[second])  # (pairs,)
    ties = [[count for count in Counter(side.tolist()).values() if count > 1] for side in (x, y)]
    if not any(ties):
        orders = np.ones(1)  # (pairs + 1,), as shares of n!
        for k in range(2, n + 1):
            orders = np.convolve(orders, np.ones(k) / k)
        rarer = min((signs < 0).sum(), (signs > 0).sum())
        return min(1.0, float(2 * orders[: rarer + 1].sum()))

    def total(f) -> tuple[int, int]:
        a, b = (sum(f(t) for t in side) for side in ties)
        return a, b

    pairs, triples = total(lambda t: t * (t - 1)), total(lambda t: t * (t - 1) * (t - 2))
    spread = n * (n - 1) * (2 * n + 5) - sum(total(lambda t: t * (t - 1) * (2 * t + 5)))
    variance = spread / 18 + pairs[0] * pairs[1] / (2 * n * (n - 1))
    if n > 2:
        variance += triples[0] * triples[1] / (9 * n * (n - 1) * (n - 2))
    return math.erfc(abs(signs.sum()) / math.sqrt(2 * variance))


def resampled_models(n: int, *, rounds: int = ROUNDS, seed: int = 0) -> np.ndarray:
    """Draws of n models with replacement, shape (rounds, n)."""
    return np.random.default_rng(seed).integers(0, n, size=(rounds, n))


def _average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 along the last axis; equal values share the mean of theirs."""
    one, other = values[..., :, None], values[..., None, :]  # (..., M, 1), (..., 1, M)
    return (one > other).sum(axis=-1) + ((one == other).sum(axis=-1) + 1) / 2


def _normed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=-1) / np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))


def _interval(values: np.ndarray) -> tuple[float, float] | None:
    known = values[~np.isnan(values)]
    if len(known) < len(values) / 2:  # of two models, every other resample has one alone
        return None
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)

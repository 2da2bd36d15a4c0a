"""Rank correlations of a metric with people, with p-values and bootstrap intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["RankAgreement", "correlations", "rank_agreement", "resampled_models"]

ROUNDS = 2000


class RankAgreement(NamedTuple):
    """
    Rank correlations of a metric with the human ranking, `None` where the metric tells no models
    apart; their p-values and 95% intervals; and the human position of each model.
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
    from scipy.stats import rankdata  # half a second, and most commands need none of it

    ranks = [rankdata(values, axis=-1) for values in (x, y)]  # (R, M)
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
    from scipy.stats import kendalltau, spearmanr

    spearman, kendall = spearmanr(positions, metric), kendalltau(positions, metric)
    rho, rho_p = (float(value) for value in np.asarray(spearman))
    tau, tau_p = (float(value) for value in np.asarray(kendall))
    human = np.array(positions, dtype=float)
    if rounds is None:
        drawn = resampled_models(len(positions), seed=seed)  # (R, M)
        found = correlations(np.array(metric, dtype=float)[drawn], human[drawn])
    else:
        complete = rounds[~np.isnan(rounds).any(axis=1)]
        found = correlations(complete, np.broadcast_to(human, complete.shape))
    intervals = [_interval(values) for values in found]
    if None in intervals:
        intervals = [None, None]
    return RankAgreement(rho, tau, positions, rho_p, tau_p, *intervals)


def resampled_models(n: int, *, rounds: int = ROUNDS, seed: int = 0) -> np.ndarray:
    """Draws of n models with replacement, shape (rounds, n)."""
    return np.random.default_rng(seed).integers(0, n, size=(rounds, n))


def _normed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=-1) / np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))


def _interval(values: np.ndarray) -> tuple[float, float] | None:
    known = values[~np.isnan(values)]
    if len(known) < len(values) / 2:  # of two models, every other resample has one alone
        return None
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)

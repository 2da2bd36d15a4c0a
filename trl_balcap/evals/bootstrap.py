"""
Intervals by resampling images: of a score, and of the difference between two captioners on the same
images.

Every corpus score here is a function of sums over images, so a resample is a weight per image, and
all resamples together are one matrix product.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

__all__ = [
    "Difference",
    "Estimate",
    "Statistic",
    "difference",
    "estimate",
    "estimates",
    "mean_statistic",
    "resampling_weights",
]

ROUNDS = 2000
LEVEL = 0.95
AT_ONCE = 4_000_000  # weights drawn at once


class Statistic(NamedTuple):
    """
    A corpus score as a function of sums.

    Args:
        name (`str`):
            Its name in tables.
        columns (`np.ndarray`):
            One row per image, shape (N, C).
        formula (`Callable`):
            Maps sums over images, shape (..., C), to the score, shape (...); NaN if undefined.
        scored (`np.ndarray`):
            Whether each image counts in the score, shape (N,).
        present (`np.ndarray`, *optional*):
            Whether each image counts in each column, shape (N, C), if that differs by column. In a
            comparison, each column uses the images that count on both sides.
    """

    name: str
    columns: np.ndarray
    formula: Callable[[np.ndarray], np.ndarray]
    scored: np.ndarray
    present: np.ndarray | None = None

    def columns_present(self) -> np.ndarray:
        """Whether each image counts in each column, shape (N, C) or (N, 1)."""
        return self.scored[:, None] if self.present is None else self.present


class Estimate(NamedTuple):
    """A score, its interval, and the numbers of scored images and of all images. `None` if nothing
    was scored."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    n_scored: int
    n: int


class Difference(NamedTuple):
    """Second minus first on the images scored in both, its interval, and the share of resamples
    above zero."""

    name: str
    first: float | None
    second: float | None
    value: float | None
    low: float | None
    high: float | None
    share_above_zero: float | None
    n: int
    p_value: float | None = None


def mean_statistic(name: str, values: Sequence[float | None], scale: float = 1.0) -> Statistic:
    """
    The mean of one value per image, leaving out missing ones, times `scale`.

    Example:

    ```python
    >>> estimate(mean_statistic("score", [1.0, 0.0, None]), resampling_weights(3, rounds=10))[1:2]
    (0.5,)

    ```
    """
    present = np.array([value is not None for value in values], dtype=bool)  # (N,)
    filled = np.array([0.0 if value is None else value for value in values], dtype=float)  # (N,)
    columns = np.stack([filled * scale, present.astype(float)], axis=-1)  # (N, 2)
    return Statistic(name, columns, ratio, present)


def ratio(sums: np.ndarray) -> np.ndarray:
    """The first sum divided by the second, NaN if the second is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def resampling_weights(
    n: int, *, strata: Sequence[str] | None = None, rounds: int = ROUNDS, seed: int = 0
) -> np.ndarray:
    """
    How often each image is drawn in each resample, with replacement within its stratum.

    Args:
        n (`int`):
            Images.
        strata (`Sequence[str]`, *optional*):
            A label per image; each label keeps its number of images in every resample. Labels with
            a single image form one stratum together: on their own, they would have no spread.
        rounds (`int`, *optional*, defaults to `2000`):
            Resamples.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the draws: the same images and seed give the same interval.

    Returns:
        `np.ndarray` of shape (rounds, n): each row sums to n.

    Example:

    ```python
    >>> resampling_weights(3, strata=["a", "b", "b"], rounds=2).sum(axis=1).tolist()
    [3, 3]

    ```
    """
    weights = np.zeros((rounds, n), dtype=np.int64)  # (R, N)
    for first, places, block in _blocks(n, strata, rounds, seed):
        weights[first : first + len(block), places] = block
    return weights


def _blocks(
    n: int, strata: Sequence[str] | None, rounds: int, seed: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The weights in parts that fit in memory: the first round, the images of a stratum (S,), and
    how often each is drawn in these rounds (B, S)."""
    generator = np.random.default_rng(seed)
    labels = np.array(["" for _ in range(n)] if strata is None else [str(s) for s in strata])
    alone = {label for label, size in Counter(labels.tolist()).items() if size == 1}
    labels = np.array(["" if label in alone else f"of {label}" for label in labels.tolist()])
    for label in dict.fromkeys(labels.tolist()):
        places = np.flatnonzero(labels == label)
        size = len(places)
        at_once = max(1, AT_ONCE // size)
        for first in range(0, rounds, at_once):
            drawn = min(at_once, rounds - first)
            yield first, places, generator.multinomial(size, np.full(size, 1 / size), size=drawn)


def estimates(
    statistics: Sequence[Statistic],
    *,
    strata: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> tuple[Estimate, ...]:
    """
    Scores of the same images with their intervals, as [`estimate`] gives them with
    [`resampling_weights`], whose matrix would not fit in memory for a million images.

    Args:
        statistics (`Sequence[Statistic]`):
            The scores.
        strata, rounds, seed:
            As for [`resampling_weights`].

    Example:

    ```python
    >>> [found] = estimates([mean_statistic("score", [1.0, 0.0, None])])
    >>> found == estimate(mean_statistic("score", [1.0, 0.0, None]), resampling_weights(3))
    True

    ```
    """
    n = len(statistics[0].columns)
    sums = [np.zeros((rounds, statistic.columns.shape[1])) for statistic in statistics]  # (R, C)
    for first, places, block in _blocks(n, strata, rounds, seed):
        for statistic, total in zip(statistics, sums, strict=True):
            total[first : first + len(block)] += block @ statistic.columns[places]
    return tuple(
        _estimate(statistic, total, LEVEL)
        for statistic, total in zip(statistics, sums, strict=True)
    )


def estimate(statistic: Statistic, weights: np.ndarray, *, level: float = LEVEL) -> Estimate:
    """
    A score with its percentile interval. The interval is `None` if fewer than 2 images were scored.

    Args:
        statistic ([`Statistic`]):
            The score.
        weights (`np.ndarray`):
            From [`resampling_weights`], shape (R, N).
        level (`float`, *optional*, defaults to `0.95`):
            Coverage of the interval.

    Returns:
        [`Estimate`]
    """
    return _estimate(statistic, weights @ statistic.columns, level)


def _estimate(statistic: Statistic, sums: np.ndarray, level: float) -> Estimate:
    """A score with its interval, from its sums in each resample, shape (R, C)."""
    value = _number(statistic.formula(statistic.columns.sum(axis=0)))
    n_scored = int(statistic.scored.sum())
    low, high = None, None
    if value is not None and n_scored > 1:
        low, high = _interval(statistic.formula(sums), level)
    return Estimate(statistic.name, value, low, high, n_scored, len(statistic.scored))


def difference(
    first: Statistic, second: Statistic, weights: np.ndarray, *, level: float = LEVEL
) -> Difference:
    """
    Paired difference, second minus first: both sides of a resample draw the same images.

    Both statistics must have the same images in the same order. Images that either side did not
    score are left out.

    Raises:
        `ValueError`: if the two are different scores or differ in length.

    Example:

    ```python
    >>> before, after = mean_statistic("s", [0.0, 0.5, 1.0]), mean_statistic("s", [0.1, 0.6, None])
    >>> change = difference(before, after, resampling_weights(3))
    >>> round(change.value, 6), round(change.low, 6), change.n  # the same gain on each image
    (0.1, 0.1, 2)

    ```
    """
    if first.name != second.name or len(first.columns) != len(second.columns):
        raise ValueError(
            f"A difference needs the same score on the same images, got {first.name!r} on "
            f"{len(first.columns)} and {second.name!r} on {len(second.columns)} images."
        )
    both = first.scored & second.scored  # (N,)
    shared = first.columns_present() & second.columns_present()  # (N, C)
    a, b = first.columns * shared, second.columns * shared
    value_a = _number(first.formula(a.sum(axis=0)))
    value_b = _number(second.formula(b.sum(axis=0)))
    n = int(both.sum())
    if value_a is None or value_b is None:
        return Difference(first.name, value_a, value_b, None, None, None, None, n)
    low, high, above, p_value = None, None, None, None
    if n > 1:
        changes = second.formula(weights @ b) - first.formula(weights @ a)  # (R,)
        low, high = _interval(changes, level)
        changes = changes[~np.isnan(changes)]
        above = float(np.mean(changes > 0))
        p_value = _two_sided(changes)
    change = value_b - value_a
    return Difference(first.name, value_a, value_b, change, low, high, above, n, p_value)


def _two_sided(changes: np.ndarray) -> float:
    """Twice the smaller share of resamples on either side of zero, at least one resample's."""
    sides = min(np.sum(changes <= 0), np.sum(changes >= 0))
    return min(1.0, 2 * (int(sides) + 1) / (len(changes) + 1))


def _interval(samples: np.ndarray, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.nanquantile(samples, (tail, 1 - tail))
    return float(low), float(high)


def _number(value: np.ndarray) -> float | None:
    return None if np.isnan(value) else float(value)

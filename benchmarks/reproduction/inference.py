"""What a difference between two arms shows: intervals, tests and words for them.

Pure functions of numbers. A difference is paired: one number per pair of runs.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import false_discovery_control, pearsonr, spearmanr, ttest_1samp, ttest_ind

from trl_balcap.evals.bootstrap import resampling_weights
from trl_balcap.evals.standings import holm

__all__ = [
    "LEAST_SEEDS",
    "Agreement",
    "Evidence",
    "Interval",
    "agreement",
    "area",
    "corrected",
    "crossed_bootstrap",
    "equivalence_p",
    "evidence",
    "harmonic",
    "interval",
    "sign_flip_p",
    "unpaired",
    "verdict",
]

LEAST_SEEDS = 3
LEVEL = 0.95


class Interval(NamedTuple):
    """A mean over seeds with its 95% t interval; the ends are NaN with fewer than two seeds."""

    mean: float
    low: float
    high: float
    n: int


class Evidence(NamedTuple):
    """All that is known of one difference: its interval, the p-values of the paired t test and of
    the exact sign-flip test (two-sided), and that of equivalence within the margin."""

    interval: Interval
    p_t: float
    p_flip: float
    p_equivalent: float
    margin: float


class Agreement(NamedTuple):
    """Two correlations of two scores over captioners, with 95% intervals."""

    pearson: Interval
    spearman: Interval


def interval(values: Sequence[float]) -> Interval:
    """
    Mean of values over seeds, with its t interval.

    Example: a spread of 0.1 over 3 seeds is +-0.1 x 4.303 / sqrt(3).

    ```python
    >>> mean, low, high, n = interval([0.1, 0.2, 0.3])
    >>> round(mean, 4), round(low, 4), round(high, 4), n
    (0.2, -0.0484, 0.4484, 3)

    ```
    """
    n = len(values)
    mean = fmean(values) if n else math.nan
    if n < 2 or len(set(values)) == 1:
        ends = (math.nan, math.nan) if n < 2 else (mean, mean)
        return Interval(mean, *ends, n)
    low, high = ttest_1samp(values, 0.0).confidence_interval(LEVEL)
    return Interval(mean, float(low), float(high), n)


def unpaired(more: Sequence[float], less: Sequence[float]) -> Interval:
    """
    Difference of two means, with Welch's interval; `n` is the smaller of the two numbers of runs.

    Example: both variances are 0.01, so the difference varies by 0.1 x sqrt(2 / 3), with 4 degrees
    of freedom: +-0.0816 x 2.776.

    ```python
    >>> mean, low, high, n = unpaired([0.4, 0.5, 0.6], [0.1, 0.2, 0.3])
    >>> round(mean, 4), round(low, 4), round(high, 4), n
    (0.3, 0.0733, 0.5267, 3)

    ```
    """
    n = min(len(more), len(less))
    mean = fmean(more) - fmean(less) if n else math.nan
    if n < 2 or len(set(more)) == len(set(less)) == 1:
        ends = (math.nan, math.nan) if n < 2 else (mean, mean)
        return Interval(mean, *ends, n)
    low, high = ttest_ind(more, less, equal_var=False).confidence_interval(LEVEL)
    return Interval(mean, float(low), float(high), n)


def sign_flip_p(differences: Sequence[float]) -> float:
    """
    Two-sided p-value of the exact sign-flip test: among all 2^n ways to sign the differences, the
    share whose sum is at least as far from 0. It assumes only that, without an effect, a difference
    is as likely as its negative. At best it is 2 / 2^n: 0.06 with five seeds, 2e-6 with twenty.

    All ways are counted without being listed: half the differences give one list of sums, the other
    half a sorted one to look up in.

    ```python
    >>> sign_flip_p([0.1, 0.2, 0.3])  # of 8 sums, only +++ and --- are as far from 0
    0.25
    >>> sign_flip_p([0.1, 0.2, -0.1])  # 0.2: all but +-+ and -+- (-0.2 and 0.2 count, 0.0 does not)
    0.75

    ```
    """
    values = np.asarray(differences, dtype=float)
    least = abs(values.sum()) - 1e-9  # sums in another order may differ in the last digits
    if not len(values) or least <= 0:
        return 1.0
    one, other = (_signed_sums(half) for half in np.array_split(values, 2))
    other.sort()
    above = int((len(other) - np.searchsorted(other, least - one)).sum())
    return 2 * above / 2 ** len(values)


def _signed_sums(values: np.ndarray) -> np.ndarray:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def equivalence_p(differences: Sequence[float], margin: float) -> float:
    """
    P-value of equivalence: the larger of two one-sided t tests, that the mean lies above -margin
    and below the margin. Below 0.05, the 90% interval lies within the margin.

    ```python
    >>> round(equivalence_p([0.01, -0.01, 0.0], 0.02), 3)  # t = 0.02 / (0.01 / sqrt(3)) = 3.46
    0.037

    ```
    """
    if len(differences) < 2:
        return math.nan
    if len(set(differences)) == 1:
        return float(abs(differences[0]) >= margin)
    above: Any = ttest_1samp(differences, -margin, alternative="greater")
    below: Any = ttest_1samp(differences, margin, alternative="less")
    return float(max(above.pvalue, below.pvalue))


def evidence(differences: Sequence[float], margin: float) -> Evidence:
    """Interval and p-values of a paired difference."""
    paired: Any = ttest_1samp(differences, 0.0) if len(set(differences)) > 1 else None
    return Evidence(
        interval(differences),
        math.nan if paired is None else float(paired.pvalue),
        sign_flip_p(differences) if differences else math.nan,
        equivalence_p(differences, margin),
        margin,
    )


def verdict(found: Evidence) -> str:
    """
    A difference in words: `"yes"` if its interval lies above 0, `"no"` if it lies below, else
    `"equivalent within"` the margin if the test of equivalence says so, else `"undecided within"`
    what the interval reaches; `"too few seeds"` with fewer than three.

    ```python
    >>> verdict(evidence([0.05, 0.06, 0.07], 0.02)), verdict(evidence([-0.05, -0.06, -0.07], 0.02))
    ('yes', 'no')
    >>> verdict(evidence([0.001, -0.001, 0.0005], 0.02))
    'equivalent within 0.02'
    >>> verdict(evidence([0.1, -0.1, 0.0], 0.02))
    'undecided within 0.25'

    ```
    """
    low, high, n = found.interval[1:]
    if n < LEAST_SEEDS:
        return "too few seeds"
    if low > 0:
        return "yes"
    if high < 0:
        return "no"
    if found.p_equivalent < 0.05:
        return f"equivalent within {found.margin:g}"
    return f"undecided within {max(-low, high):.2g}"


def corrected(p_values: Sequence[float]) -> list[tuple[float, float]]:
    """
    Each p-value after Holm's correction (of the chance of a single false yes) and after Benjamini
    and Hochberg's (of the share of false ones among the yes); NaN stays, and does not count.

    ```python
    >>> [(round(h, 3), round(b, 3)) for h, b in corrected([0.01, 0.04, 0.03])]
    [(0.03, 0.03), (0.06, 0.04), (0.06, 0.04)]

    ```
    """
    known = [p for p in p_values if not math.isnan(p)]
    if not known:
        return [(math.nan, math.nan)] * len(p_values)
    both = zip(holm(known), false_discovery_control(known).tolist(), strict=True)
    return [(math.nan, math.nan) if math.isnan(p) else next(both) for p in p_values]


def harmonic(means: np.ndarray) -> np.ndarray:
    """Harmonic mean over the last axis, 0 where one of them is 0: b-CapScore."""
    with np.errstate(divide="ignore"):
        return means.shape[-1] / (1.0 / means).sum(-1)


def crossed_bootstrap(
    more: np.ndarray, less: np.ndarray, rounds: int = 2000
) -> tuple[float, float]:
    """
    95% interval of a difference, from resampling seeds and scenes at once: it also covers which
    scenes the arms happened to be measured on. Both arms share the seeds and scenes of a resample.

    Args:
        more, less (`np.ndarray`): Scores of shape (S, N): seeds, scenes.
        rounds (`int`, *optional*): Resamples.

    ```python
    >>> less = np.array([[0.5, 0.7], [0.6, 0.8]])  # two seeds, two scenes
    >>> [round(end, 3) for end in crossed_bootstrap(less + 0.1, less)]
    [0.1, 0.1]

    ```
    """
    seeds, scenes = more.shape
    of_seeds = resampling_weights(seeds, rounds=rounds) / seeds  # (R, S)
    of_scenes = resampling_weights(scenes, rounds=rounds, seed=1) / scenes  # (R, N)
    drawn = (of_scenes @ (more - less).T * of_seeds).sum(1)  # (R,)
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def area(points: Mapping[int, float]) -> float:
    """
    Mean height of the curve through measures at some steps: the area under it, by straight lines,
    divided by the steps. It rewards early gains as well as late ones.

    ```python
    >>> area({0: 0.6, 40: 0.8, 120: 0.9})  # (40 x 0.7 + 80 x 0.85) / 120
    0.8

    ```
    """
    steps = sorted(points)
    heights = [points[step] for step in steps]
    return round(float(np.trapezoid(heights, steps)) / (steps[-1] - steps[0]), 12)


def agreement(scores: Sequence[float], others: Sequence[float]) -> Agreement:
    """
    How alike two scores rank captioners: Pearson's r and Spearman's rho with Fisher's intervals
    (with Bonett and Wright's variance for rho).

    ```python
    >>> found = agreement([1, 2, 3, 4, 5], [2, 1, 3, 4, 5])
    >>> round(found.spearman.mean, 3), found.spearman.n
    (0.9, 5)

    ```
    """
    n = len(scores)
    linear: Any = pearsonr(scores, others)
    ranks: Any = spearmanr(scores, others)
    ends, rho = linear.confidence_interval(LEVEL), float(ranks.statistic)
    half = 1.96 * math.sqrt((1 + rho**2 / 2) / (n - 3))
    centre = math.atanh(max(-0.999999, min(0.999999, rho)))
    return Agreement(
        Interval(float(linear.statistic), float(ends.low), float(ends.high), n),
        Interval(rho, math.tanh(centre - half), math.tanh(centre + half), n),
    )

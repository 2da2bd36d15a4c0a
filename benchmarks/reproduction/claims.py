"""The paper's claims and our own as differences between arms, and the rule that decides them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

from scipy.stats import t as student

__all__ = [
    "CLAIMS",
    "Answer",
    "Claim",
    "Interval",
    "Part",
    "answer",
    "difference",
    "interval",
    "judge",
    "margin",
]

Answer = Literal["yes", "no", "undecided"]
Results = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""arm -> seed -> the result's JSON"""

LEAST_SEEDS = 3
MARGINS = {"arena": 3.0, "length_ratio": 0.05}
"""Differences too small to matter; 0.01 for measures not listed here."""


class Interval(NamedTuple):
    """A mean over seeds with its 95% t interval; the ends are NaN with fewer than two seeds."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Part:
    """
    One comparison: `more` is above `less` in `measure`.

    Args:
        measure (`str`): A key of the measures.
        more, less (`str`): Arms, compared pair by pair over the seeds they share.
        why (`str`, *optional*): What the difference shows, if it is not clear from the arms.
    """

    measure: str
    more: str
    less: str
    why: str = ""


@dataclass(frozen=True)
class Claim:
    """
    A claim, which holds if all its parts hold.

    Args:
        number (`str`): Its number in the list of claims.
        text (`str`): The claim in a sentence.
        parts (`tuple[Part, ...]`): Comparisons that must all hold.
        beside (`tuple[Part, ...]`, *optional*): Comparisons that are shown but do not count.
        ours (`bool`, *optional*, defaults to `False`): The paper does not make this claim; we do.
    """

    number: str
    text: str
    parts: tuple[Part, ...]
    beside: tuple[Part, ...] = ()
    ours: bool = False


_VIEWS = ("precision", "recall", "linguistic", "b_capscore")


def _all(measures: Sequence[str], more: str, less: str) -> tuple[Part, ...]:
    return tuple(Part(measure, more, less) for measure in measures)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "1",
        "The full method beats the base on all three rewards and b-CapScore.",
        _all(_VIEWS, "full", "base"),
        _all(("qa", "arena"), "full", "base"),
    ),
    Claim(
        "2a",
        "c-GDPO beats vanilla GRPO, rewards with their natural spreads.",
        _all(("b_capscore",), "full", "vanilla"),
        _all(("precision", "recall", "linguistic", "qa", "arena"), "full", "vanilla"),
    ),
    Claim(
        "2b",
        "c-GDPO beats vanilla GRPO, rewards with unequal spreads (x0.2, x1, x2).",
        # Per-reward normalisation cancels scales, so the skewed full method is the full method.
        _all(("b_capscore",), "full", "vanilla_skewed"),
        (
            *_all(("precision", "recall", "linguistic", "qa", "arena"), "full", "vanilla_skewed"),
            Part("b_capscore", "full_skewed", "vanilla_skewed"),
        ),
        ours=True,
    ),
    Claim(
        "3",
        "Without the precision reward precision falls.",
        _all(("precision",), "full", "no_precision"),
        _all(("b_capscore", "qa", "arena"), "full", "no_precision"),
    ),
    Claim(
        "4",
        "Without the recall reward captions are above the base and below the full method.",
        (
            Part("b_capscore", "no_recall", "base", "above the base"),
            Part("b_capscore", "full", "no_recall", "below the full method"),
        ),
        _all(("recall", "qa", "arena"), "full", "no_recall"),
    ),
    Claim(
        "5",
        "Without the linguistic reward captions lengthen, linguistic falls and QA rises.",
        (
            Part("length_ratio", "no_linguistic", "full", "captions lengthen"),
            Part("linguistic", "full", "no_linguistic", "linguistic falls"),
            Part("qa", "no_linguistic", "full", "QA rises"),
        ),
        (
            Part("recall", "no_linguistic", "full"),
            Part("arena", "full", "no_linguistic"),
            Part("b_capscore", "full", "no_linguistic"),
        ),
    ),
    Claim(
        "6",
        "Without pointability meta commentary rises.",
        _all(("meta",), "no_pointability", "full"),
        (
            Part("meta", "no_pointability", "base", "against the base"),
            *_all(("precision", "b_capscore", "qa", "arena"), "full", "no_pointability"),
        ),
    ),
    Claim(
        "7",
        "The mask gate beats no gate and the linear penalty on balance.",
        (
            Part("b_capscore", "full", "no_gate", "mask against no gate"),
            Part("b_capscore", "full", "linear_gate", "mask against linear"),
        ),
        (
            Part("too_short", "no_gate", "full"),
            Part("too_long", "no_gate", "full"),
            Part("recall", "full", "no_gate"),
            Part("recall", "full", "linear_gate"),
        ),
    ),
    Claim(
        "8a",
        "Poor references hurt what the recall reward is for.",
        (
            Part("recall", "full", "poor_references", "recall of the perfect references falls"),
            Part("b_capscore", "full", "poor_references", "balance falls"),
        ),
        ours=True,
    ),
    Claim(
        "8b",
        "Poor references are worse than no recall reward at all.",
        _all(("b_capscore",), "no_recall", "poor_references"),
        _all(("recall", "qa", "arena"), "no_recall", "poor_references"),
    ),
    Claim(
        "8c",
        "Without references, recall of what most rollouts agree on beats no recall reward.",
        _all(("b_capscore",), "agreed_recall", "no_references"),
        (
            *_all(("precision", "recall", "qa", "arena"), "agreed_recall", "no_references"),
            Part("b_capscore", "full", "agreed_recall", "against the full method"),
            Part("b_capscore", "agreed_recall", "poor_references", "against poor references"),
            Part("b_capscore", "no_references", "poor_references"),
            Part("b_capscore", "agreed_recall", "agreed_base", "against the base as an anchor"),
        ),
        ours=True,
    ),
    Claim(
        "9",
        "Failed verdicts left missing beat failed verdicts filled with 0 (30% failures).",
        _all(("b_capscore",), "none_30", "zero_30"),
        (
            Part("b_capscore", "full", "none_30"),
            Part("b_capscore", "full", "zero_30"),
            Part("b_capscore", "none_10", "zero_10"),
            *_all(("precision", "recall", "linguistic"), "none_30", "zero_30"),
        ),
        ours=True,
    ),
    Claim(
        "10a",
        "Judge noise hurts training (large noise).",
        _all(("b_capscore",), "full", "noise_large"),
        (
            *_all(("precision", "recall", "linguistic"), "full", "noise_large"),
            Part("b_capscore", "full", "noise_medium"),
            Part("b_capscore", "full", "noise_small"),
        ),
        ours=True,
    ),
)


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
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
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = fmean(values)
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    half = float(student.ppf((1 + level) / 2, n - 1)) * stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def difference(part: Part, results: Results, decoding: str) -> Interval:
    """Mean of `more` minus `less`, paired by seed, with its interval."""
    one, other = results.get(part.more, {}), results.get(part.less, {})
    return interval(
        [
            one[seed]["measures"][decoding][part.measure]
            - other[seed]["measures"][decoding][part.measure]
            for seed in sorted(one.keys() & other.keys())
        ]
    )


def answer(found: Interval, margin: float) -> Answer:
    """
    `"yes"` if the interval lies above 0, `"no"` if it lies below the margin (which rules out an
    effect large enough to matter), and `"undecided"` otherwise or with fewer than three seeds.

    Example:

    ```python
    >>> answer(Interval(0.05, 0.02, 0.08, 5), 0.01), answer(Interval(-0.01, -0.03, 0.005, 5), 0.01)
    ('yes', 'no')
    >>> answer(Interval(0.05, -0.01, 0.11, 5), 0.01), answer(Interval(0.05, 0.04, 0.06, 2), 0.01)
    ('undecided', 'undecided')

    ```
    """
    if found.n < LEAST_SEEDS or math.isnan(found.low):
        return "undecided"
    if found.low > 0:
        return "yes"
    return "no" if found.high < margin else "undecided"


def margin(measure: str) -> float:
    """The largest difference in a measure that is too small to matter."""
    return MARGINS.get(measure, 0.01)


def judge(claim: Claim, results: Results, decoding: str) -> Answer:
    """A claim's answer: yes if all its parts are yes, no if any of them is no."""
    answers = {
        answer(difference(part, results, decoding), margin(part.measure)) for part in claim.parts
    }
    if "no" in answers:
        return "no"
    return "yes" if answers == {"yes"} else "undecided"

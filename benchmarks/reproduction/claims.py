"""The paper's claims and our own as differences between arms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.reproduction.horizons import Results
from benchmarks.reproduction.inference import (
    LEAST_SEEDS,
    Evidence,
    Interval,
    crossed_bootstrap,
    evidence,
    harmonic,
    interval,
    unpaired,
    verdict,
)

__all__ = [
    "CLAIMS",
    "Claim",
    "Part",
    "all_runs",
    "bootstrap",
    "by_steps",
    "difference",
    "differences",
    "margin",
    "said",
    "weigh",
]

MARGINS = {"arena": 4.0, "length_ratio": 0.05}
"""Largest differences that count as none: 0.02 for measures that are not listed here."""

VIEWS = ("precision", "recall", "linguistic")


@dataclass(frozen=True)
class Part:
    """
    One comparison: `more` is above `less` in `measure`.

    Args:
        measure (`str`): A key of the measures.
        more, less (`str`): Arms, compared pair by pair over the seeds they share.
        why (`str`, *optional*): What the difference shows, if it is not clear from the arms.
        tie (`bool`, *optional*, defaults to `False`): The claim is that both are equally good.
    """

    measure: str
    more: str
    less: str
    why: str = ""
    tie: bool = False


@dataclass(frozen=True)
class Claim:
    """
    A claim, which holds if all its parts hold.

    Args:
        number (`str`): Its number in the list of claims.
        text (`str`): The claim in a sentence.
        parts (`tuple[Part, ...]`): Comparisons that must all hold.
        ours (`bool`, *optional*, defaults to `False`): The paper does not make this claim; we do.
    """

    number: str
    text: str
    parts: tuple[Part, ...]
    ours: bool = False


def _all(measures: Sequence[str], more: str, less: str) -> tuple[Part, ...]:
    return tuple(Part(measure, more, less) for measure in measures)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "1",
        "The full method beats the base on all three rewards and b-CapScore.",
        _all((*VIEWS, "b_capscore"), "full", "base"),
    ),
    Claim(
        "2a",
        "c-GDPO beats vanilla GRPO, rewards with their natural spreads.",
        _all(("b_capscore",), "full", "vanilla"),
    ),
    Claim(
        "2b",
        "c-GDPO beats vanilla GRPO, rewards with unequal spreads (x0.2, x1, x2).",
        # Per-reward normalisation cancels scales, so the skewed full method is the full method.
        _all(("b_capscore",), "full", "vanilla_skewed"),
        ours=True,
    ),
    Claim(
        "2c",
        "So it does with the spreads reversed (x2, x1, x0.2).",
        _all(("b_capscore",), "full", "vanilla_reversed"),
        ours=True,
    ),
    Claim(
        "2d",
        "Unequal spreads act like weights: c-GDPO with weights 0.2, 1, 2 ends where vanilla GRPO "
        "with those spreads does.",
        (Part("b_capscore", "weights_skewed", "vanilla_skewed", tie=True),),
        ours=True,
    ),
    Claim(
        "3",
        "Without the precision reward precision falls.",
        _all(("precision",), "full", "no_precision"),
    ),
    Claim(
        "4",
        "Without the recall reward captions are above the base and below the full method.",
        (
            Part("b_capscore", "no_recall", "base", "above the base"),
            Part("b_capscore", "full", "no_recall", "below the full method"),
        ),
    ),
    Claim(
        "5",
        "Without the linguistic reward captions lengthen, linguistic falls and QA rises.",
        (
            Part("length_ratio", "no_linguistic", "full", "captions lengthen"),
            Part("linguistic", "full", "no_linguistic", "linguistic falls"),
            Part("qa", "no_linguistic", "full", "QA rises"),
        ),
    ),
    Claim(
        "6",
        "Without pointability, commentary that the full method removes stays.",
        _all(("meta",), "no_pointability", "full"),
    ),
    Claim(
        "7",
        "The mask gate beats no gate and the linear penalty on balance.",
        (
            Part("b_capscore", "full", "no_gate", "mask against no gate"),
            Part("b_capscore", "full", "linear_gate", "mask against linear"),
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
    ),
    Claim(
        "8c",
        "Without references, recall of what most rollouts agree on beats no recall reward.",
        _all(("b_capscore",), "agreed_recall", "no_references"),
        ours=True,
    ),
    Claim(
        "9",
        "Failed verdicts left missing beat failed verdicts filled with 0 (30% failures).",
        _all(("b_capscore",), "none_30", "zero_30"),
        ours=True,
    ),
    Claim(
        "10a",
        "A judge with large noise makes training worse.",
        _all(("b_capscore",), "full", "noise_large"),
        ours=True,
    ),
    Claim(
        "10b",
        "Under large noise, c-GDPO and vanilla GRPO lose alike.",
        (Part("b_capscore", "noise_large", "vanilla_noise_large", tie=True),),
        ours=True,
    ),
    Claim(
        "10c",
        "A judge that likes long captions gets longer ones.",
        (Part("length_ratio", "judge_likes_long", "full"),),
        ours=True,
    ),
    Claim(
        "10d",
        "A judge that sees small things badly, or fails more often on long texts, costs balance.",
        (
            Part("b_capscore", "full", "judge_misses_small", "bad on small things"),
            Part("b_capscore", "full", "judge_fails_when_long", "fails on long texts"),
        ),
        ours=True,
    ),
    Claim(
        "10e",
        "A judge that lets hedged claims pass costs precision.",
        (Part("precision", "full", "judge_lenient"),),
        ours=True,
    ),
    Claim(
        "11",
        "Credit for each assertion raises balance.",
        (
            Part("b_capscore", "assertion", "full", "at the rate of all arms"),
            Part("b_capscore", "assertion_half_rate", "half_rate", "at half that rate"),
            Part("b_capscore", "assertion_noise_large", "noise_large", "under large judge noise"),
        ),
        ours=True,
    ),
)


def differences(part: Part, results: Results, decoding: str) -> list[float]:
    """`more` minus `less`, pair by pair."""
    one, other = results.get(part.more, {}), results.get(part.less, {})
    return [
        one[pair]["measures"][decoding][part.measure]
        - other[pair]["measures"][decoding][part.measure]
        for pair in sorted(one.keys() & other.keys())
    ]


def difference(part: Part, results: Results, decoding: str) -> Interval:
    """Mean of the differences, with its interval."""
    return interval(differences(part, results, decoding))


def weigh(part: Part, results: Results, decoding: str) -> Evidence:
    """The tests of a part."""
    return evidence(differences(part, results, decoding), margin(part.measure))


def all_runs(part: Part, results: Results, decoding: str) -> Interval:
    """The difference of all runs of the one arm and all of the other, with Welch's interval."""
    more, less = (
        [
            run["measures"][decoding][part.measure]
            # The base stands in for every length of run: each of its own runs counts once.
            for run in {id(run): run for run in results.get(name, {}).values()}.values()
        ]
        for name in (part.more, part.less)
    )
    return unpaired(more, less)


def bootstrap(part: Part, results: Results) -> tuple[float, float] | None:
    """The part's interval over seeds and scenes at once, sampled; `None` without enough pairs that
    kept their rewards scene by scene, and for measures that are not made of them."""
    one, other = results.get(part.more, {}), results.get(part.less, {})
    kept = [
        (_scenes(one[pair]), _scenes(other[pair]))
        for pair in sorted(one.keys() & other.keys())
        if "scenes" in one[pair]["measures"] and "scenes" in other[pair]["measures"]
    ]
    if len(kept) < LEAST_SEEDS or part.measure not in (*VIEWS, "b_capscore"):
        return None
    more, less = (np.stack(side) for side in zip(*kept, strict=True))  # (S, N, 3)
    if part.measure == "b_capscore":
        return crossed_bootstrap(harmonic(more), harmonic(less))
    place = VIEWS.index(part.measure)
    return crossed_bootstrap(more[..., place], less[..., place])


def _scenes(result: Any) -> np.ndarray:
    scenes = result["measures"]["scenes"]
    return np.array([scenes[name] for name in VIEWS], dtype=float).T / 1000  # (N, 3)


def margin(measure: str) -> float:
    """The largest difference in a measure that counts as none."""
    return MARGINS.get(measure, 0.02)


def said(part: Part, found: Evidence) -> str:
    """
    A part's [`verdict`]. Of a tie, `"yes"` is equivalence, and `"no"` a difference of more than the
    margin.

    ```python
    >>> tie = Part("b_capscore", "full", "vanilla", tie=True)
    >>> said(tie, evidence([0.001, -0.001, 0.0], 0.02))
    'yes'
    >>> said(tie, evidence([0.1, 0.11, 0.12], 0.02))
    'no'

    ```
    """
    word = verdict(found)
    if not part.tie or word.startswith("too few"):
        return word
    if found.p_equivalent < 0.05:
        return "yes"
    low, high = found.interval.low, found.interval.high
    if low > found.margin or high < -found.margin:
        return "no"
    return f"undecided within {max(-low, high):.2g}"


def by_steps(words: Mapping[int, str]) -> str:
    """
    The answers at each step, those of neighbouring steps together; steps with too few seeds are
    left out.

    ```python
    >>> by_steps({40: "yes", 120: "yes", 300: "undecided within 0.05"})
    '**yes** (40, 120), **undecided** (300)'
    >>> by_steps({40: "too few seeds"})
    ''

    ```
    """
    told: list[tuple[str, list[str]]] = []
    for step, word in sorted(words.items()):
        if word.startswith("too few"):
            continue
        answer = word.split(" within")[0]
        if not told or told[-1][0] != answer:
            told.append((answer, []))
        told[-1][1].append(str(step))
    return ", ".join(f"**{answer}** ({', '.join(steps)})" for answer, steps in told)

"""A judge's marks, computed from its answers: numbers with an interval over questions."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trl_balcap.evals.bootstrap import (
    Estimate,
    Statistic,
    estimate,
    mean_statistic,
    ratio,
    resampling_weights,
)
from trl_balcap.evals.retest import retest_statistic
from trl_balcap.exam.bank import Exam, Looking
from trl_balcap.exam.shares import widened
from trl_balcap.judge import Judge
from trl_balcap.judge.cost import estimate_calls_and_cost
from trl_balcap.judge.prices import price_of
from trl_balcap.scenes.grammar import NUMBERS
from trl_balcap.scenes.world import COLOURS, COLUMNS, ROWS, SHAPES

__all__ = ["Report", "balanced_accuracy", "mark", "split_marks"]

REWARDS = ("precision", "recall", "linguistic")
SHARES = ("splits found", "splits invented", "unreadable")
PRICED = " ".join(["caption"] * 100)  # dollars are for captions of a hundred words


@dataclass(frozen=True)
class Report:
    """
    A judge's marks.

    Args:
        judge (`str`): The judge that sat the exam.
        marks (`tuple[Estimate, ...]`): The numbers, each with its interval and number of items.
        unreadable (`dict[str, int]`): Questions without an answer, by reason.
        asked (`int`): Number of questions.
        latency (`float` or `None`): Median seconds of an answer.
        usd_per_1000 (`float` or `None`): Estimated dollars for 1,000 captions of a hundred words
            and their references, with eight captions per image; `None` if no price is known.
        photographs (`bool`): Whether the exam had photographs and free English.
    """

    judge: str
    marks: tuple[Estimate, ...]
    unreadable: Mapping[str, int]
    asked: int
    latency: float | None
    usd_per_1000: float | None
    photographs: bool

    def __getitem__(self, name: str) -> Estimate:
        """The mark of that name."""
        return next(one for one in self.marks if one.name == name)

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return {**vars(self), "marks": [one._asdict() for one in self.marks]}


def mark(exam: Exam, answers: Any, judge: Judge, labels: Sequence[Looking] = ()) -> Report:
    """
    Mark a judge's answers.

    Args:
        exam ([`Exam`]): The questions with their answers.
        answers ([`Answers`]): The judge's answers.
        judge ([`~judge.Judge`]): The judge, for its price.
        labels (`Sequence[Looking]`, *optional*): Statements with a person's labels.
    """
    verdicts = {
        name: _verdict_counts(name, exam.looking, answers.looking)
        for name in ("correct", "pointable")
    }
    covered = [
        None if said is None else _confusion(item.covered, said)
        for item, said in zip(exam.covering, answers.covering, strict=True)
    ]
    splits = [
        None if said is None else split_marks(item.sentences, said)
        for item, said in zip(exam.splitting, answers.splitting, strict=True)
    ]
    statistics = [
        *(
            _sums(f"{name}, balanced accuracy", counts, balanced_accuracy)
            for name, counts in verdicts.items()
        ),
        _sums("covered, balanced accuracy", covered, balanced_accuracy),
        _sums("covered, F1", covered, _f1),
        _sums("splits found", [one and one[:2] for one in splits], ratio),
        _sums("splits invented", [one and one[2:] for one in splits], ratio),
        mean_statistic("grades fall with faults", [_rank_correlation(s) for s in answers.graded]),
        *(
            retest_statistic(f"retest spread, {name}", *_columns(answers.again[name]))
            for name in REWARDS
        ),
        *(
            mean_statistic(
                f"gained by hostile captions, {name}",
                [
                    None if got[k] is None else got[k] - item.deserved[k]
                    for item, got in zip(exam.hostile, answers.hostile, strict=True)
                ],
            )
            for k, name in enumerate(REWARDS)
        ),
    ]
    for name in verdicts if labels else ():
        counts = _verdict_counts(name, labels, answers.labels)
        statistics.append(_sums(f"your labels, {name}: agreement", counts, _agreement))
        statistics.append(
            _sums(f"your labels, {name}: balanced accuracy", counts, balanced_accuracy)
        )
    asked = (*judge.settings.text, *judge.settings.vision)
    failed = sum(answers.unreadable.values())
    statistics.append(
        mean_statistic("unreadable", [1.0] * failed + [0.0] * (answers.asked - failed))
    )
    return Report(
        judge=", ".join(dict.fromkeys(deployment.where() for deployment in asked)),
        marks=tuple(_estimated(statistic) for statistic in statistics),
        unreadable=dict(answers.unreadable),
        asked=answers.asked,
        latency=answers.latency,
        usd_per_1000=_usd_per_1000(judge),
        photographs=exam.photographs,
    )


def _estimated(statistic: Statistic) -> Estimate:
    found = estimate(statistic, resampling_weights(len(statistic.columns)))
    if statistic.formula is not balanced_accuracy and statistic.name not in SHARES:
        return found
    sums = statistic.columns[statistic.scored].sum(axis=0)  # (2K,)
    return widened(found, [(k, n) for k, n in sums.reshape(-1, 2).tolist()])


def balanced_accuracy(sums: np.ndarray) -> np.ndarray:
    """
    Mean of the accuracies on true and on false statements, from sums with shape (..., 4): true
    statements judged correctly, true statements, false ones judged correctly, false ones.

    Example: 3 of 4 true ones and 1 of 2 false ones.

    ```python
    >>> balanced_accuracy(np.array([3.0, 4.0, 1.0, 2.0])).item()
    0.625

    ```
    """
    return (ratio(sums[..., :2]) + ratio(sums[..., 2:])) / 2


def split_marks(sentences: Sequence[str], assertions: Sequence[str]) -> tuple[int, int, int, int]:
    """
    How well a caption was split, whatever words the judge chose: the number of sentences found, of
    sentences, of invented assertions, and of assertions.

    Only words for colours, shapes, places and numbers count. An assertion belongs to the sentence
    with which it shares most words. It is invented if it shares none, or names a colour, shape,
    place or number that the sentence does not. A sentence is found if all of its words are in the
    assertions that belong to it.

    Example: the colour of the second sentence is lost, and a circle is invented.

    ```python
    >>> split_marks(
    ...     ["The top left shows a red star.", "The top right shows a blue square."],
    ...     ["A star is at the top left.", "The star is red.", "A square is at the top right.",
    ...      "There is a circle."],
    ... )
    (1, 2, 1, 4)

    ```
    """
    distinct = list(dict.fromkeys(sentences))
    words = [_words(sentence) for sentence in distinct]
    told: list[set[str]] = [set() for _ in distinct]
    invented = 0
    for assertion in assertions:
        said = _words(assertion)
        shared = [len(said & one) for one in words]
        best = max(range(len(words)), key=shared.__getitem__, default=None)
        if best is None or not shared[best] or (said & _KEYS) - words[best]:
            invented += 1
        else:
            told[best] |= said
    found = sum(bool(got) and (one & _KEYS) <= got for one, got in zip(words, told, strict=True))
    return found, len(distinct), invented, len(assertions)


def _found(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text))


_KEYS = frozenset({*COLOURS, *SHAPES, *ROWS, *COLUMNS, *NUMBERS[2:]})
_FUNCTION_WORDS = _found(
    "a an and are at in is it its of on one picture image scene shows sits that the there thing "
    "things this to with"
)


def _words(text: str) -> set[str]:
    return _found(text.casefold().replace("center", "centre")) - _FUNCTION_WORDS


def _verdict_counts(
    name: str, items: Sequence[Looking], answers: Sequence[Any]
) -> list[tuple[int, int, int, int] | None]:
    return [
        _confusion(getattr(item, name), [getattr(v, name) for v in said]) if said else None
        for item, said in zip(items, answers, strict=True)
    ]


def _confusion(truth: Sequence[bool | None], said: Sequence[bool]) -> tuple[int, int, int, int]:
    """True ones judged correctly, true ones, false ones judged correctly, false ones."""
    pairs = [(t, s) for t, s in zip(truth, said, strict=True) if t is not None]
    true = [s for t, s in pairs if t]
    false = [s for t, s in pairs if not t]
    return sum(true), len(true), len(false) - sum(false), len(false)


def _agreement(sums: np.ndarray) -> np.ndarray:
    """Share of statements on which both agree."""
    right = sums[..., 0] + sums[..., 2]
    return ratio(np.stack([right, sums[..., 1] + sums[..., 3]], axis=-1))


def _f1(sums: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN)."""
    right, true, rejected, false = (sums[..., k] for k in range(4))
    return ratio(np.stack([2 * right, right + true + false - rejected], axis=-1))


def _sums(
    name: str,
    rows: Sequence[Sequence[int] | None],
    formula: Callable[[np.ndarray], np.ndarray],
) -> Statistic:
    width = max((len(row) for row in rows if row is not None), default=2)
    scored = np.array([row is not None for row in rows], dtype=bool)  # (N,)
    columns = np.array([row or [0] * width for row in rows], dtype=float)  # (N, C)
    return Statistic(name, columns, formula, scored)


def _rank_correlation(grades: Sequence[float | None]) -> float | None:
    """Spearman's correlation of grade and soundness; 0 if all grades are equal."""
    kept = [(-degree, grade) for degree, grade in enumerate(grades) if grade is not None]
    if len(kept) < 3:
        return None
    if len({grade for _, grade in kept}) == 1:
        return 0.0
    from scipy.stats import spearmanr  # slow to import, and only for this

    found: Any = spearmanr([soundness for soundness, _ in kept], [grade for _, grade in kept])
    return float(found.statistic)


def _columns(pairs: Sequence[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    return [a for a, _ in pairs], [b for _, b in pairs]


def _usd_per_1000(judge: Judge) -> float | None:
    price = judge.settings.price or price_of(judge.settings.text[0])
    vision = judge.settings.price or price_of(judge.settings.vision[0])
    return estimate_calls_and_cost(
        [PRICED],
        rollouts=1000,
        distinct_references=125,
        profile=judge.settings.profile,
        price=price,
        vision_price=vision,
    ).usd

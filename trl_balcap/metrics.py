"""Pure formulas for rewards, b-CapScore and corpus scores."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

__all__ = [
    "CorpusScores",
    "b_capscore",
    "batch_b_capscore",
    "corpus_scores",
    "distinct_share",
    "linguistic_score",
    "precision_score",
    "recall_score",
]

Score = float | None


class _Verdict(Protocol):
    """The judge's verdict on one assertion, such as [`Verification`]."""

    @property
    def correct(self) -> bool: ...
    @property
    def pointable(self) -> bool: ...


def precision_score(verdicts: Sequence[_Verdict]) -> float:
    r"""
    Precision reward of a caption: the share of its assertions that are correct and pointable.

    $$r_P = |\{i : c_i = p_i = 1\}| / N$$

    Args:
        verdicts (`Sequence[Verification]`):
            One per assertion, with `correct` and `pointable`.

    Returns:
        `float`: from 0 to 1; 0.0 for a caption that asserts nothing.

    Example:

    ```python
    >>> from trl_balcap.judge.replies import Verification
    >>> precision_score([Verification(True, True), Verification(True, False)])
    0.5
    >>> precision_score([])
    0.0

    ```
    """
    if not verdicts:
        return 0.0
    return sum(verdict.correct and verdict.pointable for verdict in verdicts) / len(verdicts)


def recall_score(covered: Sequence[bool]) -> float | None:
    """
    Recall reward of a caption: the share of the reference's units that it covers.

    Args:
        covered (`Sequence[bool]`):
            One per reference unit.

    Returns:
        `float` or `None`: from 0 to 1; `None` if the reference states nothing to cover.

    Example:

    ```python
    >>> recall_score([True, False, True, True])
    0.75
    >>> recall_score([]) is None
    True

    ```
    """
    return sum(covered) / len(covered) if covered else None


def linguistic_score(clarity: float, fluency: float, coherency: float) -> float:
    """
    Linguistic reward of a caption: the mean of three grades, rescaled from 0-10 to 0-1.

    Args:
        clarity, fluency, coherency (`float`):
            Grades from 0 to 10.

    Returns:
        `float`: from 0 to 1.

    Example:

    ```python
    >>> linguistic_score(9, 8, 10)
    0.9

    ```
    """
    return (clarity + fluency + coherency) / 30.0


class CorpusScores(NamedTuple):
    """
    The scores of a corpus of captions. Each mean is over the captions that have the value; `n_*` is
    their number.

    Args:
        precision, recall, linguistic (`float` or `None`):
            Mean of the reward over the captions that have it; `None` if no caption has it.
        b_capscore (`float` or `None`):
            Mean of the captions' b-CapScores. This is the corpus score.
        b_capscore_of_means (`float` or `None`):
            b-CapScore of the three corpus means. It ignores imbalance within captions, so it
            flatters a captioner that is precise on one image and complete on another.
        n, n_precision, n_recall, n_linguistic, n_b_capscore (`int`):
            Number of captions, and of those behind each mean.
    """

    precision: float | None
    recall: float | None
    linguistic: float | None
    b_capscore: float | None
    b_capscore_of_means: float | None
    n: int
    n_precision: int
    n_recall: int
    n_linguistic: int
    n_b_capscore: int


def b_capscore(precision: Score, recall: Score, linguistic: Score) -> float | None:
    """
    b-CapScore of a caption: the harmonic mean of its three rewards, so that no reward can make up
    for another.

    `3 / (1/precision + 1/recall + 1/linguistic)`, from BalCapRL
    (https://huggingface.co/papers/2605.07394). Its limit at zero is zero, so any zero gives exactly
    0.0. A missing value (`None` or NaN) gives `None`, even if another value is zero: a caption that
    was not fully judged has no score.

    Args:
        precision, recall, linguistic (`float` or `None`):
            The rewards, all on the same scale (0 to 1, or 0 to 100), which the result also has.

    Returns:
        `float` or `None`: the harmonic mean.

    Raises:
        `ValueError`: if a value is negative or infinite.

    Example:

    ```python
    >>> b_capscore(0.5, 1.0, 0.5)
    0.6
    >>> b_capscore(0.9, 0.0, 0.9)
    0.0
    >>> b_capscore(0.9, None, 0.9) is None
    True

    ```
    """
    values = (_present(precision), _present(recall), _present(linguistic))
    if any(value is not None and (value < 0 or math.isinf(value)) for value in values):
        raise ValueError(
            f"b_capscore needs finite rewards of at least 0, got precision={precision}, "
            f"recall={recall}, linguistic={linguistic}. Pass None for a reward that was not judged."
        )
    present = [value for value in values if value is not None]
    if len(present) < len(values):
        return None
    smallest = min(present)
    if smallest == 0:
        return 0.0
    # Relative to the smallest, so that 1/x does not overflow for denormal rewards.
    return smallest * 3 / sum(smallest / value for value in present)


def batch_b_capscore(rewards_per_func: Any, names: Sequence[str]) -> float | None:
    """
    Mean b-CapScore of a batch of rewards, on their own scale.

    Args:
        rewards_per_func (`torch.Tensor`):
            Rewards of shape `(B, K)`, NaN where missing.
        names (`Sequence[str]`):
            Names of the K reward functions.

    Returns:
        `float` or `None`: `None` if one of the three rewards is not among them, or no row has all
        three.

    Example:

    ```python
    >>> import torch
    >>> names = ["precision_reward", "recall_reward", "linguistic_reward"]
    >>> batch_b_capscore(torch.tensor([[0.5, 1.0, 0.5], [0.9, float("nan"), 0.9]]), names)
    0.6

    ```
    """
    three = ("precision_reward", "recall_reward", "linguistic_reward")
    if any(name not in names for name in three):
        return None
    columns = [rewards_per_func[:, list(names).index(name)].tolist() for name in three]
    return _mean([b_capscore(*row) for row in zip(*columns, strict=True)])


def distinct_share(texts: Sequence[str], num_generations: int) -> float:
    """
    Share of distinct texts among the rollouts of a prompt, averaged over prompts.

    Args:
        texts (`Sequence[str]`):
            Complete groups, with the rollouts of a prompt next to each other.
        num_generations (`int`):
            Rollouts per prompt.

    Example:

    ```python
    >>> distinct_share(["A dog.", "A dog.", "A cat.", "A bird."], 2)
    0.75

    ```
    """
    groups = range(0, len(texts), num_generations)
    return sum(len(set(texts[g : g + num_generations])) for g in groups) / max(1, len(texts))


def corpus_scores(
    precision: Sequence[Score], recall: Sequence[Score], linguistic: Sequence[Score]
) -> CorpusScores:
    """
    Corpus scores of captions, from sequences with one entry per caption, in the same order.

    Args:
        precision, recall, linguistic (`Sequence[float or None]`):
            Rewards of each caption, `None` or NaN where missing.

    Returns:
        [`CorpusScores`]

    Raises:
        `ValueError`: if the sequences differ in length.

    Example:

    ```python
    >>> scores = corpus_scores([1.0, 0.5], [0.5, 1.0], [1.0, None])
    >>> scores.b_capscore, scores.n_b_capscore  # the second caption has no linguistic reward
    (0.75, 1)
    >>> round(scores.b_capscore_of_means, 4)  # harmonic mean of 0.75, 0.75 and 1.0
    0.8182

    ```
    """
    if not len(precision) == len(recall) == len(linguistic):
        raise ValueError(
            f"The rewards must have one entry per caption, got {len(precision)} precision, "
            f"{len(recall)} recall and {len(linguistic)} linguistic entries."
        )
    of_captions = [
        b_capscore(*rewards) for rewards in zip(precision, recall, linguistic, strict=True)
    ]
    means = [_mean(values) for values in (precision, recall, linguistic)]
    return CorpusScores(
        precision=means[0],
        recall=means[1],
        linguistic=means[2],
        b_capscore=_mean(of_captions),
        b_capscore_of_means=b_capscore(*means),
        n=len(precision),
        n_precision=_count(precision),
        n_recall=_count(recall),
        n_linguistic=_count(linguistic),
        n_b_capscore=_count(of_captions),
    )


def _present(value: Score) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _mean(values: Sequence[Score]) -> float | None:
    present = [value for value in map(_present, values) if value is not None]
    return math.fsum(present) / len(present) if present else None


def _count(values: Sequence[Score]) -> int:
    return sum(_present(value) is not None for value in values)

"""CapRL's reward: how useful a caption is to somebody who cannot see the image."""

import asyncio
from collections.abc import Sequence
from typing import Any

from trl_balcap.judge import Judge
from trl_balcap.judge.choices import read_choice
from trl_balcap.rewards.base import JudgeReward
from trl_balcap.rewards.row import Row, RowError

__all__ = ["UtilityReward", "utility_score"]


class UtilityReward(JudgeReward):
    r"""
    Share of multiple-choice questions about the image that a text-only judge answers correctly from
    the caption alone. Needs no reference.

    $$r = \frac{1}{Q S} \sum_{q, s} [\text{choice}_{q, s} = \text{answer}_q]$$

    over the Q entries of the row's `questions`, each asked S times with its options in a different
    order. The judge may also answer that the caption does not say, which is never right.

    From CapRL (https://huggingface.co/papers/2509.22647), whose questions are filtered: they can be
    answered with the image, but not without it. `trl-balcap make-questions` writes and filters such
    questions, and [`load_captions`] reads those of CapRL-QA-75K. In CapRL's published code, each
    caption gets a random sample of the image's questions, with replacement, in its own order of
    options, at temperature 0.6, and a reply that names no option is wrong. Here all captions of an
    image get all questions in the same orders, so that luck does not make a difference, and an
    unreadable reply leaves the caption unscored. CapRL does not penalise long captions or guesses;
    the length gate and the other rewards do.

    Args:
        judge ([`Judge`] or `str`, *optional*):
            The judge, whose text model answers without seeing the image, with Q x S calls per
            caption.
        samples (`int`, *optional*, defaults to `2`):
            S, the number of option orders in which each question is asked.

    Raises:
        `ValueError`: if `samples` is below 1.

    Example:

    ```python
    >>> from trl_balcap import Judge
    >>> UtilityReward(Judge("scenes/oracle"))
    UtilityReward(Judge('scenes/oracle'))

    ```
    """

    __name__ = "utility_reward"
    needs = ("questions",)
    sees = ("answered", "not_told")

    def __init__(self, judge: Judge | str | None = None, *, samples: int = 2):
        if samples < 1:
            raise ValueError(f"samples must be 1 or more, got {samples}.")
        super().__init__(judge)
        self.samples = samples

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"samples": self.samples}

    def about(self) -> str:
        """The judge, and how many times it is asked."""
        return f"{super().about()}, each question in {self.samples} orders"

    async def score(self, row: Row) -> float:
        """[`utility_score`] of the answers to the row's questions."""
        questions = row.columns["questions"]
        if not isinstance(questions, list | tuple):
            raise RowError("bad_questions", f"not a list of questions: {questions!r}")
        try:
            choices = [read_choice(question) for question in questions]
        except ValueError as error:
            raise RowError("bad_questions", str(error)) from error
        asked = [choice.shuffled(s) for choice in choices for s in range(self.samples)]
        chosen = await asyncio.gather(*(self.judge.choose(row.caption, one) for one in asked))
        score = utility_score(chosen, [one.answer for one in asked])
        assert score is not None  # there are questions
        row.seen["answered"] = score
        row.seen["not_told"] = chosen.count(None) / len(chosen)
        return score


def utility_score(chosen: Sequence[int | None], answers: Sequence[int]) -> float | None:
    """
    CapRL's reward of a caption: the share of multiple-choice questions that are answered correctly
    from it.

    Args:
        chosen (`Sequence[int or None]`):
            The option chosen for each question; `None` if the caption does not say.
        answers (`Sequence[int]`):
            The right ones.

    Returns:
        `float` or `None`: from 0 to 1; `None` without questions.

    Example:

    ```python
    >>> utility_score([2, None, 0, 1], [2, 1, 0, 3])
    0.5

    ```
    """
    right = [one == other for one, other in zip(chosen, answers, strict=True)]
    return sum(right) / len(right) if right else None

"""RubiCap's reward: criteria written for each image, each of which a caption meets or not."""

import contextlib
from collections.abc import Sequence
from typing import Any

from trl_balcap.judge import JudgeError
from trl_balcap.judge.background import submit
from trl_balcap.rewards.base import JudgeReward
from trl_balcap.rewards.row import Row, RowError

__all__ = ["RubricReward", "rubric_score"]


class RubricReward(JudgeReward):
    r"""
    Share, by weight, of the image's criteria that a caption meets.

    $$r = \sum_m w_m s_m / \sum_m w_m, \quad s_m \in \{0, 1\}, \; w_m \in \{1, 2, 3\}$$

    From RubiCap (https://huggingface.co/papers/2603.09160): a committee of models captions each
    image, a writer turns what they agree on into criteria, and a judge answers each with yes or no.
    Here the judge's vision model writes the criteria from the image and the row's `references`, a
    list of captions by several models. It is asked once per image, while the policy generates, and
    a judge cache keeps the criteria. The judge's text model answers them from the caption alone.

    No code was published, and the prompts, the number of criteria per image and the committee are
    unknown. The paper's writer also sees a caption of the policy and aims the criteria at what it
    lacks; here they stay the same for the whole run, so that scores of different steps are
    comparable. The meaning of the weights is ours: 3 is essential, 2 matters, 1 is a detail.

    Args:
        judge ([`Judge`] or `str`, *optional*):
            The judge, which writes the criteria (one call per image) and answers them (one call per
            caption).

    Example:

    ```python
    >>> from trl_balcap import Judge
    >>> RubricReward(Judge("scenes/oracle"))
    RubricReward(Judge('scenes/oracle'))

    ```
    """

    __name__ = "rubric_reward"
    needs = ("image", "references")
    sees = ("criteria",)

    def before_generation(self, **columns: list[Any]) -> None:
        """Start writing the criteria while the policy generates."""
        if columns.get("references") is None:
            return
        seen: list[Row] = []
        for row in self._rows([""] * len(columns["references"]), columns):
            if not any(row.columns == other.columns for other in seen):  # once per group
                seen.append(row)
                submit(self._write(row))

    async def _write(self, row: Row) -> None:
        with contextlib.suppress(JudgeError, RowError):  # the rows ask again and count the failure
            row.check(self.needs)
            await self.judge.write_rubric(row.image, self._references(row))

    async def score(self, row: Row) -> float:
        """[`rubric_score`] of the verdicts on the image's criteria."""
        rubric = await self.judge.write_rubric(row.image, self._references(row))
        met = await self.judge.meet(row.caption, rubric)
        row.seen["criteria"] = [
            {"text": one.text, "weight": one.weight, "met": is_met}
            for one, is_met in zip(rubric, met, strict=True)
        ]
        score = rubric_score(met, [criterion.weight for criterion in rubric])
        assert score is not None  # no rubric is empty
        return score

    def _references(self, row: Row) -> list[str]:
        references = row.columns["references"]
        if not isinstance(references, list | tuple) or not all(
            isinstance(text, str) and text.strip() for text in references
        ):
            raise RowError("no_references", f"not a list of captions: {references!r}")
        return list(references)


def rubric_score(met: Sequence[bool], weights: Sequence[float]) -> float | None:
    r"""
    RubiCap's reward of a caption: the share, by weight, of the criteria that it meets.

    $$r = \sum_m w_m s_m / \sum_m w_m$$

    Args:
        met (`Sequence[bool]`), weights (`Sequence[float]`):
            One per criterion.

    Returns:
        `float` or `None`: from 0 to 1; `None` without criteria.

    Example: (3 + 1) / (3 + 2 + 1)

    ```python
    >>> round(rubric_score([True, False, True], [3, 2, 1]), 4)
    0.6667

    ```
    """
    pairs = list(zip(met, weights, strict=True))
    return sum(w for m, w in pairs if m) / sum(weights) if pairs else None

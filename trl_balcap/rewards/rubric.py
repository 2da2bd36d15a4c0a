"""RubiCap's reward: criteria written for each image, each met or not."""

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
    Weight of the criteria written for the image that a caption meets, of all their weight.

    $$r = \sum_m w_m s_m / \sum_m w_m, \quad s_m \in \{0, 1\}, \; w_m \in \{1, 2, 3\}$$

    From RubiCap (https://huggingface.co/papers/2603.09160): a committee of models captions each
    image, a writer makes criteria out of what they agree on, and a judge answers each with yes or
    no. The judge's vision model writes the criteria from the image and the row's `references`, a
    list of captions by several models; it is asked once for an image, while the policy writes, and
    a judge cache keeps what it wrote. Its text model answers them from the caption alone.

    No code was published. Open are the prompts, how many criteria an image gets, and the
    committee. The paper's writer also sees a caption of the policy, and aims the criteria at what
    that lacks; here they are the same for the whole run, so that scores of two steps can be
    compared. Names of steps of weight are ours: 3 must not be missed, 2 matters, 1 is a detail.

    Args:
        judge ([`Judge`] or `str`, *optional*):
            Who writes the criteria and answers them: one call an image and one a caption.

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
        """Have the criteria written while the policy writes."""
        if columns.get("references") is None:
            return
        seen: list[Row] = []
        for row in self._rows([""] * len(columns["references"]), columns):
            if not any(row.columns == other.columns for other in seen):  # once for a group
                seen.append(row)
                submit(self._write(row))

    async def _write(self, row: Row) -> None:
        with contextlib.suppress(JudgeError, RowError):  # asked again, and counted, by the rows
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
            raise RowError("no_references", f"no list of captions: {references!r}")
        return list(references)


def rubric_score(met: Sequence[bool], weights: Sequence[float]) -> float | None:
    r"""
    RubiCap's reward of a caption: the weight of the criteria that it meets, of all.

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

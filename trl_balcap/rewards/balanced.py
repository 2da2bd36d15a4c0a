"""The three rewards of BalCapRL: from a judge's verdicts to numbers, or to `None`.

precision   r_P = |TP| / N            assertions that are correct and pointable, of all
recall      r_R = |covered| / M       reference units that the assertions cover, of all
linguistic  r_L = mean(clarity, fluency, coherency) / 10
"""

import asyncio

from trl_balcap.data.completions import is_empty
from trl_balcap.metrics import linguistic_score, precision_score, recall_score
from trl_balcap.rewards.base import JudgeReward, Row


class PrecisionReward(JudgeReward):
    """Share of a caption's assertions that are correct and pointable, from 0 to 1.

    A caption that asserts nothing scores 0.0.

    Args:
        judge ([`Judge`], *optional*):
            Who is asked; its vision model sees the image.

    Example:

    ```python
    >>> from trl_balcap import Judge, PrecisionReward
    >>> PrecisionReward(Judge("scenes/oracle"))
    PrecisionReward(Judge('scenes/oracle'))

    ```
    """

    __name__ = "precision_reward"
    needs = ("image",)

    async def _score(self, row: Row) -> float | None:
        if row.image is None:
            return None
        if self.judge.settings.profile == "fused":
            looked = await self.judge.look(row.image, row.caption)
            verdicts = [verdict for _, verdict in looked]
        else:
            assertions = await self.judge.decompose(row.caption)
            verdicts = await self.judge.verify(row.image, assertions)
        return precision_score(verdicts)


class RecallReward(JudgeReward):
    """Share of the reference's units that a caption covers, from 0 to 1.

    `None` where the reference is empty or states nothing: there is nothing to cover.

    Args:
        judge ([`Judge`], *optional*):
            Who is asked.
    """

    __name__ = "recall_reward"
    needs = ("reference",)

    async def _score(self, row: Row) -> float | None:
        if not row.reference or is_empty(row.reference):
            return None
        if self.judge.settings.profile == "fused":
            units = await self.judge.decompose(row.reference)
            if not units:
                return None
            covered, _ = await self.judge.read(row.caption, units)
        else:
            units, assertions = await asyncio.gather(
                self.judge.decompose(row.reference), self.judge.decompose(row.caption)
            )
            if not units:
                return None
            covered = await self.judge.cover(assertions, units)
        return recall_score(covered)


class LinguisticReward(JudgeReward):
    """Mean of clarity, fluency and coherency, from 0 to 1.

    With the fused profile the grades come from the question that also checks the coverage, where
    there is a reference.

    Args:
        judge ([`Judge`], *optional*):
            Who is asked.
    """

    __name__ = "linguistic_reward"

    async def _score(self, row: Row) -> float | None:
        grades = None
        if self.judge.settings.profile == "fused" and row.reference:
            units = await self.judge.decompose(row.reference)
            if units:
                _, grades = await self.judge.read(row.caption, units)
        if grades is None:
            grades = await self.judge.linguistic(row.caption)
        return linguistic_score(*grades)


precision_reward = PrecisionReward()
"""[`PrecisionReward`] by dotted path, with the judge that the environment describes."""

recall_reward = RecallReward()
"""[`RecallReward`] by dotted path, with the judge that the environment describes."""

linguistic_reward = LinguisticReward()
"""[`LinguisticReward`] by dotted path, with the judge that the environment describes."""

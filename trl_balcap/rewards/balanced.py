"""The three rewards of BalCapRL, computed from a judge's verdicts.

precision   r_P = |TP| / N            share of assertions that are correct and pointable
recall      r_R = |covered| / M       share of reference units that the assertions cover
linguistic  r_L = mean(clarity, fluency, coherency) / 10
"""

import asyncio
import contextlib
from typing import Any

from trl_balcap.judge import Judge, JudgeError, Verification
from trl_balcap.judge.background import submit
from trl_balcap.metrics import linguistic_score, precision_score, recall_score
from trl_balcap.rewards.base import JudgeReward
from trl_balcap.rewards.row import Row, RowError


class PrecisionReward(JudgeReward):
    """Share of a caption's assertions that are correct and pointable, from 0 to 1.

    A caption that asserts nothing scores 0.0.

    Args:
        judge ([`Judge`] or `str`, *optional*):
            The judge, whose vision model sees the image.

    Example:

    ```python
    >>> from trl_balcap import Judge, PrecisionReward
    >>> PrecisionReward(Judge("scenes/oracle"))
    PrecisionReward(Judge('scenes/oracle'))

    ```
    """

    __name__ = "precision_reward"
    needs = ("image",)
    sees = ("assertions", "pointable")

    async def score(self, row: Row) -> float:
        """[`precision_score`] of the verdicts on the caption's assertions."""
        looked = await look_at(self.judge, row.image, row.caption)
        row.seen["assertions"] = [{"text": text, **v._asdict()} for text, v in looked]
        if looked:
            row.seen["pointable"] = sum(v.pointable for _, v in looked) / len(looked)
        return precision_score([verdict for _, verdict in looked])


async def look_at(judge: Judge, image: Any, caption: str) -> list[tuple[str, Verification]]:
    """A caption's assertions with their verdicts, by the questions of the judge's profile."""
    if judge.settings.profile == "fused":
        return await judge.look(image, caption)
    assertions = await judge.decompose(caption)
    return list(zip(assertions, await judge.verify(image, assertions), strict=True))


class RecallReward(JudgeReward):
    """Share of the reference's units that a caption covers, from 0 to 1.

    Unscored if the reference states nothing, since there is nothing to cover.

    Args:
        judge ([`Judge`] or `str`, *optional*):
            The judge.
    """

    __name__ = "recall_reward"
    needs = ("reference",)
    sees = ("units",)

    def before_generation(self, **columns: list[Any]) -> None:
        """Start splitting the references while the policy generates."""
        rows = [Row("", reference=reference) for reference in columns.get("reference", [])]
        for reference in {row.reference for row in rows if row.has_reference}:
            submit(self._split(reference))

    async def _split(self, reference: str) -> None:
        with contextlib.suppress(
            JudgeError
        ):  # the rows that need it ask again and count the failure
            await self.judge.decompose(reference)

    async def score(self, row: Row) -> float:
        """[`recall_score`] of the reference's units."""
        if self.judge.settings.profile == "fused":
            units = await self.judge.decompose(row.reference)
            covered = (await self.judge.read(row.caption, units))[0] if units else []
        else:
            units, assertions = await asyncio.gather(
                self.judge.decompose(row.reference), self.judge.decompose(row.caption)
            )
            covered = await self.judge.cover(assertions, units)
        row.seen["units"] = [
            {"text": text, "covered": is_covered}
            for text, is_covered in zip(units, covered, strict=True)
        ]
        recall = recall_score(covered)
        if recall is None:
            raise RowError("no_units", f"the reference states nothing: {row.reference!r}")
        return recall


class LinguisticReward(JudgeReward):
    """Mean of clarity, fluency and coherency, from 0 to 1.

    With the fused profile, the grades come from the question that also checks coverage, if there
    is a reference.

    Args:
        judge ([`Judge`] or `str`, *optional*):
            The judge.
    """

    __name__ = "linguistic_reward"
    sees = ("clarity", "fluency", "coherency")

    async def score(self, row: Row) -> float:
        """[`linguistic_score`] of the three grades."""
        grades = None
        if self.judge.settings.profile == "fused" and row.has_reference:
            units = await self.judge.decompose(row.reference)
            if units:
                _, grades = await self.judge.read(row.caption, units)
        if grades is None:
            grades = await self.judge.linguistic(row.caption)
        row.seen.update(grades._asdict())
        return linguistic_score(*grades)


precision_reward = PrecisionReward()
"""[`PrecisionReward`] for use by dotted path, with the judge set by environment variables."""

recall_reward = RecallReward()
"""[`RecallReward`] for use by dotted path, with the judge set by environment variables."""

linguistic_reward = LinguisticReward()
"""[`LinguisticReward`] for use by dotted path, with the judge set by environment variables."""

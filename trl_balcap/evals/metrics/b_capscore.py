"""
b-CapScore of captions, from the very questions that training asks: which assertions are true and pointable, which
units of the reference are covered, how well the caption is written.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trl_balcap.data.completions import is_empty
from trl_balcap.data.scored import Caption
from trl_balcap.evals.asking import Workload, workload
from trl_balcap.evals.bootstrap import Statistic, mean_statistic
from trl_balcap.judge import Judge, JudgeError
from trl_balcap.judge.questions import prompt, prompts_hash
from trl_balcap.metrics import b_capscore

__all__ = ["BCapScore", "statistics"]

REWARDS = ("precision", "recall", "linguistic")


class BCapScore:
    """
    The metric, ready to score captions.

    Args:
        judge ([`Judge`]):
            Who is asked; its profile decides between four questions a caption and two.

    Example:

    ```python
    >>> BCapScore(Judge("scenes/oracle")).mode
    'questions'

    ```
    """

    name = "b-capscore"

    def __init__(self, judge: Judge):
        self.judge = judge

    @property
    def mode(self) -> str:
        """The judge's profile."""
        return self.judge.settings.profile

    @property
    def prompts_sha256(self) -> str:
        """Hash over the judge's prompt files."""
        return prompts_hash()

    def problems(self, captions: Sequence[Caption]) -> list[str]:
        """Nothing beyond what reading the captions has checked."""
        return []

    def workload(self, captions: Sequence[Caption]) -> Workload:
        """Four calls per caption (two with the fused profile) and one per distinct reference."""
        sizes = {
            name: len(prompt(name))
            for name in ("decompose", "verify", "cover", "linguistic", "look", "read")
        }
        total = Workload()
        for reference in {caption.reference or "" for caption in captions}:
            total += workload(
                prompt_chars=sizes["decompose"] + len(reference),
                completion_chars=1.5 * len(reference),
            )
        for caption in captions:
            if is_empty(caption.caption):
                continue
            text, units = len(caption.caption), 1.5 * len(caption.reference or "")
            n = max(1, text // 40)  # assertions, at about 40 characters each
            if self.mode == "fused":
                total += workload(
                    prompt_chars=sizes["look"] + text,
                    completion_chars=1.5 * text + 40 * n,
                    image=True,
                )
                total += workload(
                    prompt_chars=sizes["read"] + text + units, completion_chars=units / 2 + 60
                )
                continue
            total += workload(prompt_chars=sizes["decompose"] + text, completion_chars=1.5 * text)
            total += workload(
                prompt_chars=sizes["verify"] + 1.5 * text, completion_chars=50 * n, image=True
            )
            total += workload(
                prompt_chars=sizes["cover"] + 1.5 * text + units, completion_chars=units / 2
            )
            total += workload(prompt_chars=sizes["linguistic"] + text, completion_chars=60)
        return total

    async def score(self, caption: Caption) -> dict[str, Any]:
        """
        Judge one caption.

        Returns:
            `dict`: "score" (b-CapScore, `None` unless all three rewards are there), "precision", "recall",
            "linguistic", "reason" of the first that is missing; "assertions" and "units" with their verdicts, and the
            three grades.
        """
        if is_empty(caption.caption):
            return {"score": 0.0, "reason": None, **dict.fromkeys(REWARDS, 0.0)}
        parts = await (self._fused(caption) if self.mode == "fused" else self._questions(caption))
        row: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        for part in parts:
            if isinstance(part, JudgeError):
                reasons.setdefault(part.reason, str(part))
            else:
                row |= part
        rewards = {name: row.pop(name, None) for name in REWARDS}
        score = b_capscore(**rewards)
        reason = None
        if score is None:
            reason = next(iter(reasons), "the reference states nothing")
        return {
            "score": score,
            "reason": reason,
            **rewards,
            **row,
            "errors": list(reasons.values()),
        }

    async def _questions(self, caption: Caption) -> list[dict[str, Any] | JudgeError]:
        """Decompose, then verify and cover side by side; linguistic along."""
        assertions = asyncio.ensure_future(self.judge.decompose(caption.caption))
        units = asyncio.ensure_future(self.judge.decompose(caption.reference or ""))

        async def precision() -> dict[str, Any]:
            said = await assertions
            verdicts = await self.judge.verify(caption.image, said)
            pairs = zip(said, verdicts, strict=True)
            return _precision([(text, v.correct, v.pointable) for text, v in pairs])

        async def recall() -> dict[str, Any]:
            said, wanted = await asyncio.gather(assertions, units)
            return _recall(wanted, await self.judge.cover(said, wanted))

        async def linguistic() -> dict[str, Any]:
            return _linguistic(await self.judge.linguistic(caption.caption))

        return await _all_parts(precision(), recall(), linguistic())

    async def _fused(self, caption: Caption) -> list[dict[str, Any] | JudgeError]:
        async def look() -> dict[str, Any]:
            looked = await self.judge.look(caption.image, caption.caption)
            return _precision([(text, v.correct, v.pointable) for text, v in looked])

        async def read() -> dict[str, Any]:
            units = await self.judge.decompose(caption.reference or "")
            if not units:
                return _linguistic(await self.judge.linguistic(caption.caption))
            covered, grades = await self.judge.read(caption.caption, units)
            return _recall(units, covered) | _linguistic(grades)

        return await _all_parts(look(), read())


def statistics(rows: Sequence[Mapping[str, Any]]) -> list[Statistic]:
    """
    Corpus scores of scored rows, percent: "b-CapScore", the mean over captions; "b-CapScore of means", the harmonic
    mean of the three corpus means; and these means, each over the captions that have it.
    """
    values = {name: [row.get(name) for row in rows] for name in REWARDS}
    means = [mean_statistic(name, values[name], 100) for name in REWARDS]
    columns = np.concatenate([mean.columns for mean in means], axis=-1)  # (N, 6)

    def of_means(sums: np.ndarray) -> np.ndarray:
        pairs = sums.reshape(*sums.shape[:-1], len(REWARDS), 2)  # (..., 3, 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = pairs[..., 1] / pairs[..., 0]  # 1 / mean: inf at 0, NaN where nothing is
            return len(REWARDS) / inverse.sum(axis=-1)

    scored = np.logical_or.reduce([mean.scored for mean in means])
    return [
        mean_statistic("b-CapScore", [row["score"] for row in rows], 100),
        Statistic("b-CapScore of means", columns, of_means, scored),
        *means,
    ]


async def _all_parts(*parts: Any) -> list[dict[str, Any] | JudgeError]:
    """What each part gives; a judge's failure takes only its own part away."""
    done = await asyncio.gather(*parts, return_exceptions=True)
    for part in done:
        if isinstance(part, BaseException) and not isinstance(part, JudgeError):
            raise part
    return done  # type: ignore[return-value]


def _precision(verdicts: Sequence[tuple[str, bool, bool]]) -> dict[str, Any]:
    true = sum(correct and pointable for _, correct, pointable in verdicts)
    return {
        "precision": true / len(verdicts) if verdicts else 0.0,
        "assertions": [
            {"text": text, "correct": correct, "pointable": pointable}
            for text, correct, pointable in verdicts
        ],
    }


def _recall(units: Sequence[str], covered: Sequence[bool]) -> dict[str, Any]:
    return {
        "recall": sum(covered) / len(units) if units else None,
        "units": [
            {"text": text, "covered": verdict} for text, verdict in zip(units, covered, strict=True)
        ],
    }


def _linguistic(grades: tuple[float, float, float]) -> dict[str, Any]:
    clarity, fluency, coherency = grades
    return {
        "linguistic": (clarity + fluency + coherency) / 30,
        "clarity": clarity,
        "fluency": fluency,
        "coherency": coherency,
    }

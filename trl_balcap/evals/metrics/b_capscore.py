"""
b-CapScore of captions, from the same questions as in training: which assertions are correct and
pointable, which units of the reference are covered, how well the caption is written.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from trl_balcap.data.ids import IdTable
from trl_balcap.data.scored import Caption
from trl_balcap.evals.asking import Ask, Workload, workload
from trl_balcap.evals.bootstrap import Statistic, mean_statistic
from trl_balcap.evals.metrics.protocol import Benchmarks, Metric, Row
from trl_balcap.judge import Judge, JudgeError, Linguistic, Verification
from trl_balcap.judge.questions import prompt, prompts_hash
from trl_balcap.metrics import b_capscore, linguistic_score, precision_score, recall_score

__all__ = ["BCapScore", "shown_as_in_training"]

REWARDS = ("precision", "recall", "linguistic")
SEEN = ("assertions", "units", "clarity", "fluency", "coherency")
NO_UNITS = "the reference states nothing"


class BCapScore(Metric):
    """
    The metric, ready to score captions.

    Args:
        judge ([`Judge`]):
            The judge. Its profile decides between four questions per caption, three and two.

    Example:

    ```python
    >>> BCapScore(Judge("scenes/oracle")).mode
    'questions'

    ```
    """

    name = "b-capscore"
    needs_image = True
    needs_reference = True
    incomparable = (
        "Not comparable with published b-CapScores: the paper's judge prompts are not public."
    )
    final_reasons = frozenset({NO_UNITS})

    def __init__(self, judge: Judge):
        self.judge = judge
        self.mode = judge.settings.profile

    @classmethod
    def build(cls, judge: Judge, benchmarks: Benchmarks) -> Self:
        """The metric for this judge; it needs no data."""
        return cls(judge)

    def settings(self) -> dict[str, Any]:
        """What else affects the judge's verdicts."""
        settings = self.judge.settings
        return {"temperature": settings.temperature, "max_pixels": settings.max_pixels}

    @property
    def prompts_sha256(self) -> str:
        """Hash of the judge's prompt files."""
        return prompts_hash()

    @property
    def prompts_source(self) -> str:
        """The prompts of training."""
        return "trl-balcap's, as in training"

    def workload(self, captions: Sequence[Caption]) -> Workload:
        """Four calls per caption (two if fused, three if united) and one per distinct reference."""
        sizes = {
            name: len(prompt(name))
            for name in ("decompose", "verify", "cover", "linguistic", "look", "read", "parse")
        }
        split = "parse" if self.mode == "united" else "decompose"
        total = Workload()
        met = IdTable()
        for caption in captions:
            reference = caption.reference or ""
            if reference not in met:
                met[reference] = 1
                total += workload(
                    prompt_chars=sizes[split] + len(reference),
                    completion_chars=1.5 * len(reference),
                )
            if caption.is_empty:
                continue
            text, units = len(caption.caption), 1.5 * len(caption.reference or "")
            n = max(1, text // 40)  # assertions of about 40 characters each
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
            total += workload(prompt_chars=sizes[split] + text, completion_chars=1.5 * text)
            total += workload(
                prompt_chars=sizes["verify"] + 1.5 * text, completion_chars=50 * n, image=True
            )
            total += workload(
                prompt_chars=sizes["cover"] + 1.5 * text + units, completion_chars=units / 2
            )
            if split == "decompose":
                total += workload(prompt_chars=sizes["linguistic"] + text, completion_chars=60)
        return total

    async def score(self, caption: Caption, ask: Ask, earlier: Row | None = None) -> dict[str, Any]:
        """
        Judge one caption with the questions of training, instead of `ask`.

        Returns:
            `dict`: "score" (b-CapScore, `None` unless there are all three rewards), "precision",
            "recall", "linguistic", "reason" of the first missing one; "assertions" and "units"
            with their verdicts, and the three grades.
        """
        if caption.is_empty:
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
            reason = next(iter(reasons), NO_UNITS)
        return {
            "score": score,
            "reason": reason,
            **rewards,
            **row,
            "errors": list(reasons.values()),
        }

    def shown(self, row: Row) -> dict[str, Any]:
        """As training keeps it: the rewards under their functions' names, all that the judge
        said."""
        return shown_as_in_training(row)

    async def _questions(self, caption: Caption) -> list[dict[str, Any] | JudgeError]:
        """Decompose, then verify and cover concurrently, with linguistic alongside."""
        assertions = asyncio.ensure_future(self.judge.decompose(caption.caption))
        units = asyncio.ensure_future(self.judge.decompose(caption.reference or ""))

        async def precision() -> dict[str, Any]:
            said = await assertions
            return _precision(said, await self.judge.verify(caption.image, said))

        async def recall() -> dict[str, Any]:
            said, wanted = await asyncio.gather(assertions, units)
            return _recall(wanted, await self.judge.cover(said, wanted))

        async def linguistic() -> dict[str, Any]:
            return _linguistic(await self.judge.linguistic(caption.caption))

        return await _all_parts(precision(), recall(), linguistic())

    async def _fused(self, caption: Caption) -> list[dict[str, Any] | JudgeError]:
        async def look() -> dict[str, Any]:
            looked = await self.judge.look(caption.image, caption.caption)
            return _precision([text for text, _ in looked], [verdict for _, verdict in looked])

        async def read() -> dict[str, Any]:
            units = await self.judge.decompose(caption.reference or "")
            if not units:
                return _linguistic(await self.judge.linguistic(caption.caption))
            covered, grades = await self.judge.read(caption.caption, units)
            return _recall(units, covered) | _linguistic(grades)

        return await _all_parts(look(), read())

    @staticmethod
    def statistics(rows: Sequence[Row]) -> list[Statistic]:
        """
        Corpus scores of scored rows, in percent: "b-CapScore", the mean over captions; "b-CapScore
        of means", the harmonic mean of the three corpus means; and those means, each over the
        captions that have it.
        """
        values = {name: [row.get(name) for row in rows] for name in REWARDS}
        means = [mean_statistic(name, values[name], 100) for name in REWARDS]
        columns = np.concatenate([mean.columns for mean in means], axis=-1)  # (N, 6)
        present = np.repeat(
            np.stack([mean.scored for mean in means], axis=-1), 2, axis=-1
        )  # (N, 6)

        def of_means(sums: np.ndarray) -> np.ndarray:
            pairs = sums.reshape(*sums.shape[:-1], len(REWARDS), 2)  # (..., 3, 2)
            with np.errstate(divide="ignore", invalid="ignore"):
                inverse = pairs[..., 1] / pairs[..., 0]  # 1 / mean: inf at 0, NaN if empty
                return len(REWARDS) / inverse.sum(axis=-1)

        scored = np.logical_or.reduce([mean.scored for mean in means])
        return [
            mean_statistic("b-CapScore", [row["score"] for row in rows], 100),
            Statistic("b-CapScore of means", columns, of_means, scored, present),
            *means,
        ]


async def _all_parts(*parts: Any) -> list[dict[str, Any] | JudgeError]:
    """The result of each part; a judge's failure only affects its own part."""
    done = await asyncio.gather(*parts, return_exceptions=True)
    for part in done:
        if isinstance(part, BaseException) and not isinstance(part, JudgeError):
            raise part
    return done  # type: ignore[return-value]


def _precision(said: Sequence[str], verdicts: Sequence[Verification]) -> dict[str, Any]:
    return {
        "precision": precision_score(verdicts),
        "assertions": [
            {"text": text, "correct": verdict.correct, "pointable": verdict.pointable}
            for text, verdict in zip(said, verdicts, strict=True)
        ],
    }


def _recall(units: Sequence[str], covered: Sequence[bool]) -> dict[str, Any]:
    return {
        "recall": recall_score(covered),
        "units": [
            {"text": text, "covered": verdict} for text, verdict in zip(units, covered, strict=True)
        ],
    }


def _linguistic(grades: Linguistic) -> dict[str, Any]:
    return {"linguistic": linguistic_score(*grades), **grades._asdict()}


def shown_as_in_training(row: Row) -> dict[str, Any]:
    """A row's verdicts as a training run keeps those of its rollouts."""
    rewards = {f"{name}_reward": row.get(name) for name in REWARDS}
    return {"rewards": rewards, **{name: row[name] for name in SEEN if name in row}}

"""The three rewards of BalCapRL: from a judge's verdicts to numbers, or to `None`.

    precision   r_P = |TP| / N            assertions that are correct and pointable, of all
    recall      r_R = |covered| / M       reference units that the assertions cover, of all
    linguistic  r_L = mean(clarity, fluency, coherency) / 10

A judge that fails gives `None` for that reward and that completion alone. An empty caption is the
policy's fault: 0.0, and the judge is not asked. All rewards with the same judge share its answers:
one decomposition serves precision and recall, equal captions are judged once.
"""

import asyncio
import concurrent.futures
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .completions import completion_text
from .judge import Judge, JudgeError
from .judge.background import submit
from .judge.ranks import batch_deadline
from .judging_report import JudgingReport


class _Row(NamedTuple):
    """What one completion is judged by."""

    caption: str
    image: Any
    reference: str | None


class JudgeReward:
    """What the three rewards have in common: rows in, judged side by side, numbers or `None` out.

    A subclass says which columns it needs and how one caption is scored.

    Args:
        judge ([`Judge`], *optional*):
            Who is asked. Default: the judge that the environment describes (`Judge.from_env`),
            looked up at the first use.
    """

    __name__: str
    needs: tuple[str, ...] = ()

    def __init__(self, judge: Judge | None = None):
        self._judge = judge
        self._preflight_done = False
        self._report: JudgingReport | None = None
        self._started: dict[Any, concurrent.futures.Future[list[float | JudgeError | None]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"judge": self._judge}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["judge"])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._judge!r})"

    @property
    def judge(self) -> Judge:
        if self._judge is None:
            self._judge = Judge.from_env()
        return self._judge

    @property
    def max_unscored(self) -> float:
        """Share of a batch without verdicts above which the run should stop."""
        return self.judge.settings.max_unscored

    def preflight(self) -> None:
        """Ask the judge one cheap question and wait for the answer.

        Raises:
            `JudgeConfigError`: if the judge cannot work: unknown model, wrong key, nobody there.
        """
        submit(self._preflight()).result()

    def start(self, *, completions: Sequence[Any], **columns: Any) -> None:
        """Begin judging and return at once; the later call with the same completions joins it."""
        rows = self._rows(completions, columns)
        # Who starts early has asked `preflight` before, on one rank for all: none may fail alone.
        self._preflight_done = True
        # What was started and never fetched belongs to a batch that was given up.
        for forgotten in self._started.values():
            forgotten.cancel()
        self._started = {_same(rows): submit(self._score_all(rows))}

    async def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Score each completion: a float in [0, 1], or `None` where the judge failed.

        Args:
            prompts (`list`):
                Not looked at; TRL passes them.
            completions (`list`):
                Captions, as strings or as conversations.
            image, images (`list`, *optional*):
                One image for each completion (`images`: a list of them), where the reward needs it.
            reference (`list[str]`, *optional*):
                Reference captions, where the reward needs them.
            log_metric (`Callable`, *optional*):
                TRL's logger.

        Raises:
            `ValueError`: if a column that the reward needs is missing.
            `JudgeConfigError`: at the first call, if the judge cannot work.
        """
        rows = self._rows(completions, columns)
        started = self._started.pop(_same(rows), None)
        if started is None:
            started = submit(self._score_all(rows))
        self.judge.enter_batch()
        metrics: dict[str, float] = {}
        try:
            # Always a hop to the judge loop, so that all rewards enter before the first one leaves.
            outcomes = await asyncio.wrap_future(started)
        finally:
            metrics = self.judge.leave_batch()
        self._record(outcomes)
        if log_metric is not None:
            missing = sum(not isinstance(outcome, float) for outcome in outcomes)
            log_metric(f"judge/{self.__name__}/unscored", missing / max(1, len(outcomes)))
            for name, value in metrics.items():
                log_metric(name, value)
        return [outcome if isinstance(outcome, float) else None for outcome in outcomes]

    def take_report(self) -> JudgingReport | None:
        """What happened since the last report, or `None` if nothing was judged."""
        report, self._report = self._report, None
        return report

    async def _score(self, row: _Row) -> float | None:
        """The score of one caption that is not empty; `None` where the row has nothing to score."""
        raise TypeError(f"{type(self).__name__} must define _score")

    async def _preflight(self) -> None:
        if not self._preflight_done:
            await self.judge.preflight(vision="image" in self.needs)
            self._preflight_done = True

    def _rows(self, completions: Sequence[Any], columns: dict[str, Any]) -> list[_Row]:
        count = len(completions)
        images = columns.get("images")
        if images is None:
            images = columns.get("image")
        references = columns.get("reference")
        for need, found in (("image", images), ("reference", references)):
            if need in self.needs and found is None:
                also = " (or `images`)" if need == "image" else ""
                raise ValueError(
                    f"{self.__name__} needs the dataset column `{need}`{also}; got the columns "
                    f"{sorted(columns)}. Rename the column, or leave this reward out"
                )
        return [
            _Row(completion_text(completion), image, reference)
            for completion, image, reference in zip(
                completions,
                images if images is not None else [None] * count,
                references if references is not None else [None] * count,
                strict=True,
            )
        ]

    async def _score_all(self, rows: Sequence[_Row]) -> list[float | JudgeError | None]:
        await self._preflight()
        if not rows:
            return []
        tasks = [asyncio.ensure_future(self._outcome(row)) for row in rows]
        deadline = batch_deadline(self.judge.settings.batch_deadline)
        try:
            _, late = await asyncio.wait(tasks, timeout=deadline)
        finally:
            for task in tasks:
                task.cancel()  # no effect on those that are done
        if late:
            await asyncio.wait(late)
        expired = JudgeError("timeout", f"the batch's deadline of {deadline:g} s was reached")
        return [expired if task in late else task.result() for task in tasks]

    async def _outcome(self, row: _Row) -> float | JudgeError | None:
        if is_empty(row.caption):
            return 0.0
        try:
            return await self._score(row)
        except JudgeError as error:
            return error

    def _record(self, outcomes: Sequence[float | JudgeError | None]) -> None:
        if self._report is None:
            self._report = JudgingReport(self.__name__, repr(self.judge))
        errors = [outcome for outcome in outcomes if isinstance(outcome, JudgeError)]
        report = self._report
        report.asked += sum(outcome is not None for outcome in outcomes)
        report.unscored = dict(Counter(report.unscored) + Counter(e.reason for e in errors))
        for error in errors:
            report.failing_reply = report.failing_reply or error.reply or error.message
            if error.reason == "over_budget":
                report.budget_spent = error.message


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

    async def _score(self, row: _Row) -> float | None:
        if row.image is None:
            return None
        if self.judge.settings.profile == "fused":
            looked = await self.judge.look(row.image, row.caption)
            verdicts = [verdict for _, verdict in looked]
        else:
            assertions = await self.judge.decompose(row.caption)
            verdicts = await self.judge.verify(row.image, assertions)
        if not verdicts:
            return 0.0
        return sum(v.correct and v.pointable for v in verdicts) / len(verdicts)


class RecallReward(JudgeReward):
    """Share of the reference's units that a caption covers, from 0 to 1.

    `None` where the reference is empty or states nothing: there is nothing to cover.

    Args:
        judge ([`Judge`], *optional*):
            Who is asked.
    """

    __name__ = "recall_reward"
    needs = ("reference",)

    async def _score(self, row: _Row) -> float | None:
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
        return sum(covered) / len(covered)


class LinguisticReward(JudgeReward):
    """Mean of clarity, fluency and coherency, from 0 to 1.

    With the fused profile the grades come from the question that also checks the coverage, where
    there is a reference.

    Args:
        judge ([`Judge`], *optional*):
            Who is asked.
    """

    __name__ = "linguistic_reward"

    async def _score(self, row: _Row) -> float | None:
        grades = None
        if self.judge.settings.profile == "fused" and row.reference:
            units = await self.judge.decompose(row.reference)
            if units:
                _, grades = await self.judge.read(row.caption, units)
        if grades is None:
            grades = await self.judge.linguistic(row.caption)
        return sum(grades) / 30.0


precision_reward = PrecisionReward()
"""[`PrecisionReward`] by dotted path, with the judge that the environment describes."""

recall_reward = RecallReward()
"""[`RecallReward`] by dotted path, with the judge that the environment describes."""

linguistic_reward = LinguisticReward()
"""[`LinguisticReward`] by dotted path, with the judge that the environment describes."""


def is_empty(text: str) -> bool:
    """Whether nothing in `text` can be seen: only space, control and format characters."""
    return all(unicodedata.category(character)[0] in "ZC" for character in text)


def _same(rows: Sequence[_Row]) -> tuple[Any, ...]:
    return tuple((row.caption, id(row.image), row.reference) for row in rows)

"""[`JudgeReward`]: rows in, judged side by side, numbers or `None` out.

A judge that fails gives `None` for that reward and that completion alone. An empty caption is the
policy's fault: 0.0, and the judge is not asked. All rewards with the same judge share its answers:
one decomposition serves precision and recall, equal captions are judged once.
"""

import asyncio
import concurrent.futures
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from trl_balcap.data.completions import completion_text, is_empty
from trl_balcap.judge import Judge, JudgeError
from trl_balcap.judge.background import submit
from trl_balcap.judge.ranks import batch_deadline
from trl_balcap.rewards.report import JudgingReport


class Row(NamedTuple):
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

    async def _score(self, row: Row) -> float | None:
        """The score of one caption that is not empty; `None` where the row has nothing to score."""
        raise TypeError(f"{type(self).__name__} must define _score")

    async def _preflight(self) -> None:
        if not self._preflight_done:
            await self.judge.preflight(vision="image" in self.needs)
            self._preflight_done = True

    def _rows(self, completions: Sequence[Any], columns: dict[str, Any]) -> list[Row]:
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
            Row(completion_text(completion), image, reference)
            for completion, image, reference in zip(
                completions,
                images if images is not None else [None] * count,
                references if references is not None else [None] * count,
                strict=True,
            )
        ]

    async def _score_all(self, rows: Sequence[Row]) -> list[float | JudgeError | None]:
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

    async def _outcome(self, row: Row) -> float | JudgeError | None:
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


def _same(rows: Sequence[Row]) -> tuple[Any, ...]:
    return tuple((row.caption, id(row.image), row.reference) for row in rows)

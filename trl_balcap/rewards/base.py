"""[`JudgeReward`]: judges rows concurrently and returns a number or `None` for each.

A failure gives `None` for that reward and that completion only, counted by reason: a failing judge,
an unreadable image, an unusable reference. An empty caption is the policy's fault: it scores 0.0
without asking the judge. All rewards with the same judge share its answers: one decomposition
serves precision and recall, and equal captions are judged once.
"""

import asyncio
import concurrent.futures
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from trl_balcap.data.completions import completion_text, is_empty
from trl_balcap.data.images import ImageError, NoImageError
from trl_balcap.judge import Judge, JudgeError
from trl_balcap.judge.background import submit
from trl_balcap.judge.bill import open_bill
from trl_balcap.judge.deadline import within
from trl_balcap.judge.questions import prompts_hash
from trl_balcap.judge.ranks import batch_deadline
from trl_balcap.rewards.hooks import JudgingReport, RewardHooks
from trl_balcap.rewards.progress import JudgingBar
from trl_balcap.rewards.row import Row, RowError

__all__ = ["JudgeReward"]

_bar = JudgingBar()  # one for all rewards, since they wait at the same time


class _Failed(NamedTuple):
    """Why a row has no score."""

    reason: str
    detail: str
    asked: bool = True  # False if the row is at fault rather than the judge
    traceback: str | None = None


_Outcome = float | _Failed


class _Started(NamedTuple):
    rows: list[Row]
    outcomes: concurrent.futures.Future[list[_Outcome]]


class JudgeReward(RewardHooks):
    """
    Base class of rewards that ask a [`Judge`]: an async reward function for any TRL trainer.

    To write your own reward, define a class with a `__name__`, the columns it `needs`, and `score`,
    which scores one non-empty caption. `score` may raise `JudgeError` (the judge's methods do) or
    [`RowError`]: the completion is then unscored, with that reason. Any other exception is treated
    as a bug: it ends the run, on all ranks together.

    Args:
        judge ([`Judge`] or `str`, *optional*):
            The judge, or its litellm model string. Defaults to the judge set by environment
            variables ([`Judge.from_env`]), looked up on first use.

    Attributes:
        needs (`tuple[str, ...]`):
            Columns of the dataset: `"image"`, `"reference"`, or any other, which is then in
            `row.columns`. Rows without them are unscored (`no_image`, `no_reference`,
            `no_<column>`); datasets without them are rejected.
        sees (`tuple[str, ...]`):
            Keys of `row.seen` to show in TRL's table of completions, as `<reward>/<name>`, and to
            log the mean of: numbers directly, lists by length.

    Example:

    ```python
    >>> from trl_balcap import Judge
    >>> from trl_balcap.rewards import JudgeReward
    >>> class BrevityReward(JudgeReward):
    ...     "Share of a caption's assertions that it can spare and still cover the reference."
    ...     __name__ = "brevity_reward"
    ...     needs = ("reference",)
    ...     sees = ("spared",)
    ...     async def score(self, row):
    ...         said = await self.judge.decompose(row.caption)
    ...         units = await self.judge.decompose(row.reference)
    ...         covered = await self.judge.cover(said, units)
    ...         row.seen["spared"] = max(0, len(said) - sum(covered))
    ...         return 1.0 - row.seen["spared"] / max(1, len(said))
    >>> BrevityReward(Judge("scenes/oracle"))
    BrevityReward(Judge('scenes/oracle'))

    ```
    """

    __name__: str

    def __init__(self, judge: Judge | str | None = None):
        self._judge = Judge(judge) if isinstance(judge, str) else judge
        if self._judge is not None and not isinstance(self._judge, Judge):
            raise ValueError(
                f"{type(self).__name__} takes a Judge or a litellm model string such as "
                f"'openai/gpt-4o-mini', got {judge!r}."
            )
        self._preflight_done = False
        self._report: JudgingReport | None = None
        self._started: list[_Started] = []
        self._observations: list[dict[str, Any]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"judge": self._judge}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # its settings, by the names of its arguments

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._judge!r})"

    @property
    def judge(self) -> Judge:
        """The judge."""
        if self._judge is None:
            self._judge = Judge.from_env()
        return self._judge

    @property
    def max_unscored(self) -> float:  # type: ignore[override] (a setting of the judge)
        """Share of a batch without verdicts above which it counts as part of an outage."""
        return self.judge.settings.max_unscored

    def about(self) -> str:
        """The judge, its profile, and a hash of the prompts."""
        return f"{self.judge!r}, {self.judge.settings.profile}, prompts {prompts_hash()}"

    def budgets(self) -> dict[str, float]:
        """The judge's budgets, by the name of the logged metric that each one limits."""
        settings = self.judge.settings
        known = {"judge/usd_total": settings.budget_usd, "judge/calls_total": settings.budget_calls}
        return {name: float(budget) for name, budget in known.items() if budget is not None}

    async def score(self, row: Row) -> float:
        """
        Score one non-empty caption, of a row that has everything the reward needs.

        Args:
            row ([`Row`]):
                The caption with its image and reference. Whatever is put into `row.seen` is kept.

        Raises:
            `JudgeError` or [`RowError`]: to leave the completion unscored.
        """
        raise TypeError(f"{type(self).__name__} must define `async def score(self, row)`.")

    def preflight(self) -> None:
        """Ask the judge one cheap question and wait for the answer.

        Raises:
            `JudgeConfigError`: if the judge cannot work: unknown model, wrong key, no such server.
        """
        submit(self._preflight()).result()

    def start(self, *, completions: Sequence[Any], **columns: Any) -> None:
        """Start judging and return immediately; a later call with the same completions joins it."""
        rows = self._rows(completions, columns)
        # Whoever starts early has called `preflight` before, on one rank for all: none fails alone.
        self._preflight_done = True
        self._started.append(_Started(rows, submit(self._score_all(rows))))

    def forget(self) -> None:
        """Cancel judging that was started but not collected."""
        for started in self._started:
            started.outcomes.cancel()
        self._started = []

    async def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Score each completion: a float in [0, 1], or `None` if it cannot be scored.

        Args:
            prompts (`list`):
                Passed by TRL, not used.
            completions (`list`):
                Captions, as strings or as conversations.
            image, images (`list`, *optional*):
                One image per completion (or, for `images`, a list), if the reward needs it.
            reference (`list[str]`, *optional*):
                Reference captions, if the reward needs them.
            log_metric, log_extra (`Callable`, *optional*):
                TRL's loggers, for the batch and for each completion.

        Raises:
            `ValueError`: if a column that the reward needs is missing, or does not have one value
                per completion.
            `JudgeConfigError`: on the first call, if the judge cannot work.
        """
        rows = self._rows(completions, columns)
        started = self._take_started(rows)
        if started is None:
            started = _Started(rows, submit(self._score_all(rows)))
        self.judge.enter_batch()
        metrics: dict[str, float] = {}
        try:
            # Always go through the judge loop, so that all rewards enter before the first leaves.
            future = asyncio.wrap_future(started.outcomes)
            outcomes = await _bar.wait(future, started.rows, self.judge)
        finally:
            metrics = self.judge.leave_batch()
        rows = started.rows
        self._record(outcomes)
        self._observations = [
            {**row.seen, "reason": outcome.reason}
            if isinstance(outcome, _Failed)
            else {**row.seen, "reward": outcome}
            for row, outcome in zip(rows, outcomes, strict=True)
        ]
        if log_metric is not None:
            missing = sum(isinstance(outcome, _Failed) for outcome in outcomes)
            log_metric(f"judge/{self.__name__}/unscored", missing / max(1, len(outcomes)))
            for name in self.sees:
                shown = [_shown(row.seen[name]) for row in rows if name in row.seen]
                if shown:
                    log_metric(f"judge/{self.__name__}/{name}", sum(shown) / len(shown))
            for name, value in metrics.items():
                log_metric(name, value)
        if log_extra is not None:
            for name in self.sees:
                values = [_shown(row.seen.get(name)) for row in rows]
                log_extra(f"{self.__name__}/{name}", values)
        return [None if isinstance(outcome, _Failed) else outcome for outcome in outcomes]

    def take_report(self) -> JudgingReport | None:
        """What happened since the last report, or `None` if nothing was judged."""
        report, self._report = self._report, None
        return report

    def observations(self) -> list[dict[str, Any]]:
        """The verdicts on each completion of the last call; see [`RewardHooks`]."""
        return self._observations

    async def _preflight(self) -> None:
        if not self._preflight_done:
            await self.judge.preflight(vision="image" in self.needs)
            self._preflight_done = True

    def _rows(self, completions: Sequence[Any], columns: dict[str, Any]) -> list[Row]:
        images = columns.get("images")
        if images is None:
            images = columns.get("image")
        found = {name: columns.get(name) for name in ("image", "reference", *self.needs)}
        found["image"] = images
        for name, values in found.items():
            also = " (or `images`)" if name == "image" else ""
            if name in self.needs and values is None:
                raise ValueError(
                    f"{self.__name__} needs the dataset column `{name}`{also}, but got the columns "
                    f"{sorted(columns)}. Rename the column, or leave this reward out"
                )
            if values is not None and len(values) != len(completions):
                raise ValueError(
                    f"{self.__name__} got {len(completions)} completions but {len(values)} values "
                    f"of the column `{name}`{also}. Pass one value per completion."
                )
        rows = []
        for place, completion in enumerate(completions):
            own = {name: v if v is None else v[place] for name, v in found.items()}
            row = Row(completion_text(completion), own.pop("image"), own.pop("reference"), own)
            rows.append(row)
        return rows

    def _take_started(self, rows: Sequence[Row]) -> _Started | None:
        for place, started in enumerate(self._started):
            if len(started.rows) == len(rows) and all(map(Row.is_like, started.rows, rows)):
                return self._started.pop(place)
        return None

    async def _score_all(self, rows: Sequence[Row]) -> list[_Outcome]:
        await self._preflight()
        if not rows:
            return []
        deadline = batch_deadline(self.judge.settings.batch_deadline)
        with within(deadline):
            sees = "image" in self.needs
            tasks = self.judge.side_by_side(
                (row.image if sees else None, self._outcome(row)) for row in rows
            )
        try:
            _, late = await asyncio.wait(tasks, timeout=deadline)
        finally:
            for task in tasks:
                task.cancel()  # no effect on finished ones
        if late:
            await asyncio.wait(late)
        expired = _Failed("timeout", f"the batch's deadline of {deadline:g} s was reached")
        return [expired if task in late else task.result() for task in tasks]

    async def _outcome(self, row: Row) -> _Outcome:
        try:
            if is_empty(row.caption):
                return 0.0
            row.check(self.needs)
            begun = time.monotonic()
            with open_bill() as bill:
                try:
                    return await self.score(row)
                finally:
                    row.seen |= {"latency": time.monotonic() - begun, "usd": bill.usd}
        except JudgeError as error:
            return _Failed(error.reason, error.reply or error.message)
        except RowError as error:
            return _Failed(error.reason, error.message, asked=False)
        except NoImageError as error:
            return _Failed("no_image", str(error), asked=False)
        except ImageError as error:
            return _Failed("bad_image", str(error), asked=False)
        except Exception as error:  # noqa: BLE001 - handed on: the trainer raises it on all ranks
            return _Failed("internal_error", repr(error), traceback=traceback.format_exc())
        finally:
            row.judged = True

    def _record(self, outcomes: Sequence[_Outcome]) -> None:
        report = self._report = self._report or JudgingReport(self.__name__)
        failed = [outcome for outcome in outcomes if isinstance(outcome, _Failed)]
        report.asked += len(outcomes) - sum(not failure.asked for failure in failed)
        report.unscored = dict(Counter(report.unscored) + Counter(f.reason for f in failed))
        for failure in failed:
            report.failing_reply = report.failing_reply or failure.detail
            report.internal_error = report.internal_error or failure.traceback
            if failure.reason == "over_budget":
                report.budget_spent = failure.detail


def _shown(value: Any) -> Any:
    return len(value) if isinstance(value, list | tuple) else value

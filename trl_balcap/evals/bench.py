"""
`trl-balcap bench`: many captioners and benchmarks in one folder.

    DIR/captions/<model>/<suite>.jsonl                    captions of each model
    DIR/scores/<model>/<metric>/captions.json             number of captions to score
    DIR/scores/<model>/<metric>/repeat-<k>/<metric>.jsonl verdicts
    DIR/judge-cache, judge-cache-2, ...                   shared by all models, one per repeat
    DIR/bill.jsonl                                        cost of each step, of all runs
    DIR/table.md, .csv, .tex, .json                       results of all runs in the folder
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trl_balcap.captioning.api import check_server
from trl_balcap.captioning.run import ImageRow
from trl_balcap.data import DEFAULT_PROMPT
from trl_balcap.data.folders import check_out_folder
from trl_balcap.evals.bench_captions import (
    BenchModel,
    Writing,
    finds_images,
    given_captions,
    images_of,
)
from trl_balcap.evals.bill import Bill
from trl_balcap.evals.jobs import DeclinedError, ScorePlan
from trl_balcap.evals.metrics.protocol import Benchmarks
from trl_balcap.evals.metrics.registry import METRICS
from trl_balcap.evals.results import Evaluation
from trl_balcap.evals.row_files import replace_file
from trl_balcap.evals.run import score_captions
from trl_balcap.evals.suites import Suite
from trl_balcap.judge import Judge

__all__ = ["BenchModel", "Benched", "Plans", "bench"]

Plans = Mapping[tuple[str, str], tuple[ScorePlan, Judge]]
"""What is left to ask, and the judge, by model and metric."""


@dataclass(frozen=True)
class Benched:
    """One model scored on one suite, once."""

    model: str
    metric: str
    repeat: int
    evaluation: Evaluation


async def bench(
    models: Sequence[BenchModel],
    suites: Sequence[Suite],
    judges: Callable[[str, Path], Judge],
    *,
    out: str | Path,
    images: Mapping[str, str | Path] | None = None,
    benchmarks: Benchmarks | None = None,
    repeats: int = 1,
    captioning: Mapping[str, Any] | None = None,
    confirm: Callable[[Plans], bool] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> list[Benched]:
    """
    Write missing captions, then score everything into one folder.

    Existing results are kept: another run can add models or metrics, and an interrupted run resumes
    where it stopped. Data, images, names and judges are checked before anything is captioned.

    Args:
        models (`Sequence[BenchModel]`):
            Models, or their captions.
        suites (`Sequence[Suite]`):
            Benchmarks.
        judges (`Callable`):
            Makes the judge of a metric, given its name and the cache folder.
        out (`str` or `Path`):
            Output folder.
        images (`Mapping[str, str or Path]`, *optional*):
            Images to caption, by suite, see [`suite_images`]; for existing captions, the folder
            that their image paths are relative to, unless they are relative to the caption file.
        benchmarks ([`Benchmarks`], *optional*):
            Data and prompts of the published benchmarks.
        repeats (`int`, *optional*, defaults to `1`):
            How many times to ask the judge; with several, the intervals include its noise.
        captioning (`Mapping[str, Any]`, *optional*):
            Further arguments of [`~captioning.run.caption_images`], such as `batch_size`.
        confirm (`Callable`, *optional*):
            Called with the planned questions, by model and metric, and who is asked; nothing is
            asked unless it returns `True`. Called once for captions from servers, if any, and once
            for the judges.
        on_step (`Callable`, *optional*):
            Called with a line of text at each step.

    Returns:
        `list[Benched]`

    Raises:
        [`BadRowsError`]: if captions or data cannot be scored; raised before any judge is asked.
        `ValueError`: if names or settings contradict the folder's contents.
        `JudgeConfigError`: if a judge cannot work.
        `DeclinedError`: if `confirm` returns `False`.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be 1 or more, got {repeats}.")
    names = [model.slug for model in models]
    if len(set(names)) < len(names):
        raise ValueError(
            f"Two models have the same name: {', '.join(sorted(names))}. Use NAME=MODEL."
        )
    check_out_folder(out)
    out, say = Path(out), on_step or (lambda line: None)
    for model in models:
        _check_model(out / "scores" / model.slug, model)
    images, benchmarks = images or {}, benchmarks or Benchmarks()
    made = {
        (suite.metric, repeat): judges(suite.metric, _cache(out, repeat))
        for suite in suites
        for repeat in range(1, repeats + 1)
    }
    writings: list[Writing] = []
    files: dict[tuple[str, str], Path] = {}
    for suite in suites:
        source = images.get(suite.name, images.get(suite.metric))
        metric = METRICS[suite.metric].build(made[suite.metric, 1], benchmarks)
        rows: list[ImageRow] | None = None
        for model in models:
            if model.is_captions:
                files[model.name, suite.name] = given_captions(model, suite)
                continue
            if rows is None:
                rows = images_of(suite, metric, source, benchmarks, out)
            path = out / "captions" / model.slug / f"{suite.name}.jsonl"
            files[model.name, suite.name] = path
            writings.append(Writing(model, suite, rows, path, dict(captioning or {})))
    out.mkdir(parents=True, exist_ok=True)
    bill = Bill(out)
    for suite in suites:
        judge = made[suite.metric, 1]
        try:
            await judge.preflight(vision=METRICS[suite.metric].needs_image)
        finally:
            bill.enter(judge, {"metric": suite.metric, "step": "preflight"})
    paid = {one.place: one.plan() for one in writings if one.is_paid}
    for _, client in paid.values():
        await check_server(client.settings.text[0], DEFAULT_PROMPT)
    _agree(paid, confirm)
    for one in writings:
        await one.write(bill, say)
    runs = [
        _Run(model, suite, files[model.name, suite.name], folder, n, out)
        for model in models
        for suite in suites
        for folder in [images.get(suite.name, images.get(suite.metric))]
        for n in range(1, repeats + 1)
    ]
    plans = {}
    for run in runs:
        judge = made[run.suite.metric, run.repeat]
        plan = await run.plan(judge, benchmarks)
        if any(plan.left.values()):
            plans[f"{run.model.name} ({run.repeat})", run.suite.metric] = (plan, judge)
    _agree(plans, confirm)
    for model in models:
        _write_model(out / "scores" / model.slug, model)
    done = []
    for run in runs:
        say(f"{run.model.name}: {run.suite.metric}, time {run.repeat} of {repeats}")
        evaluation = await run.score(made[run.suite.metric, run.repeat], benchmarks, bill)
        done.append(Benched(run.model.name, run.suite.metric, run.repeat, evaluation))
    return done


def _agree(plans: Plans, confirm: Callable[[Plans], bool] | None) -> None:
    if plans and confirm is not None and not confirm(plans):
        raise DeclinedError("The cost was declined, so nothing was asked.")


def _cache(out: Path, repeat: int) -> Path:
    return out / ("judge-cache" if repeat == 1 else f"judge-cache-{repeat}")


@dataclass(frozen=True)
class _Run:
    """One model on one suite, once."""

    model: BenchModel
    suite: Suite
    captions: Path
    images: str | Path | None
    repeat: int
    folder: Path

    @property
    def out(self) -> Path:
        scores = self.folder / "scores" / self.model.slug / self.suite.metric
        return scores / f"repeat-{self.repeat}"

    async def plan(self, judge: Judge, benchmarks: Benchmarks) -> ScorePlan:
        """Read and check everything, and return what is left to ask."""
        seen: list[ScorePlan] = []

        def decline(plan: ScorePlan) -> bool:
            seen.append(plan)
            return False

        with suppress(DeclinedError):
            await self._score(judge, benchmarks, decline)
        if not seen:
            return ScorePlan({}, {}, {})
        [plan] = seen
        name = self.suite.metric
        # The table must report the right coverage even if this run is interrupted.
        self.out.parent.mkdir(parents=True, exist_ok=True)
        about = {"file": str(self.captions), "n": plan.left[name] + plan.done[name]}
        replace_file(self.out.parent / "captions.json", json.dumps(about))
        return plan

    async def score(self, judge: Judge, benchmarks: Benchmarks, bill: Bill) -> Evaluation:
        """Score, and add the cost to the bill row by row, even if scoring fails."""
        about = {"model": self.model.name, "metric": self.suite.metric, "repeat": self.repeat}

        def enter(_: str = "") -> None:
            bill.enter(judge, about)

        try:
            return await self._score(judge, benchmarks, None, enter)
        finally:
            enter()

    async def _score(
        self,
        judge: Judge,
        benchmarks: Benchmarks,
        confirm: Callable[[ScorePlan], bool] | None,
        on_row: Callable[[str], None] | None = None,
    ) -> Evaluation:
        folder = self.images if self.model.is_captions else None
        if folder is not None and (not Path(folder).is_dir() or finds_images(self.captions)):
            folder = None
        return await score_captions(
            self.captions,
            judge,
            out=self.out,
            metrics=[self.suite.metric],
            benchmarks=replace(benchmarks, model=self.model.name),
            images=folder,
            allow_empty=True,
            confirm=confirm,
            on_row=on_row,
        )


def _check_model(folder: Path, model: BenchModel) -> None:
    """
    Raises:
        `ValueError`: if the folder contains the scores of another model.
    """
    path = folder / "model.json"
    if not path.is_file():
        return
    there = json.loads(path.read_text(encoding="utf-8"))
    if (there["name"], there["source"]) != (model.name, model.source):
        raise ValueError(
            f"{folder} has the scores of {there['name']!r} from {there['source']!r}, but this run "
            f"has {model.name!r} from {model.source!r}. Use another name: NAME=MODEL."
        )


def _write_model(folder: Path, model: BenchModel) -> None:
    """Record a model's name with its scores."""
    path = folder / "model.json"
    if path.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    place = len(list(folder.parent.glob("*/model.json")))  # the table's order
    about = {"name": model.name, "source": model.source, "place": place}
    replace_file(path, json.dumps(about))

"""
Many captioners, many benchmarks, one folder: `trl-balcap bench`.

    DIR/captions/<model>/<suite>.jsonl                    what each model says
    DIR/scores/<model>/<metric>/repeat-<k>/<metric>.jsonl every verdict
    DIR/judge-cache, judge-cache-2, ...                   one for all models; each repeat asks anew
    DIR/bill.jsonl                                        what each run has cost, failed ones too
    DIR/table.md, .csv, .tex, .json                       everything in the folder, of all runs
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trl_balcap.captioning.run import ImageRow, caption_images, list_images
from trl_balcap.data.folders import check_out_folder
from trl_balcap.evals.jobs import DeclinedError, ScorePlan, replace_file
from trl_balcap.evals.metrics.protocol import Benchmarks
from trl_balcap.evals.metrics.registry import METRICS
from trl_balcap.evals.results import Evaluation
from trl_balcap.evals.run import score_captions, spent_since
from trl_balcap.evals.suites import Suite
from trl_balcap.judge import Judge

__all__ = ["BenchModel", "Benched", "bench", "read_bill"]


@dataclass(frozen=True)
class BenchModel:
    """
    One column of the table.

    Args:
        name (`str`):
            What it is called there.
        source (`str`):
            A checkpoint, an adapter, or a litellm model string; or a file of captions.
        api_base (`str`, *optional*):
            Server of the model.
        is_captions (`bool`, *optional*, defaults to `False`):
            Whether `source` is a file of captions, or a folder with one file a suite.
    """

    name: str
    source: str
    api_base: str | None = None
    is_captions: bool = False

    @property
    def slug(self) -> str:
        """The name as a folder's."""
        return re.sub(r"[^\w.+-]+", "_", self.name)


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
    confirm: Callable[[Mapping[tuple[str, str], tuple[ScorePlan, Judge]]], bool] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> list[Benched]:
    """
    Caption where captions are missing, then score everything into one folder.

    What is there already is kept: another run adds a model or a metric, and a run that was stopped
    goes on where it stopped.

    Args:
        models (`Sequence[BenchModel]`):
            Models, or their captions.
        suites (`Sequence[Suite]`):
            Benchmarks.
        judges (`Callable`):
            Makes the judge of a metric, given its name and the folder of the cache.
        out (`str` or `Path`):
            The folder.
        images (`Mapping[str, str or Path]`, *optional*):
            Images of each suite by its name, to caption them, see [`list_images`]; for captions
            that are given, the folder that their image paths are relative to.
        benchmarks ([`Benchmarks`], *optional*):
            Data and prompts of the published benchmarks.
        repeats (`int`, *optional*, defaults to `1`):
            How often the judge is asked; more than once puts its noise into the intervals.
        confirm (`Callable`, *optional*):
            Gets what is left to ask by model and metric, with the judge; nothing is asked unless it
            returns `True`.
        on_step (`Callable`, *optional*):
            Called with a line at each step.

    Returns:
        `list[Benched]`

    Raises:
        [`BadRowsError`]: if captions or data cannot be scored; no judge has been asked then.
        `ValueError`: if names or settings do not fit what is in the folder.
        `JudgeConfigError`: if a judge cannot work.
        `DeclinedError`: if `confirm` says no.
    """
    if repeats < 1:
        raise ValueError(f"repeats is how often the judge is asked, at least 1, got {repeats}.")
    names = [model.slug for model in models]
    if len(set(names)) < len(names):
        raise ValueError(f"Two models have one name: {', '.join(sorted(names))}. Give NAME=MODEL.")
    check_out_folder(out)
    out, say = Path(out), on_step or (lambda line: None)
    out.mkdir(parents=True, exist_ok=True)
    images, benchmarks = images or {}, benchmarks or Benchmarks()
    made: dict[tuple[str, int], Judge] = {}
    for suite in suites:
        for repeat in range(1, repeats + 1):
            cache = out / ("judge-cache" if repeat == 1 else f"judge-cache-{repeat}")
            made[suite.metric, repeat] = judges(suite.metric, cache)
        # Before anything is captioned, let alone paid for.
        await made[suite.metric, 1].preflight(vision=METRICS[suite.metric].needs_image)
    runs = []
    for model in models:
        _write_model(out / "scores" / model.slug, model)
        for suite in suites:
            source = images.get(suite.name, images.get(suite.metric))
            path = _captions(model, suite, source, out, say)
            runs += [_Run(model, suite, path, source, n, out) for n in range(1, repeats + 1)]
    plans = {}
    for run in runs:
        judge = made[run.suite.metric, run.repeat]
        plan = await run.plan(judge, benchmarks)
        if any(plan.left.values()):
            plans[f"{run.model.name} ({run.repeat})", run.suite.metric] = (plan, judge)
    if plans and confirm is not None and not confirm(plans):
        raise DeclinedError("Nothing was asked, because the cost was declined.")
    done = []
    for run in runs:
        say(f"{run.model.name}: {run.suite.metric}, time {run.repeat} of {repeats}")
        evaluation = await run.score(made[run.suite.metric, run.repeat], benchmarks)
        done.append(Benched(run.model.name, run.suite.metric, run.repeat, evaluation))
    return done


def read_bill(folder: Path) -> dict[str, Any]:
    """The sum of what all runs in a folder have cost; dollars are `None` where a price is
    unknown."""
    path = folder / "bill.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    total: dict[str, Any] = {"runs": len(entries), "calls": 0, "prompt tokens": 0}
    total |= {"completion tokens": 0, "dollars": 0.0}
    for entry in entries:
        for name in ("calls", "prompt tokens", "completion tokens"):
            total[name] += entry[name]
        known = isinstance(entry["dollars"], int | float) and total["dollars"] is not None
        total["dollars"] = total["dollars"] + entry["dollars"] if known else None
    return total


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
        """What is left to ask; everything is read and checked on the way."""
        seen: list[ScorePlan] = []

        def decline(plan: ScorePlan) -> bool:
            seen.append(plan)
            return False

        with suppress(DeclinedError):
            await self._score(judge, benchmarks, decline)
        return seen[-1] if seen else ScorePlan({}, {}, {})

    async def score(self, judge: Judge, benchmarks: Benchmarks) -> Evaluation:
        """The scores; what they cost goes to the bill, also where scoring fails."""
        before = copy(judge.stats)
        try:
            return await self._score(judge, benchmarks, None)
        finally:
            entry = {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "model": self.model.name,
                "metric": self.suite.metric,
                "repeat": self.repeat,
                **spent_since(judge, before),
            }
            if entry["calls"]:
                with (self.folder / "bill.jsonl").open("a", encoding="utf-8") as bill:
                    bill.write(json.dumps(entry) + "\n")

    async def _score(
        self,
        judge: Judge,
        benchmarks: Benchmarks,
        confirm: Callable[[ScorePlan], bool] | None,
    ) -> Evaluation:
        folder = None
        if self.model.is_captions and self.images is not None and Path(self.images).is_dir():
            folder = self.images
        return await score_captions(
            self.captions,
            judge,
            out=self.out,
            metrics=[self.suite.metric],
            benchmarks=_of_model(benchmarks, self.model),
            images=folder,
            allow_empty=True,
            confirm=confirm,
        )


def _of_model(benchmarks: Benchmarks, model: BenchModel) -> Benchmarks:
    return Benchmarks(**{**vars(benchmarks), "model": model.name})


def _captions(
    model: BenchModel,
    suite: Suite,
    source: str | Path | None,
    out: Path,
    say: Callable[[str], None],
) -> Path:
    """The file of a model's captions of a suite, made where it is not given."""
    if model.is_captions:
        path = Path(model.source)
        if not path.is_dir():
            return path
        names = [
            f"{name}{end}" for name in (suite.name, suite.metric) for end in (".jsonl", ".json")
        ]
        found = next((path / name for name in names if (path / name).is_file()), None)
        if found is None:
            raise FileNotFoundError(f"{path} has no captions of {suite.name}: none of {names}.")
        return found
    if source is None:
        raise ValueError(f"Captioning {suite.name} needs its images: --images {suite.name}=FOLDER.")
    rows = list_images(source)
    if suite.ids_are_stems:
        rows = [ImageRow(Path(row.id).stem, row.path, row.reference) for row in rows]
    path = out / "captions" / model.slug / f"{suite.name}.jsonl"
    say(f"{model.name}: captions of {suite.name}")
    made = caption_images(
        model.source,
        rows,
        path,
        prompt=suite.prompt,
        max_pixels=suite.max_pixels,
        api_base=model.api_base,
        engine="auto" if model.api_base is None else "api",
    )
    for problem in made.skipped:
        say(f"{model.name}: {problem}")
    return path


def _write_model(folder: Path, model: BenchModel) -> None:
    """Keep a model's name beside its scores, and refuse another model of the same folder."""
    path = folder / "model.json"
    about = {"name": model.name, "source": model.source}
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        if {key: there[key] for key in about} != about:
            raise ValueError(
                f"{folder} has the scores of {there['name']!r} from {there['source']!r}, this "
                f"run has {about['name']!r} from {about['source']!r}. Give it another name: "
                "NAME=MODEL."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    place = len(list(folder.parent.glob("*/model.json")))  # the table's order
    replace_file(path, json.dumps({**about, "place": place}))

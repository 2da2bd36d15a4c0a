"""
`trl-balcap bench`: many captioners and benchmarks in one folder.

    DIR/captions/<model>/<suite>.jsonl                    captions of each model
    DIR/scores/<model>/<metric>/repeat-<k>/<metric>.jsonl verdicts
    DIR/judge-cache, judge-cache-2, ...                   shared by all models, one per repeat
    DIR/bill.jsonl                                        cost of each run, failed ones included
    DIR/table.md, .csv, .tex, .json                       results of all runs in the folder
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
    One captioner in the table.

    Args:
        name (`str`):
            Its name in the table.
        source (`str`):
            A checkpoint, an adapter, or a litellm model string; or a caption file.
        api_base (`str`, *optional*):
            URL of the model's server.
        is_captions (`bool`, *optional*, defaults to `False`):
            Whether `source` is a caption file, or a folder with one file per suite.
    """

    name: str
    source: str
    api_base: str | None = None
    is_captions: bool = False

    @property
    def slug(self) -> str:
        """The name, made safe for a folder."""
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
    Write missing captions, then score everything into one folder.

    Existing results are kept: another run can add models or metrics, and an interrupted run resumes
    where it stopped.

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
            Images to caption, by suite, see [`list_images`]; for existing captions, the folder that
            their image paths are relative to.
        benchmarks ([`Benchmarks`], *optional*):
            Data and prompts of the published benchmarks.
        repeats (`int`, *optional*, defaults to `1`):
            How many times to ask the judge; with several, the intervals include its noise.
        confirm (`Callable`, *optional*):
            Called with what is left to ask, by model and metric, and the judges; nothing is asked
            unless it returns `True`.
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
    out.mkdir(parents=True, exist_ok=True)
    images, benchmarks = images or {}, benchmarks or Benchmarks()
    made: dict[tuple[str, int], Judge] = {}
    for suite in suites:
        for repeat in range(1, repeats + 1):
            cache = out / ("judge-cache" if repeat == 1 else f"judge-cache-{repeat}")
            made[suite.metric, repeat] = judges(suite.metric, cache)
        # Checked before anything is captioned, let alone paid for.
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
        raise DeclinedError("The cost was declined, so nothing was asked.")
    done = []
    for run in runs:
        say(f"{run.model.name}: {run.suite.metric}, time {run.repeat} of {repeats}")
        evaluation = await run.score(made[run.suite.metric, run.repeat], benchmarks)
        done.append(Benched(run.model.name, run.suite.metric, run.repeat, evaluation))
    return done


def read_bill(folder: Path) -> dict[str, Any]:
    """The total cost of all runs in a folder; dollars are `None` if a price is unknown."""
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
        """Read and check everything, and return what is left to ask."""
        seen: list[ScorePlan] = []

        def decline(plan: ScorePlan) -> bool:
            seen.append(plan)
            return False

        with suppress(DeclinedError):
            await self._score(judge, benchmarks, decline)
        return seen[-1] if seen else ScorePlan({}, {}, {})

    async def score(self, judge: Judge, benchmarks: Benchmarks) -> Evaluation:
        """Score, and add the cost to the bill even if scoring fails."""
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
    """The file with a model's captions for a suite, captioned now if not given."""
    if model.is_captions:
        path = Path(model.source)
        if not path.is_dir():
            return path
        names = [
            f"{name}{end}" for name in (suite.name, suite.metric) for end in (".jsonl", ".json")
        ]
        found = next((path / name for name in names if (path / name).is_file()), None)
        if found is None:
            raise FileNotFoundError(
                f"{path} has no captions for {suite.name}: it has none of {names}."
            )
        return found
    if source is None:
        raise ValueError(
            f"Captioning {suite.name} needs its images. Pass --images {suite.name}=FOLDER."
        )
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
    """Record a model's name with its scores, and reject another model with the same folder."""
    path = folder / "model.json"
    about = {"name": model.name, "source": model.source}
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        if {key: there[key] for key in about} != about:
            raise ValueError(
                f"{folder} has the scores of {there['name']!r} from {there['source']!r}, but this "
                f"run has {about['name']!r} from {about['source']!r}. Use another name: "
                "NAME=MODEL."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    place = len(list(folder.parent.glob("*/model.json")))  # the table's order
    replace_file(path, json.dumps({**about, "place": place}))

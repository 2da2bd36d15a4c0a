"""
One metric of a scoring run, from existing rows to its result.

The stages: read existing rows, find out what is left to ask, judge each caption and write its row
as soon as it is done, summarise all rows.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from trl_balcap.data.images import ImageError
from trl_balcap.data.rows import BadRowsError
from trl_balcap.data.scored import Caption, caption_words
from trl_balcap.evals.asking import Workload, ask_judge
from trl_balcap.evals.bootstrap import estimate, resampling_weights
from trl_balcap.evals.metrics.protocol import Benchmarks, Metric, Row
from trl_balcap.evals.metrics.registry import METRICS, metric_of
from trl_balcap.evals.results import MetricResult
from trl_balcap.judge import Judge, JudgeError

__all__ = [
    "DeclinedError",
    "Job",
    "ScorePlan",
    "check_settings",
    "job_settings",
    "judge_caption",
    "make_job",
    "plan_of",
    "replace_file",
    "result_of",
    "row_of",
    "score_job",
    "sum_of_plans",
    "write_settings",
    "written_rows",
]

UNDER_WAY = 128  # captions at a time; the judge limits its calls itself


class DeclinedError(RuntimeError):
    """The user declined the plan."""


@dataclass(frozen=True)
class ScorePlan:
    """What is about to be asked: for each metric, the captions left and their workload."""

    left: Mapping[str, int]
    done: Mapping[str, int]
    workloads: Mapping[str, Workload]


@dataclass
class Job:
    """One metric of a run: the scorer, where its rows go, and which already exist."""

    metric: Metric
    path: Path
    settings: dict[str, Any]
    captions: list[Caption] = field(default_factory=list)
    passed_over: int = 0
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    earlier: dict[str, dict[str, Any]] = field(default_factory=dict)  # to try again

    @property
    def name(self) -> str:
        """The metric's name."""
        return self.metric.name

    def inputs_of(self, caption: Caption) -> dict[str, Any]:
        """Hashes of everything besides the caption that a score depends on, as in its row."""
        inputs: dict[str, Any] = {}
        if self.metric.needs_image:
            image = caption.image
            inputs["image_sha256"] = None
            if isinstance(image, Path) and image.is_file():
                inputs["image_sha256"] = sha256(image.read_bytes()).hexdigest()
        if self.metric.needs_reference:
            inputs["reference_sha256"] = sha256((caption.reference or "").encode()).hexdigest()
        return inputs

    def take(self, captions: Sequence[Caption]) -> list[str]:
        """
        The captions to score, without those that the metric passes over.

        Returns:
            `list[str]`: One message for each problem.
        """
        self.captions = [one for one in captions if not self.metric.leaves_out(one)]
        self.passed_over = len(captions) - len(self.captions)
        if not self.captions:
            first = captions[0]
            return [f"{first.where}: {self.name} has no question about this part, {first.id!r}."]
        return self.metric.problems(self.captions)

    def read_earlier(self) -> None:
        """
        Sort existing rows into those to keep and those to try again.

        Raises:
            `ValueError`: if a row belongs to another caption.
        """
        by_id = {caption.id: caption for caption in self.captions}
        for row in written_rows(self.path):
            caption = by_id.get(row["id"])
            if caption is None:
                raise ValueError(
                    f"{self.path} has a row for {row['id']!r}, which is not in the caption file. "
                    "Choose another --out, or remove that file."
                )
            for name, value in {"caption": caption.caption, **self.inputs_of(caption)}.items():
                if row.get(name) != value:
                    raise ValueError(
                        f"{self.path} has a row for a different {name.removesuffix('_sha256')} of "
                        f"{row['id']!r}. Choose another --out, or remove that file."
                    )
            if not self.metric.is_current(row):
                continue  # the benchmark now asks about it differently
            final = row["reason"] is None or row["reason"] in self.metric.final_reasons
            target, other = (self.kept, self.earlier) if final else (self.earlier, self.kept)
            target[row["id"]] = row
            other.pop(row["id"], None)


def make_job(name: str, judge: Judge, benchmarks: Benchmarks, out: Path) -> Job:
    """
    Read a metric's data, and record what its scores depend on.

    Raises:
        `ValueError`: if there is no such metric, or its data is missing.
    """
    for key in benchmarks.data:
        metric_of(key)
    wanted = {metric.checkout_file for metric in METRICS.values()} - {None}
    for checkout in benchmarks.checkouts:
        if not any((Path(checkout) / str(file)).is_file() for file in wanted):
            raise FileNotFoundError(
                f"{checkout} is not a clone of a benchmark's repository: it has none of "
                f"{', '.join(sorted(map(str, wanted)))}."
            )
    metric = metric_of(name).build(judge, benchmarks)
    return Job(metric, out / f"{name}.jsonl", job_settings(metric, judge))


def job_settings(metric: Metric, judge: Judge) -> dict[str, Any]:
    """What the scores of a metric depend on."""
    return {
        "mode": metric.mode,
        "judge": " and ".join(_models(judge, metric)),
        "prompts_sha256": metric.prompts_sha256,
        **metric.settings(),
    }


def check_settings(out: Path, jobs: Sequence[Job]) -> None:
    """
    Raises:
        `ValueError`: if the folder's rows were made with other settings.
    """
    earlier = _settings(out)
    for job in jobs:
        then = earlier.get(job.name)
        if then is None or not job.path.is_file():
            continue
        for name, value in job.settings.items():
            if then.get(name) != value:
                raise ValueError(
                    f"{job.path} was scored with {name} {then.get(name)!r}, but this run has "
                    f"{value!r}. Choose another --out, or remove that file."
                )


def write_settings(out: Path, jobs: Sequence[Job]) -> None:
    """Add these metrics' settings to those of the folder."""
    settings = _settings(out) | {job.name: job.settings for job in jobs}
    replace_file(out / "settings.json", json.dumps(settings, indent=2))


def plan_of(jobs: Sequence[Job]) -> ScorePlan:
    """What is left to ask."""
    left = {
        job.name: [caption for caption in job.captions if caption.id not in job.kept]
        for job in jobs
    }
    return ScorePlan(
        left={name: len(rows) for name, rows in left.items()},
        done={job.name: len(job.kept) for job in jobs},
        workloads={job.name: job.metric.workload(left[job.name]) for job in jobs},
    )


def sum_of_plans(plans: Sequence[ScorePlan]) -> ScorePlan:
    """Several runs' plans as one."""
    left, done = Counter(), Counter()
    workloads: dict[str, Workload] = {}
    for plan in plans:
        left.update(plan.left)
        done.update(plan.done)
        for name, work in plan.workloads.items():
            workloads[name] = workloads.get(name, Workload()) + work
    return ScorePlan(left, done, workloads)


async def score_job(
    job: Job, judge: Judge, on_row: Callable[[str], None] | None
) -> list[dict[str, Any]]:
    """One row per caption, in order; all of them are in the file at the end."""
    rows = dict(job.kept)
    limit = asyncio.Semaphore(UNDER_WAY)
    # Rewrite the file first: a killed run may have left a partial row at the end.
    _write_rows(job.path, [*job.kept.values(), *job.earlier.values()])
    with job.path.open("a", encoding="utf-8") as file:

        async def score(caption: Caption) -> None:
            async with limit:
                row = await judge_caption(job, caption, judge)
            rows[caption.id] = row
            if _found_something(row):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
            if on_row is not None:
                on_row(job.name)

        try:
            async with asyncio.TaskGroup() as tasks:
                for caption in job.captions:
                    if caption.id not in rows:
                        tasks.create_task(score(caption))
        except BaseExceptionGroup as group:
            # The first error stops the run; the others follow from it.
            raise group.exceptions[0] from None
    ordered = [rows[caption.id] for caption in job.captions]
    _write_rows(job.path, [row for row in ordered if _found_something(row)])
    return ordered


async def judge_caption(job: Job, caption: Caption, judge: Judge) -> dict[str, Any]:
    """Judge a caption and return its row, with the reason if the judge failed."""
    earlier = job.earlier.get(caption.id, {})
    fruitless = earlier.get("fruitless_runs", 0)
    try:
        ask = ask_judge(judge, earlier_runs=fruitless)
        verdicts = await job.metric.score(caption, ask, earlier)
        # Unusable replies must not be used again; failed requests may be repeated.
        fruitless += verdicts["reason"] is not None
    except (JudgeError, ImageError) as error:  # an image may be broken where only decoding looks
        reason = error.reason if isinstance(error, JudgeError) else "bad_image"
        verdicts = {"score": None, "reason": reason, "errors": [str(error)]}
        verdicts |= job.metric.unjudged(caption)
    return await asyncio.to_thread(row_of, job, caption, fruitless, verdicts)


def row_of(
    job: Job, caption: Caption, fruitless: int, verdicts: Mapping[str, Any]
) -> dict[str, Any]:
    """The row of a caption: what was scored, with what, and the verdicts."""
    metric = job.metric
    return {
        "id": caption.id,
        "image": str(caption.image) if isinstance(caption.image, Path) else None,
        "caption": caption.caption,
        "words": caption_words(caption.caption),
        "metric": metric.name,
        "mode": metric.mode,
        "judge": job.settings["judge"],
        "prompts_sha256": job.settings["prompts_sha256"],
        "settings": metric.settings(),
        **job.inputs_of(caption),
        "fruitless_runs": fruitless,
        **verdicts,
    }


def result_of(job: Job, rows: Sequence[Row], judge: Judge) -> MetricResult:
    """The result of a metric, given one row per caption."""
    metric = job.metric
    missing = Counter(row["reason"] for row in rows if row["score"] is None)
    comparable, why = _comparable(job, rows, judge)
    notes = (*_notes(job, rows), *metric.notes(rows))
    statistics = metric.statistics(rows)
    weights = resampling_weights(len(rows), strata=metric.strata(rows))
    return MetricResult(
        metric=metric.name,
        mode=metric.mode,
        scores=tuple(estimate(statistic, weights) for statistic in statistics),
        n=len(rows),
        n_scored=len(rows) - sum(missing.values()),
        missing=dict(missing.most_common()),
        mean_caption_words=sum(row["words"] for row in rows) / len(rows),
        judge=job.settings["judge"],
        prompts=metric.prompts_source,
        prompts_sha256=job.settings["prompts_sha256"],
        comparable=comparable,
        comparison=why,
        notes=notes,
        breakdown=metric.breakdown(rows),
    )


def _comparable(job: Job, rows: Sequence[Row], judge: Judge) -> tuple[bool, str]:
    metric = job.metric
    if metric.official_judge is None:
        return False, metric.incomparable
    wanted = metric.official_judge
    lacks = []
    if not metric.has_official_prompts:
        lacks.append("the official prompts (--official-prompts)")
    if not all(name == wanted or name.endswith(f"/{wanted}") for name in _models(judge, metric)):
        lacks.append(f"the official judge ({wanted})")
    if metric.mode != "official":
        lacks.append("--mode official")
    settled = metric.final_reasons | metric.official_reasons
    unsettled = sum(row["reason"] is not None and row["reason"] not in settled for row in rows)
    absent = metric.absent(rows)
    if absent + unsettled:
        lacks.append(f"scores for {absent + unsettled} more images")
    elif all(row["score"] is None for row in rows):
        lacks.append("a score")
    if lacks:
        return False, f"Not comparable with published scores, which need {', '.join(lacks)}."
    return (
        True,
        "Official prompts, judge and rules: comparable with published scores on the same data.",
    )


def _notes(job: Job, rows: Sequence[Row]) -> list[str]:
    notes = []
    absent = job.metric.absent(rows)
    if absent:
        notes.append(f"Images of the benchmark without a caption in this file: {absent}.")
    if job.passed_over:
        notes.append(f"Captions of other parts of the benchmark, passed over: {job.passed_over}.")
    failed = next((row for row in rows if row.get("errors")), None)
    if failed is not None:
        notes.append(f"For example {failed['id']!r}: {failed['errors'][0]}")
    return notes


def _found_something(row: Mapping[str, Any]) -> bool:
    """Whether a row is worth keeping: a question cut by the budget tells nothing."""
    return row["score"] is not None or row["reason"] != "over_budget"


def written_rows(path: Path) -> Iterator[dict[str, Any]]:
    """
    Rows of a run that may have been killed: a partial row at the end is left out.

    Raises:
        `BadRowsError`: if any other line is not a row.
    """
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                return
            raise BadRowsError([f"{path}:{number}: not JSON ({error.msg})."]) from error


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a file of rows."""
    replace_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def replace_file(path: Path, text: str) -> None:
    """Replace a file atomically, so that a killed run leaves either the old or the new one."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _settings(out: Path) -> dict[str, Any]:
    path = out / "settings.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _models(judge: Judge, metric: Metric) -> list[str]:
    """The models that a metric uses."""
    settings = judge.settings
    asked = [*settings.text, *settings.vision] if metric.needs_image else settings.text
    return list(dict.fromkeys(deployment.model for deployment in asked))

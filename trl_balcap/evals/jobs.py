"""
One metric of a scoring run, from existing rows to its result.

The stages: read existing rows, find out what is left to ask, judge it ([`~evals.scoring`]),
summarise all rows.
"""

import json
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from trl_balcap.captioning.listing import ImageRow, Images
from trl_balcap.captioning.shards import begin_shard, noted_ids
from trl_balcap.data.ids import IdTable
from trl_balcap.data.row_file import Chosen
from trl_balcap.data.scored import Caption
from trl_balcap.evals.asking import Workload
from trl_balcap.evals.bootstrap import estimates
from trl_balcap.evals.metrics.protocol import Benchmarks, Metric, Row
from trl_balcap.evals.metrics.registry import METRICS, metric_of
from trl_balcap.evals.results import MetricResult
from trl_balcap.evals.row_files import EarlierRows, replace_file
from trl_balcap.judge import Judge

__all__ = [
    "DeclinedError",
    "Job",
    "ScorePlan",
    "check_settings",
    "job_settings",
    "make_job",
    "plan_of",
    "result_of",
    "sum_of_plans",
    "write_settings",
]


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
    captions: Sequence[Caption] = ()
    passed_over: int = 0
    earlier: EarlierRows = field(init=False)

    def __post_init__(self):
        self.earlier = EarlierRows(self.path)

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
        left_out = {n for n, one in enumerate(captions) if self.metric.leaves_out(one)}
        self.captions = captions
        if left_out:
            self.captions = Chosen(captions, [n for n in range(len(captions)) if n not in left_out])
        self.passed_over = len(left_out)
        if not self.captions:
            first = captions[0]
            return [f"{first.where}: {self.name} has no question about this part, {first.id!r}."]
        return self.metric.problems(self.captions)

    def take_shard(self, shard: str) -> None:
        """
        Take only a shard: of N, the I-th has every N-th caption, from the I-th on. Two notes beside
        the rows say so, for [`~evals.merging.merge_scores`].

        Raises:
            `ValueError`: if there is no such shard, or the rows are of another shard.
        """
        captions = self.captions
        ids = Images.of(lambda: (ImageRow(one.id, Path(one.id)) for one in captions))
        shared = ("mode", "judge", "prompts_sha256")
        made = {name: self.settings[name] for name in shared} | {"settings": self.metric.settings()}
        number, of = begin_shard(self.path, ids, shard, made)
        for _ in noted_ids(self.path, ids.read(number, of)):
            pass
        self.captions = Chosen(captions, range(number - 1, len(captions), of))

    def read_earlier(self) -> None:
        """
        Sort existing rows into those to keep and those to try again.

        Raises:
            `ValueError`: if a row belongs to another caption.
        """
        self.earlier = EarlierRows(self.path)
        places = IdTable()
        for place, caption in enumerate(self.captions):
            places[caption.id] = place
        for n, row in enumerate(self.earlier.rows):
            place = places.get(str(row["id"]))
            if place is None:
                raise ValueError(
                    f"{self.path} has a row for {row['id']!r}, which is not in the caption file. "
                    "Choose another --out, or remove that file."
                )
            caption = self.captions[place]
            for name, value in {"caption": caption.caption, **self.inputs_of(caption)}.items():
                if row.get(name) != value:
                    raise ValueError(
                        f"{self.path} has a row for a different {name.removesuffix('_sha256')} of "
                        f"{row['id']!r}. Choose another --out, or remove that file."
                    )
            if not self.metric.is_current(row):
                continue  # the benchmark now asks about it differently
            final = row["reason"] is None or row["reason"] in self.metric.final_reasons
            self.earlier.add(row["id"], n, final=final)

    def left(self) -> Sequence[Caption]:
        """The captions that have no row to keep."""
        there = self.earlier
        return Chosen(
            self.captions,
            array("q", (n for n, one in enumerate(self.captions) if not there.keeps(one.id))),
        )


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
    left = {job.name: job.left() for job in jobs}
    return ScorePlan(
        left={name: len(rows) for name, rows in left.items()},
        done={job.name: len(job.captions) - len(left[job.name]) for job in jobs},
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


def result_of(job: Job, rows: Sequence[Row], judge: Judge) -> MetricResult:
    """The result of a metric, given one row per caption."""
    metric = job.metric
    missing = Counter(row["reason"] for row in rows if row["score"] is None)
    comparable, why = _comparable(job, rows, judge)
    notes = (*_notes(job, rows), *metric.notes(rows))
    return MetricResult(
        metric=metric.name,
        mode=metric.mode,
        scores=estimates(metric.statistics(rows), strata=metric.strata(rows)),
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


def _settings(out: Path) -> dict[str, Any]:
    path = out / "settings.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _models(judge: Judge, metric: Metric) -> list[str]:
    """The models that a metric uses."""
    settings = judge.settings
    asked = [*settings.text, *settings.vision] if metric.needs_image else settings.text
    return list(dict.fromkeys(deployment.model for deployment in asked))

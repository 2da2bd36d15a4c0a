"""What a scoring run is about to do: each metric, the rows that are there already, and what is left
to ask."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from trl_balcap.data.scored import Caption
from trl_balcap.evals.asking import Workload
from trl_balcap.evals.metrics.protocol import Benchmarks, Metric, data_hash
from trl_balcap.evals.metrics.registry import METRICS, metric_of
from trl_balcap.evals.rows import replace_file, written_rows
from trl_balcap.judge import Judge

__all__ = [
    "DeclinedError",
    "Job",
    "ScorePlan",
    "check_settings",
    "make_job",
    "plan_of",
    "write_settings",
]


class DeclinedError(RuntimeError):
    """The plan was shown and not agreed to."""


@dataclass(frozen=True)
class ScorePlan:
    """What is about to be asked: per metric the captions that are left and their workload."""

    left: Mapping[str, int]
    done: Mapping[str, int]
    workloads: Mapping[str, Workload]


@dataclass
class Job:
    """One metric of a run: who scores, where the rows go, which are there already."""

    metric: Metric
    path: Path
    settings: dict[str, Any]
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    earlier: dict[str, dict[str, Any]] = field(default_factory=dict)  # to be tried again

    @property
    def name(self) -> str:
        """The metric's name."""
        return self.metric.name

    def inputs_of(self, caption: Caption) -> dict[str, Any]:
        """Hashes of what a score rests on beside the caption, as they stand in its row."""
        inputs: dict[str, Any] = {}
        if self.metric.needs_image:
            image = caption.image
            is_file = isinstance(image, Path) and image.is_file()
            inputs["image_sha256"] = data_hash(str(image)) if is_file else None
        if self.metric.needs_reference:
            inputs["reference_sha256"] = sha256((caption.reference or "").encode()).hexdigest()
        return inputs

    def read_earlier(self, captions: Sequence[Caption]) -> None:
        """
        Sort the rows that are there into those to keep and those to try again.

        Raises:
            `ValueError`: if a row is of another caption.
        """
        by_id = {caption.id: caption for caption in captions}
        for row in written_rows(self.path):
            caption = by_id.get(row["id"])
            if caption is None:
                raise ValueError(
                    f"{self.path} has a row for {row['id']!r}, which is not among the captions. "
                    "Choose another --out, or remove that file."
                )
            for name, value in {"caption": caption.caption, **self.inputs_of(caption)}.items():
                if row.get(name) != value:
                    raise ValueError(
                        f"{self.path} has a row for another {name.removesuffix('_sha256')} of "
                        f"{row['id']!r}. Choose another --out, or remove that file."
                    )
            if not self.metric.is_current(row):
                continue  # the benchmark asks about it in another way now
            final = row["reason"] is None or row["reason"] in self.metric.final_reasons
            target, other = (self.kept, self.earlier) if final else (self.earlier, self.kept)
            target[row["id"]] = row
            other.pop(row["id"], None)


def make_job(name: str, judge: Judge, benchmarks: Benchmarks, out: Path) -> Job:
    """
    A metric with its data read, and what its scores depend on.

    Raises:
        `ValueError`: if there is no such metric, or it lacks data.
    """
    for key in benchmarks.data:
        metric_of(key)
    wanted = {metric.checkout_file for metric in METRICS.values()} - {None}
    for checkout in benchmarks.checkouts:
        if not any((Path(checkout) / str(file)).is_file() for file in wanted):
            raise FileNotFoundError(
                f"{checkout} is no checkout of a benchmark: it has none of "
                f"{', '.join(sorted(map(str, wanted)))}."
            )
    metric = metric_of(name).build(judge, benchmarks)
    settings = {
        "mode": metric.mode,
        "judge": _judge_name(judge, metric),
        "prompts_sha256": metric.prompts_sha256,
        **metric.settings(),
    }
    return Job(metric, out / f"{name}.jsonl", settings)


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
                    f"{job.path} was scored with {name} {then.get(name)!r}, this run has "
                    f"{value!r}. Choose another --out, or remove that file."
                )


def write_settings(out: Path, jobs: Sequence[Job]) -> None:
    """Add these metrics' settings to the folder's."""
    settings = _settings(out) | {job.name: job.settings for job in jobs}
    replace_file(out / "settings.json", json.dumps(settings, indent=2))


def plan_of(jobs: Sequence[Job], captions: Sequence[Caption]) -> ScorePlan:
    """What is left to ask."""
    left = {
        job.name: [caption for caption in captions if caption.id not in job.kept] for job in jobs
    }
    return ScorePlan(
        left={name: len(rows) for name, rows in left.items()},
        done={job.name: len(job.kept) for job in jobs},
        workloads={job.name: job.metric.workload(left[job.name]) for job in jobs},
    )


def _settings(out: Path) -> dict[str, Any]:
    path = out / "settings.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _judge_name(judge: Judge, metric: Metric) -> str:
    settings = judge.settings
    places = [*settings.text, *settings.vision] if metric.needs_image else settings.text
    return " and ".join(dict.fromkeys(place.model for place in places))

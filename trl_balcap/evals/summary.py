"""From a metric's rows to its result: scores with intervals, and whether they may stand beside
published ones."""

from collections import Counter
from collections.abc import Sequence

from trl_balcap.evals.bootstrap import estimate, resampling_weights
from trl_balcap.evals.jobs import Job
from trl_balcap.evals.metrics.protocol import Row
from trl_balcap.evals.results import MetricResult
from trl_balcap.judge import Judge

__all__ = ["result_of"]


def result_of(job: Job, rows: Sequence[Row], judge: Judge) -> MetricResult:
    """The result of a metric whose rows are all there, one per caption."""
    metric = job.metric
    weights = resampling_weights(len(rows), strata=metric.strata(rows))
    missing = Counter(row["reason"] for row in rows if row["score"] is None)
    comparable, why = _comparable(job, rows, judge)
    return MetricResult(
        metric=metric.name,
        mode=metric.mode,
        scores=tuple(estimate(statistic, weights) for statistic in metric.statistics(rows)),
        n=len(rows),
        n_scored=len(rows) - sum(missing.values()),
        missing=dict(missing.most_common()),
        mean_caption_words=sum(row["words"] for row in rows) / len(rows),
        judge=job.settings["judge"],
        prompts=metric.prompts_source,
        prompts_sha256=job.settings["prompts_sha256"],
        comparable=comparable,
        comparison=why,
        notes=(*_notes(job, rows), *metric.notes(rows)),
        breakdown=metric.breakdown(rows),
    )


def _comparable(job: Job, rows: Sequence[Row], judge: Judge) -> tuple[bool, str]:
    metric = job.metric
    if metric.official_judge is None:
        return False, metric.incomparable
    settings = judge.settings
    places = (*settings.text, *settings.vision) if metric.needs_image else settings.text
    wanted = metric.official_judge
    lacks = []
    if not metric.has_official_prompts:
        lacks.append("the official prompts (--official-prompts)")
    if not all(p.model == wanted or p.model.endswith(f"/{wanted}") for p in places):
        lacks.append(f"the official judge ({wanted})")
    if metric.mode != "official":
        lacks.append("--mode official")
    settled = metric.final_reasons | metric.official_reasons
    unsettled = sum(row["reason"] is not None and row["reason"] not in settled for row in rows)
    absent = metric.absent(rows)
    if absent + unsettled:
        lacks.append(f"scores of {absent + unsettled} more images")
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
    failed = next((row for row in rows if row.get("errors")), None)
    if failed is not None:
        notes.append(f"For example {failed['id']!r}: {failed['errors'][0]}")
    return notes

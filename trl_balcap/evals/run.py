"""
Score a file of captions: check everything, say what it will take, ask, keep every verdict, add up.

The folder of a run holds `<metric>.jsonl`, one row per image with its verdicts, written as they come; `settings.json`,
what they were made with; and `summary.json` and `summary.md`. A run that was stopped goes on where it stopped.
"""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from trl_balcap.data.jsonl import BadRowsError
from trl_balcap.data.scored import Caption, caption_words, read_captions
from trl_balcap.evals.asking import Workload, ask_judge
from trl_balcap.evals.bootstrap import estimate, resampling_weights
from trl_balcap.evals.compare import MODULES, strata_of
from trl_balcap.evals.metrics import caparena, captionqa, dcscore
from trl_balcap.evals.metrics.b_capscore import BCapScore
from trl_balcap.evals.metrics.caparena import CapArenaAuto
from trl_balcap.evals.metrics.captionqa import CaptionQA
from trl_balcap.evals.metrics.dcscore import DCScore
from trl_balcap.evals.prompting import OFFICIAL, Prompts, official_prompts, own_prompts
from trl_balcap.evals.results import Evaluation, MetricResult, results_markdown
from trl_balcap.judge import Judge, JudgeError

__all__ = ["METRICS", "Benchmarks", "DeclinedError", "Plan", "evaluate_captions", "score_captions"]

Metric = BCapScore | DCScore | CaptionQA | CapArenaAuto
METRICS = tuple(MODULES)
UNDER_WAY = 128  # captions at a time; the judge limits its calls itself
NEEDS_IMAGE = {"b-capscore", "dcscore", "caparena"}
OFFICIAL_JUDGES = {
    "dcscore": dcscore.OFFICIAL_JUDGE,
    "captionqa": captionqa.OFFICIAL_JUDGE,
    "caparena": caparena.OFFICIAL_JUDGE,
}
FINAL_REASONS = {"own baseline", "no question", "the reference states nothing"}
"""Reasons for no score that asking again cannot change."""


class DeclinedError(RuntimeError):
    """The plan was shown and not agreed to."""


@dataclass(frozen=True)
class Benchmarks:
    """
    What the published benchmarks need beside the captions. Nothing of it comes with this package.

    Args:
        mode (`str`, *optional*, defaults to `"official"`):
            `"official"` for numbers as published, `"strict"` for corrected ones.
        dcscore_facts (`str` or `Path`, *optional*):
            `human_annotated_oracle_facts.jsonl`; by default that of an official checkout.
        captionqa_questions (`str` or `Path`, *optional*):
            File, folder or Hub name, see [`load_questions`].
        captionqa_split (`str`, *optional*, defaults to `"all"`):
            Domain to score.
        caparena_references (`str` or `Path`, *optional*):
            `caparena_auto_600.json`.
        model (`str`, *optional*, defaults to `"captions"`):
            Name of the tested model in CapArena-Auto; a baseline's name skips its own images.
        checkouts (`Sequence[str or Path]`, *optional*):
            Checkouts of the benchmarks' repositories, to read the official prompts from.
        seed (`int`, *optional*, defaults to `0`):
            Seed of CaptionQA's shuffle and CapArena's coin.
    """

    mode: Literal["official", "strict"] = "official"
    dcscore_facts: str | Path | None = None
    captionqa_questions: str | Path | None = None
    captionqa_split: str = "all"
    caparena_references: str | Path | None = None
    model: str = "captions"
    checkouts: Sequence[str | Path] = ()
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """What is about to be asked: per metric the captions that are left and their workload."""

    left: Mapping[str, int]
    done: Mapping[str, int]
    workloads: Mapping[str, Workload]


@dataclass
class _Job:
    """One metric of a run: who scores, where the rows go, which are there already."""

    metric: Metric
    path: Path
    label: str
    settings: dict[str, Any]
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    earlier: dict[str, dict[str, Any]] = field(default_factory=dict)  # unscored rows, to try again


async def score_captions(
    captions: str | Path,
    judge: Judge,
    *,
    out: str | Path,
    metrics: Sequence[str] = ("b-capscore",),
    benchmarks: Benchmarks | None = None,
    images: str | Path | None = None,
    allow_empty: bool = False,
    confirm: Callable[[Plan], bool] | None = None,
    on_row: Callable[[str], None] | None = None,
) -> Evaluation:
    """
    Score a file of captions by one or more metrics.

    Args:
        captions (`str` or `Path`):
            JSONL or JSON, see [`read_captions`].
        judge ([`Judge`]):
            Who is asked.
        out (`str` or `Path`):
            Folder for rows and summary. Rows that are there already are kept.
        metrics (`Sequence[str]`, *optional*, defaults to `("b-capscore",)`):
            Any of "b-capscore", "dcscore", "captionqa", "caparena".
        benchmarks ([`Benchmarks`], *optional*):
            Data and prompts of the published benchmarks.
        images (`str` or `Path`, *optional*):
            Folder that image paths are relative to; by default the captions file's.
        allow_empty (`bool`, *optional*, defaults to `False`):
            Score empty captions instead of refusing them.
        confirm (`Callable`, *optional*):
            Gets the [`Plan`] before the first call; nothing is asked unless it returns `True`.
        on_row (`Callable`, *optional*):
            Called with the metric's name whenever a caption is done.

    Returns:
        [`Evaluation`]

    Raises:
        BadRowsError: If captions or benchmark data cannot be scored; no judge has been asked then.
        ValueError: If the arguments do not fit together, or `out` holds rows made with other settings.
        JudgeConfigError: If the judge cannot work.
        DeclinedError: If `confirm` says no.
    """
    benchmarks = benchmarks or Benchmarks()
    out = Path(out)
    jobs = [_job(name, judge, benchmarks, out) for name in dict.fromkeys(metrics)]
    rows = read_captions(
        captions,
        images=images,
        need_images=any(job.metric.name in NEEDS_IMAGE for job in jobs),
        need_references=any(job.metric.name == "b-capscore" for job in jobs),
        allow_empty=allow_empty,
    )
    problems = [problem for job in jobs for problem in job.metric.problems(rows)]
    if problems:
        raise BadRowsError(problems)
    _check_settings(out, jobs)
    for job in jobs:
        _read_earlier(job, rows)
    plan = _plan(jobs, rows)
    if any(plan.left.values()):
        if confirm is not None and not confirm(plan):
            raise DeclinedError("Nothing was asked, because the cost was not agreed to.")
        vision = any(plan.left[n] for n in NEEDS_IMAGE & plan.left.keys())
        await judge.preflight(vision=vision)
    out.mkdir(parents=True, exist_ok=True)
    _write_settings(out, jobs)
    results = []
    for job in jobs:
        scored = await _score_job(job, rows, judge, on_row)
        results.append(_result(job, rows, scored, judge))
    evaluation = Evaluation(str(captions), tuple(results), _judging(judge))
    _write(out / "summary.json", json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False))
    _write(out / "summary.md", results_markdown(evaluation))
    return evaluation


async def evaluate_captions(
    captions: Sequence[Caption], judge: Judge, *, deadline: float | None = None
) -> tuple[MetricResult, list[dict[str, Any]]]:
    """
    b-CapScore of captions in memory, with nothing read and nothing written.

    Args:
        captions (`Sequence[Caption]`):
            With image (a path or a PIL image) and reference.
        judge ([`Judge`]):
            Who is asked.
        deadline (`float`, *optional*):
            Seconds after which the captions that are not judged yet are left unscored.

    Returns:
        [`MetricResult`] and the row of each caption, with its verdicts.

    Raises:
        JudgeConfigError: If the judge cannot work.
        ValueError: If there is no caption.
    """
    if not captions:
        raise ValueError("There is no caption to evaluate.")
    job = _job("b-capscore", judge, Benchmarks(), Path())
    await judge.preflight()

    async def row(caption: Caption) -> dict[str, Any]:
        try:
            async with asyncio.timeout_at(end):
                return await _row(job, caption, judge)
        except TimeoutError:
            verdicts = {
                "score": None,
                "reason": "timeout",
                "errors": [f"not within {deadline:g} s"],
            }
            return _row_of(job, caption, 0, verdicts)

    end = None if deadline is None else asyncio.get_running_loop().time() + deadline
    rows = list(await asyncio.gather(*map(row, captions)))
    return _result(job, captions, rows, judge), rows


# ---- before the first call ---------------------------------------------------------------------


def _job(name: str, judge: Judge, benchmarks: Benchmarks, out: Path) -> _Job:
    if name == "b-capscore":
        metric: Metric = BCapScore(judge)
        label, sha256, data = "trl-balcap's, as in training", metric.prompts_sha256, None
    elif name in OFFICIAL:
        prompts = _prompts(name, benchmarks)
        metric, data = _benchmark(name, benchmarks, prompts)
        label = f"official, from {prompts.source}"
        label = label if prompts.origin == "official" else "trl-balcap's own words"
        sha256 = prompts.sha256
    else:
        raise ValueError(f"There is no metric {name!r}; choose from {', '.join(METRICS)}.")
    settings = {
        "mode": metric.mode,
        "judge": _judge_name(judge, name),
        "prompts_sha256": sha256,
        "data_sha256": _file_hash(data),
        "seed": benchmarks.seed if name in ("captionqa", "caparena") else None,
        "model": benchmarks.model if name == "caparena" else None,
        "split": benchmarks.captionqa_split if name == "captionqa" else None,
    }
    return _Job(metric, out / f"{name}.jsonl", label, settings)


def _prompts(name: str, benchmarks: Benchmarks) -> Prompts:
    wanted = {OFFICIAL[metric][0] for metric in OFFICIAL}
    for checkout in benchmarks.checkouts:
        if not any((Path(checkout) / file).is_file() for file in wanted):
            raise FileNotFoundError(
                f"{checkout} is no checkout of a benchmark: it has none of {', '.join(sorted(wanted))}."
            )
        if (Path(checkout) / OFFICIAL[name][0]).is_file():
            return official_prompts(name, checkout)
    return own_prompts(name)


def _benchmark(
    name: str, benchmarks: Benchmarks, prompts: Prompts
) -> tuple[Metric, str | Path | None]:
    """The metric with its data, and the file that the data came from."""
    if name == "dcscore":
        facts = benchmarks.dcscore_facts or _facts_of_checkout(benchmarks.checkouts)
        if facts is None:
            raise ValueError(
                "dcscore needs the annotated facts: give human_annotated_oracle_facts.jsonl of "
                "MAGAer13/DeCapBench with --dcscore-facts."
            )
        return DCScore(dcscore.load_oracle_facts(facts), prompts, benchmarks.mode), facts
    if name == "captionqa":
        if benchmarks.captionqa_questions is None:
            raise ValueError(
                "captionqa needs its questions: give a file, a folder or a Hub name (Borise/CaptionQA) "
                "with --captionqa-questions."
            )
        questions = captionqa.load_questions(
            benchmarks.captionqa_questions, split=benchmarks.captionqa_split
        )
        metric = CaptionQA(questions, prompts, benchmarks.mode, benchmarks.seed)
        return metric, benchmarks.captionqa_questions
    if benchmarks.caparena_references is None:
        raise ValueError(
            "caparena needs the baselines' captions: give caparena_auto_600.json with "
            "--caparena-references."
        )
    references = caparena.load_references(benchmarks.caparena_references)
    return (
        CapArenaAuto(references, prompts, benchmarks.model, benchmarks.mode, benchmarks.seed),
        benchmarks.caparena_references,
    )


def _facts_of_checkout(checkouts: Sequence[str | Path]) -> Path | None:
    for checkout in checkouts:
        path = Path(checkout) / "eval" / "human_annotated_oracle_facts.jsonl"
        if path.is_file():
            return path
    return None


def _judge_name(judge: Judge, metric: str) -> str:
    settings = judge.settings
    places = [*settings.text, *settings.vision] if metric in NEEDS_IMAGE else settings.text
    return " and ".join(dict.fromkeys(place.model for place in places))


def _file_hash(path: str | Path | None) -> str | None:
    if path is None or not Path(path).is_file():
        return None if path is None else str(path)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _check_settings(out: Path, jobs: Sequence[_Job]) -> None:
    path = out / "settings.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for job in jobs:
        then = earlier.get(job.metric.name)
        if then is None or not job.path.is_file():
            continue
        for name, value in job.settings.items():
            if then.get(name) != value:
                raise ValueError(
                    f"{job.path} was scored with {name} {then.get(name)!r}, this run has {value!r}. "
                    "Choose another --out, or remove that file."
                )


def _write_settings(out: Path, jobs: Sequence[_Job]) -> None:
    path = out / "settings.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    settings |= {job.metric.name: job.settings for job in jobs}
    _write(path, json.dumps(settings, indent=2))


def _read_earlier(job: _Job, captions: Sequence[Caption]) -> None:
    """Sort the rows that are there into those to keep and those to try again."""
    texts = {caption.id: caption.caption for caption in captions}
    for row in _written_rows(job.path):
        if row["id"] not in texts:
            raise ValueError(
                f"{job.path} has a row for {row['id']!r}, which is not among the captions. Choose another "
                "--out, or remove that file."
            )
        if row["caption"] != texts[row["id"]]:
            raise ValueError(
                f"{job.path} has a row for another caption of {row['id']!r}. Choose another --out, or "
                "remove that file."
            )
        final = row["reason"] is None or row["reason"] in FINAL_REASONS
        target, other = (job.kept, job.earlier) if final else (job.earlier, job.kept)
        target[row["id"]] = row
        other.pop(row["id"], None)


def _written_rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                return  # the run was killed while it wrote this row; it is asked again
            raise BadRowsError(
                [
                    f"{path}:{number}: not JSON ({error.msg}).",
                ]
            ) from error


def _plan(jobs: Sequence[_Job], captions: Sequence[Caption]) -> Plan:
    left = {
        job.metric.name: [caption for caption in captions if caption.id not in job.kept]
        for job in jobs
    }
    return Plan(
        left={name: len(rows) for name, rows in left.items()},
        done={job.metric.name: len(job.kept) for job in jobs},
        workloads={job.metric.name: job.metric.workload(left[job.metric.name]) for job in jobs},
    )


# ---- asking ------------------------------------------------------------------------------------


async def _score_job(
    job: _Job, captions: Sequence[Caption], judge: Judge, on_row: Callable[[str], None] | None
) -> list[dict[str, Any]]:
    """One row per caption, in the captions' order; all of them are in the file at the end."""
    rows = dict(job.kept)
    limit = asyncio.Semaphore(UNDER_WAY)
    # Written anew first: a killed run may have left half a row at the end.
    _write_rows(job.path, [*job.kept.values(), *job.earlier.values()])
    with job.path.open("a", encoding="utf-8") as file:

        async def score(caption: Caption) -> None:
            async with limit:
                row = await _row(job, caption, judge)
            rows[caption.id] = row
            if row["reason"] != "over_budget":  # nothing was found out
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
            if on_row is not None:
                on_row(job.metric.name)

        try:
            async with asyncio.TaskGroup() as tasks:
                for caption in captions:
                    if caption.id not in rows:
                        tasks.create_task(score(caption))
        except BaseExceptionGroup as group:
            raise group.exceptions[
                0
            ] from None  # the first stops the run; the others follow from it
    ordered = [rows[caption.id] for caption in captions]
    _write_rows(job.path, [row for row in ordered if row["reason"] != "over_budget"])
    return ordered


async def _row(job: _Job, caption: Caption, judge: Judge) -> dict[str, Any]:
    metric = job.metric
    runs = job.earlier.get(caption.id, {}).get("runs", 0)
    if isinstance(metric, BCapScore):
        score = metric.score
    else:
        score = partial(metric.score, ask=ask_judge(judge, earlier_runs=runs))
    try:
        verdicts = await score(caption)
    except JudgeError as error:
        verdicts = {"score": None, "reason": error.reason, "errors": [str(error)]}
        if isinstance(metric, CaptionQA):
            verdicts["questions"] = []
    return _row_of(job, caption, runs, verdicts)


def _row_of(job: _Job, caption: Caption, runs: int, verdicts: Mapping[str, Any]) -> dict[str, Any]:
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
        "runs": runs + 1,
        **verdicts,
    }


# ---- adding up ---------------------------------------------------------------------------------


def _result(
    job: _Job, captions: Sequence[Caption], rows: Sequence[Mapping[str, Any]], judge: Judge
) -> MetricResult:
    name, mode = job.metric.name, job.metric.mode
    weights = resampling_weights(len(rows), strata=strata_of(name, rows))
    missing = Counter(row["reason"] for row in rows if row["score"] is None)
    comparable, why = _comparable(job, captions, judge)
    return MetricResult(
        metric=name,
        mode=mode,
        scores=tuple(estimate(statistic, weights) for statistic in MODULES[name].statistics(rows)),
        n=len(rows),
        n_scored=len(rows) - sum(missing.values()),
        missing=dict(missing.most_common()),
        mean_caption_words=sum(row["words"] for row in rows) / len(rows),
        judge=job.settings["judge"],
        prompts=job.label,
        prompts_sha256=job.settings["prompts_sha256"],
        comparable=comparable,
        comparison=why,
        notes=tuple(_notes(job, captions, rows)),
        breakdown=captionqa.breakdown(rows) if name == "captionqa" else {},
    )


def _comparable(job: _Job, captions: Sequence[Caption], judge: Judge) -> tuple[bool, str]:
    metric = job.metric
    if isinstance(metric, BCapScore):
        return False, (
            "Not comparable with published b-CapScores: the paper's judge prompts are not public."
        )
    wanted = OFFICIAL_JUDGES[metric.name]
    models = {place.model for place in (*judge.settings.text, *judge.settings.vision)}
    if metric.name == "captionqa":
        models = {place.model for place in judge.settings.text}
    lacks = []
    if metric.prompts.origin != "official":
        lacks.append("the official prompts (--official-prompts)")
    if not all(model == wanted or model.endswith(f"/{wanted}") for model in models):
        lacks.append(f"the official judge ({wanted})")
    if metric.mode != "official":
        lacks.append("--mode official")
    absent = len(_benchmark_images(metric)) - len(captions)
    if absent > 0:
        lacks.append(f"captions of {absent} more images")
    if lacks:
        return False, f"Not comparable with published scores, which need {', '.join(lacks)}."
    return (
        True,
        "Official prompts, judge and rules: comparable with published scores on the same data.",
    )


def _benchmark_images(metric: DCScore | CaptionQA | CapArenaAuto) -> set[str]:
    if isinstance(metric, DCScore):
        return set(metric.annotations)
    if isinstance(metric, CaptionQA):
        return {str(row["id"]) for row in metric.dataset if row.get("id") is not None}
    return set(metric.references)


def _notes(
    job: _Job, captions: Sequence[Caption], rows: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    metric = job.metric
    if isinstance(metric, BCapScore):
        return
    absent = len(_benchmark_images(metric)) - len(captions)
    if absent > 0:
        yield f"Images of the benchmark without a caption in this file: {absent}."
    if isinstance(metric, DCScore) and metric.mode == "official" and dcscore.official_crash(rows):
        yield (
            "The official script would have died at the first caption, whose first extraction came to "
            "nothing."
        )
    if isinstance(metric, CaptionQA):
        dropped = {why: n for why, n in metric.skipped.items() if n and why != "no caption"}
        if dropped:
            yield (
                "Questions left out, as officially: "
                + ", ".join(f"{n} with {why}" for why, n in dropped.items())
                + "."
            )
        records = [record for row in rows for record in row["questions"]]
        failed = Counter(record["error"] for record in records if record["score"] is None)
        if failed:
            yield (
                f"{sum(failed.values())} of {len(records)} questions have no score: "
                + ", ".join(f"{n} {why}" for why, n in failed.items())
                + "."
            )
    if isinstance(metric, CapArenaAuto) and metric.mode == "official":
        unread = sum(row["reason"] == "no verdict" for row in rows)
        if unread:
            yield f"{unread} battles without a verdict in the exact words add 0, as officially."


def _judging(judge: Judge) -> dict[str, Any]:
    stats = judge.engine().stats
    return {
        "calls": stats.calls,
        "cache hits": stats.cache_hits,
        "retries": stats.retries,
        "prompt tokens": stats.prompt_tokens,
        "completion tokens": stats.completion_tokens,
        "dollars": "price unknown" if stats.unpriced_calls else round(stats.usd, 4),
    }


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write(path: Path, text: str) -> None:
    """Replace a file as a whole, so that a killed run leaves the old or the new one."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)

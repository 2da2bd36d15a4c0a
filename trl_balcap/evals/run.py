"""
Score a caption file: check everything, show the cost, ask, keep every verdict, summarise.

The output folder has `<metric>.jsonl`, one row per image with its verdicts, written as they finish;
`settings.json`, the settings used; `summary.json` and `summary.md`; and `verdicts/` for
`trl-balcap report`. An interrupted run resumes where it stopped.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from trl_balcap.data.caption_file import open_captions
from trl_balcap.data.folders import check_out_folder
from trl_balcap.data.rows import BadRowsError, only_writer
from trl_balcap.data.scored import Caption
from trl_balcap.evals.jobs import (
    DeclinedError,
    ScorePlan,
    check_settings,
    make_job,
    plan_of,
    result_of,
    write_settings,
)
from trl_balcap.evals.metrics.protocol import Benchmarks
from trl_balcap.evals.results import Evaluation, MetricResult
from trl_balcap.evals.row_files import replace_file
from trl_balcap.evals.scoring import judge_caption, row_of, score_job
from trl_balcap.evals.stored_captions import listed_captions
from trl_balcap.evals.tables import results_markdown
from trl_balcap.evals.verdicts import keep_verdicts
from trl_balcap.judge import Judge
from trl_balcap.judge.stats import JudgeStats

__all__ = ["evaluate_captions", "score_captions", "spent_since"]


async def score_captions(
    captions: str | Path,
    judge: Judge,
    *,
    out: str | Path,
    metrics: Sequence[str] = ("b-capscore",),
    benchmarks: Benchmarks | None = None,
    images: str | Path | None = None,
    allow_empty: bool = False,
    shard: str | None = None,
    confirm: Callable[[ScorePlan], bool] | None = None,
    on_row: Callable[[str], None] | None = None,
) -> Evaluation:
    """
    Score a caption file with one or more metrics.

    Args:
        captions (`str` or `Path`):
            JSONL or JSON, see [`read_captions`], or a dataset with images and captions.
        judge ([`Judge`]):
            The judge.
        out (`str` or `Path`):
            Output folder for rows and summary. Existing rows are kept.
        metrics (`Sequence[str]`, *optional*, defaults to `("b-capscore",)`):
            Any of "b-capscore", "dcscore", "captionqa", "caparena".
        benchmarks ([`Benchmarks`], *optional*):
            Data and prompts of the published benchmarks.
        images (`str` or `Path`, *optional*):
            Folder that image paths are relative to. Defaults to the caption file's folder.
        allow_empty (`bool`, *optional*, defaults to `False`):
            Score empty captions instead of rejecting them.
        shard (`str`, *optional*):
            Part of the captions to score, such as `"2/8"`: every 8th from the 2nd on. Parts scored
            on several machines are merged by [`~evals.merging.merge_scores`].
        confirm (`Callable`, *optional*):
            Called with the [`ScorePlan`] before the first call; nothing is asked unless it returns
            `True`.
        on_row (`Callable`, *optional*):
            Called with the metric's name after each caption.

    Returns:
        [`Evaluation`]

    Raises:
        `BadRowsError`: if captions or benchmark data cannot be scored; raised before any judge is
            asked.
        `ValueError`: if the arguments contradict each other, `out` has rows made with other
            settings, or another run is writing to it.
        `JudgeConfigError`: if the judge cannot work.
        `DeclinedError`: if `confirm` returns `False`.
    """
    out = Path(out)
    check_out_folder(out)
    with only_writer(out):
        return await _score_captions(
            captions,
            judge,
            out=out,
            metrics=metrics,
            benchmarks=benchmarks or Benchmarks(),
            needs={"images": images, "allow_empty": allow_empty},
            shard=shard,
            confirm=confirm,
            on_row=on_row,
        )


async def _score_captions(
    captions: str | Path,
    judge: Judge,
    *,
    out: Path,
    metrics: Sequence[str],
    benchmarks: Benchmarks,
    needs: dict[str, Any],
    shard: str | None,
    confirm: Callable[[ScorePlan], bool] | None,
    on_row: Callable[[str], None] | None,
) -> Evaluation:
    before = copy(judge.stats)
    jobs = [make_job(name, judge, benchmarks, out) for name in dict.fromkeys(metrics)]
    rows = open_captions(
        await asyncio.to_thread(listed_captions, captions, out),
        need_images=any(job.metric.needs_image for job in jobs),
        need_references=any(job.metric.needs_reference for job in jobs),
        **needs,
    )
    problems = [problem for job in jobs for problem in job.take(rows)]
    if problems:
        raise BadRowsError(problems)
    check_settings(out, jobs)
    for job in jobs:
        if shard is not None:
            job.take_shard(shard)
        job.read_earlier()
    plan = plan_of(jobs)
    if any(plan.left.values()):
        if confirm is not None and not confirm(plan):
            raise DeclinedError("The cost was declined, so nothing was asked.")
        vision = any(plan.left[job.name] for job in jobs if job.metric.needs_image)
        await judge.preflight(vision=vision)
    out.mkdir(parents=True, exist_ok=True)
    write_settings(out, jobs)
    results = []
    for job in jobs:
        scored = await score_job(job, judge, on_row)
        results.append(result_of(job, scored, judge))
        # Another metric's verdicts on the same captions are a page of their own.
        folder = out / "verdicts" / ("" if job.name == "b-capscore" else job.name)
        await asyncio.to_thread(keep_verdicts, folder, job.captions, scored, shown=job.metric.shown)
    evaluation = Evaluation(str(captions), tuple(results), spent_since(judge, before))
    replace_file(
        out / "summary.json", json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False)
    )
    replace_file(out / "summary.md", results_markdown(evaluation))
    return evaluation


async def evaluate_captions(
    captions: Sequence[Caption], judge: Judge, *, deadline: float | None = None
) -> tuple[MetricResult, list[dict[str, Any]]]:
    """
    b-CapScore of captions in memory, without reading or writing files.

    Args:
        captions (`Sequence[Caption]`):
            Captions with image (a path or a PIL image) and reference.
        judge ([`Judge`]):
            The judge.
        deadline (`float`, *optional*):
            Seconds after which captions not judged yet are left unscored.

    Returns:
        [`MetricResult`] and the row of each caption, with its verdicts.

    Raises:
        `JudgeConfigError`: if the judge cannot work.
        `ValueError`: if there are no captions.
    """
    if not captions:
        raise ValueError("There are no captions to evaluate.")
    job = make_job("b-capscore", judge, Benchmarks(), Path())
    await judge.preflight()

    async def row(caption: Caption) -> dict[str, Any]:
        try:
            async with asyncio.timeout_at(end):
                return await judge_caption(job, caption, judge)
        except TimeoutError:
            verdicts = {
                "score": None,
                "reason": "timeout",
                "errors": [f"no verdict within {deadline:g} s"],
            }
            return row_of(job, caption, 0, verdicts)

    end = None if deadline is None else asyncio.get_running_loop().time() + deadline
    rows = list(await asyncio.gather(*map(row, captions)))
    return result_of(job, rows, judge), rows


def spent_since(judge: Judge, before: JudgeStats) -> dict[str, Any]:
    """What a judge has used since its statistics were `before`."""
    stats = judge.stats
    unpriced = stats.unpriced_calls > before.unpriced_calls
    return {
        "calls": stats.calls - before.calls,
        "cache hits": stats.cache_hits - before.cache_hits,
        "retries": stats.retries - before.retries,
        "prompt tokens": stats.prompt_tokens - before.prompt_tokens,
        "completion tokens": stats.completion_tokens - before.completion_tokens,
        "dollars": "price unknown" if unpriced else round(stats.usd - before.usd, 4),
    }

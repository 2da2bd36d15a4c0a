"""
Judges the captions of one metric, and writes each row as soon as it is done.

Rows stay on disk: what is in memory of each is a few numbers.
"""

import asyncio
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from trl_balcap.captioning.window import in_window
from trl_balcap.data.ids import IdTable
from trl_balcap.data.images import ImageError
from trl_balcap.data.row_file import RowFile, appending
from trl_balcap.data.rows import json_line
from trl_balcap.data.scored import Caption, caption_words
from trl_balcap.evals.asking import ask_judge
from trl_balcap.evals.jobs import Job
from trl_balcap.judge import Judge, JudgeError

__all__ = ["judge_caption", "row_of", "score_job"]

UNDER_WAY = 128  # captions at a time; the judge limits its calls itself


class _ScoredRows(Sequence[dict[str, Any]]):
    """One row per caption, in order. Those that the budget cut off are not in the file."""

    def __init__(self, job: Job, places: array, over_budget: str):
        self._job = job
        self._places = places
        self._rows = RowFile(job.path)
        self._over_budget = over_budget

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        there = self._places[place]
        return self._unasked(place) if there < 0 else self._rows[there]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rows = iter(self._rows)  # in the same order
        for place, there in enumerate(self._places):
            yield self._unasked(place) if there < 0 else next(rows)

    def _unasked(self, place: int) -> dict[str, Any]:
        caption = self._job.captions[place]
        verdicts = _missing(self._job, caption, "over_budget", self._over_budget)
        return row_of(self._job, caption, 0, verdicts)


async def score_job(
    job: Job, judge: Judge, on_row: Callable[[str], None] | None
) -> Sequence[dict[str, Any]]:
    """One row per caption, in order; all of them are in the file at the end."""
    over_budget = ""
    with appending(job.path) as append:

        async def score(caption: Caption) -> bool:
            nonlocal over_budget
            row = await judge_caption(job, caption, judge)
            if _found_something(row):
                append(row)
            else:
                over_budget = over_budget or next(iter(row.get("errors") or ()), "")
            if on_row is not None:
                on_row(job.name)
            return True

        await in_window(job.left(), score, UNDER_WAY)
    return _ScoredRows(job, _put_in_order(job), over_budget)


def _put_in_order(job: Job) -> array:
    """Replace a job's file by its latest rows in the order of the captions, and return the place of
    each caption's row, -1 for none."""
    rows = RowFile(job.path)
    latest = IdTable()
    for place, row in enumerate(rows):
        if job.metric.is_current(row):
            latest[row["id"]] = place
    places = array("q")
    temporary = job.path.with_name(job.path.name + ".part")
    written = 0
    with temporary.open("w", encoding="utf-8") as file:
        for caption in job.captions:
            place = latest.get(caption.id)
            places.append(-1 if place is None else written)
            if place is not None:
                file.write(json_line(rows[place]))
                written += 1
    temporary.replace(job.path)
    return places


async def judge_caption(job: Job, caption: Caption, judge: Judge) -> dict[str, Any]:
    """Judge a caption and return its row, with the reason if the judge failed."""
    earlier = job.earlier.of(caption.id)
    fruitless = earlier.get("fruitless_runs", 0)
    try:
        ask = ask_judge(judge, earlier_runs=fruitless)
        verdicts = await job.metric.score(caption, ask, earlier)
        # Unusable replies must not be used again; failed requests may be repeated.
        fruitless += verdicts["reason"] is not None
    except (JudgeError, ImageError) as error:  # an image may be broken where only decoding looks
        reason = error.reason if isinstance(error, JudgeError) else "bad_image"
        verdicts = _missing(job, caption, reason, str(error))
    return await asyncio.to_thread(row_of, job, caption, fruitless, verdicts)


def _missing(job: Job, caption: Caption, reason: str, error: str) -> dict[str, Any]:
    unjudged = job.metric.unjudged(caption)
    return {"score": None, "reason": reason, "errors": [error], **unjudged}


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


def _found_something(row: Mapping[str, Any]) -> bool:
    """Whether a row is worth keeping: a question cut by the budget tells nothing."""
    return row["score"] is not None or row["reason"] != "over_budget"

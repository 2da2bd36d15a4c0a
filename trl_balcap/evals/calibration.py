"""`trl-balcap calibrate`: how much a judge's scores change when it is asked again, and how it
compares with another judge.

The captions are scored twice by one judge, and once by the other. Everything else works as in
`trl-balcap score`: the questions are those of training, rows are written as they finish, and an
interrupted run resumes where it stopped.
"""

import contextlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from trl_balcap.data.folders import check_out_folder
from trl_balcap.data.scored import read_captions
from trl_balcap.evals.jobs import DeclinedError, ScorePlan
from trl_balcap.evals.results import read_rows
from trl_balcap.evals.retest import JudgeAgreement, agreement, retest_spread
from trl_balcap.evals.run import score_captions
from trl_balcap.judge import Judge

__all__ = ["Calibration", "RewardCalibration", "calibrate"]

REWARDS = ("precision", "recall", "linguistic")
METRIC = "b-capscore"


@dataclass(frozen=True)
class RewardCalibration:
    """
    Results for one reward.

    Args:
        reward (`str`):
            Its name.
        n (`int`):
            Number of captions scored twice.
        mean (`float` or `None`), spread (`float` or `None`):
            Mean and standard deviation of the judge's scores over the captions.
        retest_spread (`float` or `None`):
            See [`retest_spread`].
        retest ([`JudgeAgreement`]):
            Agreement of the judge with itself, the most to expect of any other judge.
        against ([`JudgeAgreement`], *optional*):
            Agreement of the judge with the other judge.
    """

    reward: str
    n: int
    mean: float | None
    spread: float | None
    retest_spread: float | None
    retest: JudgeAgreement
    against: JudgeAgreement | None


@dataclass(frozen=True)
class Calibration:
    """A judge's calibration by reward, in the order of training."""

    rewards: tuple[RewardCalibration, ...]

    def to_dict(self) -> dict[str, Any]:
        """All results as JSON-ready values."""
        rows = [
            {
                **vars(found),
                "retest": found.retest._asdict(),
                "against": None if found.against is None else found.against._asdict(),
            }
            for found in self.rewards
        ]
        return {"rewards": rows}


async def calibrate(
    captions: str | Path,
    judge: Callable[[Path], Judge],
    *,
    out: str | Path,
    against: Callable[[Path], Judge] | None = None,
    images: str | Path | None = None,
    n: int = 100,
    seed: int = 0,
    confirm: Callable[[Mapping[str, tuple[ScorePlan, Judge]]], bool] | None = None,
    on_row: Callable[[str], None] | None = None,
) -> Calibration:
    """
    Score a sample of captions twice with one judge, and once with another.

    Args:
        captions (`str` or `Path`):
            JSONL with "image", "caption" and "reference", see [`read_captions`].
        judge (`Callable`):
            Makes the judge, given its cache folder. The two rounds do not share a cache, since
            cached answers have no spread.
        out (`str` or `Path`):
            Folder for the sample, the rows of each round and `calibration.json`.
        against (`Callable`, *optional*):
            Makes the other judge.
        images (`str` or `Path`, *optional*):
            Folder that image paths are relative to; by default the captions file's.
        n (`int`, *optional*, defaults to `100`):
            Number of captions to score, or all if there are fewer.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the sample.
        confirm (`Callable`, *optional*):
            Called with each round's plan and judge; nothing is asked unless it returns `True`.
        on_row (`Callable`, *optional*):
            Called with the round's name whenever a caption is scored.

    Returns:
        [`Calibration`]

    Raises:
        `BadRowsError`: if captions cannot be scored; raised before any judge is asked.
        `ValueError`: if `n` is not positive, or `out` has rows made with other settings.
        `JudgeConfigError`: if a judge cannot work.
        `DeclinedError`: if `confirm` returns `False`.
    """
    if n < 1:
        raise ValueError(f"n (captions to score) must be 1 or more, got {n}.")
    out = Path(out)
    check_out_folder(out)
    sample = _write_sample(captions, images, n, seed, out)
    makers = {"first": judge, "again": judge} | ({} if against is None else {"against": against})
    judges = {name: make(out / name / "judge-cache") for name, make in makers.items()}
    plans = {name: (await _plan(sample, judges[name], out / name), judges[name]) for name in judges}
    to_ask = any(any(plan.left.values()) for plan, _ in plans.values())
    if to_ask and confirm is not None and not confirm(plans):
        raise DeclinedError("The cost was declined, so nothing was asked.")
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    for name in judges:
        report = (lambda _, name=name: on_row(name)) if on_row is not None else None
        await score_captions(sample, judges[name], out=out / name, on_row=report)
        rows = read_rows(out / name / f"{METRIC}.jsonl")
        scores[name] = {row["id"]: row for row in rows}
    found = Calibration(tuple(_of_reward(reward, scores) for reward in REWARDS))
    (out / "calibration.json").write_text(json.dumps(found.to_dict(), indent=2) + "\n")
    return found


def _write_sample(
    captions: str | Path, images: str | Path | None, n: int, seed: int, out: Path
) -> Path:
    rows = read_captions(captions, images=images, need_images=True, need_references=True)
    if len(rows) > n:
        chosen = set(random.Random(seed).sample(range(len(rows)), n))
        rows = [row for place, row in enumerate(rows) if place in chosen]
    lines = [
        json.dumps(
            {
                "id": row.id,
                "image": str(Path(str(row.image)).resolve()),
                "caption": row.caption,
                "reference": row.reference,
            },
            ensure_ascii=False,
        )
        for row in rows
    ]
    out.mkdir(parents=True, exist_ok=True)
    sample = out / "sample.jsonl"
    sample.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return sample


async def _plan(sample: Path, judge: Judge, out: Path) -> ScorePlan:
    """What a round would ask: start scoring, take the plan shown before the first call, decline."""
    seen = [ScorePlan({}, {}, {})]  # the plan if every row is already there

    def decline(plan: ScorePlan) -> bool:
        seen.append(plan)
        return False

    with contextlib.suppress(DeclinedError):
        await score_captions(sample, judge, out=out, confirm=decline)
    return seen[-1]


def _of_reward(
    reward: str, scores: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> RewardCalibration:
    # Match rounds by caption id, since a round that ran out of budget lacks rows.
    values = {
        name: [rows.get(caption, {}).get(reward) for caption in scores["first"]]
        for name, rows in scores.items()
    }
    first, again = values["first"], values["again"]
    present = [value for value in first if value is not None]
    retest = agreement(first, again)
    return RewardCalibration(
        reward=reward,
        n=retest.n,
        mean=fmean(present) if present else None,
        spread=pstdev(present) if present else None,
        retest_spread=retest_spread(first, again),
        retest=retest,
        against=agreement(first, values["against"]) if "against" in values else None,
    )

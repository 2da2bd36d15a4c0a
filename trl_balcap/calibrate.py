"""`trl-balcap calibrate`: how much a judge's scores move when it is asked again, and how it compares
with another judge.

The captions are scored twice by one judge, and once by the other. Everything else is
`trl-balcap score`: the questions are those of training, rows are written as they come, and a run
that was stopped goes on where it stopped.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.prompt import Confirm
from rich.table import Table

from trl_balcap.evals.asking import cost
from trl_balcap.evals.captions import read_captions
from trl_balcap.evals.compare import read_rows
from trl_balcap.evals.scoring import DeclinedError, Plan, score_captions
from trl_balcap.judge import Judge
from trl_balcap.retest import Agreement, agreement, retest_spread

__all__ = ["Calibration", "RewardCalibration", "add_parser", "calibrate", "run"]

REWARDS = ("precision", "recall", "linguistic")
METRIC = "b-capscore"


@dataclass(frozen=True)
class RewardCalibration:
    """
    What was found out about one reward.

    Args:
        reward (`str`):
            Its name.
        n (`int`):
            Captions that were scored twice.
        mean (`float` or `None`), spread (`float` or `None`):
            Of the judge's scores over the captions.
        retest_spread (`float` or `None`):
            See [`retest_spread`]; what `std_floor` takes.
        retest ([`Agreement`]):
            The judge with itself: no other judge can be expected to agree with it more.
        against ([`Agreement`], *optional*):
            The judge with the other one.
    """

    reward: str
    n: int
    mean: float | None
    spread: float | None
    retest_spread: float | None
    retest: Agreement
    against: Agreement | None


@dataclass(frozen=True)
class Calibration:
    """A judge's calibration, per reward in the order of training."""

    rewards: tuple[RewardCalibration, ...]

    @property
    def std_floor(self) -> list[float]:
        """`std_floor` of [`BalCapConfig`], rounded; 0 where the judge never scored a caption twice."""
        return [round(found.retest_spread or 0.0, 4) for found in self.rewards]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON has it."""
        rows = [
            {
                **vars(found),
                "retest": found.retest._asdict(),
                "against": None if found.against is None else found.against._asdict(),
            }
            for found in self.rewards
        ]
        return {"std_floor": self.std_floor, "rewards": rows}


async def calibrate(
    captions: str | Path,
    judge: Callable[[Path], Judge],
    *,
    out: str | Path,
    against: Callable[[Path], Judge] | None = None,
    images: str | Path | None = None,
    n: int = 100,
    seed: int = 0,
    confirm: Callable[[Mapping[str, tuple[Plan, Judge]]], bool] | None = None,
    on_row: Callable[[str], None] | None = None,
) -> Calibration:
    """
    Score a sample of captions twice by a judge, and once by another.

    Args:
        captions (`str` or `Path`):
            JSONL with "image", "caption" and "reference", see [`read_captions`].
        judge (`Callable`):
            Makes the judge, given the folder of its cache. Its two rounds share none: what a cache
            answers has no spread.
        out (`str` or `Path`):
            Folder for the sample, the rows of each round and `calibration.json`.
        against (`Callable`, *optional*):
            Makes the judge to compare with.
        images (`str` or `Path`, *optional*):
            Folder that image paths are relative to; by default the captions file's.
        n (`int`, *optional*, defaults to `100`):
            Captions to score; all where there are fewer.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the sample.
        confirm (`Callable`, *optional*):
            Gets each round's plan and judge; nothing is asked unless it returns `True`.
        on_row (`Callable`, *optional*):
            Called with the round's name whenever a caption is scored.

    Returns:
        [`Calibration`]

    Raises:
        BadRowsError: If captions cannot be scored; no judge has been asked then.
        ValueError: If `n` is not positive, or `out` holds rows made with other settings.
        JudgeConfigError: If a judge cannot work.
        DeclinedError: If `confirm` says no.
    """
    if n < 1:
        raise ValueError(f"n is the number of captions to score, at least 1, got {n}.")
    out = Path(out)
    sample = _write_sample(captions, images, n, seed, out)
    makers = {"first": judge, "again": judge} | ({} if against is None else {"against": against})
    judges = {name: make(out / name / "judge-cache") for name, make in makers.items()}
    plans = {name: (await _plan(sample, judges[name], out / name), judges[name]) for name in judges}
    to_ask = any(any(plan.left.values()) for plan, _ in plans.values())
    if to_ask and confirm is not None and not confirm(plans):
        raise DeclinedError("Nothing was asked, because the cost was not agreed to.")
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


async def _plan(sample: Path, judge: Judge, out: Path) -> Plan:
    """What a round would ask: scoring shows its plan before the first call, and is declined there."""
    seen = [Plan({}, {}, {})]  # as it stays where every row is there already

    def decline(plan: Plan) -> bool:
        seen.append(plan)
        return False

    with contextlib.suppress(DeclinedError):
        await score_captions(sample, judge, out=out, confirm=decline)
    return seen[-1]


def _of_reward(
    reward: str, scores: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> RewardCalibration:
    # A round that ran out of budget lacks rows: rounds are matched by the captions' ids.
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


# ---- the command -------------------------------------------------------------------------------


def add_parser(subparsers: Any) -> None:
    """Add `calibrate` to the command line."""
    parser = subparsers.add_parser(
        "calibrate",
        help="a judge's test-retest spread per reward, and its agreement with another judge",
        description="Scores captions twice with one judge, and once with another if --against names "
        "one. Rows and calibration.json go to --out; a run that was stopped goes on where it stopped.",
    )
    parser.add_argument("captions", help='JSONL with "image", "caption" and "reference"')
    parser.add_argument("--out", type=Path, required=True, help="folder for rows and results")
    parser.add_argument("--n", type=int, default=100, help="captions to score (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (default: 0)")
    parser.add_argument("--images", help="folder that image paths are relative to")
    parser.add_argument("--yes", action="store_true", help="do not ask before spending")
    judge = parser.add_argument_group("judge")
    judge.add_argument("--judge", required=True, help="litellm model string")
    judge.add_argument(
        "--vision-judge", help="who is asked when an image is shown (default: --judge)"
    )
    judge.add_argument("--api-base", help="URL of an OpenAI-compatible server")
    judge.add_argument("--against", help="litellm model string of a judge to compare with")
    judge.add_argument("--against-vision", help="its judge for images (default: --against)")
    judge.add_argument("--against-api-base", help="its server")
    judge.add_argument(
        "--profile",
        choices=("questions", "fused"),
        default="questions",
        help="as in training (default: questions)",
    )
    judge.add_argument("--temperature", type=float, default=0.0, help="as in training (default: 0)")
    judge.add_argument("--max-concurrency", type=int, default=64, help="calls under way at once")
    judge.add_argument("--timeout", type=float, default=120, help="seconds a call (default: 120)")
    judge.add_argument("--budget-calls", type=int, help="stop a round after this many calls")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Calibrate, and say what to write into a config.

    Returns:
        `int`: 0; 2 if the cost was not agreed to.

    Raises:
        ValueError: If the arguments do not fit together, or captions cannot be scored.
    """
    console = Console()

    def maker(model: str, vision: str | None, api_base: str | None) -> Callable[[Path], Judge]:
        return lambda cache: Judge(
            model,
            vision_model=vision,
            api_base=api_base,
            profile=args.profile,
            temperature=args.temperature,
            max_concurrency=args.max_concurrency,
            timeout=args.timeout,
            budget_calls=args.budget_calls,
            cache=cache,
        )

    against = None
    if args.against is not None:
        against = maker(args.against, args.against_vision, args.against_api_base)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        bars: dict[str, Any] = {}

        def confirm(plans: Mapping[str, tuple[Plan, Judge]]) -> bool:
            console.print(_plan_table(plans))
            if not args.yes:
                if not sys.stdin.isatty():
                    raise ValueError("There is nobody to confirm the cost: pass --yes.")
                progress.stop()
                if not Confirm.ask("Ask the judges?", console=console):
                    return False
                progress.start()
            for name, (plan, _) in plans.items():
                if plan.left:
                    total = plan.left[METRIC] + plan.done[METRIC]
                    bars[name] = progress.add_task(name, total=total, completed=plan.done[METRIC])
            return True

        try:
            found = asyncio.run(
                calibrate(
                    args.captions,
                    maker(args.judge, args.vision_judge, args.api_base),
                    out=args.out,
                    against=against,
                    images=args.images,
                    n=args.n,
                    seed=args.seed,
                    confirm=confirm,
                    on_row=lambda name: progress.advance(bars[name]),
                )
            )
        except DeclinedError as declined:
            console.print(str(declined))
            return 2
    console.print(_retest_table(found))
    if against is not None:
        console.print(_against_table(found, args.judge, str(args.against)))
    floors = found.std_floor
    console.print("For a config (rewards in the order precision, recall, linguistic):")
    console.print(f"std_floor: [{', '.join(map(str, floors))}]", highlight=False, markup=False)
    if not any(floors):
        console.print("The judge repeats itself exactly: a floor of 0 is no floor.")
    return 0


def _plan_table(plans: Mapping[str, tuple[Plan, Judge]]) -> Table:
    table = Table(title="What will be asked (estimate, without retries)", title_justify="left")
    for name in ("round", "judge", "captions", "done", "calls", "dollars"):
        table.add_column(name, justify="left" if name in ("round", "judge") else "right")
    for name, (plan, judge) in plans.items():
        if not plan.left:
            table.add_row(name, repr(judge), "0", "all", "0", "0.00")
            continue
        work = plan.workloads[METRIC]
        dollars = cost(judge, work)
        table.add_row(
            name,
            repr(judge),
            str(plan.left[METRIC]),
            str(plan.done[METRIC]),
            str(work.calls),
            "price unknown" if dollars is None else f"{dollars:.2f}",
        )
    return table


def _retest_table(found: Calibration) -> Table:
    table = Table(title="The judge asked twice", title_justify="left")
    heads = ("reward", "captions", "mean", "spread over captions", "test-retest spread")
    for name in (*heads, "within 0.1", "rank correlation"):
        table.add_column(name, justify="left" if name == "reward" else "right")
    for row in found.rewards:
        table.add_row(
            row.reward,
            str(row.n),
            *map(_number, (row.mean, row.spread, row.retest_spread)),
            *map(_number, (row.retest.within, row.retest.rank_correlation)),
        )
    return table


def _against_table(found: Calibration, judge: str, other: str) -> Table:
    table = Table(title=f"{other} beside {judge}", title_justify="left")
    for name in ("reward", "captions", "bias", "within 0.1", "rank correlation"):
        table.add_column(name, justify="left" if name == "reward" else "right")
    for row in found.rewards:
        if row.against is not None:
            values = (row.against.bias, row.against.within, row.against.rank_correlation)
            table.add_row(row.reward, str(row.against.n), *map(_number, values))
    return table


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"

"""`trl-balcap calibrate`: a judge's test-retest spread, and its agreement with another."""

import argparse
import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from trl_balcap.commands.judging import add_judge_flags, judge_from
from trl_balcap.commands.showing import confirm, make_console, make_progress, make_table, say

if TYPE_CHECKING:
    from trl_balcap.evals.calibration import Calibration
    from trl_balcap.evals.jobs import ScorePlan
    from trl_balcap.judge import Judge

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add `calibrate` to the command line."""
    parser = subparsers.add_parser(
        "calibrate",
        help="a judge's test-retest spread per reward, and its agreement with another judge",
        description="Scores captions twice with one judge, and once with the judge given by "
        "--against, if any. Rows and calibration.json go to --out. An interrupted run resumes "
        "where it stopped.",
    )
    parser.add_argument("captions", help='JSONL with "image", "caption" and "reference"')
    parser.add_argument("--out", type=Path, required=True, help="folder for rows and results")
    parser.add_argument(
        "--n", type=int, default=100, help="number of captions to score (default: 100)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (default: 0)")
    parser.add_argument("--images", help="folder that image paths are relative to")
    parser.add_argument("--yes", action="store_true", help="skip the cost confirmation")
    other = parser.add_argument_group("second judge (other settings as for --judge)")
    other.add_argument("--against", help="litellm model string")
    other.add_argument("--against-vision", help="model for images (default: --against)")
    other.add_argument("--against-api-base", help="URL of its server")
    add_judge_flags(parser, required=True, without=("cache",))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Calibrate, and print the tables.

    Returns:
        `int`: 0; 2 if the cost was declined.

    Raises:
        `ValueError`: if the arguments contradict each other, or captions cannot be scored.
    """
    from trl_balcap.evals.asking import cost
    from trl_balcap.evals.calibration import METRIC, calibrate
    from trl_balcap.evals.jobs import DeclinedError
    from trl_balcap.judge import Judge

    console = make_console()

    def first(cache: Path) -> Judge:
        return judge_from(args, cache=str(cache))

    def other(cache: Path) -> Judge:
        return judge_from(
            args,
            model=args.against,
            vision_model=args.against_vision,
            api_base=args.against_api_base,
            cache=str(cache),
        )

    with make_progress(console) as progress:
        bars: dict[str, Any] = {}

        def agree(plans: "Mapping[str, tuple[ScorePlan, Judge]]") -> bool:
            console.print(_plan_table(plans))
            costs = [
                cost(judge, plan.workloads[METRIC]) for plan, judge in plans.values() if plan.left
            ]
            known = [dollars for dollars in costs if dollars is not None]
            usd = sum(known) if len(known) == len(costs) else None
            if not confirm(
                "Ask the judges?", usd=usd, yes=args.yes, console=console, progress=progress
            ):
                return False
            for name, (plan, _) in plans.items():
                if plan.left:
                    total = plan.left[METRIC] + plan.done[METRIC]
                    bars[name] = progress.add_task(name, total=total, completed=plan.done[METRIC])
            return True

        try:
            found = asyncio.run(
                calibrate(
                    args.captions,
                    first,
                    out=args.out,
                    against=None if args.against is None else other,
                    images=args.images,
                    n=args.n,
                    seed=args.seed,
                    confirm=agree,
                    on_row=lambda name: progress.advance(bars[name]),
                )
            )
        except DeclinedError as declined:
            say(console, str(declined))
            return 2
    console.print(_retest_table(found))
    if args.against is not None:
        console.print(_against_table(found, args.judge_model, args.against))
    return 0


def _plan_table(plans: "Mapping[str, tuple[ScorePlan, Judge]]") -> Table:
    from trl_balcap.evals.asking import cost
    from trl_balcap.evals.calibration import METRIC

    table = make_table(
        "Planned judge calls (estimate, without retries)",
        ("round", "judge", "captions", "done", "calls", "dollars"),
        left=2,
    )
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


def _retest_table(found: "Calibration") -> Table:
    return make_table(
        "Same judge, asked twice",
        (
            "reward",
            "captions",
            "mean",
            "spread over captions",
            "test-retest spread",
            "within 0.1",
            "rank correlation",
        ),
        [
            (
                row.reward,
                str(row.n),
                *map(_number, (row.mean, row.spread, row.retest_spread)),
                *map(_number, (row.retest.within, row.retest.rank_correlation)),
            )
            for row in found.rewards
        ],
    )


def _against_table(found: "Calibration", judge: str, other: str) -> Table:
    table = make_table(
        f"{other} against {judge}", ("reward", "captions", "bias", "within 0.1", "rank correlation")
    )
    for row in found.rewards:
        if row.against is not None:
            values = (row.against.bias, row.against.within, row.against.rank_correlation)
            table.add_row(row.reward, str(row.against.n), *map(_number, values))
    return table


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"

"""`trl-balcap exam`: is a judge good enough?"""

import argparse
import asyncio
import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from trl_balcap.commands.judging import add_judge_flags, judge_from
from trl_balcap.commands.showing import confirm, make_console, make_progress, make_table, say

if TYPE_CHECKING:
    from trl_balcap.evals.tables import Grid
    from trl_balcap.judge import Judge

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add `exam` to the command line."""
    parser = subparsers.add_parser(
        "exam",
        help="is a judge good enough? questions with known answers, and what its errors cost",
        description="Asks judges questions whose answers are known, shows their marks side by side "
        "and what such errors cost in training. The cost is shown first; what a stopped exam has "
        "answered is not asked again.",
    )
    parser.add_argument(
        "--judge", nargs="+", required=True, metavar="MODEL", help="litellm model strings"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("exam"), help="folder for results (default: exam)"
    )
    parser.add_argument(
        "--captions",
        type=int,
        default=200,
        help="captions with planted faults; fewer cost less, and say less (default: 200)",
    )
    parser.add_argument(
        "--photographs",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether to ask about photographs too (default: where scikit-image, whose photographs "
        "they are, is installed; not of a judge that sees drawn scenes only)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes (default: 0)")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="CSV",
        help="your own labels to hold the judges against; where there is no such file, it is "
        "written as a template from 50 captions of --label-captions",
    )
    parser.add_argument(
        "--label-captions", metavar="JSONL", help='captions with "image" to make a template of'
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before spending")
    add_judge_flags(parser, without=("model", "cache"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Hold the exam.

    Returns:
        `int`: 0; 2 if the cost was declined.

    Raises:
        `ValueError`: if the arguments do not fit together.
    """
    from trl_balcap.evals.asking import cost
    from trl_balcap.exam.bank import Exam, Looking, make_exam
    from trl_balcap.exam.labels import read_labels
    from trl_balcap.exam.run import exam_workload, sit_exam
    from trl_balcap.exam.tables import (
        MEANING,
        exam_dict,
        exam_grid,
        exam_markdown,
        meaning_grid,
    )

    console = make_console()
    models = list(dict.fromkeys(args.judge))
    labels: list[Looking] = []
    if args.labels is not None:
        if not args.labels.exists():
            return _template(args, models[0], console)
        labels = read_labels(args.labels)
    exams: dict[str, Exam] = {}
    rows, dollars = [], []
    for model in models:
        judge = judge_from(args, model=model)
        shown = _photographs(args.photographs, judge, console)
        exams[model] = make_exam(args.captions, photographs=shown, seed=args.seed)
        work = exam_workload(exams[model], labels)
        dollars.append(cost(judge, work))
        price = "price unknown" if dollars[-1] is None else f"{dollars[-1]:.2f}"
        rows.append((model, str(work.calls), price))
    console.print(make_table("What will be asked, at most", ("judge", "calls", "dollars"), rows))
    known = [usd for usd in dollars if usd is not None]
    usd = sum(known) if len(known) == len(dollars) else None
    if not confirm("Ask the judges?", usd=usd, yes=args.yes, console=console):
        return 2
    reports = []
    with make_progress(console) as progress:
        for model, exam in exams.items():
            bar = progress.add_task(model, total=exam.items + len(labels))
            reports.append(
                asyncio.run(
                    sit_exam(
                        exam,
                        partial(_judge, args, model),
                        args.out / _folder_name(model),
                        labels=labels,
                        on_answer=partial(progress.advance, bar),
                    )
                )
            )
    args.out.mkdir(parents=True, exist_ok=True)
    found = {"judges": [exam_dict(report) for report in reports]}
    (args.out / "exam.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (args.out / "exam.md").write_text(exam_markdown(reports), encoding="utf-8")
    for grid in (exam_grid(reports), meaning_grid(reports)):
        _print(grid, console)
    say(console, MEANING)
    say(console, f"Tables: {args.out / 'exam.md'}, {args.out / 'exam.json'}")
    return 0


def _template(args: argparse.Namespace, model: str, console: Console) -> int:
    from trl_balcap.exam.labels import write_template

    if args.label_captions is None:
        raise ValueError(
            f"There is no {args.labels}. To write a template for it, name captions with "
            "--label-captions FILE."
        )
    question = f"Have {model} split up to 50 captions?"
    if not confirm(question, usd=None, yes=args.yes, console=console):
        return 2
    statements, left_out = asyncio.run(
        write_template(
            args.label_captions, judge_from(args, model=model), args.labels, seed=args.seed
        )
    )
    for line in left_out:
        say(console, f"left out {line}")
    page = args.labels.with_suffix(".html")
    say(
        console,
        f"{args.labels}: {statements} statements to label with yes or no, by the images in {page}. "
        "Then repeat the command.",
    )
    return 0


def _judge(args: argparse.Namespace, model: str, cache: Path) -> "Judge":
    return judge_from(args, model=model, cache=str(cache))


def _photographs(asked: bool | None, judge: "Judge", console: Console) -> bool:
    """Whether a judge is shown photographs: as asked, else where it can be."""
    from trl_balcap.exam.bank import photographs

    if asked is not None:
        return asked
    if all(deployment.model.startswith("scenes/") for deployment in judge.settings.vision):
        return False
    if photographs() is None:
        say(console, "Photographs are left out: they are in scikit-image, which is not installed.")
        return False
    return True


def _folder_name(model: str) -> str:
    return re.sub(r"[^\w.=,+-]+", "-", model)


def _print(grid: "Grid", console: Console) -> None:
    console.print(make_table(grid.title, grid.head, grid.rows))

"""`trl-balcap exam`: test whether a judge is good enough."""

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
        help="test judges on questions with known answers, and estimate what their errors cost",
        description="Asks judges questions with known answers, and shows their marks side by side, "
        "with the cost of such errors in training. The price is shown first. An interrupted exam "
        "resumes where it stopped.",
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
        help="captions with planted faults; fewer are cheaper, with wider intervals (default: 200)",
    )
    parser.add_argument(
        "--photographs",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether to also ask about photographs (default: if scikit-image, which has them, is "
        "installed, and the judge is not one for drawn scenes)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes (default: 0)")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="CSV",
        help="your own labels to compare the judges with; if the file does not exist, a template "
        "is written from 50 captions of --label-captions",
    )
    parser.add_argument(
        "--label-captions", metavar="JSONL", help='captions with "image" to make the template from'
    )
    parser.add_argument("--yes", action="store_true", help="skip the cost confirmation")
    add_judge_flags(parser, without=("model", "cache"))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Run the exam.

    Returns:
        `int`: 0; 1 if a judge was left out; 2 if the cost was declined.

    Raises:
        `ValueError`: if the arguments contradict each other, or no judge could sit the exam.
    """
    from trl_balcap.evals.asking import cost
    from trl_balcap.exam.bank import Exam, Looking, make_exam
    from trl_balcap.exam.labels import read_labels
    from trl_balcap.exam.run import SittingError, exam_workload, sit_exam
    from trl_balcap.exam.tables import (
        MEANING,
        exam_dict,
        exam_grid,
        exam_markdown,
        meaning_grid,
    )
    from trl_balcap.judge import JudgeConfigError

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
    reports, left_out = [], {}
    with make_progress(console) as progress:
        for model, exam in exams.items():
            bar = progress.add_task(model, total=exam.items + len(labels))
            sitting = sit_exam(
                exam,
                partial(_judge, args, model),
                args.out / _folder_name(model),
                labels=labels,
                on_answer=partial(progress.advance, bar),
            )
            try:
                reports.append(asyncio.run(sitting))
            except (JudgeConfigError, SittingError) as error:  # the others' marks are paid for
                left_out[model] = str(error)
    again = "Repeat the command to go on: answers are kept."
    if not reports:
        said = "\n".join(f"{model}: {why}" for model, why in left_out.items())
        raise ValueError(f"No judge could sit the exam.\n{said}\n{again}")
    args.out.mkdir(parents=True, exist_ok=True)
    found = {"judges": [exam_dict(report) for report in reports], "left_out": left_out}
    (args.out / "exam.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (args.out / "exam.md").write_text(exam_markdown(reports, left_out), encoding="utf-8")
    for grid in (exam_grid(reports), meaning_grid(reports)):
        _print(grid, console)
    say(console, MEANING)
    for model, why in left_out.items():
        say(console, f"left out {model}: {why}")
    say(console, f"Tables: {args.out / 'exam.md'}, {args.out / 'exam.json'}")
    if left_out:
        say(console, again)
    return 1 if left_out else 0


def _template(args: argparse.Namespace, model: str, console: Console) -> int:
    from trl_balcap.exam.labels import write_template

    if args.label_captions is None:
        raise ValueError(
            f"{args.labels} does not exist. To write it as a template, pass captions with "
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
        f"{args.labels}: {statements} statements to label with yes or no; {page} shows their "
        "images. Then repeat the command.",
    )
    return 0


def _judge(args: argparse.Namespace, model: str, cache: Path) -> "Judge":
    return judge_from(args, model=model, cache=str(cache))


def _photographs(asked: bool | None, judge: "Judge", console: Console) -> bool:
    """Whether to show a judge photographs: as requested, else if possible."""
    from trl_balcap.exam.bank import photographs

    if asked is not None:
        return asked
    if all(deployment.model.startswith("scenes/") for deployment in judge.settings.vision):
        return False
    if photographs() is None:
        say(
            console,
            "Photographs are left out: they come with scikit-image, which is not installed.",
        )
        return False
    return True


def _folder_name(model: str) -> str:
    return re.sub(r"[^\w.=,+-]+", "-", model)


def _print(grid: "Grid", console: Console) -> None:
    console.print(make_table(grid.title, grid.head, grid.rows))

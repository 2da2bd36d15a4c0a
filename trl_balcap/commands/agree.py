"""`trl-balcap agree`: whether a metric ranks captioners the way people do."""

import argparse
import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from trl_balcap.commands.judging import add_judge_flags, judge_from
from trl_balcap.commands.score import add_benchmark_flags, benchmarks_from, pairs_of, plan_table
from trl_balcap.commands.showing import confirm, make_console, make_progress, make_table, say

if TYPE_CHECKING:
    from trl_balcap.evals.jobs import ScorePlan
    from trl_balcap.judge import Judge

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add `agree` to the command line."""
    parser = subparsers.add_parser(
        "agree",
        help="agreement of a metric with CapArena's human battles and ranking",
        description="Spearman and Kendall correlation of a metric with the human ranking of "
        "captioners and, for judged battles, the share in which it agrees with people.",
    )
    parser.add_argument(
        "metric",
        nargs="+",
        help="JSON file with {model: score}, a list of models (best first), or CapArena's list of "
        'battles with a "judge" in each; or MODEL=ROWS per model, with rows written by score; '
        "with --judge, CapArena's battles, to be judged now",
    )
    parser.add_argument(
        "--battles",
        type=Path,
        help="with MODEL=ROWS: CapArena's battles, to also compare single captions by score",
    )
    parser.add_argument(
        "--human-ranking",
        type=Path,
        help="JSON list of models, best first (default: CapArena's 15 captioners)",
    )
    parser.add_argument(
        "--lower-is-better", action="store_true", help="for {model: score}: low scores are good"
    )
    parser.add_argument("--out", type=Path, help="output JSON file")
    judged = parser.add_argument_group("judging battles")
    judged.add_argument(
        "--by",
        default="caparena",
        metavar="METRIC",
        help="caparena, where the judge compares each pair, or another metric, whose scores of the "
        "two captions are compared (default: caparena)",
    )
    judged.add_argument("--images", help="folder with the battles' images")
    judged.add_argument("--verdicts", type=Path, help="output folder of the verdicts")
    judged.add_argument("--yes", action="store_true", help="skip the cost confirmation")
    add_judge_flags(parser)
    add_benchmark_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Print the agreement.

    Returns:
        `int`: 0; 2 if the cost was declined; 130 after Ctrl-C.

    Raises:
        `ValueError`: if the file has none of the three forms, or contains a model that people did
            not rank; or the arguments do not fit together.
    """
    from trl_balcap.evals.arena import HUMAN_RANKING
    from trl_balcap.evals.jobs import DeclinedError

    human = HUMAN_RANKING if args.human_ranking is None else _read(args.human_ranking)
    if not isinstance(human, list | tuple) or not all(isinstance(name, str) for name in human):
        raise ValueError(f"{args.human_ranking} must be a JSON list of model names, best first.")
    console = make_console()
    try:
        title, found = _found(args, human, console)
    except DeclinedError as declined:
        say(console, str(declined))
        return 2
    except KeyboardInterrupt:
        say(
            console,
            f"Stopped. The verdicts so far are in {args.verdicts}; the same command goes on.",
        )
        return 130
    _show(title, found, console)
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0


def _found(args: argparse.Namespace, human: Any, console: Console) -> tuple[str, dict[str, Any]]:
    """Title and agreement for the given arguments."""
    from trl_balcap.evals.agree import agreement, agreement_of_rows
    from trl_balcap.evals.results import read_rows

    one = len(args.metric) == 1 and args.battles is None
    if args.judge_model is not None:
        if not one or args.images is None or args.verdicts is None:
            raise ValueError(
                "Judging battles needs one file of battles, --images FOLDER and --verdicts FOLDER."
            )
        return _judged(args, human, console)
    if all("=" in given for given in args.metric):
        pairs = pairs_of("agree", args.metric)
        rows = {model: read_rows(path) for model, path in pairs.items()}
        battles = None if args.battles is None else _read(args.battles)
        found = agreement_of_rows(rows, human, battles=battles)
        return str(next(iter(rows.values()))[0]["metric"]), found
    if one:
        path = Path(args.metric[0])
        found = agreement(_read(path), human, lower_is_better=args.lower_is_better, name=path)
        return args.metric[0], found
    raise ValueError(
        "agree takes either one file, or MODEL=ROWS per model (optionally with --battles FILE)."
    )


def _judged(args: argparse.Namespace, human: Any, console: Console) -> tuple[str, dict[str, Any]]:
    """Title and agreement of battles that are judged now."""
    from trl_balcap.evals.agree import agreement, agreement_of_rows
    from trl_balcap.evals.battles import judge_battles, load_battles, score_battles

    judge = _judge(args)
    benchmarks = benchmarks_from(args)
    with make_progress(console) as progress:
        bar = progress.add_task(args.by, total=None)

        def agree(plan: "ScorePlan") -> bool:
            table, usd = plan_table(plan, judge)
            console.print(table)
            left, done = sum(plan.left.values()), sum(plan.done.values())
            progress.update(bar, total=left + done, completed=done)
            return confirm(
                "Ask the judge?", usd=usd, yes=args.yes, console=console, progress=progress
            )

        common: dict[str, Any] = {
            "images": args.images,
            "out": args.verdicts,
            "benchmarks": benchmarks,
            "confirm": agree,
            "on_row": lambda name: progress.advance(bar),
        }
        [path] = args.metric
        if args.by == "caparena":
            judged = asyncio.run(judge_battles(path, judge, **common))
            return f"caparena by {judge.settings.text[0].model}", agreement(judged, human)
        rows = asyncio.run(score_battles(path, args.by, judge, **common))
    return args.by, agreement_of_rows(rows, human, battles=load_battles(path))


def _judge(args: argparse.Namespace) -> "Judge":
    if args.judge_cache is not None:
        return judge_from(args)
    return judge_from(args, cache=str(args.verdicts / "judge-cache"))


def _show(title: str, found: dict[str, Any], console: Console) -> None:
    table = make_table(title, ("model", "metric", "human", "score"))
    pairs = zip(found["ranking"], found["human_positions"], strict=True)
    for place, (model, position) in enumerate(pairs, start=1):
        score = found["scores"].get(model)
        table.add_row(model, str(place), str(position), "-" if score is None else f"{score:.6g}")
    console.print(table)
    if found["spearman"] is None:
        say(console, "All models have the same score, so there is no ranking to correlate.")
    else:
        rho_p = found["spearman_p"]
        p = "unknown" if rho_p is None else f"{rho_p:.2g}"
        say(
            console,
            f"Spearman {found['spearman']:.4f} (p {p}), "
            f"Kendall {found['kendall']:.4f} (p {found['kendall_p']:.2g}) "
            f"over {len(found['ranking'])} models.",
        )
    if found["spearman_interval"] is not None:
        intervals = "; ".join(
            f"{name.title()} {low:.4f} to {high:.4f}"
            for name in ("spearman", "kendall")
            for low, high in [found[f"{name}_interval"]]
        )
        over = "battles" if found["captions"] is not None else "models"
        say(console, f"95% intervals, {over} resampled: {intervals}.")
    for key, ties in (("captions", "ties included"), ("captions_without_ties", "without ties")):
        captions = found[key]
        if captions is not None:
            say(
                console,
                f"Caption-level agreement: {captions['overall']:.3f} ({captions['low']:.3f} to "
                f"{captions['high']:.3f}) over {captions['n']} battles, {ties}.",
            )


def _read(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"File not found: {path}.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}).") from error

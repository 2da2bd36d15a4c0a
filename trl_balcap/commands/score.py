"""`trl-balcap score`: score captions and print the paper's table."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from trl_balcap.commands.judging import add_judge_flags, judge_from
from trl_balcap.commands.showing import confirm, make_console, make_progress, make_table, say

if TYPE_CHECKING:
    from trl_balcap.evals.jobs import ScorePlan
    from trl_balcap.evals.metrics.protocol import Benchmarks
    from trl_balcap.evals.tables import Grid
    from trl_balcap.judge import Judge

__all__ = [
    "add_benchmark_flags",
    "add_parser",
    "benchmarks_from",
    "grid_table",
    "pairs_of",
    "plan_table",
    "run",
]


def add_parser(subparsers: Any) -> None:
    """Add `score` to the command line."""
    parser = subparsers.add_parser(
        "score",
        help="score captions: b-CapScore, DCScore, CaptionQA, CapArena-Auto, Prism",
        description="Scores captions with a judge. Rows, summary.json and summary.md go to "
        "--out. An interrupted run resumes where it stopped.",
    )
    parser.add_argument(
        "captions",
        nargs="?",
        help='JSONL with "image", "caption" and, for b-capscore, "reference"; JSON {id: caption}; '
        "or Parquet or WebDataset shards with such columns",
    )
    parser.add_argument(
        "--metrics",
        default="b-capscore",
        help="comma-separated: b-capscore, dcscore, captionqa, caparena, prism (default: "
        "b-capscore)",
    )
    parser.add_argument("--out", type=Path, help="output folder for rows and summary")
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="paired differences, B minus A, of two caption files (which are scored first) or two "
        "files of scored rows (no judge needed)",
    )
    parser.add_argument("--images", help="folder that image paths are relative to")
    parser.add_argument(
        "--empty-captions",
        choices=("error", "score"),
        default="error",
        help="how to treat an empty caption (default: error)",
    )
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="score only every N-th caption from the I-th on; `trl-balcap merge` joins the folders",
    )
    parser.add_argument("--yes", action="store_true", help="skip the cost confirmation")
    add_judge_flags(parser)
    add_benchmark_flags(parser).add_argument(
        "--model-name", default="captions", help="name of your model in CapArena-Auto"
    )
    parser.set_defaults(run=run)


def add_benchmark_flags(parser: argparse.ArgumentParser) -> Any:
    """Add the flags of the published benchmarks to a command, and return their group."""
    benchmarks = parser.add_argument_group("published benchmarks")
    benchmarks.add_argument(
        "--mode",
        choices=("official", "strict"),
        default="official",
        help="official: same numbers as the published scripts, quirks included; strict: corrected "
        "(default: official)",
    )
    benchmarks.add_argument(
        "--official-prompts",
        nargs="+",
        default=(),
        metavar="PATH",
        help="clones of the benchmarks' repositories, to use their prompts instead of ours",
    )
    benchmarks.add_argument(
        "--data",
        nargs="+",
        default=(),
        metavar="METRIC=PATH",
        help="dcscore=human_annotated_oracle_facts.jsonl, captionqa=Borise/CaptionQA (or a file, "
        "or a folder), caparena=caparena_auto_600.json",
    )
    benchmarks.add_argument("--split", default="all", help="CaptionQA domain (default: all)")
    benchmarks.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of CaptionQA's shuffle and CapArena's coin flips (default: 0)",
    )
    return benchmarks


def benchmarks_from(args: argparse.Namespace, **settings: Any) -> "Benchmarks":
    """The settings given with those flags."""
    from trl_balcap.evals.metrics.protocol import Benchmarks

    return Benchmarks(
        mode=args.mode,
        data=pairs_of("--data", args.data),
        checkouts=args.official_prompts,
        split=args.split,
        seed=args.seed,
        **settings,
    )


def run(args: argparse.Namespace) -> int:
    """
    Score, or compare.

    Returns:
        `int`: 0; 1 if a metric scored no caption at all; 2 if the cost was declined; 130 after
        Ctrl-C.

    Raises:
        `ValueError`: if the arguments contradict each other, or rows cannot be scored.
    """
    from trl_balcap.evals.jobs import DeclinedError

    console = make_console()
    try:
        if args.compare is not None:
            return _compare(args, console)
        if args.captions is None or args.out is None:
            raise ValueError("score needs a caption file, --judge MODEL and --out DIR.")
        judge = _judge(args)
        return 0 if _score(args, args.captions, args.out, judge, console) else 1
    except DeclinedError as declined:
        say(console, str(declined))
        return 2
    except KeyboardInterrupt:
        say(console, f"Stopped. The rows so far are in {args.out}; rerun the command to continue.")
        return 130


def _judge(args: argparse.Namespace) -> "Judge":
    """One judge for the whole command, so that nothing is asked twice."""
    if args.judge_cache is not None:
        return judge_from(args)
    return judge_from(args, cache=str(args.out / "judge-cache"))


def _score(
    args: argparse.Namespace, captions: str, out: Path, judge: "Judge", console: Console
) -> bool:
    """Score one file and show the table. True if every metric scored at least one caption."""
    from trl_balcap.evals.run import score_captions
    from trl_balcap.evals.tables import result_lines, results_grid

    benchmarks = benchmarks_from(args, model=args.model_name)
    with make_progress(console) as progress:
        bars: dict[str, Any] = {}

        def agree(plan: "ScorePlan") -> bool:
            table, usd = plan_table(plan, judge)
            console.print(table)
            if not confirm(
                "Ask the judge?", usd=usd, yes=args.yes, console=console, progress=progress
            ):
                return False
            for name, left in plan.left.items():
                total = left + plan.done[name]
                bars[name] = progress.add_task(name, total=total, completed=plan.done[name])
            return True

        evaluation = asyncio.run(
            score_captions(
                captions,
                judge,
                out=out,
                metrics=[name.strip() for name in args.metrics.split(",")],
                benchmarks=benchmarks,
                images=args.images,
                allow_empty=args.empty_captions == "score",
                shard=args.shard,
                confirm=agree,
                on_row=lambda name: progress.advance(bars[name]),
            )
        )
    console.print(grid_table(results_grid(evaluation), n_columns=6))
    for result in evaluation.results:
        for line in result_lines(result):
            say(console, f"{result.metric}: {line}")
    spent = ", ".join(f"{name} {value}" for name, value in evaluation.judging.items())
    say(console, f"Judging: {spent}.")
    say(console, f"Rows and summary: {out}")
    return all(result.n_scored for result in evaluation.results)


def pairs_of(flag: str, given: Sequence[str]) -> dict[str, str]:
    """Parse `NAME=PATH` arguments into a dictionary."""
    pairs = [entry.partition("=") for entry in given]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise ValueError(f"{flag} takes NAME=PATH, got {name + equals + value!r}.")
        if sum(name == other for other, _, _ in pairs) > 1:
            raise ValueError(f"{flag} has {name!r} twice. Use another name for one of them.")
    return {name: value for name, _, value in pairs}


def grid_table(grid: "Grid", n_columns: int | None = None) -> Table:
    """The first `n_columns` columns of a grid, for the terminal."""
    table = make_table(grid.title, grid.head[:n_columns], left=grid.n_left)
    for place, row in enumerate(grid.rows):
        if place in grid.breaks:
            table.add_section()
        table.add_row(*row[:n_columns])
    return table


def plan_table(plan: "ScorePlan", judge: "Judge") -> tuple[Table, float | None]:
    """The planned questions as a table, and their total cost, `None` if a price is unknown."""
    from trl_balcap.evals.asking import cost

    table = make_table(
        "Planned judge calls (estimate, without retries)",
        ("metric", "captions", "done", "calls", "prompt tokens", "reply tokens", "dollars"),
    )
    total, known = 0.0, True
    for name, work in plan.workloads.items():
        dollars = cost(judge, work)
        known = known and dollars is not None
        total += dollars or 0.0
        table.add_row(
            name,
            str(plan.left[name]),
            str(plan.done[name]),
            str(work.calls),
            f"{work.text.prompt_tokens + work.vision.prompt_tokens:,}",
            f"{work.text.completion_tokens + work.vision.completion_tokens:,}",
            "price unknown" if dollars is None else f"{dollars:.2f}",
        )
    if len(plan.workloads) > 1:
        table.add_section()
        table.add_row("all", "", "", "", "", "", f"{total:.2f}" if known else "price unknown")
    return table, total if known else None


def _compare(args: argparse.Namespace, console: Console) -> int:
    from trl_balcap.evals.compare import compare_rows
    from trl_balcap.evals.results import is_scored, read_rows
    from trl_balcap.evals.tables import comparison_grid, comparison_markdown

    first, second = args.compare
    if args.captions is not None:
        raise ValueError(f"--compare already names both files; remove {args.captions}.")
    if args.shard is not None:
        raise ValueError(f"--compare needs all captions: leave --shard {args.shard} out.")
    scored = [is_scored(path) for path in (first, second)]
    if any(scored) and not all(scored):
        raise ValueError(f"{first} and {second} must both contain captions, or both scored rows.")
    complete = True
    if all(scored):
        pairs: Sequence[tuple[Path, Path]] = [(Path(first), Path(second))]
    else:
        if args.out is None:
            raise ValueError(
                "Comparing captions needs --out DIR, where the scores of both are written."
            )
        sides = [args.out / side for side in ("a", "b")]
        judge = _judge(args)
        for path, side in zip((first, second), sides, strict=True):
            complete &= _score(args, path, side, judge, console)
        names = [name.strip() for name in args.metrics.split(",")]
        pairs = [(sides[0] / f"{name}.jsonl", sides[1] / f"{name}.jsonl") for name in names]
    comparisons = []
    for a, b in pairs:
        found = compare_rows(read_rows(a), read_rows(b), names=(str(first), str(second)))
        comparisons.append(found)
        console.print(grid_table(comparison_grid(found)))
        say(
            console,
            f"{found.second} minus {found.first}, over the {found.n_common} captions in both files "
            f"({found.n_second} and {found.n_first}).",
        )
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "comparison.md").write_text(comparison_markdown(comparisons), encoding="utf-8")
        rows = [
            asdict(found) | {"differences": [d._asdict() for d in found.differences]}
            for found in comparisons
        ]
        (args.out / "comparison.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return 0 if complete else 1

"""`trl-balcap bench`: several captioners on several benchmarks, in one table with intervals."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from trl_balcap.commands.judging import add_judge_flags, judge_from
from trl_balcap.commands.placing import add_placement_flags, placement_from
from trl_balcap.commands.score import (
    add_benchmark_flags,
    benchmarks_from,
    grid_table,
    pairs_of,
)
from trl_balcap.commands.showing import confirm, make_console, make_table, say

if TYPE_CHECKING:
    from trl_balcap.evals.bench import BenchModel, Plans
    from trl_balcap.judge import Judge

__all__ = ["add_parser", "run"]

SUITES = ("b-capscore", "decapbench", "captionqa", "caparena", "prism")


def add_parser(subparsers: Any) -> None:
    """Add `bench` to the command line."""
    parser = subparsers.add_parser(
        "bench",
        help="compare captioners on several benchmarks in one table, for a paper",
        description="Captions each suite with each model, scores the captions, and writes one "
        "table of everything in the folder as Markdown, CSV, LaTeX and JSON. An interrupted run "
        "resumes, and models or suites can be added later.",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=(),
        metavar="[NAME=]MODEL[@URL]",
        help="checkpoints, adapters, or litellm model strings (with a server's URL)",
    )
    parser.add_argument(
        "--captions",
        nargs="+",
        default=(),
        metavar="NAME=PATH",
        help="existing captions: a file, or a folder with SUITE.jsonl or SUITE.json",
    )
    parser.add_argument("--suite", nargs="+", required=True, help=f"any of {', '.join(SUITES)}")
    parser.add_argument(
        "--images",
        nargs="+",
        default=(),
        metavar="SUITE=PATH",
        help="images of each suite: a folder, a dataset, or JSONL (with references for b-capscore)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="output folder for captions, rows and table"
    )
    parser.add_argument(
        "--baseline",
        help="model to compare the others with (default: that of the existing table, or the first "
        "one)",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=1,
        help="times to ask the judge, so that intervals include its noise (default: 1)",
    )
    parser.add_argument("--yes", action="store_true", help="skip the cost confirmation")
    parser.add_argument(
        "--batch-size", type=int, default=8, help="images to caption at a time (default: 8)"
    )
    parser.add_argument("--max-new-tokens", type=int, help="length limit (default: the suite's)")
    add_placement_flags(parser)
    for flag, text in (("--judge", "judge model"), ("--vision-judge", "model that sees images")):
        parser.add_argument(
            flag,
            nargs="+",
            action="extend",
            default=[],
            metavar="[METRIC=]MODEL[@URL]",
            help=f"{text}, for all metrics or for one",
        )
    add_judge_flags(parser, without=("model", "vision_model", "cache"))
    add_benchmark_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Run the benchmarks and show the table.

    Returns:
        `int`: 0; 1 if a model got no score on a suite; 2 if the cost was declined; 130 after
        Ctrl-C.

    Raises:
        `ValueError`: if the arguments contradict each other, or captions cannot be scored.
    """
    from trl_balcap.evals.bench import bench
    from trl_balcap.evals.bench_tables import bill_line, standings_grid, write_tables
    from trl_balcap.evals.bill import read_bill
    from trl_balcap.evals.jobs import DeclinedError
    from trl_balcap.evals.standings import read_counts, read_folder, standings
    from trl_balcap.evals.suites import suite_of

    console = make_console()
    models = _models(args)
    if not models:
        raise ValueError("bench needs --models MODEL ... or --captions NAME=PATH ..., or both.")

    known = {model.name for model in models}
    known |= {name for of_metric in read_folder(args.out).values() for name in of_metric}
    if args.baseline is not None and args.baseline not in known:
        raise ValueError(
            f"--baseline {args.baseline!r} is neither in this run nor in {args.out}, which have "
            f"{sorted(known)}."
        )
    images = pairs_of("--images", args.images)
    for name, path in images.items():
        suite_of(name)
        if not Path(path).exists():
            raise FileNotFoundError(f"--images {name}: file or folder not found: {path}.")

    def agree(plans: "Plans") -> bool:
        table, usd = _plan_table(plans)
        console.print(table)
        return confirm("Go on?", usd=usd, yes=args.yes, console=console)

    args.data = [f"{name}={path}" for name, path in _by_metric("--data", args.data).items()]
    benchmarks = benchmarks_from(args)
    try:
        done = asyncio.run(
            bench(
                models,
                list(dict.fromkeys(suite_of(name) for name in args.suite)),
                lambda metric, cache: _judge(args, metric, cache),
                out=args.out,
                images=images,
                benchmarks=benchmarks,
                repeats=args.repeats,
                captioning=_captioning(args),
                confirm=agree,
                on_step=lambda line: say(console, line),
            )
        )
    except DeclinedError as declined:
        say(console, str(declined))
        return 2
    except KeyboardInterrupt:
        say(console, f"Stopped. Finished work is in {args.out}; rerun the command to continue.")
        return 130
    unscored = False
    for one in done:
        (result,) = one.evaluation.results
        for reason, n in result.missing.items():
            say(console, f"{one.model}, {one.metric}: {n} of {result.n} without a score: {reason}.")
        unscored |= not result.n_scored
    rows = read_folder(args.out)
    baseline = args.baseline or _baseline_of(args.out / "table.json") or models[0].name
    counts = read_counts(args.out)
    found = standings(rows, counts=counts, baseline=baseline, seed=args.seed)
    bill = read_bill(args.out)
    write_tables(args.out, found, baseline, bill)
    console.print(grid_table(standings_grid(found, baseline)))
    for one in found:
        if one.uncompared is not None:
            say(console, f"{one.metric}: not compared: {one.uncompared}")
    say(console, bill_line(bill))
    say(console, f"Table: {args.out}/table.md, .csv, .tex, .json")
    return 1 if unscored else 0


def _models(args: argparse.Namespace) -> "list[BenchModel]":
    from trl_balcap.evals.bench import BenchModel

    models = []
    for given in args.models:
        name, equals, rest = given.partition("=")
        source, url = _with_server("--models", rest if equals else given)
        name = name if equals else source.rstrip("/").rpartition("/")[2]
        models.append(BenchModel(name, source, url))
    for name, path in pairs_of("--captions", args.captions).items():
        models.append(BenchModel(name, path, is_captions=True))
    return models


def _with_server(flag: str, given: str) -> tuple[str, str | None]:
    """`MODEL` or `MODEL@URL`. An empty URL is mostly a shell variable that is not set."""
    model, at, url = given.partition("@")
    if at and not url:
        raise ValueError(f"{flag} {given!r} has no URL after the @. Write MODEL@URL, or MODEL.")
    return model, url or None


def _captioning(args: argparse.Namespace) -> dict[str, Any]:
    settings = {"batch_size": args.batch_size, "placement": placement_from(args)}
    longest = args.max_new_tokens
    return settings if longest is None else {**settings, "max_new_tokens": longest}


def _by_metric(flag: str, given: Sequence[str]) -> dict[str, str]:
    """NAME=PATH entries by metric; NAME may also be a suite."""
    from trl_balcap.evals.suites import SUITES

    pairs = pairs_of(flag, given).items()
    return {SUITES[name].metric if name in SUITES else name: path for name, path in pairs}


def _baseline_of(table: Path) -> str | None:
    """The baseline of the existing table, so that an added model does not become the baseline."""
    return json.loads(table.read_text(encoding="utf-8"))["baseline"] if table.is_file() else None


def _judge(args: argparse.Namespace, metric: str, cache: Path) -> "Judge":
    """The judge of a metric: the one given for it, else the one given for all metrics."""
    from trl_balcap.evals.metrics.registry import METRICS
    from trl_balcap.evals.suites import SUITES

    def of(flag: str, given: list[str]) -> tuple[str, str | None] | None:
        found: dict[str, tuple[str, str | None]] = {}
        for entry in given:
            name, equals, rest = entry.partition("=")
            if not equals or "/" in name:  # a model string may itself contain "="
                name, rest = "", entry
            name = SUITES[name].metric if name in SUITES else name
            if name and name not in METRICS:
                raise ValueError(
                    f"{flag} {entry!r}: unknown metric {name!r}, must be one of {sorted(METRICS)}."
                )
            found[name] = _with_server(flag, rest)
        return found.get(metric, found.get(""))

    text, vision = of("--judge", args.judge), of("--vision-judge", args.vision_judge)
    if text is None:
        raise ValueError(
            f"No judge given for {metric}: pass --judge MODEL or --judge {metric}=MODEL."
        )
    settings: dict[str, Any] = {"model": _placed(*text), "cache": str(cache)}
    if vision is not None:
        settings["vision_model"] = _placed(*vision)
    return judge_from(args, **settings)


def _placed(model: str, url: str | None) -> Any:
    """A judge with its own address, which judges without an address do not inherit."""
    return {"model": model, "api_base": url} if url else model


def _plan_table(plans: "Plans") -> tuple[Table, float | None]:
    from trl_balcap.evals.asking import cost

    table = make_table(
        "Planned judge calls (estimate, without retries)",
        ("model", "metric", "captions", "calls", "dollars"),
        left=2,
    )
    total: float | None = 0.0
    for (model, metric), (plan, judge) in plans.items():
        work = plan.workloads[metric]
        dollars = cost(judge, work)
        total = None if total is None or dollars is None else total + dollars
        shown = "price unknown" if dollars is None else f"{dollars:.2f}"
        table.add_row(model, metric, str(plan.left[metric]), str(work.calls), shown)
    table.add_section()
    table.add_row("all", "", "", "", "price unknown" if total is None else f"{total:.2f}")
    return table, total

"""`trl-balcap leaderboard`: CapArena-Auto's leaderboard with a model of one's own."""

import argparse
import json
from pathlib import Path
from typing import Any

from trl_balcap.commands.score import pairs_of
from trl_balcap.commands.showing import make_console, make_table, say

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add `leaderboard` to the command line."""
    parser = subparsers.add_parser(
        "leaderboard",
        help="place a model on CapArena-Auto's leaderboard",
        description="Ranks the published models of CapArena-Auto by their result files, together "
        "with your own, and exports yours in the official format.",
    )
    parser.add_argument(
        "published", type=Path, help="folder with the result files of the published models"
    )
    parser.add_argument(
        "--add",
        nargs="+",
        default=(),
        metavar="NAME=PATH",
        help="models to add: caparena.jsonl written by score, or a result file",
    )
    parser.add_argument(
        "--export", type=Path, help="folder to write the added models to, in the official format"
    )
    parser.add_argument("--out", type=Path, help="output JSON file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Print the leaderboard.

    Raises:
        `ValueError`: if a file has another format, or a name is taken.
    """
    from trl_balcap.evals.leaderboard import export_result, leaderboard

    console = make_console()
    added = pairs_of("--add", args.add)
    places = leaderboard(args.published, added)
    table = make_table(
        "CapArena-Auto (* added)",
        ("", "model", "avg", "95% interval", "gpt", "cog", "cpm", "words"),
        left=2,
    )
    for number, place in enumerate(places, start=1):
        average, *others, length = place.scores.values()
        interval = "-" if average.low is None else f"{average.low:.1f}, {average.high:.1f}"
        numbers = [f"{one.value:.2f}" for one in (average, *others, length)]
        mark = "*" if place.is_new else ""
        table.add_row(f"{number}{mark}", place.model, numbers[0], interval, *numbers[1:])
    console.print(table)
    if args.out is not None:
        content = [
            {**place._asdict(), "scores": {n: e._asdict() for n, e in place.scores.items()}}
            for place in places
        ]
        args.out.write_text(json.dumps(content, indent=2), encoding="utf-8")
    if args.export is not None:
        for model, path in added.items():
            if Path(path).suffix == ".json":
                raise ValueError(f"{path} is in the official format already: nothing to export.")
            for written in export_result(path, args.export, model):
                say(console, f"Written: {written}")
    return 0

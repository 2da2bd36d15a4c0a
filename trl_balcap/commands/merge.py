"""`trl-balcap merge`: one caption file, or one folder of scores, from the shards of machines."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from trl_balcap.commands.showing import make_console, say

if TYPE_CHECKING:
    from trl_balcap.captioning.shards import Merged

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add `merge` to the command line."""
    parser = subparsers.add_parser(
        "merge",
        help="merge what `caption --shard` or `score --shard` wrote into one",
        description="Merges the caption files of all shards into one, in the order of the images, "
        "or their folders of scores. It checks that no shard and no row is missing or there twice, "
        "and that all were made alike.",
    )
    parser.add_argument(
        "shards", nargs="+", type=Path, help="caption files, or folders of scores, of all shards"
    )
    parser.add_argument("--out", type=Path, required=True, help="output JSONL file, or folder")
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="merge even if images have no row, such as unreadable ones",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Merge the shards.

    Raises:
        `FileNotFoundError`: if a file does not exist.
        `ValueError`: if the shards do not make one whole.
    """
    console = make_console()
    if any(path.is_dir() for path in args.shards):
        return _merge_scores(args, console)
    from trl_balcap.captioning.shards import merge_shards

    merged = merge_shards(args.shards, args.out, allow_missing=args.allow_missing)
    _say_merged(merged, "captions", len(args.shards), console)
    return 0


def _merge_scores(args: argparse.Namespace, console: Console) -> int:
    from trl_balcap.evals.merging import merge_scores

    files = [path for path in args.shards if not path.is_dir()]
    if files:
        raise ValueError(f"{files[0]} is not a folder. Merge captions and scores one by one.")
    for name, merged in merge_scores(
        args.shards, args.out, allow_missing=args.allow_missing
    ).items():
        _say_merged(merged, f"rows of {name}", len(args.shards), console)
    say(
        console,
        f"For the table, score all captions once more without --shard, with --out {args.out}: "
        "nothing is asked again.",
    )
    return 0


def _say_merged(merged: "Merged", what: str, n_shards: int, console: Console) -> None:
    for identity in merged.missing:
        say(console, f"no row: {identity}")
    say(
        console,
        f"{merged.out}: {merged.written} {what} of {n_shards} shards, {len(merged.missing)} images "
        "without one.",
    )

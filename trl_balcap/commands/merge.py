"""`trl-balcap merge`: one caption file from the shards of several machines."""

import argparse
from pathlib import Path
from typing import Any

from trl_balcap.commands.showing import make_console, say

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add `merge` to the command line."""
    parser = subparsers.add_parser(
        "merge",
        help="merge the files of `caption --shard` into one",
        description="Merges the caption files of all shards into one, in the order of the images. "
        "It checks that no shard and no caption is missing or there twice, and that all were made "
        "alike.",
    )
    parser.add_argument("shards", nargs="+", type=Path, help="caption files of all shards")
    parser.add_argument("--out", type=Path, required=True, help="output JSONL file")
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="merge even if images have no caption, such as unreadable ones",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Merge the shards.

    Raises:
        `FileNotFoundError`: if a file does not exist.
        `ValueError`: if the shards do not make one whole.
    """
    from trl_balcap.captioning.shards import merge_shards

    merged = merge_shards(args.shards, args.out, allow_missing=args.allow_missing)
    console = make_console()
    for identity in merged.missing:
        say(console, f"no caption: {identity}")
    say(
        console,
        f"{merged.out}: {merged.written} captions of {len(args.shards)} shards, "
        f"{len(merged.missing)} images without one.",
    )
    return 0

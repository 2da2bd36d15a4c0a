"""`trl-balcap scenes make`: a folder of drawn scenes with captions."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from trl_balcap.scenes.make import write_scenes

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add `make` to the subcommands of `trl-balcap scenes`."""
    parser = subparsers.add_parser(
        "make", help="draw scenes and write them with their reference captions"
    )
    parser.add_argument("--n", type=int, required=True, help="number of scenes")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes (default: 0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the scenes that `trl-balcap scenes make` asks for."""
    captions = write_scenes(args.out, args.n, args.seed)
    Console().print(f"{args.n} scenes in {captions}")
    return 0

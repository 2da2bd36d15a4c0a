"""`trl-balcap examples`: copy the example scripts and recipes into a folder."""

import argparse
import shutil
from pathlib import Path
from typing import Any

import trl_balcap
from trl_balcap.commands.showing import make_console, say
from trl_balcap.data.folders import check_out_folder

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add `examples` to the command line."""
    parser = subparsers.add_parser(
        "examples", help="copy the training scripts, recipes and accelerate configs into a folder"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("examples"), help="output folder (default: examples)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Copy the examples that ship with the package.

    Raises:
        `FileExistsError`: if `--out` already contains files.
    """
    check_out_folder(args.out)
    if args.out.exists() and any(args.out.iterdir()):
        raise FileExistsError(
            f"{args.out} already contains files. Choose another folder with --out."
        )
    package = Path(trl_balcap.__file__).parent
    # The wheel has them inside the package, a clone next to it.
    inside, beside = package / "examples", package.parent / "examples"
    source = inside if inside.is_dir() else beside
    shutil.copytree(
        source, args.out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    console = make_console()
    for path in sorted(args.out.rglob("*.*")):
        say(console, str(path))
    return 0

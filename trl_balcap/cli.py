"""The `trl-balcap` command: its subcommands, each in a module of `commands`."""

import argparse
import logging
import sys
from importlib import import_module

from trl_balcap import __version__
from trl_balcap.commands.flags import Parser, dashed
from trl_balcap.quiet import hush

__all__ = ["COMMANDS", "build_parser", "main"]

COMMANDS = (
    "demo",
    "examples",
    "plan",
    "exam",
    "calibrate",
    "recaption",
    "references",
    "make-questions",
    "caption",
    "merge",
    "score",
    "bench",
    "agree",
    "leaderboard",
    "report",
    "scenes",
)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line. Slow imports wait until a command runs."""
    parser = Parser(
        prog="trl-balcap", description="Train image captioners with rewards from a judge."
    )
    parser.add_argument("--version", action="version", version=f"trl-balcap {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        import_module(f"trl_balcap.commands.{name.replace('-', '_')}").add_parser(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        argv (`list[str]`, *optional*):
            Arguments without the program's name. Defaults to `sys.argv[1:]`.

    Returns:
        `int`: exit status: 1 for unusable input, with a one-line message; 130 after Ctrl-C.
    """
    try:
        args = build_parser().parse_args(dashed(sys.argv[1:] if argv is None else argv))
        hush()
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
        return args.run(args)
    except KeyboardInterrupt:
        sys.stderr.write("\ntrl-balcap: stopped by Ctrl-C.\n")
        return 130
    except (ValueError, OSError) as error:
        # The user's input is at fault and the message explains it; a traceback would bury it.
        sys.stderr.write(f"trl-balcap: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())

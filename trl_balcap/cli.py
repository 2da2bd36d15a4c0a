"""The `trl-balcap` command: names of subcommands, each in a module of `commands`."""

import argparse
import logging
import sys
from importlib import import_module

__all__ = ["main"]

COMMANDS = ("demo", "plan", "calibrate", "caption", "score", "agree")
SCENES = {
    "make": "trl_balcap.commands.scenes_make",
    "serve": "trl_balcap.scenes.server",
}


def main(argv: list[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        argv (`list[str]`, *optional*):
            Arguments without the program's name; defaults to the process's.

    Returns:
        `int`: exit status; 1 for input that cannot be used, which is said in one line.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="trl-balcap", description="Reinforcement learning of image captioners under judges."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    # The modules bring torch with them, so only the one that is asked for is imported.
    asked = argv[:1] if argv and argv[0] in (*COMMANDS, "scenes") else [*COMMANDS, "scenes"]
    for name in asked:
        if name != "scenes":
            import_module(f"trl_balcap.commands.{name}").add_parser(commands)
    if "scenes" in asked:
        scenes = commands.add_parser("scenes", help="the embedded world and its exact judge")
        parts = scenes.add_subparsers(required=True, metavar="PART")
        for module in SCENES.values():
            import_module(module).add_parser(parts)
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    try:
        return args.run(args)
    except (ValueError, OSError) as error:
        # What the user typed or gave is at fault, and the message says how; a traceback would hide it.
        parser.exit(1, f"trl-balcap: {error}\n")


if __name__ == "__main__":
    sys.exit(main())

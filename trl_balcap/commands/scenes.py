"""`trl-balcap scenes`: write drawn scenes, serve their exact judge, train their captioner."""

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from trl_balcap.commands.showing import make_console, say

__all__ = ["add_parser"]

_Kind = TypeVar("_Kind")


def add_parser(subparsers: Any) -> None:
    """Add `scenes` and its subcommands to the command line."""
    scenes = subparsers.add_parser("scenes", help="drawn scenes and their exact judge")
    parts = scenes.add_subparsers(required=True, metavar="PART")

    make = parts.add_parser("make", help="draw scenes and write them with their captions")
    make.add_argument("--n", type=int, required=True, help="number of scenes")
    make.add_argument("--out", type=Path, required=True, help="output folder")
    make.add_argument("--seed", type=int, default=0, help="seed of the scenes (default: 0)")
    make.add_argument(
        "--benchmarks",
        action="store_true",
        help="also write DCScore, CaptionQA and CapArena data, and captions to score",
    )
    make.set_defaults(run=run_make)

    serve = parts.add_parser(
        "serve",
        help="serve the exact judge of scenes over HTTP",
        description="Serves the exact judge of scenes over HTTP, in the OpenAI chat format. "
        "Clients use the model `openai/oracle` with the printed URL as api_base.",
    )
    serve.add_argument("--port", type=int, default=8000, help="0 picks a free port (default: 8000)")
    serve.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    serve.add_argument("--latency", type=float, default=0.0, help="seconds per answer (default: 0)")
    serve.add_argument("--api-key", help="the only key accepted (default: no key needed)")
    serve.add_argument(
        "--model",
        action="append",
        help="model name to serve, repeatable (default: oracle and scenes/oracle)",
    )
    serve.add_argument(
        "--faults",
        default="{}",
        help='fault rates as a JSON object, such as \'{"stall": 0.1, "seed": 1}\'',
    )
    serve.add_argument(
        "--noise",
        default="{}",
        help='judge noise as a JSON object, such as \'{"linguistic": 0.5, "flip": 0.1}\'',
    )
    serve.set_defaults(run=run_serve)

    captioner = parts.add_parser(
        "captioner", help="train the bundled captioner from scratch (ten minutes on one core)"
    )
    captioner.add_argument("--out", type=Path, required=True, help="output folder")
    captioner.add_argument("--seed", type=int, default=0, help="default: 0")
    captioner.add_argument("--clean-steps", type=int, default=700, help="default: 700")
    captioner.add_argument("--weak-steps", type=int, default=600, help="default: 600")
    captioner.set_defaults(run=run_captioner)


def run_make(args: argparse.Namespace) -> int:
    """Write the scenes."""
    from trl_balcap.scenes.benchmarks import write_benchmarks
    from trl_balcap.scenes.make import write_scenes

    console = make_console()
    if args.benchmarks:
        for name, path in write_benchmarks(args.out, args.n, args.seed).items():
            say(console, f"{name}: {path}")
        return 0
    captions = write_scenes(args.out, args.n, args.seed)
    say(console, f"{args.n} scenes in {captions}")
    return 0


def run_serve(args: argparse.Namespace) -> int:
    """
    Serve until interrupted. The first line on stdout is the URL.

    Raises:
        `ValueError`: if the port, `--faults` or `--noise` is invalid; the message says what is
            allowed.
        `OSError`: if the port is taken.
    """
    from trl_balcap.scenes.noise import Noise
    from trl_balcap.scenes.server import serve_forever
    from trl_balcap.scenes.server_faults import ServerFaults

    console = make_console()
    serve_forever(
        models=args.model,
        latency=args.latency,
        api_key=args.api_key,
        faults=_from_json(ServerFaults, args.faults, "--faults"),
        noise=_from_json(Noise, args.noise, "--noise"),
        host=args.host,
        port=args.port,
        on_listening=lambda url: say(console, url),
    )
    return 0


def _from_json(kind: type[_Kind], text: str, flag: str) -> _Kind:
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{flag} is not valid JSON ({error.msg}): {text!r}.") from error
    if not isinstance(values, dict) or not set(values) <= set(known):
        raise ValueError(f"{flag} must be a JSON object with keys from {known}, got {text!r}.")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{flag} takes numbers as values, got {text!r}.") from error


def run_captioner(args: argparse.Namespace) -> int:
    """Train the captioner and save it in half precision."""
    from trl_balcap.scenes.build_captioner import build_captioner

    console = make_console()
    build_captioner(
        args.out,
        seed=args.seed,
        clean_steps=args.clean_steps,
        weak_steps=args.weak_steps,
        report=lambda line: say(console, line),
    )
    return 0

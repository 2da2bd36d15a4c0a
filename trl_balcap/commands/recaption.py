"""`trl-balcap recaption`: write reference captions for images with a strong model."""

import argparse
import asyncio
from pathlib import Path
from typing import Any

from trl_balcap.commands.flags import add_photo_flags
from trl_balcap.commands.judging import add_judge_flags, judge_settings
from trl_balcap.commands.showing import Consent, make_console, make_progress, say, spent

__all__ = ["add_parser", "run"]

# Settings that recaptioning fixes itself or does not use.
_WITHOUT = ("profile", "max_unscored", "batch_deadline", "structured", "max_pixels", "extra")


def add_parser(subparsers: Any) -> None:
    """Add `recaption` to the command line."""
    parser = subparsers.add_parser(
        "recaption",
        help="write reference captions for images with a strong model",
        description="Writes a reference caption for each image into a JSONL file to train on. The "
        "cost is shown first. An interrupted run resumes where it stopped.",
    )
    parser.add_argument("photos", help="folder, list of images, or one image")
    parser.add_argument(
        "--model", required=True, help="litellm model string of the model that writes"
    )
    parser.add_argument(
        "--model-api-base",
        help="URL of the server of --model, if it differs from that of --judge; each of the two "
        "then has its own budget",
    )
    parser.add_argument("--out", type=Path, required=True, help="output JSONL file")
    parser.add_argument(
        "--words", type=int, default=150, help="words asked for per reference (default: 150)"
    )
    parser.add_argument("--prompt", help="prompt to use instead of the built-in one")
    parser.add_argument(
        "--max-reference-tokens",
        type=int,
        default=1024,
        help="token limit; references that reach it are left out (default: 1024)",
    )
    parser.add_argument(
        "--samples", type=int, default=1, help="captions per image, of which the best is kept"
    )
    parser.add_argument(
        "--pick",
        choices=("b-capscore-free", "precision"),
        default="b-capscore-free",
        help="how --judge picks the best: by precision, language and agreement with the other "
        "samples, or by the first two only (default: b-capscore-free)",
    )
    parser.add_argument(
        "--sampling-temperature",
        type=float,
        help="temperature of --model (default: 0, or 0.8 with several samples)",
    )
    add_photo_flags(parser)
    add_judge_flags(parser, without=_WITHOUT)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Write the references.

    Returns:
        `int`: 0; 1 if no image has a reference; 2 if the cost was declined.

    Raises:
        `ValueError`: if there is nothing to caption, or the arguments contradict each other.
    """
    from trl_balcap.captioning.recaption import (
        Recaption,
        recaption,
        recaption_cost,
        recaption_prompt,
    )
    from trl_balcap.captioning.run import list_images
    from trl_balcap.judge import Judge

    temperature = args.sampling_temperature
    if temperature is None:
        temperature = 0.8 if args.samples > 1 else 0.0
    how = Recaption(
        args.model,
        recaption_prompt(args.words) if args.prompt is None else args.prompt,
        max_tokens=args.max_reference_tokens,
        temperature=temperature,
        samples=args.samples,
        pick=args.pick,
        max_pixels=args.image_pixels,
    )
    if args.judge_model is not None and args.samples == 1:
        raise ValueError(
            "--judge picks the best of several captions: pass --samples too, such as 4."
        )
    if args.judge_model is None and args.samples > 1:
        raise ValueError(f"--samples {args.samples} needs --judge MODEL to pick the best.")
    rows = list_images(args.photos, image_folder=args.image_folder, out=args.out, columns=True)
    settings = judge_settings(args)
    judge = Judge(**settings) if args.judge_model is not None else None
    # One engine for both if possible, so that limits, budget and cache are shared.
    writer = judge
    if judge is None or args.model_api_base is not None:
        own = {"model": args.model, "vision_model": None}
        own |= {"api_base": args.model_api_base} if args.model_api_base is not None else {}
        writer = Judge(**settings | own)
    assert writer is not None
    console = make_console()

    def takes(left: int) -> tuple[str, float | None]:
        cost = recaption_cost(left, how, args.words, writer, judge)
        asked = f", {cost.judge_calls} questions to {args.judge_model}"
        said = f"{cost.writer_calls} captions by {args.model}{asked if cost.judge_calls else ''}"
        return said, cost.usd

    with make_progress(console) as progress:
        bar = progress.add_task("recaptioning", total=len(rows))
        agree = Consent(
            "Ask the model?", bar, takes, yes=args.yes, console=console, progress=progress
        )
        done = asyncio.run(
            recaption(
                rows,
                args.out,
                how,
                writer,
                judge,
                agree=agree,
                on_row=lambda: progress.advance(bar),
            )
        )
    if agree.declined:
        return 2
    for message in done.skipped:
        say(console, f"skipped {message}")
    paid = [engine for engine in (writer, judge) if engine is not None]
    say(
        console,
        f"{done.out}: {done.written} references written, {done.kept} already there, "
        f"{len(rows) - done.written - done.kept} images without one.{spent(paid)}",
    )
    return 0 if done.written + done.kept else 1

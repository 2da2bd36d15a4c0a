"""`trl-balcap make-questions`: write multiple-choice questions to train captioners with."""

import argparse
import asyncio
from pathlib import Path
from typing import Any

from trl_balcap.commands.flags import add_photo_flags
from trl_balcap.commands.judging import add_judge_flags, judge_from
from trl_balcap.commands.showing import Consent, make_console, make_progress, say, spent

__all__ = ["add_parser", "run"]

# Settings that do not apply to questions, or have their own flag.
_WITHOUT = ("profile", "max_unscored", "batch_deadline", "max_pixels")


def add_parser(subparsers: Any) -> None:
    """Add `make-questions` to the command line."""
    parser = subparsers.add_parser(
        "make-questions",
        help="write questions that can only be answered by looking at the image",
        description="Writes multiple-choice questions about each image into a JSONL file for "
        "UtilityReward, keeping those that --judge answers correctly with the image but cannot "
        "guess without it. The cost is shown first. An interrupted run resumes where it stopped.",
    )
    parser.add_argument("photos", help="folder, list of images, or one image")
    parser.add_argument("--out", type=Path, required=True, help="output JSONL file")
    parser.add_argument(
        "--count", type=int, default=5, help="questions per image before filtering (default: 5)"
    )
    parser.add_argument(
        "--shuffles",
        type=int,
        default=4,
        help="option orders in which to answer each question, with and without the image "
        "(default: 4)",
    )
    add_photo_flags(parser)
    add_judge_flags(parser, required=True, without=_WITHOUT)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Write the questions.

    Returns:
        `int`: 0; 1 if no image has a question; 2 if the cost was declined.

    Raises:
        `ValueError`: if there are no images, or a number is out of range.
    """
    from trl_balcap.captioning.questions import QuestionsRecipe, make_questions, questions_cost
    from trl_balcap.captioning.run import list_images

    judge = judge_from(args)
    how = QuestionsRecipe(repr(judge), args.count, args.shuffles, args.image_pixels)
    rows = list_images(args.photos, image_folder=args.image_folder, out=args.out, columns=True)
    console = make_console()

    def takes(left: int) -> tuple[str, float | None]:
        cost = questions_cost(left, how, judge)
        said = f"at most {cost.calls} calls, {cost.calls_with_image} of them with an image"
        return said, cost.usd

    with make_progress(console) as progress:
        bar = progress.add_task("asking", total=len(rows))
        agree = Consent(
            "Ask the judge?", bar, takes, yes=args.yes, console=console, progress=progress
        )
        done = asyncio.run(
            make_questions(
                rows, args.out, how, judge, agree=agree, on_row=lambda: progress.advance(bar)
            )
        )
    if agree.declined:
        return 2
    for message in done.skipped:
        say(console, f"skipped {message}")
    say(
        console,
        f"{done.out}: questions about {done.written} images written, {done.kept} already there, "
        f"{len(rows) - done.written - done.kept} images without any.{spent([judge])}",
    )
    return 0 if done.written + done.kept else 1

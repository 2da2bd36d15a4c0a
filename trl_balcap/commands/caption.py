"""`trl-balcap caption`: caption images with any model."""

import argparse
from pathlib import Path
from typing import Any

from trl_balcap.commands.showing import make_console, make_progress, say

__all__ = ["add_parser", "run"]

# Copied from `caption_images`, which is slow to import; a test keeps them equal.
PROMPT = "Describe the image in detail."
MAX_PIXELS = 512 * 28 * 28


def add_parser(subparsers: Any) -> None:
    """Add `caption` to the command line."""
    parser = subparsers.add_parser(
        "caption",
        help="caption images with any image-text-to-text model or adapter",
        description="Captions images into a JSONL file for `trl-balcap score`. An interrupted run "
        "resumes where it stopped.",
    )
    parser.add_argument(
        "model", help="checkpoint or PEFT adapter, or a litellm model string for an API"
    )
    parser.add_argument("images", help='folder, JSONL with "image", or one image')
    parser.add_argument("--out", type=Path, required=True, help="output JSONL file")
    parser.add_argument("--image-folder", help="folder that listed image paths are relative to")
    parser.add_argument(
        "--prompt", help=f"prompt (default: the one the model was trained with, else {PROMPT!r})"
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "transformers", "vllm", "api"),
        default="auto",
        help="auto: api with --api-base, else vllm if installed, else transformers",
    )
    parser.add_argument("--api-base", help="URL of an OpenAI-compatible server")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="default: 512")
    parser.add_argument("--temperature", type=float, default=0.0, help="default: 0, greedy")
    parser.add_argument("--batch-size", type=int, default=8, help="default: 8")
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        help=f"larger images are scaled down (default: {MAX_PIXELS})",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Caption the images.

    Returns:
        `int`: 0, or 1 if no image has a caption.

    Raises:
        `ValueError`: if there is nothing to caption, or the arguments contradict each other.
    """
    from transformers.utils import logging as transformers_logging

    from trl_balcap.captioning.run import caption_images, list_images

    transformers_logging.disable_progress_bar()  # we show our own
    console = make_console()
    with make_progress(console) as progress:
        bar = progress.add_task("captioning", total=None)
        done = caption_images(
            args.model,
            list_images(args.images, image_folder=args.image_folder),
            args.out,
            prompt=args.prompt,
            engine=args.engine,
            api_base=args.api_base,
            max_new_tokens=args.max_new_tokens,
            temperature=args.temperature,
            batch_size=args.batch_size,
            max_pixels=args.max_pixels,
            on_total=lambda total, there: progress.update(bar, total=total, completed=there),
            on_caption=lambda: progress.advance(bar),
        )
    for message in done.skipped:
        say(console, f"skipped {message}")
    say(
        console,
        f"{done.out}: {done.written} captions written, {done.kept} already there, "
        f"{len(done.skipped)} images skipped.",
    )
    return 0 if done.written + done.kept else 1

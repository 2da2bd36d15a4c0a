"""`trl-balcap caption`: captions of images, by any model."""

import argparse
from pathlib import Path
from typing import Any

from trl_balcap.commands.showing import make_console, make_progress, say

__all__ = ["add_parser", "run"]

# Those of `caption_images`, which is slow to import; a test holds them together.
PROMPT = "Describe the image in detail."
MAX_PIXELS = 512 * 28 * 28


def add_parser(subparsers: Any) -> None:
    """Add `caption` to the command line."""
    parser = subparsers.add_parser(
        "caption",
        help="caption images with any image-text-to-text model or adapter",
        description="Captions images into a JSONL file that `trl-balcap score` reads. A run that "
        "was stopped goes on where it stopped.",
    )
    parser.add_argument(
        "model", help="checkpoint or PEFT adapter; for an API, a litellm model string"
    )
    parser.add_argument("images", help='folder, JSONL with "image", or one image')
    parser.add_argument("--out", type=Path, required=True, help="JSONL file to write")
    parser.add_argument("--image-folder", help="folder that image paths in a list are relative to")
    parser.add_argument(
        "--prompt", help=f"default: the one that the folder's model was trained with, or {PROMPT!r}"
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "transformers", "vllm", "api"),
        default="auto",
        help="auto: api with --api-base, vLLM where installed, else transformers",
    )
    parser.add_argument("--api-base", help="URL of an OpenAI-compatible server")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="default: 512")
    parser.add_argument("--temperature", type=float, default=0.0, help="default: 0, greedy")
    parser.add_argument("--batch-size", type=int, default=8, help="default: 8")
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        help=f"larger images are made smaller (default: {MAX_PIXELS})",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Caption the images.

    Returns:
        `int`: 0, or 1 if no image has a caption.

    Raises:
        `ValueError`: if there is nothing to caption, or the arguments do not fit together.
    """
    from transformers.utils import logging as transformers_logging

    from trl_balcap.captioning.run import caption_images, list_images

    transformers_logging.disable_progress_bar()  # ours is enough
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
        f"{done.out}: {done.written} captions written, {done.kept} there already, "
        f"{len(done.skipped)} images skipped.",
    )
    return 0 if done.written + done.kept else 1

"""`trl-balcap caption`: captions of images, by any model."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trl_balcap.captioning.run import caption_images
from trl_balcap.data import DEFAULT_PROMPT
from trl_balcap.data.images import DEFAULT_MAX_PIXELS

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add `caption` to the command line."""
    parser = subparsers.add_parser(
        "caption",
        help="caption images with any image-text-to-text model or adapter",
        description="Captions images into a JSONL file that `trl-balcap score` reads. A run that was "
        "stopped goes on where it stopped.",
    )
    parser.add_argument(
        "model", help="checkpoint or PEFT adapter; for an API, a litellm model string"
    )
    parser.add_argument("images", help='folder, JSONL with "image", or one image')
    parser.add_argument("--out", type=Path, required=True, help="JSONL file to write")
    parser.add_argument("--prompt", default=DEFAULT_PROMPT, help=f"default: {DEFAULT_PROMPT!r}")
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
        default=DEFAULT_MAX_PIXELS,
        help=f"larger images are made smaller (default: {DEFAULT_MAX_PIXELS})",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Caption the images.

    Returns:
        `int`: 0, or 1 if no image has a caption.

    Raises:
        ValueError: If there is nothing to caption, or the arguments do not fit together.
    """
    console = Console()
    with Progress(
        TextColumn("captioning"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        bar = progress.add_task("captions", total=None)
        done = caption_images(
            args.model,
            args.images,
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
        console.print(f"skipped {message}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{done.out}: {done.written} captions written, {done.kept} there already, "
        f"{len(done.skipped)} images skipped.",
        highlight=False,
        soft_wrap=True,
    )
    return 0 if done.written + done.kept else 1

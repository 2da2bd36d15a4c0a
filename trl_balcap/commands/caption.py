"""`trl-balcap caption`: caption images with any model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl_balcap.commands.placing import add_placement_flags, placement_from
from trl_balcap.commands.showing import make_console, make_progress, say

if TYPE_CHECKING:
    from trl_balcap.captioning.listing import ImageRow, Images

__all__ = ["add_parser", "run"]

# Copied from `caption_images`, which is slow to import; a test keeps them equal.
PROMPT = "Describe the image in detail."
MAX_PIXELS = 512 * 28 * 28
MAX_NEW_TOKENS = 512
SUITES = ("b-capscore", "decapbench", "captionqa", "caparena", "prism")


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
    parser.add_argument(
        "images",
        help='folder, JSONL with "image", one image, a dataset with the images inside (saved, in '
        "Parquet, in WebDataset shards, or on the Hub; read as a stream), or the name of a "
        "benchmark that has one: captionqa",
    )
    parser.add_argument("--out", type=Path, required=True, help="output JSONL file")
    parser.add_argument("--image-folder", help="folder that listed image paths are relative to")
    parser.add_argument(
        "--prompt", help=f"prompt (default: the one the model was trained with, else {PROMPT!r})"
    )
    parser.add_argument(
        "--suite",
        choices=SUITES,
        help="caption as this benchmark wants it: its prompt, longest caption, bound on pixels, "
        "and names of images",
    )
    parser.add_argument("--split", help="split of a dataset (default: train; all for captionqa)")
    parser.add_argument(
        "--engine",
        choices=("auto", "transformers", "vllm", "api"),
        default="auto",
        help="auto: api with --api-base, else vllm if installed, else transformers",
    )
    parser.add_argument(
        "--api-base",
        action="append",
        metavar="URL",
        help="an OpenAI-compatible server; repeat it for several servers of the same model",
    )
    parser.add_argument(
        "--max-new-tokens", type=int, help=f"default: {MAX_NEW_TOKENS}, or the suite's"
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="default: 0, greedy")
    parser.add_argument("--seed", type=int, help="of the sampling, on this machine")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=8,
        help="images at a time; with --api-base, requests in flight at each server (default: 8)",
    )
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="caption only the I-th of N parts: every N-th image, or a dataset's I-th files; "
        "`trl-balcap merge` joins them",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        help=f"larger images are scaled down (default: {MAX_PIXELS}, or the suite's)",
    )
    add_placement_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Caption the images.

    Returns:
        `int`: 0, or 1 if no image has a caption; a shard may have no image.

    Raises:
        `ValueError`: if there is nothing to caption, or the arguments contradict each other.
    """
    from transformers.utils import logging as transformers_logging

    from trl_balcap.captioning.run import caption_images

    transformers_logging.disable_progress_bar()  # we show our own
    console = make_console()
    rows, wanted = _rows_and_settings(args)
    with make_progress(console) as progress:
        bar = progress.add_task("captioning", total=None)
        done = caption_images(
            args.model,
            rows,
            args.out,
            engine=args.engine,
            api_base=args.api_base,
            temperature=args.temperature,
            batch_size=args.batch_size,
            seed=args.seed,
            shard=args.shard,
            placement=placement_from(args),
            on_total=lambda total, there: progress.update(bar, total=total, completed=there),
            on_caption=lambda: progress.advance(bar),
            **wanted,
        )
    for message in done.skipped:
        say(console, f"skipped {message}")
    say(
        console,
        f"{done.out}: {done.written} captions written, {done.kept} already there, "
        f"{len(done.skipped)} images skipped.",
    )
    return 0 if done.written + done.kept or not done.skipped else 1


def _rows_and_settings(
    args: argparse.Namespace,
) -> "tuple[Images | list[ImageRow], dict[str, Any]]":
    """The images, and what a suite says of captioning them where no flag says otherwise."""
    from trl_balcap.captioning.listing import open_images

    wanted = {
        "prompt": args.prompt,
        "max_new_tokens": args.max_new_tokens,
        "max_pixels": args.max_pixels,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    defaults = {"prompt": None, "max_new_tokens": MAX_NEW_TOKENS, "max_pixels": MAX_PIXELS}
    store = args.out.with_name(f"{args.out.stem}-images")
    suite = args.suite or (args.images if args.images in SUITES else None)
    if suite is None:
        rows = open_images(
            args.images,
            image_folder=args.image_folder,
            split=args.split or "train",
            store=store,
            out=args.out,
        )
        return rows, {**defaults, **given}
    from trl_balcap.evals.suites import suite_images, suite_of

    if args.image_folder is not None:
        raise ValueError(f"--image-folder goes with a list of one's own; {suite} names its images.")
    found = suite_of(suite)
    source = None if args.images in SUITES else args.images
    rows = suite_images(found, source, split=args.split or "all", store=store)
    return rows, {**found.generation(), **given}

"""`trl-balcap demo`: train the tiny captioner on drawn scenes, with scores before and after."""

import argparse
from typing import TYPE_CHECKING, Any

from rich.progress import Progress
from rich.table import Table

from trl_balcap.commands.showing import make_console, make_progress, make_table, say

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from trl_balcap.demo import HeldOutScores

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add `demo` to the command line."""
    parser = subparsers.add_parser(
        "demo", help="train the tiny captioner on drawn scenes and compare before and after"
    )
    parser.add_argument("--out", default="runs/demo", help="output folder (default: runs/demo)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--steps", type=int, default=120, help="optimizer steps (default: 120)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Train the demo's captioner, and show its scores before and after.

    Raises:
        `FileExistsError`: if `--out` already contains a run.
        `ValueError`: if `--steps` is less than one.
    """
    console = make_console()
    say(console, f"Training a tiny Qwen2.5-VL to caption drawn scenes, {args.steps} steps, on CPU.")
    say(console, "Loading PyTorch and TRL takes a few seconds.")

    from transformers.utils import logging as transformers_logging

    from trl_balcap.demo.run import run_demo

    transformers_logging.disable_progress_bar()  # loading takes no time here
    transformers_logging.set_verbosity_error()
    with make_progress(console) as progress:
        bars: dict[str, Any] = {}

        def on_evaluated(when: str) -> None:
            if when not in bars:
                bars[when] = progress.add_task(f"captions {when}", total=2)
            progress.advance(bars[when])

        results = run_demo(
            args.out,
            seed=args.seed,
            max_steps=args.steps,
            callbacks=[_reward_bar(progress)],
            on_evaluated=on_evaluated,
        )
    console.print(_table(results))
    say(console, f"Checkpoint, captions, reward curves and this table are in {args.out}")
    say(
        console, f"Open {args.out}/report.html in a browser to see every caption with its verdicts."
    )
    return 0


def _reward_bar(progress: Progress) -> "TrainerCallback":
    """A progress bar that shows the three mean rewards of the step."""
    from transformers import TrainerCallback

    class RewardBar(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.task = progress.add_task("training", total=state.max_steps)

        def on_log(self, args, state, control, logs=None, **kwargs):
            means = [
                f"{name[0].upper()} {value:.2f}"
                for name in ("precision", "recall", "linguistic")
                if (value := (logs or {}).get(f"rewards/{name}_reward/mean")) is not None
            ]
            if means:
                progress.update(
                    self.task,
                    completed=state.global_step,
                    description="training  " + "  ".join(means),
                )

    return RewardBar()


def _table(results: "dict[str, tuple[HeldOutScores, HeldOutScores]]") -> Table:
    from trl_balcap.demo.run import table_row

    rows = {name: [table_row(scores) for scores in pair] for name, pair in results.items()}
    labels = {
        "precision": "precision",
        "recall": "recall",
        "linguistic": "linguistic",
        "b_capscore": "b-CapScore",
        "mean_length_ratio": "mean length ratio",
    }
    [(scores, _), *_] = results.values()
    return make_table(
        f"{len(scores.captions)} held-out scenes, before | after",
        ["", *results],
        [
            [
                label,
                *(f"{_show(before[key])} | {_show(after[key])}" for before, after in rows.values()),
            ]
            for key, label in labels.items()
        ],
    )


def _show(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"

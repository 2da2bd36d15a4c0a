"""`trl-balcap demo`: the tiny captioner trained on drawn scenes, before and after."""

import argparse
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

from trl_balcap.demo.run import HELD_OUT_SCENES, Evaluation, run_demo, table_row

__all__ = ["add_parser", "run"]


class _RewardBar(TrainerCallback):
    """A progress bar that shows the three rewards of the step."""

    def __init__(self, progress: Progress):
        self.progress = progress

    def on_train_begin(self, args, state, control, **kwargs):
        self.task = self.progress.add_task("training", total=state.max_steps)

    def on_log(self, args, state, control, logs=None, **kwargs):
        means = [
            f"{name[0].upper()} {value:.2f}"
            for name in ("precision", "recall", "linguistic")
            if (value := (logs or {}).get(f"rewards/{name}_reward/mean")) is not None
        ]
        if means:
            self.progress.update(
                self.task, completed=state.global_step, description="training  " + "  ".join(means)
            )


def _table(results: dict[str, tuple[Evaluation, Evaluation]]) -> Table:
    table = Table(title=f"{HELD_OUT_SCENES} held-out scenes, before | after")
    table.add_column("")
    for name in results:
        table.add_column(f"{name}", justify="right")
    rows = {name: [table_row(evaluation) for evaluation in pair] for name, pair in results.items()}
    labels = {
        "precision": "precision",
        "recall": "recall",
        "linguistic": "linguistic",
        "b_capscore": "b-CapScore",
        "mean_length_ratio": "mean length ratio",
    }
    for key, label in labels.items():
        cells = [f"{_show(before[key])} | {_show(after[key])}" for before, after in rows.values()]
        table.add_row(label, *cells)
    return table


def _show(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "demo", help="train the tiny captioner on drawn scenes and compare before and after"
    )
    parser.add_argument("--out", default="runs/demo", help="run folder (default: runs/demo)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=120, help="optimizer steps (default: 120)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    transformers_logging.disable_progress_bar()  # loading takes no time here
    transformers_logging.set_verbosity_error()
    console = Console()
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with progress:
        evaluating = {"before": progress.add_task("captions before", total=2)}

        def on_evaluated(when: str) -> None:
            if when not in evaluating:
                evaluating[when] = progress.add_task(f"captions {when}", total=2)
            progress.advance(evaluating[when])

        results = run_demo(
            args.out,
            seed=args.seed,
            max_steps=args.steps,
            callbacks=[_RewardBar(progress)],
            on_evaluated=on_evaluated,
        )
    console.print(_table(results))
    console.print(f"Checkpoint, captions, reward curves and this table are in {args.out}")
    return 0

"""Callbacks of [`BalCapTrainer`]: console lines, alarms, and a sample of verdicts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from trl_balcap.callbacks.alarms import AlarmCallback as AlarmCallback
from trl_balcap.callbacks.console import ConsoleCallback as ConsoleCallback
from trl_balcap.callbacks.keeping import KeepVerdictsCallback as KeepVerdictsCallback
from trl_balcap.callbacks.sending import VerdictSender
from trl_balcap.config import BalCapConfig
from trl_balcap.rewards.hooks import RewardHooks

__all__ = [
    "AlarmCallback",
    "ConsoleCallback",
    "KeepVerdictsCallback",
    "attach_callbacks",
    "say",
]


def attach_callbacks(
    trainer: Trainer, hooks: Sequence[RewardHooks], facts: Mapping[str, Any]
) -> KeepVerdictsCallback | None:
    """
    Add the callbacks to a trainer: the console (which replaces transformers' printing), alarms, and
    verdict keeping, if a reward has a judge and the configuration does not turn it off.

    Returns:
        [`KeepVerdictsCallback`] or `None`: the callback that receives the rollouts.
    """
    args, keeper = trainer.args, None
    if hooks and isinstance(args, BalCapConfig):
        budgets: dict[str, float] = {}
        for one in hooks:
            budgets |= one.budgets()
        trainer.add_callback(AlarmCallback(budgets))
        if args.log_verdicts:
            folder = Path(str(args.output_dir)) / "verdicts"
            sender = VerdictSender(args.report_to or (), trainer.callback_handler.callbacks)
            keeper = KeepVerdictsCallback(folder, facts, images=args.log_verdicts, sender=sender)
            trainer.add_callback(keeper)
    console = ConsoleCallback.in_place_of(
        trainer.callback_handler.callbacks,
        verdicts=None if keeper is None else str(keeper.folder),
    )
    if console is not None:
        for callback in [*trainer.callback_handler.callbacks]:
            # By its exact type: remove_callback takes a class for its subclasses, the user's too.
            if type(callback) in (ProgressCallback, PrinterCallback):
                trainer.remove_callback(callback)
        trainer.add_callback(console)
    return keeper


def say(trainer: Trainer, lines: Sequence[str]) -> None:
    """Print lines on the trainer's console, above its progress bar."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, ConsoleCallback):
            for line in lines:
                callback.say(line)
            return
    print(*lines, sep="\n", flush=True)  # noqa: T201 (a notebook)

"""Warns once when a pathology of RL under judges begins."""

import logging
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback

from trl_balcap.report.alarms import alarms, budget_ends_early

__all__ = ["AlarmCallback"]

logger = logging.getLogger(__name__)


class AlarmCallback(TrainerCallback):
    """
    Applies the rules of [`report.alarms`] to each logged step, and warns once per rule and run.

    Enabled in [`BalCapTrainer`]; `trainer.remove_callback(AlarmCallback)` disables it.

    Args:
        budgets (`Mapping[str, float]`, *optional*):
            The judge's budgets, by the name of the logged metric that they limit, such as
            `"judge/usd_total"`.
    """

    def __init__(self, budgets: Mapping[str, float] | None = None):
        self.budgets = budgets or {}
        self.said: dict[str, str] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        self.said = {}  # another run warns of its own

    def on_log(self, args, state, control, logs: Any = None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        history = [row for row in state.log_history if "loss" in row]
        found = alarms(history)
        for name, budget in self.budgets.items():
            spent = logs.get(name)
            if isinstance(spent, int | float):
                early = budget_ends_early(spent, state.global_step, state.max_steps, budget)
                found |= {f"budget {name}": early} if early else {}
        for rule, said in found.items():
            if rule not in self.said:
                self.said[rule] = said
                logger.warning("Step %d: %s", state.global_step, said)

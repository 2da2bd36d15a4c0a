"""What a run says on the console: a line a step, readable completions, a table at the end."""

from typing import Any

import pytest
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from tests.conftest import scene_dataset
from tests.test_lookahead import build
from trl_balcap.callbacks import ConsoleCallback
from trl_balcap.callbacks.console import completion_lines, step_line, summary_lines

FULL = {
    "loss": 0.01,
    "rewards/precision_reward/mean": 0.617,
    "rewards/precision_reward/std": 0.2,
    "rewards/recall_reward/mean": 0.55,
    "rewards/linguistic_reward/mean": 0.81,
    "b_capscore": 0.633,
    "length_gate/ratio": 1.041,
    "judge/precision_reward/unscored": 0.0,
    "judge/recall_reward/unscored": 0.031,
    "judge/recall_reward/unscored/refused": 0.031,
    "judge/usd_total": 12.345,
    "step_time": 14.2,
    "judge/wait_time": 1.84,
}


def test_a_step_is_one_line_of_80_columns():
    line = step_line({**FULL, "step_time": 4.2, "judge/usd_total": 1.2}, 10, 120)
    assert line == (
        "10/120 P .62 R .55 L .81 b-Cap .63 len 1.04 unscored 3% $1.20 4.2 s (judge 1.8)"
    )
    assert len(line) <= 80


def test_what_is_not_logged_is_left_out_and_what_is_missing_is_a_dash():
    logs = {"rewards/brief_reward/mean": 0.5, "rewards/recall_reward/mean": None, "step_time": 2.0}
    assert step_line(logs, 3) == "3 brief .50 R - 2.0 s"


def test_an_evaluation_says_that_it_is_one():
    logs = {f"eval_{name}": value for name, value in FULL.items() if "usd" not in name}
    assert step_line(logs, 20, 100).startswith("eval at 20/100 P .62 R .55")


def test_completions_are_wrapped_best_first_worst_last():
    logs = {
        "completion": [[{"role": "assistant", "content": "word " * 40}], "", "A cat."],
        "rewards": {"precision_reward": [0.5, float("nan"), 1.0]},
        "advantages": [0.0, -1.5, 1.5],
    }
    lines = completion_lines(logs, count=3)
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if not line.startswith("  ")] == [
        "P 1.00  advantage +1.50",
        "P 0.50  advantage +0.00",
        "P -  advantage -1.50",
    ]
    assert lines[-1] == "  (empty)"
    assert len(completion_lines(logs, count=1)) == 2


def test_the_end_says_what_rose_and_fell_what_it_cost_and_where_to_look():
    history = [{**FULL, "rewards/recall_reward/mean": step / 80} for step in range(80)]
    history.append({"train_runtime": 100.0})
    table = "\n".join(summary_lines(history, "run/verdicts"))
    # tenths of 80 steps: the means of 0 to 7 and of 72 to 79 eightieths
    assert "recall_reward         0.04    0.94  rose" in table
    assert "precision_reward      0.62    0.62  stayed" in table
    assert "unscored: 3.1% of the completions" in table
    assert "judging cost $12.35" in table
    assert "trl-balcap report run/verdicts" in table
    assert summary_lines([{"train_runtime": 1.0}]) == []


@pytest.mark.parametrize(
    ("callbacks", "bar"),
    [([ProgressCallback()], True), ([PrinterCallback()], False), ([], None)],
)
def test_stands_in_for_what_would_print(callbacks, bar):
    console = ConsoleCallback.in_place_of(callbacks)
    assert (None if console is None else console.bar) == bar


class Mine(ProgressCallback):
    """A user's bar that shows no log."""

    def on_log(self, *args, **kwargs):
        pass


def test_a_users_own_bar_stays_and_is_the_only_one(tiny_qwen, tmp_path):
    own: dict[str, Any] = {"callbacks": [Mine()]}
    trainer = build(tiny_qwen, tmp_path, scene_dataset(4), given=own, disable_tqdm=False)
    callbacks = trainer.callback_handler.callbacks
    bars = [callback for callback in callbacks if isinstance(callback, ProgressCallback)]
    assert [(type(one), getattr(one, "bar", True)) for one in bars] == [
        (Mine, True),
        (ConsoleCallback, False),
    ]

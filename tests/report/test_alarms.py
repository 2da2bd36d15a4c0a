"""Each rule on a worked example: silent on a sound run, loud when its pathology begins."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from trl_balcap.callbacks import AlarmCallback
from trl_balcap.report.alarms import RULES, WINDOW, alarms, budget_ends_early

SOUND = {
    "loss": 0.0,
    "rewards/precision_reward/mean": 0.7,
    "rewards/precision_reward/std": 0.2,
    "rewards/precision_reward/frac_zero_std": 0.1,
    "rewards/recall_reward/mean": 0.6,
    "rewards/linguistic_reward/mean": 0.8,
    "length_gate/ratio": 1.0,
    "length_gate/too_short": 0.05,
    "length_gate/too_long": 0.1,
    "judge/precision_reward/assertions": 6.0,
    "judge/precision_reward/pointable": 0.9,
    "judge/precision_reward/unscored": 0.01,
    "rewards/precision_reward/retest_std": 0.05,
    "rewards/precision_reward/zeros_among_good": 0.15,  # as many as the gate's share
    "completions/distinct": 0.95,
}


def run(**late):
    """A run whose second half logs something else."""
    renamed = {name.replace("__", "/"): value for name, value in late.items()}
    return [SOUND] * WINDOW + [{**SOUND, **renamed}] * WINDOW


def test_a_sound_run_is_silent():
    assert alarms(run()) == {}
    assert alarms([]) == {}


@pytest.mark.parametrize(
    ("rule", "late"),
    [
        ("dead_reward", {"rewards__precision_reward__frac_zero_std": 0.97}),
        (
            "precision_traded",
            {"rewards__precision_reward__mean": 0.59, "rewards__recall_reward__mean": 0.66},
        ),
        ("length_runs_to_an_edge", {"length_gate__too_long": 0.31}),
        ("length_runs_to_an_edge", {"length_gate__too_short": 0.4}),
        ("length_runs_to_an_edge", {"length_gate__ratio": 0.7}),
        ("length_runs_to_an_edge", {"length_gate__ratio": 1.6}),
        ("safe_sayings", {"judge__precision_reward__assertions": 2.5}),
        ("rollouts_alike", {"completions__distinct": 0.2}),
        ("commentary", {"judge__precision_reward__pointable": 0.7}),
        ("unscored", {"judge__precision_reward__unscored": 0.06}),
        (
            "grades_alike",
            {"rewards__precision_reward__std": 0.04, "rewards__precision_reward__retest_std": 0.0},
        ),
        ("zeros_filled_in", {"rewards__precision_reward__zeros_among_good": 0.21}),
        ("judge_noise", {"rewards__precision_reward__retest_std": 0.11}),
        (  # zeros in place of failures come between equal captions as well
            "zeros_filled_in",
            {
                "rewards__precision_reward__zeros_among_good": 0.3,
                "rewards__precision_reward__retest_std": 0.11,
            },
        ),
    ],
)
def test_each_pathology_has_its_rule_and_no_other(rule, late):
    assert list(alarms(run(**late))) == [rule]


@pytest.mark.parametrize(
    "late",
    [
        {"rewards__precision_reward__mean": 0.59},  # alone: nothing was bought with it
        {"length_gate__too_long": 0.24},  # risen, and not much
        {"length_gate__ratio": 0.76},
        {"judge__precision_reward__assertions": 3.5},
        {"judge__precision_reward__pointable": 0.82},
    ],
)
def test_below_its_threshold_a_rule_is_silent(late):
    assert alarms(run(**late)) == {}


def test_commentary_that_stays_is_told_of_after_four_windows():
    steady = {**SOUND, "judge/precision_reward/pointable": 0.82}
    fewer = {**SOUND, "judge/precision_reward/pointable": 0.84}
    learnt = {**SOUND, "judge/precision_reward/pointable": 0.87}
    assert alarms([steady] * (4 * WINDOW - 1)) == {}
    assert list(alarms([steady] * 2 * WINDOW + [fewer] * 2 * WINDOW)) == ["commentary"]
    assert alarms([steady] * 2 * WINDOW + [learnt] * 2 * WINDOW) == {}


def test_a_rule_waits_for_two_windows():
    late = {**SOUND, "judge/precision_reward/unscored": 1.0}
    assert alarms([late] * (2 * WINDOW - 1)) == {}
    assert list(alarms([late] * 2 * WINDOW)) == ["unscored"]


def test_missing_numbers_are_no_pathology():
    assert alarms([{"loss": 0.0, "rewards/recall_reward/mean": None}] * 40) == {}
    assert len(RULES) == 10


@pytest.mark.parametrize(("spent", "said"), [(1.0, False), (2.2, True)])
def test_a_budget_that_lasts_is_silent(spent, said):
    assert (budget_ends_early(spent, 10, 100, budget=20.0) is not None) == said


def test_the_callback_warns_once_and_of_training_alone(caplog):
    callback: Any = AlarmCallback({"judge/usd_total": 20.0})
    late = {**SOUND, "judge/precision_reward/unscored": 0.5, "judge/usd_total": 5.0}
    history = [late] * 2 * WINDOW + [{"eval_loss": 0.0}]
    state = SimpleNamespace(
        is_world_process_zero=True, log_history=history, global_step=20, max_steps=100
    )
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            callback.on_log(None, state, None, logs=late)
    assert [r.message.split(":")[0] for r in caplog.records] == ["Step 20", "Step 20"]
    assert "leaves 50% of the completions unscored" in caplog.text
    assert "The judge budget of 20 will be spent at step 80 of 100" in caplog.text
    callback.on_train_begin(None, state, None)
    callback.on_log(None, state, None, logs=late)
    assert len(caplog.records) == 4  # another run warns of its own

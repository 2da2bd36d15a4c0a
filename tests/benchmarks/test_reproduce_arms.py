"""The reproduction's arms, trained for a few steps."""

import doctest
import json
import math
from dataclasses import replace

import pytest
import torch

from benchmarks import reproduce
from benchmarks.reproduction import arms, measure, plateau, train, variants
from benchmarks.reproduction import credit as credit_of_tokens
from tests.benchmarks.tiny_runs import TINY
from trl_balcap.scenes.captioner import captioner_path
from trl_balcap.scenes.world import Scene, Thing


@pytest.mark.parametrize(
    "name",
    [
        *("vanilla", "one_step_off", "agreed_base", "rdpo", "credit", "credit_recall", "assertion"),
        *("assertion_noise_large", "judge_fails_when_long"),
    ],
)
def test_an_arm_trains_and_is_measured(name, tiny_qwen):
    result = train.train_arm(arms.ARMS[name], 0, TINY, tiny_qwen)
    assert len(result["steps"]) == TINY.steps
    assert set(result["measures"]["sampled"]) == set(measure.MEASURES)
    assert all(math.isfinite(value) for step in result["steps"] for value in step.values())
    json.dumps(result)
    # Scene by scene, in thousandths: their mean is the measure.
    kept = result["measures"]["scenes"]["precision"]
    assert len(kept) == TINY.test_scenes
    mean = sum(kept) / len(kept) / 1000
    assert mean == pytest.approx(result["measures"]["sampled"]["precision"], abs=5e-4)


@pytest.mark.parametrize("name", ["credit", "poor_references", "utility"])
def test_an_arm_of_the_rich_world_trains_and_is_measured(name, tiny_qwen):
    settings = replace(TINY, world="rich", test_scenes=2)
    result = train.train_arm(arms.ARMS[name], 0, settings, tiny_qwen)
    assert result["settings"]["world"] == "rich"
    assert all(math.isfinite(value) for step in result["steps"] for value in step.values())
    shown = result["captions"]["greedy"][0]
    assert len(shown["reference"].split()) > 60
    assert set(result["measures"]["sampled"]) == set(measure.MEASURES)


def test_in_the_rich_world_the_same_claim_in_other_words_earns_no_credit():
    scene = Scene(
        (Thing("red", "star", "large", "top", "far left"),), richness="rich", background="pink"
    )
    told = ["There is one thing.", "The picture has one object."]
    star = "The top far left shows a large red star."
    values = credit_of_tokens.sentence_values([*told, star], scene)
    assert values == [1.0, -1.0, 1.0]


def test_credit_of_tokens_changes_what_is_learned_and_none_leaves_it():
    """Next to no weight in shape (B, T) is the full method; 1/2 is not."""
    full, credit = (replace(arms.ARMS[name], rate=20.0) for name in ("full", "credit"))
    room = replace(TINY, steps=3, max_completion_length=40)  # the first step has rate 0
    plain = train.train_arm(full, 3, room, captioner_path())
    same = train.train_arm(replace(credit, credit=1e-9), 3, room, captioner_path())
    other = train.train_arm(credit, 3, room, captioner_path())
    assert reproduce.rounded(same["steps"]) == reproduce.rounded(plain["steps"])
    assert other["steps"][0] == plain["steps"][0]  # before the first update
    assert other["steps"][2] != plain["steps"][2]


def test_a_look_on_the_way_changes_nothing(monkeypatch):
    monkeypatch.setattr(train, "HORIZONS", (1, 2))
    looked = train.train_arm(arms.ARMS["full"], 3, TINY, captioner_path())
    assert list(looked["on_the_way"]) == [1]
    assert 0 < looked["on_the_way"][1]["greedy"]["length"] <= TINY.max_completion_length
    monkeypatch.setattr(train, "HORIZONS", ())
    plain = train.train_arm(arms.ARMS["full"], 3, TINY, captioner_path())
    assert (looked["steps"], looked["measures"]) == (plain["steps"], plain["measures"])


@pytest.mark.parametrize("module", [variants, credit_of_tokens, plateau])
def test_examples_of_the_advantages_that_were_tried(module):
    found = doctest.testmod(module, extraglobs={"torch": torch})
    assert found.attempted > 1
    assert found.failed == 0


def test_sft_then_rl_and_sft_alone(tiny_qwen):
    both, alone = (
        train.train_arm(arms.ARMS[name], 0, TINY, tiny_qwen) for name in ("sft_full", "sft")
    )
    assert (len(both["steps"]), len(alone["steps"])) == (TINY.steps, 0)
    assert set(alone["measures"]["sampled"]) == set(measure.MEASURES)


def test_an_arm_by_one_reward_trains(tiny_qwen):
    result = train.train_arm(arms.ARMS["group"], 0, TINY, tiny_qwen)
    # Whoever wins, a group's scores are half on average.
    assert [step["group/mean"] for step in result["steps"]] == pytest.approx([0.5] * TINY.steps)


def test_same_seed_same_result(tiny_qwen):
    one, other = (train.train_arm(arms.ARMS["full"], 3, TINY, tiny_qwen) for _ in range(2))
    assert one["steps"] == other["steps"]
    assert one["measures"] == other["measures"]

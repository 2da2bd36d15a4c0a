"""The rewards of the reproduction's arms."""

import asyncio
import random
from typing import Any

import pytest

from benchmarks.reproduction import arms, balanced, field
from tests.benchmarks.tiny_runs import STAR
from trl_balcap import FeedQuillReward, GroupReward, Judge, RubricReward, UtilityReward
from trl_balcap.scenes.answers import asked_about
from trl_balcap.scenes.grammar import describe, faulty_caption
from trl_balcap.scenes.world import draw


def ask(arm, **changes) -> Any:
    """What an arm's three rewards say about four captions of a red star."""
    rewards = balanced.balanced_rewards(arms.ARMS[arm], 0, [STAR])
    reference = "There is one thing. The top left shows a large red star."
    captions = [
        reference,
        "The top left shows a large red star. The mood is cosy. The scene feels calm.",
        "There is one thing.",
        "",
    ]

    class State:
        global_step = changes.get("step", 0)

    kwargs = {
        "completions": [[{"role": "assistant", "content": caption}] for caption in captions],
        "reference": [reference] * 4,
        "row": [0] * 4,
        "trainer_state": State(),
    }
    return [reward(**kwargs) for reward in rewards]


def test_rewards_of_the_full_method_and_without_pointability():
    precision, recall, linguistic = ask("full")
    assert precision == pytest.approx([1.0, 1 / 3, 1.0, 0.0])
    assert recall == pytest.approx([1.0, 0.5, 0.5, 0.0])
    assert linguistic == [1.0, 1.0, 1.0, 0.0]  # commentary reads well
    assert ask("no_pointability")[0] == pytest.approx([1.0, 1.0, 1.0, 0.0])


def test_skewed_rewards_are_the_same_rewards_in_other_units():
    for scaled, plain, factor in zip(ask("full_skewed"), ask("full"), (0.2, 1.0, 2.0), strict=True):
        assert scaled == pytest.approx([factor * value for value in plain])


def test_failures_are_missing_or_zero_for_the_same_completions():
    missing, zeros, plain = ask("none_30"), ask("zero_30"), ask("full")
    flat = [
        (a, b, c)
        for rows in zip(missing, zeros, plain, strict=True)
        for a, b, c in zip(*rows, strict=True)
    ]
    assert any(a is None for a, _, _ in flat)
    assert all(b == (0.0 if a is None else c) for a, b, c in flat)


def test_a_noisy_judge_errs_anew_each_step_and_about_equal_captions():
    assert ask("noise_large") != ask("noise_large", step=1)
    assert ask("noise_large") == ask("noise_large")


def test_noise_of_one_kind_leaves_the_other_verdicts_alone():
    plain = ask("full")
    for name, spoilt in (("covered", 1), ("grades", 2)):
        noisy = [ask(f"noise_{name}_large", step=step) for step in range(20)]
        others = [k for k in range(3) if k != spoilt]
        assert all(one[k] == plain[k] for one in noisy for k in others)
        assert any(one[spoilt] != plain[spoilt] for one in noisy)


FIELD_CAPTIONS = [
    describe(STAR),
    f"{describe(STAR)} The mood is cosy.",
    "The top left shows a thing.",
    "The top right shows a small blue circle.",
]


@pytest.mark.parametrize("name", field.FIELD)
def test_rewards_of_the_field_are_those_of_the_classes(name):
    judge = Judge("scenes/oracle")
    reward = {
        "feedquill": FeedQuillReward(judge, full_count=field.FULL_COUNT["small"]),
        "utility": UtilityReward(judge),
        "rubric": RubricReward(judge),
        "group": GroupReward(judge),
    }[name]
    dice = random.Random(repr(STAR))
    columns = {
        "image": draw(STAR),
        "questions": [
            {**one, "answer": one["choices"][one["answer"] - 1]} for one in asked_about(STAR, 9)
        ],
        "references": [faulty_caption(STAR, dice, faults) for faults in field.COMMITTEE],
    }
    given: dict[str, Any] = {key: [value] * 4 for key, value in columns.items()}
    asked = asyncio.run(reward(prompts=[""] * 4, completions=FIELD_CAPTIONS, **given))

    [plain] = field.field_rewards(name, [STAR])
    completions = [[{"role": "assistant", "content": text}] for text in FIELD_CAPTIONS]
    assert plain(completions=completions, row=[0] * 4) == pytest.approx(asked)
    assert len(set(asked)) > 1

"""What a batch tells of its judge: noise between equal captions, zeros that nobody earned."""

import math
import random

import pytest
import torch

from trl_balcap.advantages import dead_groups, group_normalize
from trl_balcap.batch_numbers import batch_numbers, retest_std, zeros_among_good

NAN = float("nan")


def test_equal_captions_of_one_prompt_are_a_retest():
    texts = ["A dog.", "A dog.", "A cat.", "A dog."]  # two prompts: the last dog is another one
    rewards = torch.tensor([[0.4], [0.8], [0.1], [0.0]])
    # One set of two: ((0.4 - 0.6)^2 + (0.8 - 0.6)^2) / (2 - 1) = 0.08
    assert retest_std(rewards, texts, num_generations=2).item() == pytest.approx(math.sqrt(0.08))


def test_sets_of_equal_captions_are_pooled():
    texts = ["a", "a", "a", "b", "b", "c"]
    rewards = torch.tensor([[0.0], [0.3], [0.6], [0.5], [0.5], [0.9]])
    # (0.09 + 0 + 0.09) and 0, over 2 + 1 degrees of freedom
    assert retest_std(rewards, texts, num_generations=6).item() == pytest.approx(math.sqrt(0.06))


@pytest.mark.parametrize(
    ("rewards", "texts"),
    [
        pytest.param([[0.1], [0.9]], ["a", "b"], id="no two are equal"),
        pytest.param([[0.1], [NAN]], ["a", "a"], id="one of two has no score"),
        pytest.param([[NAN], [NAN]], ["a", "a"], id="none has a score"),
    ],
)
def test_without_a_second_score_there_is_no_retest(rewards, texts):
    assert retest_std(torch.tensor(rewards), texts, num_generations=2).isnan().all()


def test_it_measures_the_noise_that_a_judge_has():
    dice = random.Random(0)
    texts = [str(k // 2 % 4) for k in range(4000)]
    rewards = torch.tensor([[int(text) / 4 + dice.gauss(0, 0.1)] for text in texts])
    assert retest_std(rewards, texts, num_generations=8).item() == pytest.approx(0.1, rel=0.05)


def test_zeros_count_beside_good_scores_alone():
    rewards = torch.tensor(
        [
            [0.0, 0.9, 0.9],  # good by both others, and 0
            [0.6, 0.9, 0.9],  # good, and not 0
            [0.0, 0.1, 0.9],  # the second reward is below its median: a bad caption
            [0.0, 0.9, NAN],  # it is not known whether it is good
        ]
    )
    assert zeros_among_good(rewards, num_generations=4)[0].item() == 0.5


def test_one_reward_has_no_others_to_go_by():
    assert zeros_among_good(torch.tensor([[0.0], [1.0]]), num_generations=2).isnan().all()


def test_failures_filled_with_zero_are_the_share_of_zeros():
    dice = random.Random(0)
    rewards = torch.tensor(
        [
            [0.0 if dice.random() < 0.3 else dice.uniform(0.5, 1) for _ in range(3)]
            for _ in range(4096)
        ]
    )
    shares = zeros_among_good(rewards, num_generations=8)
    assert shares.tolist() == pytest.approx([0.3] * 3, abs=0.05)


def test_what_a_batch_does_not_tell_is_left_out():
    rewards = torch.tensor([[0.2, 0.1], [0.4, 0.3]])
    numbers = batch_numbers(
        rewards,
        ["one", "two"],
        dead_groups(rewards, num_generations=2),
        group_normalize(rewards, num_generations=2),
        ["a", "b"],
        2,
    )
    assert set(numbers) == {
        "completions/distinct",
        *(f"rewards/{name}/frac_zero_std" for name in ("one", "two")),
        *(f"rewards/{name}/zeros_among_good" for name in ("one", "two")),
        *(f"advantages/{name}/std" for name in ("one", "two")),
    }

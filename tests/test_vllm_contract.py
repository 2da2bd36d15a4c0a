"""
Our side of vLLM: the trainer on completions that TRL's vLLM engine hands it.

vLLM needs a GPU. Here a stand-in for TRL's `VLLMGeneration` gives token ids and log-probabilities
of the shapes that the real one does; everything behind it is TRL's code and ours.
"""

import random
from typing import Any

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from tests.conftest import scene_dataset
from tests.test_trainer import CPU, even_reward, length_reward
from trl_balcap import BalCapConfig, BalCapTrainer, cgdpo_advantages
from trl_balcap.rewards import RewardHooks


class Engine:
    """Answers as `trl.generation.vllm_generation.VLLMGeneration` does."""

    def __init__(self):
        self.rng = random.Random(0)
        self.syncs = 0
        self.generations: list[int] = []  # by the number of the sync before
        self.images: list = []
        self.completion_ids: list[list[int]] = []

    def sync_weights(self):
        self.syncs += 1

    def generate(self, prompts, images, num_generations, profiler=None):
        self.images = images
        self.generations.append(self.syncs)
        self.completion_ids = [
            [self.rng.randrange(10, 90) for _ in range(self.rng.randrange(2, 8))] for _ in prompts
        ]
        logprobs = [[[-5.0] for _ in ids] for ids in self.completion_ids]
        return prompts, self.completion_ids, logprobs, None


class Early(RewardHooks):
    """A reward that is told of the completions before TRL asks for it, as the judge rewards are."""

    __name__ = "early_reward"

    def __init__(self):
        self.started: list = []

    def start(self, *, completions, completion_ids, **columns):
        self.started.append((completion_ids, columns["reference"], len(columns["image"])))

    def __call__(self, completion_ids, **kwargs):
        assert completion_ids in [ids for ids, *_ in self.started]
        return [ids[0] / 100 for ids in completion_ids]


def with_engine(trainer_class, config_class, model, dataset, out, rewards, **config):
    trainer = trainer_class(
        str(model), rewards, config_class(str(out), **{**CPU, **config}), train_dataset=dataset
    )
    # What TRL sets when it starts vLLM, which it would do in __init__.
    trainer.use_vllm = True
    trainer.vllm_generation = Engine()
    trainer._last_loaded_step = -1
    trainer.train()
    return trainer


def test_rewards_start_on_what_vllm_generated(tiny_qwen, scenes, tmp_path):
    early = Early()
    rewards = [early, length_reward, even_reward]
    trainer = with_engine(BalCapTrainer, BalCapConfig, tiny_qwen, scenes, tmp_path, rewards)
    engine: Any = trainer.vllm_generation

    assert engine.syncs == 2  # once before each of the two steps' generations
    assert [len(images) for images in engine.images] == [1] * 8
    assert len(early.started) == 2
    completion_ids, references, images = early.started[-1]
    assert completion_ids == engine.completion_ids
    assert set(references) <= set(scenes["reference"])
    assert images == 8

    rewards_per_func = torch.tensor(
        [[ids[0] / 100, float(len(ids)), even_reward([ids])[0]] for ids in engine.completion_ids]
    )
    expected = cgdpo_advantages(rewards_per_func, num_generations=4)
    torch.testing.assert_close(torch.tensor(list(trainer._logs["advantages"])), expected)
    [first, *_] = trainer.state.log_history
    assert any(
        "importance_sampling_ratio" in key for key in first
    )  # vLLM's log-probabilities count


@pytest.mark.parametrize(
    ("config", "generations"),
    [
        pytest.param({"judge_lookahead": True}, [1, 1, 2, 2, 3, 3], id="look-ahead"),
        # The first update writes its own and the next one's, the last nothing.
        pytest.param({"judge_lag": 1}, [1, 1, 1, 1, 2, 2], id="one_step_off"),
    ],
)
def test_weights_are_synced_once_a_step_that_generates(config, generations, tiny_qwen, tmp_path):
    batches = {"gradient_accumulation_steps": 2, "steps_per_generation": 1, "max_steps": 3}
    early = Early()
    trainer = with_engine(
        *(BalCapTrainer, BalCapConfig, tiny_qwen, scene_dataset(12), tmp_path, [early]),
        **{**batches, **config},
    )
    engine: Any = trainer.vllm_generation
    assert engine.generations == generations
    assert engine.syncs == generations[-1]
    assert len(early.started) == 6
    rows = [row for row in trainer.state.log_history if "loss" in row]
    # vLLM's log-probabilities are -5; TRL's ratio over them is of the policy that wrote.
    assert len([row for row in rows if "sampling/importance_sampling_ratio/mean" in row]) == 3


def test_losses_under_vllm_are_trls(tiny_qwen, scenes, tmp_path):
    """The same engine, rewards and aggregation in GRPOTrainer: the same losses and gradients."""
    settings = {"multi_objective_aggregation": "normalize_then_sum"}

    def histories(trainer_class, config_class, out):
        def config(path, **cpu):
            return config_class(path, **cpu, **settings)

        rewards = [length_reward, even_reward]
        trainer = with_engine(trainer_class, config, tiny_qwen, scenes, tmp_path / out, rewards)
        return [
            (row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "loss" in row
        ]

    ours = histories(BalCapTrainer, BalCapConfig, "ours")
    theirs = histories(GRPOTrainer, GRPOConfig, "theirs")
    assert len(ours) == 2
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-3, atol=1e-5)

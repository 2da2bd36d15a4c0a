"""BalCapTrainer on tiny real models: what it trains on, what it logs, what it refuses."""

import math
import multiprocessing
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

from trl_balcap import BalCapConfig, BalCapTrainer, cgdpo_advantages
from trl_balcap.card import card_text
from trl_balcap.rewards import AgreedRecallReward

CPU = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
    "report_to": "none",
    "disable_tqdm": True,
    "logging_steps": 1,
    "learning_rate": 1e-2,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 8,
    "max_steps": 2,
}


def length_reward(completion_ids, **kwargs):
    return [float(len(ids)) for ids in completion_ids]


def even_reward(completion_ids, **kwargs):
    """Share of even token ids: differs from one random completion to the next."""
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


def sometimes_reward(completion_ids, **kwargs):
    """A judge that fails for every third completion."""
    return [None if i % 3 == 0 else ids[0] / 100 for i, ids in enumerate(completion_ids)]


def train(model, dataset, out, reward_funcs, **config):
    trainer = BalCapTrainer(
        str(model),
        reward_funcs,
        BalCapConfig(str(out), **{**CPU, **config}),
        train_dataset=dataset,
    )
    return trainer, trained(trainer)


def trained(trainer) -> set[str]:
    """Trains, and names the parameters that moved."""
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    return {n for n, p in trainer.model.named_parameters() if not torch.equal(before[n], p)}


def test_trains_on_the_advantages_it_logs(tiny_qwen, scenes, tmp_path):
    trained_on = []

    class Watching(BalCapTrainer):
        def _compute_loss(self, model, inputs):
            trained_on.extend(inputs["advantages"].tolist())
            return super()._compute_loss(model, inputs)

    trainer = Watching(
        str(tiny_qwen),
        [length_reward, sometimes_reward],
        BalCapConfig(str(tmp_path), **{**CPU, "max_steps": 1}),
        train_dataset=scenes,
    )
    trainer.train()
    logged = list(trainer._logs["advantages"])
    rewards = torch.tensor(
        [trainer._logs["rewards"]["length_reward"], trainer._logs["rewards"]["sometimes_reward"]]
    ).T  # (B, K)
    assert sorted(trained_on) == sorted(logged)  # TRL shuffles between the two
    expected = cgdpo_advantages(rewards, num_generations=4)
    torch.testing.assert_close(torch.tensor(logged), expected, rtol=0, atol=0)
    assert max(map(abs, logged)) > 0.1


@pytest.mark.parametrize("weights", [None, [1.0, 0.5]])
def test_equals_trl_through_the_real_trainer(tiny_text, tmp_path, weights):
    """TRL's normalize_then_sum on the same rewards, to 1e-5, a missing reward among them."""
    seen = {}
    for trainer_class, config_class in [(GRPOTrainer, GRPOConfig), (BalCapTrainer, BalCapConfig)]:
        trainer = trainer_class(
            str(tiny_text),
            [length_reward, sometimes_reward],
            config_class(
                str(tmp_path / trainer_class.__name__),
                **{**CPU, "max_steps": 1},
                reward_weights=weights,
                multi_objective_aggregation="normalize_then_sum",
            ),
            train_dataset=Dataset.from_dict({"prompt": ["a red circle", "a blue star"] * 4}),
        )
        trainer.train()
        seen[trainer_class] = (
            torch.tensor(list(trainer._logs["advantages"])),
            list(trainer._logs["completion"]),
        )
    assert seen[GRPOTrainer][1] == seen[BalCapTrainer][1]
    torch.testing.assert_close(seen[BalCapTrainer][0], seen[GRPOTrainer][0], rtol=1e-5, atol=1e-5)


def test_sum_then_normalize_is_trls_own(tiny_text, tmp_path):
    seen = {}
    for trainer_class, config_class in [(GRPOTrainer, GRPOConfig), (BalCapTrainer, BalCapConfig)]:
        trainer = trainer_class(
            str(tiny_text),
            [length_reward, even_reward],
            config_class(
                str(tmp_path / trainer_class.__name__),
                **{**CPU, "max_steps": 1},
                multi_objective_aggregation="sum_then_normalize",
            ),
            train_dataset=Dataset.from_dict({"prompt": ["a red circle"] * 8}),
        )
        trainer.train()
        seen[trainer_class] = list(trainer._logs["advantages"])
    assert seen[BalCapTrainer] == seen[GRPOTrainer]


def test_logs_say_which_reward_is_dead(tiny_qwen, scenes, tmp_path):
    def constant_reward(completions, **kwargs):
        return [0.1] * len(completions)

    trainer, _ = train(tiny_qwen, scenes, tmp_path, [constant_reward, even_reward], max_steps=1)
    log = trainer.state.log_history[0]
    assert log["rewards/constant_reward/frac_zero_std"] == 1.0
    assert log["advantages/constant_reward/std"] == 0.0
    # z-scores of G = 4 by Bessel's deviation have mean square 3/4 in a live group
    assert log["advantages/even_reward/std"] == pytest.approx(math.sqrt(0.75), rel=0.02)
    assert log["frac_reward_zero_std"] == 0.0


def test_a_reward_of_weight_0_keeps_no_group_alive(tiny_qwen, scenes, tmp_path):
    def constant_reward(completions, **kwargs):
        return [0.1] * len(completions)

    rewards = [constant_reward, even_reward]
    for weights, dead in (([1.0, 0.0], 1.0), ([0.0, 1.0], 0.0)):
        trainer, _ = train(
            tiny_qwen, scenes, tmp_path / str(dead), rewards, max_steps=1, reward_weights=weights
        )
        assert trainer.state.log_history[0]["frac_reward_zero_std"] == dead


def test_a_batch_without_spread_moves_nothing(tiny_qwen, scenes, tmp_path):
    def constant_reward(completions, **kwargs):
        return [0.1] * len(completions)

    trainer, changed = train(
        tiny_qwen, scenes, tmp_path, constant_reward, num_generations=2, weight_decay=0.0
    )
    assert set(trainer._logs["advantages"]) == {0.0}
    assert changed == set()
    assert trainer.state.log_history[0]["frac_reward_zero_std"] == 1.0


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"num_iterations": 2, "max_steps": 3}, id="num_iterations"),
        pytest.param(
            {"steps_per_generation": 2, "gradient_accumulation_steps": 2, "max_steps": 2},
            id="gradient_accumulation",
        ),
        pytest.param({"steps_per_generation": 2, "max_steps": 3}, id="steps_per_generation"),
        pytest.param({"beta": 0.04}, id="kl"),
        *(
            pytest.param({"loss_type": loss}, id=loss)
            for loss in ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "vespo"]
        ),
        pytest.param({"loss_type": "luspo", "importance_sampling_level": "sequence"}, id="luspo"),
    ],
)
def test_trains_every_way_that_grpo_does(tiny_qwen, scenes, tmp_path, config):
    trainer, changed = train(tiny_qwen, scenes, tmp_path, [length_reward, even_reward], **config)
    assert len(changed) > 10
    assert math.isfinite(trainer.state.log_history[-1]["train_loss"])


def test_lora_trains_the_adapter_only(tiny_qwen, scenes, tmp_path):
    trainer = BalCapTrainer(
        str(tiny_qwen),
        [length_reward, even_reward],
        BalCapConfig(str(tmp_path), **CPU),
        train_dataset=scenes,
        peft_config=LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)"),
    )
    changed = trained(trainer)
    assert changed
    assert all("lora_" in name for name in changed)


@pytest.mark.parametrize("num_generations_eval", [1, 2, 4])
def test_evaluates_with_its_own_group_size(tiny_qwen, scenes, tmp_path, num_generations_eval):
    trainer = BalCapTrainer(
        str(tiny_qwen),
        [length_reward, even_reward],
        BalCapConfig(
            str(tmp_path),
            **CPU,
            num_generations_eval=num_generations_eval,
            per_device_eval_batch_size=4,
        ),
        train_dataset=scenes,
        eval_dataset=scenes.select(range(4)),
    )
    metrics = trainer.evaluate()
    assert 0.0 <= metrics["eval_rewards/even_reward/frac_zero_std"] <= 1.0
    assert (metrics["eval_frac_reward_zero_std"] == 1.0) == (num_generations_eval == 1)


class Scripted(BalCapTrainer):
    def _generate_single_turn(self, *args, **kwargs):
        return [[50], [50], [51], [52], [53], [54], [55], [56]], None


def test_an_evaluation_batch_larger_than_a_generation_batch_is_measured_whole(
    tiny_qwen, scenes, tmp_path
):
    """Of 8 completions, 2 for each image, TRL's log keeps the last 4, and the first 2 are equal."""

    def noisy_reward(completions, **kwargs):
        return [1.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]

    batches = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 8}
    trainer = Scripted(
        str(tiny_qwen),
        [noisy_reward],
        BalCapConfig(str(tmp_path), **{**CPU, **batches, "num_generations": 2}),
        train_dataset=scenes,
        eval_dataset=scenes.select(range(4)),
    )
    metrics = trainer.evaluate()
    assert metrics["eval_completions/distinct"] == 7 / 8
    spread = math.sqrt((1.0 - 2.0) ** 2 + (3.0 - 2.0) ** 2)
    assert metrics["eval_rewards/noisy_reward/retest_std"] == pytest.approx(spread)


def test_the_wait_of_a_step_leaves_evaluations_out(tiny_qwen, scenes, tmp_path, monkeypatch):
    now = 0.0

    def slow_reward(completions, **kwargs):
        nonlocal now
        now += 100.0 if len(completions) == 8 else 3.0
        return [0.0] * len(completions)

    clock = SimpleNamespace(perf_counter=lambda: now)
    monkeypatch.setattr("trl_balcap.trainer.time", clock)
    evaluations = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 8}
    trainer = BalCapTrainer(
        str(tiny_qwen),
        [slow_reward],
        BalCapConfig(str(tmp_path), **{**CPU, **evaluations, "per_device_train_batch_size": 4}),
        train_dataset=scenes,
        eval_dataset=scenes.select(range(2)),
    )
    trainer.train()
    steps = [row for row in trainer.state.log_history if "loss" in row]
    assert [row["judge/wait_time"] for row in steps] == [3.0, 3.0]


def test_text_only_and_plain_grpo_config(tiny_text, tmp_path):
    trainer = BalCapTrainer(
        str(tiny_text),
        length_reward,
        GRPOConfig(str(tmp_path), **CPU),
        Dataset.from_dict({"prompt": ["a red circle"] * 8}),
    )
    trainer.train()
    assert trainer.multi_objective_aggregation == "sum_then_normalize"
    assert "rewards/length_reward/frac_zero_std" in trainer.state.log_history[0]


# What the length gate does in the trainer


async def linguistic_reward(completions, log_extra, **kwargs):
    log_extra("judged", [True] * len(completions))
    return [0.9] * len(completions)


def test_the_gate_closes_on_length_and_keeps_the_callers_list(tiny_qwen, scenes, tmp_path):
    funcs = [even_reward, linguistic_reward]
    # A reference has about 20 tokens or more, a completion 8 at most: every gate is closed.
    trainer, _ = train(tiny_qwen, scenes, tmp_path, funcs, max_steps=1)
    log = trainer.state.log_history[0]
    assert funcs == [even_reward, linguistic_reward]
    assert log["rewards/linguistic_reward/mean"] == 0.0
    assert log["length_gate/too_short"] == 1.0
    assert 0.0 < log["length_gate/ratio"] < 0.5
    assert "judged" not in trainer._logs["extra"]  # the judge was not asked

    trainer, _ = train(tiny_qwen, scenes, tmp_path, funcs, max_steps=1, length_gate_lower=0.0)
    assert trainer.state.log_history[0]["rewards/linguistic_reward/mean"] == pytest.approx(0.9)


def test_no_gate(tiny_qwen, scenes, tmp_path):
    trainer, _ = train(
        tiny_qwen, scenes.remove_columns("reference"), tmp_path, [linguistic_reward],
        max_steps=1, length_gate="none",
    )  # fmt: skip
    assert trainer.state.log_history[0]["rewards/linguistic_reward/mean"] == pytest.approx(0.9)
    assert "length_gate/ratio" not in trainer.state.log_history[0]


@pytest.mark.parametrize("gate", [{"length_gate": "none"}, {"length_gate_tokens": (2, 6)}])
def test_references_give_the_length_ratio_without_a_gate_on_it(tiny_qwen, scenes, tmp_path, gate):
    gated, _ = train(tiny_qwen, scenes, tmp_path, [linguistic_reward], max_steps=1)
    other, _ = train(tiny_qwen, scenes, tmp_path, [linguistic_reward], max_steps=1, **gate)
    ratios = [trainer.state.log_history[0]["length_gate/ratio"] for trainer in (gated, other)]
    assert ratios[1] == pytest.approx(ratios[0])


def test_data_without_references_trains_inside_a_band_of_tokens(tiny_qwen, scenes, tmp_path):
    trainer, moved = train(
        tiny_qwen, scenes.remove_columns("reference"), tmp_path,
        [even_reward, linguistic_reward, AgreedRecallReward("scenes/oracle")],
        max_steps=1, length_gate_tokens=(2, 6),
    )  # fmt: skip
    log = trainer.state.log_history[0]
    # Completions have 8 tokens, fewer where one ended: the linguistic reward is 0 behind the gate.
    assert log["rewards/linguistic_reward/mean"] == pytest.approx(
        0.9 * (1 - log["length_gate/too_short"] - log["length_gate/too_long"])
    )
    assert log["length_gate/too_long"] > 0.5
    assert "length_gate/ratio" not in log
    assert moved
    # Random captions agree on nothing, which is no failure of the judge.
    assert log["judge/agreed_recall_reward/unscored/no_agreement"] == 1.0
    assert (trainer.facts["length_gate"], trainer.facts["length_gate_tokens"]) == (None, [2, 6])
    card = card_text(trainer.facts, name="m", where="m", prompt=None, history=[log])
    assert "Length gate: 2 to 6 tokens." in card


# Bad input


def test_the_data_loaders_workers_end_with_training(tiny_qwen, scenes, tmp_path):
    """Left to the garbage collector, they would live on, and then be waited for, 5 s for each."""
    trainer, _ = train(tiny_qwen, scenes, tmp_path, even_reward, dataloader_num_workers=2)
    assert trainer.state.global_step == 2
    assert multiprocessing.active_children() == []


def test_refuses_before_the_model_is_loaded(scenes, tmp_path):
    def build(dataset=scenes, reward_funcs=linguistic_reward, **config):
        BalCapTrainer(
            "no/such-model", reward_funcs, BalCapConfig(str(tmp_path), **CPU, **config), dataset
        )

    with pytest.raises(ValueError, match="'lingustic', but the reward functions are"):
        build(length_gated_rewards=["lingustic"])
    with pytest.raises(ValueError, match="reward_weights has 2 values for 1 reward"):
        build(reward_weights=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"linguistic_reward needs .*reference"):
        build(scenes.remove_columns("reference"))
    with pytest.raises(ValueError, match="length_gate_upper must be a number, got '2'"):
        build(length_gate_upper="2")
    with pytest.raises(ValueError, match=r"lower <= .*upper, got 3.0 and 2.0"):
        build(length_gate_lower=3.0)
    with pytest.raises(ValueError, match="'mask', 'linear' or None, got 'slope'"):
        build(length_gate="slope")
    with pytest.raises(ValueError, match=r"\[60, 200\] needs length_gate='mask', got None"):
        build(length_gate_tokens=(60, 200), length_gate="none")
    with pytest.raises(ValueError, match=r"\(0.5, 3\). Leave one of the two out"):
        build(length_gate_tokens=(60, 200), length_gate_upper=3.0)


def test_nothing_to_gate_is_no_error(tiny_text, tmp_path):
    trainer = BalCapTrainer(
        str(tiny_text),
        length_reward,
        BalCapConfig(str(tmp_path), **CPU),
        Dataset.from_dict({"prompt": ["a"] * 8}),
    )
    assert trainer.reward_funcs == [length_reward]

"""Looking ahead changes the order of the work and nothing else: the same completions, to the
bit."""

import random
import zlib
from typing import Any

import pytest
import torch
from transformers import AutoProcessor
from trl.chat_template_utils import qwen3_vl_chat_template

from tests.conftest import scene_dataset
from tests.tiny_models import build_qwen3_vl
from tests.two_ranks import on_two_ranks
from trl_balcap import (
    BalCapConfig,
    BalCapTrainer,
    Judge,
    JudgeReward,
    LinguisticReward,
    RecallReward,
)
from trl_balcap.data.completions import completion_text
from trl_balcap.lookahead import LookAhead
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.server_faults import ServerFaults
from trl_balcap.trainer import JudgeOutageError


def marked(caption: str) -> float:
    """A number that only this caption has."""
    return zlib.crc32(caption.encode()) / 2**32


class MarkReward(JudgeReward):
    """Its reward names the caption that it was given for."""

    __name__ = "mark_reward"

    async def score(self, row):
        return marked(row.caption)


class Ordered(BalCapTrainer):
    """Draws each generation from a seed of its own, so that its place in the order does not matter,
    and keeps the order in which things happen."""

    def __init__(self, *args, **kwargs):
        self.order: list[str] = []
        self.generations = 0
        super().__init__(*args, **kwargs)

    @property
    def is_training(self) -> bool:
        assert self.model is not None
        return self.model.training

    def _generate_single_turn(self, *args, **kwargs):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.state.global_step * 100 + self.generations)
            self.generations += 1
            self.order.append("generate" if self.is_training else "generate for evaluation")
            return super()._generate_single_turn(*args, **kwargs)

    def _compute_loss(self, model, inputs):
        if self.is_training:
            self.order.append("loss")
        return super()._compute_loss(model, inputs)


def build(model, out, dataset, reward_funcs=None, kind=Ordered, given: Any = None, **config) -> Any:
    """A trainer on CPU with changed settings; `given` is what else it is given by name."""
    return kind(
        str(model),
        reward_funcs or [MarkReward(Judge("scenes/oracle"))],
        BalCapConfig(
            str(out),
            **{
                "use_cpu": True,
                "bf16": False,
                "gradient_checkpointing": False,
                "report_to": "none",
                "disable_tqdm": True,
                "logging_steps": 1,
                "learning_rate": 1e-2,
                "per_device_train_batch_size": 4,
                "num_generations": 2,
                "max_completion_length": 8,
                "gradient_accumulation_steps": 3,
                "steps_per_generation": 1,
                "max_steps": 3,
                "save_steps": 1,
                **config,
            },
        ),
        train_dataset=dataset,
        **(given or {}),
    )


def logs(trainer):
    """Of each step what training decides; not what time and the judge's memory do."""
    return [
        {k: v for k, v in row.items() if not k.startswith(("judge/", "train_")) and "time" not in k}
        for row in trainer.state.log_history
    ]


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


# ---- what is held ready, by hand ---------------------------------------------------------------


def test_later_batches_are_generated_once_and_taken_once():
    ahead, batches, generated = LookAhead(), [[1], [2], [3]], []

    def generate(batch):
        generated.append(batch)
        return ahead.keep(batch, f"of {batch[0]}")

    ahead.begin(batches)
    assert ahead.take(batches[0]) is None
    ahead.generate_later(batches[0], generate)
    assert generated == [[2], [3]]
    assert (ahead.take(batches[1]), ahead.take(batches[1])) == ("of 2", None)
    ahead.generate_later(batches[1], generate)
    assert generated == [[2], [3]]  # the third is held already
    assert ahead.begin([[4]]) == 1
    assert ahead.take(batches[2]) is None  # given up with its update
    ahead.generate_later([2], generate)  # equal to a batch of the update, and not it
    assert generated == [[2], [3]]


def test_an_error_on_the_way_is_handed_on():
    ahead, batches = LookAhead(), [[1], [2]]
    ahead.begin(batches)

    def fails(batch):
        raise MemoryError

    with pytest.raises(MemoryError):
        ahead.generate_later(batches[0], fails)
    with pytest.raises(RuntimeError, match="to be generated only"):
        ahead.generate_later(batches[0], lambda batch: "scored, where it was to be left")
    assert ahead.keep(batches[0], "a") == "a"  # nobody leaves any more


# ---- through the real trainer ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "config"),
    [
        pytest.param(12, {}, id="three_batches"),
        pytest.param(8, {"max_steps": 4}, id="an_uneven_update_at_the_epochs_end"),
        pytest.param(
            8,
            {"gradient_accumulation_steps": 4, "steps_per_generation": 2},
            id="two_batches_of_two_steps",
        ),
    ],
)
def test_the_same_to_the_bit_in_less_waiting(tiny_qwen, tmp_path, rows, config):
    trained = {}
    for name, looks_ahead in (("trl", False), ("ahead", True)):
        trainer = build(
            tiny_qwen, tmp_path / name, scene_dataset(rows), judge_lookahead=looks_ahead, **config
        )
        trainer.train()
        trained[name] = trainer
    trl, ahead = trained["trl"], trained["ahead"]
    assert logs(trl) == logs(ahead)
    for name, weight in weights(trl).items():
        assert torch.equal(weight, weights(ahead)[name]), name
    assert sorted(trl.order) == sorted(ahead.order)
    assert trl.order[:2] == ["generate", "loss"]
    assert ahead.order[:3] == ["generate", "generate", "generate" if rows == 12 else ahead.order[2]]


def test_no_reward_lands_on_another_completion(tiny_qwen, tmp_path):
    class Checked(Ordered):
        checked = 0

        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            texts = [c[0]["content"] for c in list(self._logs["completion"])[-len(inputs) :]]
            expected = torch.tensor([marked(text) if text else 0.0 for text in texts])
            torch.testing.assert_close(self._rewards_per_func[:, 0], expected)
            self.checked += len(texts)
            return output

    trainer = build(tiny_qwen, tmp_path, scene_dataset(12), kind=Checked)
    trainer.train()
    assert isinstance(trainer, Checked)
    assert trainer.checked == 3 * 3 * 4
    assert len(set(trainer._logs["rewards"]["mark_reward"])) > 2


def test_resumes_from_the_middle_to_the_same_weights(tiny_qwen, tmp_path):
    straight = build(tiny_qwen, tmp_path / "straight", scene_dataset(20))
    straight.train()
    resumed = build(tiny_qwen, tmp_path / "resumed", scene_dataset(20))
    resumed.generations = 3  # those of the first step
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-1"))
    assert resumed.order[:4] == ["generate", "generate", "generate", "loss"]
    for name, weight in weights(straight).items():
        torch.testing.assert_close(weights(resumed)[name], weight, rtol=1e-4, atol=1e-6, msg=name)


def test_an_evaluation_takes_its_batches_one_by_one(tiny_qwen, tmp_path):
    trainer = build(
        tiny_qwen, tmp_path, scene_dataset(12), per_device_eval_batch_size=4, max_steps=1
    )
    trainer.train()
    trainer.order.clear()
    held_out: Any = scene_dataset(4)  # transformers names torch's Dataset alone
    metrics = trainer.evaluate(held_out)
    assert trainer.order == ["generate for evaluation"] * 2
    assert metrics["eval_rewards/mark_reward/mean"] > 0


def test_an_outage_calls_off_what_was_begun_ahead(tiny_qwen, tmp_path):
    with serve(faults=ServerFaults(dead_after=2)) as server:  # the preflight alone
        judge = Judge("openai/oracle", api_base=server.url, api_key="none", max_retries=0)
        rewards = [RecallReward(judge), LinguisticReward(judge)]
        config = {"max_unscored_rows": 1, "outage_patience": 1, "length_gate": None}
        trainer = build(tiny_qwen, tmp_path, scene_dataset(12), rewards, **config)
        with pytest.raises(JudgeOutageError):
            trainer.train()
    assert trainer.order == ["generate"] * 3  # two batches had been begun ahead of the first
    assert [reward._started for reward in rewards] == [[], []]


def test_without_hooks_the_order_is_trls(tiny_qwen, tmp_path):
    def length_reward(completion_ids, **kwargs):
        return [float(len(ids)) for ids in completion_ids]

    trainer = build(tiny_qwen, tmp_path, scene_dataset(12), [length_reward], max_steps=1)
    trainer.train()
    assert trainer.order == ["generate", "loss"] * 3


class CallingTools(Ordered):
    """Asks a tool in every other rollout, then says words drawn from a seed of the turn's own."""

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        drawn = random.Random(self.state.global_step * 100 + self.generations)
        asking = self.generations % 2 == 0  # and then comes the turn with the tool's answer
        self.generations += 1
        self.order.append("generate")
        calls = self._tokenizer.encode(
            '<tool_call>\n{"name": "side", "arguments": {"of": "star"}}\n</tool_call><|im_end|>'
        )
        turns = []
        for place in range(len(prompt_ids)):
            words = [drawn.randrange(300, 400) for _ in range(5)] + [self._tokenizer.eos_token_id]
            turns.append(calls if asking and place % 2 == 0 else words)
        return turns, None


def test_with_tools_both_orders_are_the_same_to_the_bit(tmp_path):
    def side(of: str) -> str:
        """
        Says on which side something is.

        Args:
            of: What to look for.
        """
        asked.append(of)
        return "left"

    model, trained, asked = build_qwen3_vl(tmp_path / "model"), {}, []
    processor: Any = AutoProcessor.from_pretrained(model)
    processor.chat_template = qwen3_vl_chat_template  # the tiny one knows no tools
    processor.save_pretrained(model)
    for name, looks_ahead in (("trl", False), ("ahead", True)):
        trained[name] = build(
            model,
            tmp_path / name,
            scene_dataset(8),
            kind=CallingTools,
            given={"tools": [side]},
            judge_lookahead=looks_ahead,
            max_completion_length=150,
            max_tool_calling_iterations=1,
            gradient_accumulation_steps=2,
            max_steps=1,
            save_strategy="no",
        )
        trained[name].train()
    trl, ahead = trained["trl"], trained["ahead"]
    assert trl.order[:3] == ["generate", "generate", "loss"]
    assert ahead.order[:5] == ["generate"] * 4 + ["loss"]
    assert logs(trl) == logs(ahead)
    assert logs(trl)[0]["tools/call_frequency"] == 0.5
    assert asked == ["star"] * 2 * 2 * 2  # rollouts, batches, orders
    for name, weight in weights(trl).items():
        assert torch.equal(weight, weights(ahead)[name]), name
    texts = [completion_text(completion) for completion in ahead._logs["completion"]]
    rewards = list(ahead._logs["rewards"]["mark_reward"])
    assert rewards == pytest.approx([marked(text) for text in texts])


@pytest.mark.parametrize("kind", ["ddp", pytest.param("zero3", marks=pytest.mark.slow)])
def test_on_two_ranks_all_orders_train_on_the_same_rows(kind, tiny_qwen, tmp_path):
    on_two_ranks(kind, "lookahead", tiny_qwen, tmp_path)
    ranks = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=False) for rank in range(2)]
    for seen in ranks:
        trl, ahead, lag = seen["trl"], seen["ahead"], seen["lag"]
        assert seen["zero_stage"] == (3 if kind == "zero3" else 0)
        assert trl["logs"] == ahead["logs"]
        assert len(trl["weights"]) > 40
        assert all(torch.equal(w, ahead["weights"][name]) for name, w in trl["weights"].items())
        assert trl["order"][:2] == ["generate", "loss"]
        assert ahead["order"][:3] == ["generate"] * 3
        # One step off: this update's and the next one's, in two losses of three by an older policy.
        assert lag["order"] == ["generate"] * 6 + ["loss"] * 6
        assert lag["references"] == trl["references"]
        assert lag["off_policy"] == [False] * 3 + [True] * 3
    one, other = (seen["lag"] for seen in ranks)
    assert one["logs"] == other["logs"]
    assert all(torch.equal(w, other["weights"][name]) for name, w in one["weights"].items())

"""`judge_lag=1`: what the older policy wrote is trained on once, by its own log-probabilities."""

import json
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, TrainerCallback

from tests.conftest import scene_dataset
from tests.test_lookahead import MarkReward, Ordered, build, marked, weights
from trl_balcap import BalCapConfig, Judge, LinguisticReward, RecallReward
from trl_balcap.data.completions import completion_text
from trl_balcap.lookahead import Peekable
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.server_faults import ServerFaults
from trl_balcap.trainer import JudgeOutageError

# One generation batch an update.
ONE_BATCH: dict[str, Any] = {"gradient_accumulation_steps": 1, "judge_lag": 1}


class Remembering(Ordered):
    """Keeps who wrote each batch, what it was scored as, and what each loss was computed from."""

    def __init__(self, *args, **kwargs):
        self.writers: list[dict[str, torch.Tensor]] = []
        self.references: list[list[str]] = []
        self.lengths: list[float] = []
        self.tokens: list[int] = []
        self.losses: list[dict[str, Any]] = []
        super().__init__(*args, **kwargs)

    def _generate_single_turn(self, *args, **kwargs):
        if self.is_training:
            self.writers.append(weights(self))
        return super()._generate_single_turn(*args, **kwargs)

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        written = list(self._logs["completion"])[-len(self._rewards_per_func) :]  # of all ranks
        texts = [completion_text(completion) for completion in written]
        expected = torch.tensor([marked(text) if text else 0.0 for text in texts])
        torch.testing.assert_close(self._rewards_per_func[:, 0], expected)
        if self.is_training:
            self.references.append([row["reference"] for row in inputs])
            self.lengths.append(output["completion_mask"].sum(1).float().mean().item())
            self.tokens.append(int(output["completion_mask"].sum() + output["prompt_mask"].sum()))
        return output

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        if self.is_training:
            self.losses.append({"loss": loss.item(), "policy": weights(self), "inputs": inputs})
        return loss


def log_probabilities(model, policy: dict[str, torch.Tensor], inputs) -> torch.Tensor:
    """Of each completion token under a policy, without TRL."""
    loaded: Any = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32)
    loaded.load_state_dict(policy, strict=False)
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)  # (B, P + C)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)  # (B, P + C)
    images = {k: inputs[k] for k in ("pixel_values", "image_grid_thw", "mm_token_type_ids")}
    with torch.no_grad():
        logits = loaded(input_ids=ids, attention_mask=mask, **images).logits  # (B, P + C, V)
    length = inputs["completion_ids"].shape[1]
    each = logits[:, -length - 1 : -1].log_softmax(dim=-1)  # (B, C, V)
    return each.gather(2, inputs["completion_ids"][..., None])[..., 0]  # (B, C)


# ---- by hand -----------------------------------------------------------------------------------


def test_items_are_seen_before_they_are_taken():
    batches = Peekable(iter("abc"))
    assert batches.peek(2) == ["a", "b"]
    assert next(batches) == "a"
    assert batches.peek(3) == ["b", "c"]  # no more than there are
    assert list(batches) == ["b", "c"]
    assert batches.peek(1) == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"judge_lag": 2}, "0 or 1, got 2"),
        ({"judge_lag": 1, "num_iterations": 2}, "num_iterations=2"),
        ({"judge_lag": 1, "steps_per_generation": 4}, "steps_per_generation=4 with gradient_acc"),
        ({"judge_lag": 1, "judge_lookahead": False}, "judge_lag=1 needs judge_lookahead"),
    ],
)
def test_settings_that_cannot_be(config, message):
    with pytest.raises(ValueError, match=message):
        BalCapConfig("out", bf16=False, gradient_accumulation_steps=2, **config)


def test_a_ratio_is_truncated_where_trl_truncates_vllms():
    assert BalCapConfig("out", bf16=False, judge_lag=1).delta == 3.0
    assert BalCapConfig("out", bf16=False, judge_lag=1, delta=1.5).delta == 1.5
    assert BalCapConfig("out", bf16=False).delta is None


def test_without_a_judge_in_the_background_it_is_refused(tiny_qwen, tmp_path):
    def length_reward(completion_ids, **kwargs):
        return [float(len(ids)) for ids in completion_ids]

    with pytest.raises(ValueError, match="judges in the background"):
        build(tiny_qwen, tmp_path, scene_dataset(12), [length_reward], **ONE_BATCH)


# ---- through the real trainer ------------------------------------------------------------------


def test_the_ratio_is_of_the_policy_that_trains_over_the_one_that_wrote(tiny_qwen, tmp_path):
    bound = 1.05  # lower than TRL's 3.0, so that these few tokens reach it
    trainer = build(
        tiny_qwen,
        tmp_path,
        scene_dataset(12),
        kind=Remembering,
        vllm_importance_sampling_clip_max=bound,
        save_strategy="no",
        **ONE_BATCH,
    )
    trainer.train()
    # The first update's batch, then each time the next before this one's loss.
    assert trainer.order == ["generate", "generate", "loss", "generate", "loss", "loss"]
    assert "old_per_token_logps" not in trainer.losses[0]["inputs"]  # on-policy
    for update in (1, 2):
        one, before = trainer.losses[update], trainer.losses[update - 1]["policy"]
        inputs, mask = one["inputs"], one["inputs"]["completion_mask"]
        writer = trainer.writers[update]
        assert all(torch.equal(weight, writer[name]) for name, weight in before.items())
        old = log_probabilities(tiny_qwen, writer, inputs)
        new = log_probabilities(tiny_qwen, one["policy"], inputs)
        torch.testing.assert_close(inputs["old_per_token_logps"] * mask, old * mask)
        ratio = (new - old).exp()  # (B, C)
        assert (ratio * mask).max() > bound
        advantages = inputs["advantages"][:, None]  # (B, 1)
        kept = torch.min(ratio.clamp(max=bound) * advantages, ratio.clamp(0.8, 1.2) * advantages)
        expected = -(kept * mask).sum() / inputs["num_items_in_batch"]
        assert one["loss"] == pytest.approx(expected.item(), rel=1e-3, abs=1e-5)


def test_rows_rewards_and_logs_are_those_of_the_step_that_trains(tiny_qwen, tmp_path):
    seen = {}
    for lag in (0, 1):
        # Updates of 3, 3 and 2 batches an epoch: 5 updates end in the middle of the second.
        config = {"max_steps": 5, "judge_lag": lag, "save_strategy": "no"}
        out = tmp_path / str(lag)
        trainer = build(tiny_qwen, out, scene_dataset(16), kind=Remembering, **config)
        trainer.train()
        seen[lag] = trainer
    on_policy, lagged = seen[0], seen[1]
    assert on_policy.references == lagged.references
    assert len(lagged.references) == len(lagged.writers) == 3 + 3 + 2 + 3 + 3
    assert lagged.order[:7] == ["generate"] * 6 + ["loss"]  # this update's and the next one's
    assert ["old_per_token_logps" in loss["inputs"] for loss in lagged.losses] == (
        [False] * 3 + [True] * 5 + [False] * 3 + [True] * 3  # an epoch begins on-policy
    )
    rows = [row for row in lagged.state.log_history if "loss" in row]
    batches = [slice(0, 3), slice(3, 6), slice(6, 8), slice(8, 11), slice(11, 14)]
    for row, mine in zip(rows, batches, strict=True):
        expected = sum(lagged.lengths[mine]) / len(lagged.lengths[mine])
        assert row["completions/mean_length"] == pytest.approx(expected)
        assert row["num_tokens"] == sum(lagged.tokens[: mine.stop])


def test_an_evaluation_in_between_leaves_the_held_batch_alone(tiny_qwen, tmp_path):
    trainer = build(
        tiny_qwen,
        tmp_path,
        scene_dataset(12),
        kind=Remembering,
        given={"eval_dataset": scene_dataset(4, seed=1)},
        eval_strategy="steps",
        eval_steps=1,
        per_device_eval_batch_size=4,
        **ONE_BATCH,
    )
    trainer.train()
    step = ["generate", "loss", *["generate for evaluation"] * 2]
    assert trainer.order == ["generate", *step, *step, *step[1:]]


def test_resumed_it_writes_the_held_batch_again(tiny_qwen, tmp_path):
    straight = build(
        tiny_qwen, tmp_path / "straight", scene_dataset(12), kind=Remembering, **ONE_BATCH
    )
    straight.train()
    resumed = build(
        tiny_qwen, tmp_path / "resumed", scene_dataset(12), kind=Remembering, **ONE_BATCH
    )
    checkpoint = tmp_path / "straight" / "checkpoint-1"
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.references == straight.references[1:]  # the rows of the second and third step
    assert resumed.order == ["generate", "generate", "loss", "loss"]
    assert ["old_per_token_logps" in one["inputs"] for one in resumed.losses] == [False, True]
    saved = json.loads((checkpoint / "trainer_state.json").read_text())
    assert saved["num_input_tokens_seen"] == straight.tokens[0]  # not those of the held batch


def test_what_a_stopped_run_holds_is_said(tiny_qwen, tmp_path, caplog):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = True

    trainer = build(tiny_qwen, tmp_path, scene_dataset(12), **ONE_BATCH)
    trainer.add_callback(Stop())
    trainer.train()
    assert "Dropping 1 generation batches generated ahead" in caplog.text
    assert [hooks._started for hooks in trainer._hooks] == [[]]


def test_an_outage_calls_off_what_was_begun(tiny_qwen, tmp_path, caplog):
    with serve(faults=ServerFaults(dead_after=2)) as server:  # the preflight alone
        judge = Judge("openai/oracle", api_base=server.url, api_key="none", max_retries=0)
        rewards = [RecallReward(judge), LinguisticReward(judge)]
        config = {"max_unscored_rows": 1, "outage_patience": 2, "length_gate": None, **ONE_BATCH}
        trainer = build(tiny_qwen, tmp_path, scene_dataset(12), rewards, **config)
        with pytest.raises(JudgeOutageError):
            trainer.train()
    # The second batch in a row without a verdict ends it, with the third one written.
    assert trainer.order == ["generate", "generate", "loss", "generate"]
    assert [reward._started for reward in rewards] == [[], []]
    assert "Dropping 1 generation batches generated ahead" in caplog.text


def test_another_run_after_an_interrupted_one_asks_for_its_own(tiny_qwen, tmp_path):
    class Interrupted(Remembering):
        once = True

        def _get_per_token_logps_and_entropies(self, *args, **kwargs):
            if self._replay is not None and self.once:  # known, but not yet asked for
                self.once = False
                raise KeyboardInterrupt
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    trainer = build(
        tiny_qwen, tmp_path, scene_dataset(12), kind=Interrupted, save_strategy="no", **ONE_BATCH
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    before = weights(trainer)
    trainer.losses.clear()
    trainer.train()
    # A stale answer would be taken for the first that TRL asks for.
    assert ["old_per_token_logps" in one["inputs"] for one in trainer.losses] == [False, True, True]
    assert any(not torch.equal(weight, before[name]) for name, weight in weights(trainer).items())


def test_the_reference_policy_is_asked_as_ever(tiny_qwen, tmp_path):
    trainer = build(tiny_qwen, tmp_path, scene_dataset(12), kind=Remembering, beta=0.1, **ONE_BATCH)
    trainer.train()
    inputs = trainer.losses[2]["inputs"]
    start = dict(AutoModelForImageTextToText.from_pretrained(tiny_qwen).named_parameters())
    start = {name: weight.detach().float() for name, weight in start.items()}
    mask = inputs["completion_mask"]
    expected = log_probabilities(tiny_qwen, start, inputs)
    torch.testing.assert_close(inputs["ref_per_token_logps"] * mask, expected * mask)
    assert isinstance(trainer._hooks[0], MarkReward)

"""Log-probabilities noted while transformers samples: those of a forward pass, without one."""

from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForImageTextToText

from tests.conftest import scene_dataset
from tests.test_lag import ONE_BATCH, Remembering
from tests.test_lookahead import build
from tests.two_ranks import on_two_ranks
from trl_balcap.sampled_logps import SampledLogps

PROMPT = torch.tensor([[5, 6, 7], [5, 6, 8]])


def sampled(model, noted: SampledLogps, **config: Any) -> torch.Tensor:
    """Completions of two prompts, of shape (2, T)."""
    torch.manual_seed(0)
    with noted.watching(model):
        output = model.generate(
            input_ids=PROMPT,
            attention_mask=torch.ones_like(PROMPT),
            do_sample=True,
            suppress_tokens=None,
            **config,
        )
    return output[:, PROMPT.shape[1] :]


def expected(model, tokens: torch.Tensor, temperature: float) -> torch.Tensor:
    """The same in one forward pass, of shape (2, T)."""
    with torch.no_grad():
        logits = model(input_ids=torch.cat([PROMPT, tokens], dim=1)).logits / temperature
    each = logits[:, PROMPT.shape[1] - 1 : -1].log_softmax(dim=-1)  # (2, T, V)
    return each.gather(2, tokens[..., None])[..., 0]


@pytest.fixture(scope="module")
def model(tiny_qwen):
    return AutoModelForImageTextToText.from_pretrained(tiny_qwen, dtype=torch.float32).eval()


def test_they_are_those_of_a_forward_pass(model):
    noted = SampledLogps(temperature=0.7)
    tokens = sampled(model, noted, max_new_tokens=6, temperature=0.7)
    mask = torch.ones_like(tokens)
    logps = noted.of(tokens, mask)
    torch.testing.assert_close(logps, expected(model, tokens, 0.7), rtol=1e-4, atol=1e-5)


def test_padding_after_the_end_is_zero_and_the_rest_is_kept(model):
    noted = SampledLogps()
    tokens = sampled(model, noted, max_new_tokens=5, eos_token_id=-1)
    whole = expected(model, tokens, 1.0)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    padded = tokens.masked_fill(mask == 0, 0)  # what TRL puts after a row's end
    logps = noted.of(padded, mask)
    assert logps is not None
    torch.testing.assert_close(logps, whole * mask, rtol=1e-4, atol=1e-5)


def test_other_tokens_are_not_those_that_were_sampled(model):
    noted = SampledLogps()
    tokens = sampled(model, noted, max_new_tokens=4, eos_token_id=-1)
    mask = torch.ones_like(tokens)
    other = tokens.clone()
    other[1, 2] += 1
    assert noted.of(other, mask) is None
    assert noted.of(tokens[:1], mask[:1]) is None  # of another batch
    assert noted.of(tokens.repeat(1, 2), mask.repeat(1, 2)) is None  # longer than what was sampled
    assert SampledLogps().of(tokens, mask) is None  # another engine sampled
    assert noted.of(tokens, mask) is not None


def test_where_all_are_masked_there_is_nothing_to_know(model):
    noted = SampledLogps()
    tokens = sampled(model, noted, max_new_tokens=4, eos_token_id=-1)
    logps = noted.of(tokens, torch.zeros_like(tokens))  # as mask_truncated_completions may do
    assert logps is not None
    assert torch.equal(logps, torch.zeros(2, 4))


def test_once_the_block_ends_nothing_is_noted(model):
    noted = SampledLogps()
    tokens = sampled(model, noted, max_new_tokens=3, eos_token_id=-1)
    model(input_ids=PROMPT)
    assert noted.of(tokens, torch.ones_like(tokens)) is not None


@pytest.mark.parametrize(
    ("lora", "config"),
    [
        pytest.param(False, {}, id="all weights"),
        pytest.param(True, {}, id="adapter"),
        pytest.param(
            False,
            {"mask_truncated_completions": True, "generation_kwargs": {"min_new_tokens": 8}},
            id="all truncated",
        ),
    ],
)
def test_one_step_off_needs_no_forward_pass_but_the_losss(tiny_qwen, tmp_path, lora, config):
    given = {"peft_config": LoraConfig(target_modules=["q_proj", "v_proj"])} if lora else None
    trainer = build(
        tiny_qwen,
        tmp_path,
        scene_dataset(12),
        kind=Remembering,
        given=given,
        save_strategy="no",
        **config,
        **ONE_BATCH,
    )
    captioner = trainer.model.get_base_model() if lora else trainer.model
    passes = []

    def count(module, args, kwargs):
        if kwargs.get("past_key_values") is None:  # `generate` has a cache
            passes.append(kwargs["input_ids"].shape)

    captioner.register_forward_pre_hook(count, with_kwargs=True)
    trainer.train()
    assert len(passes) == len(trainer.losses) == 3
    assert ["old_per_token_logps" in one["inputs"] for one in trainer.losses] == [False, True, True]


@pytest.mark.slow
def test_with_split_weights_no_rank_runs_a_forward_pass_alone(tiny_qwen, tmp_path):
    """All of one rank's completions are truncated and masked; then, its tokens are not those that
    were sampled. Alone, it would wait for the other's share of the weights forever."""
    on_two_ranks("zero3", "lag", tiny_qwen, tmp_path)

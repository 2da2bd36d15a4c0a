"""The reproduction's generation, held to `model.generate`."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig
from trl.trainer.utils import add_fused_lm_head

from benchmarks.reproduction import measure, sampling
from tests.benchmarks.tiny_runs import STAR
from trl_balcap.scenes.captioner import PROMPT, captioner_path
from trl_balcap.scenes.world import draw


def prompts(path, scenes):
    processor = AutoProcessor.from_pretrained(path)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return processor(
        text=[text] * len(scenes),
        images=[[draw(scene)] for scene in scenes],
        padding=True,
        return_mm_token_type_ids=True,
        return_tensors="pt",
    )


@pytest.fixture(scope="module")
def captioner(tiny_qwen):
    return AutoModelForImageTextToText.from_pretrained(tiny_qwen, dtype=torch.float32).eval()


def test_fast_sampler_is_generate_token_by_token(captioner, tiny_qwen):
    scenes = [row.scene for row in measure.held_out(3)]
    inputs = prompts(tiny_qwen, [scenes[0], scenes[0], scenes[1], scenes[2]])
    theirs = captioner.generate(**inputs, do_sample=False, max_new_tokens=24)
    ours = sampling.FastSampler(captioner)(**inputs, do_sample=False, max_new_tokens=24)
    assert ours.tolist() == theirs.tolist()


def test_fast_sampler_drops_rows_that_ended_and_pads_behind_them():
    path = captioner_path()  # its captions end at different times, those of random weights never
    model: Any = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
    inputs = prompts(path, [row.scene for row in measure.held_out(8)])
    start = inputs["input_ids"].shape[1]
    theirs = model.generate(**inputs, do_sample=False, max_new_tokens=96)
    ours = sampling.FastSampler(model)(**inputs, do_sample=False, max_new_tokens=96)
    assert ours.tolist() == theirs.tolist()
    lengths = (ours[:, start:] != model.generation_config.pad_token_id).sum(dim=1)
    assert len(lengths.unique()) > 3


def test_fast_sampler_draws_from_the_models_distribution(captioner, tiny_qwen):
    """2000 draws of the first token against the softmax of the model's own logits."""
    config = captioner.generation_config
    with torch.no_grad():
        logits = captioner(**prompts(tiny_qwen, [STAR])).logits[0, -1]
    logits[config.suppress_tokens] = -torch.inf
    # A model of random weights is sure of nothing; cooled down, its first choice has about a third.
    coolings = (1 / 2**halvings for halvings in range(12))
    temperature = next(t for t in coolings if (logits / t).softmax(-1).max() > 0.3)
    expected = (logits / temperature).softmax(-1)
    cold = GenerationConfig(
        do_sample=True,
        temperature=temperature,
        top_k=0,
        max_new_tokens=1,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    inputs = prompts(tiny_qwen, [STAR] * 100)
    torch.manual_seed(0)
    sampler = sampling.FastSampler(captioner)
    drawn = torch.cat([sampler(**inputs, generation_config=cold)[:, -1] for _ in range(20)])
    seen = torch.bincount(drawn, minlength=len(expected)) / len(drawn)
    torch.testing.assert_close(seen, expected, atol=0.04, rtol=0)
    assert not set(drawn.tolist()) & set(config.suppress_tokens)


def test_fast_sampler_refuses_what_it_would_get_wrong(captioner, tiny_qwen):
    inputs = prompts(tiny_qwen, [STAR])
    inputs["attention_mask"][0, 0] = 0
    with pytest.raises(ValueError, match="one length"):
        sampling.FastSampler(captioner)(**inputs, do_sample=False)


def test_shared_prompts_change_neither_log_probs_nor_gradients(monkeypatch):
    """Five rollouts of two images, of unlike lengths, through TRL's fused head; ten a portion, and
    two a portion, so that one pass has rows of both images."""
    path = captioner_path()
    scenes = [row.scene for row in measure.held_out(2)]
    inputs = prompts(path, [scenes[0], scenes[1], scenes[0], scenes[0], scenes[1]])
    start = inputs["input_ids"].shape[1]
    model: Any = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)
    torch.manual_seed(0)
    inputs["input_ids"] = sampling.FastSampler(model)(**inputs, do_sample=True, max_new_tokens=48)
    ended = inputs["input_ids"][:, start:] == model.generation_config.pad_token_id  # (B, T)
    assert len(ended.sum(dim=1).unique()) > 2
    for key, column in (("attention_mask", (~ended).long()), ("mm_token_type_ids", 0 * ended)):
        inputs[key] = torch.cat([inputs[key], column], dim=1)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, :start] = -100
    add_fused_lm_head(model)
    found = {}
    for portion in (0, 10, 2):
        if portion:
            monkeypatch.setattr(sampling, "_PORTION", portion)
            sampling.share_prompts(model)
        model.zero_grad()
        log_probs = model(**inputs, labels=labels, fused_lm_head=True).log_probs
        (log_probs.sum(dim=1) * torch.tensor([1.0, -0.5, 0.3, -1.0, 0.7])).sum().backward()
        gradients = {name: part.grad.clone() for name, part in model.named_parameters()}
        found[portion] = {"log_probs": log_probs.detach(), **gradients}
    assert found[0]["model.visual.patch_embed.proj.weight"].abs().max() > 0
    for portion in (10, 2):
        torch.testing.assert_close(found[portion], found[0], rtol=1e-3, atol=1e-4)

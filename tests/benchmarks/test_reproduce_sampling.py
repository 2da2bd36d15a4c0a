"""The reproduction's generation, held to `model.generate`."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

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


def test_shared_images_change_neither_features_nor_gradients(tiny_qwen):
    scenes = [row.scene for row in measure.held_out(2)]
    inputs = prompts(tiny_qwen, [scenes[0], scenes[1], scenes[0], scenes[0]])
    gradients = {}
    for shared in (False, True):
        model = AutoModelForImageTextToText.from_pretrained(tiny_qwen, dtype=torch.float32)
        if shared:
            sampling.share_images(model)
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients[shared] = model.model.visual.patch_embed.proj.weight.grad
    assert gradients[False].abs().max() > 0
    torch.testing.assert_close(gradients[True], gradients[False], rtol=1e-4, atol=1e-7)

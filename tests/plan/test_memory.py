"""The plan's memory, by hand and against what autograd saves."""

import dataclasses

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.plan.recipes import LLAVA, QWEN_3B
from trl_balcap.plan import GenerationBatch, Setup, memory_plan
from trl_balcap.plan.images import ImageTokens
from trl_balcap.plan.memory import GIB, _tower_bytes
from trl_balcap.plan.model import ModelShape, Tower, load_config

TOWER = Tower(layers=2, hidden=100, intermediate=400, heads=100, key_values=50)
SHAPE = ModelShape(
    name="made up",
    model_type="qwen2_5_vl",
    parameters=8_000_000_000,
    trainable=8_000_000_000,
    linear=7_000_000_000,
    head=100_000_000,
    head_trains=True,
    vision_trains=False,
    vocabulary=1_000_000,
    language=TOWER,
    vision=None,
    config=None,
)
BATCH = GenerationBatch(1, processes=8, gradient_accumulation_steps=8, num_generations=8)
NO_IMAGE = ImageTokens(0, 0, 0, "none")


def plan_memory(shape=SHAPE, batch=BATCH, **setup):
    return memory_plan(
        shape,
        Setup(**setup),
        batch,
        image=NO_IMAGE,
        prompt_tokens=10,
        completion_tokens=90,
        gpu_memory=80.0,
    )


def gigabytes(memory) -> dict[str, float]:
    terms = (*memory.static, *memory.generating, *memory.training, *memory.stepping)
    return {term.name: term.bytes / 1e9 for term in terms}


def test_zero_3_shares_out_all_16_bytes_of_a_parameter():
    """8e9 parameters on 8 GPUs: 2 B weights, 2 B gradients, 4 + 4 + 4 B of AdamW in float32."""
    found = gigabytes(plan_memory(processes=8, zero_stage=3))
    assert found["weights"] == 2.0
    assert found["gradients"] == 2.0
    assert found["optimizer"] == 12.0
    assert found["float32 gradients"] == 4.0
    assert found["gathered weights"] == 16.0


def test_zero_2_keeps_the_weights_on_every_gpu():
    found = gigabytes(plan_memory(processes=8, zero_stage=2))
    assert (found["weights"], found["gradients"], found["optimizer"]) == (16.0, 2.0, 12.0)
    assert "gathered weights" not in found


def test_offloading_moves_gradients_and_optimizer_to_the_host():
    memory = plan_memory(processes=8, processes_per_machine=8, zero_stage=3, offload_optimizer=True)
    found = gigabytes(memory)
    assert (found["weights"], found["gradients"], found["optimizer"]) == (2.0, 0.0, 0.0)
    # 12 B of AdamW and gradients in bf16 and float32, for all 8 shares of the machine.
    assert memory.host == 8e9 * (12 + 4)


def test_without_zero_the_optimizer_keeps_the_weights_dtype():
    bf16 = gigabytes(plan_memory())
    assert (bf16["weights"], bf16["gradients"], bf16["optimizer"]) == (16.0, 16.0, 32.0)
    float32 = gigabytes(plan_memory(weights="float32"))
    assert (float32["weights"], float32["gradients"], float32["optimizer"]) == (32.0, 32.0, 64.0)
    assert float32["autocast"] == 16.0
    assert gigabytes(plan_memory(processes=2))["gradients"] == 32.0  # DDP's buckets
    assert gigabytes(plan_memory(optim="adamw_8bit"))["optimizer"] == 16.0


def test_an_adapter_leaves_the_base_at_2_bytes_and_trains_in_float32():
    adapter = dataclasses.replace(
        SHAPE, parameters=8_010_000_000, trainable=10_000_000, head_trains=False
    )
    found = gigabytes(plan_memory(adapter, peft=True))
    assert found["weights"] == pytest.approx(16.0 + 0.04)
    assert (found["gradients"], found["optimizer"]) == (0.04, 0.08)
    # 4 bits with a float32 per 64 values: 0.5625 B for 7e9 of them, 2 B for the other 1e9.
    quantised = gigabytes(plan_memory(adapter, peft=True, bits=4))
    assert quantised["weights"] == pytest.approx(7 * 0.5625 + 2.0 + 0.02)


def test_the_reference_model_is_a_second_set_of_weights_unless_there_is_an_adapter():
    assert gigabytes(plan_memory(reference_model=True))["reference model"] == 16.0
    assert "reference model" not in gigabytes(plan_memory(reference_model=True, peft=True))


def test_generation_by_hand():
    """8 rows at once x 100 tokens x 2 layers x (50 keys + 50 values) x 2 B; 3 x 4 B of logits."""
    found = gigabytes(plan_memory())
    assert found["key-value cache"] * 1e9 == 8 * 100 * 2 * 100 * 2
    assert found["sampling"] * 1e9 == 3 * 4 * 8 * 1_000_000
    assert plan_memory(vllm="server").generating == ()
    assert gigabytes(plan_memory(vllm="colocate", vllm_share=0.25))["vLLM"] == pytest.approx(
        20 * GIB / 1e9
    )


def test_logits_by_hand():
    """1 row x 90 completion tokens. Fused: one tile of 90 x 32768 in bf16, the hidden states'
    gradient and the head's in float32 (and its bf16 cast). Not fused: all logits, and their
    gradient."""
    fused = 2 * 90 * 32768 + 4 * 90 * 100 + 6 * 100_000_000
    assert gigabytes(plan_memory())["one layer, or the logits"] * 1e9 == pytest.approx(fused)
    whole = 2 * 2 * 91 * 1_000_000
    assert gigabytes(plan_memory(fused_head=False))["one layer, or the logits"] * 1e9 == whole


def test_an_optimizer_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"optim='adafactor' is unknown.*adamw_torch"):
        plan_memory(optim="adafactor")


@pytest.mark.parametrize("name", [QWEN_3B, LLAVA])
def test_activations_are_those_that_autograd_saves(name):
    """A narrow copy of the real language model: what its backward needs, byte for byte counted."""
    config = load_config(name)
    text = config.get_text_config()
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 512, 1376, 4
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 4, 2, 128
    text.vocab_size, text.layer_types = 1000, ["full_attention"] * 4
    vision = config.vision_config
    vision.depth = vision.num_hidden_layers = 2
    vision.out_hidden_size = 512
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            saved[tensor.untyped_storage().data_ptr()] = tensor  # kept alive, so addresses differ
        return tensor

    embeddings = torch.randn(2, 64, 512, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.model.language_model(inputs_embeds=embeddings, use_cache=False)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())

    kept, _ = _tower_bytes(Tower(4, 512, 1376, 512, 256), checkpointing=False, peft=False)
    assert 2 * 64 * kept == pytest.approx(measured, rel=0.15)

"""Suggests changes to a run that does not fit, each tried by planning again."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from peft import LoraConfig

from trl_balcap.plan.batch import GenerationBatch
from trl_balcap.plan.memory import GIB, Setup, memory_plan
from trl_balcap.plan.model import ModelShape, model_shape
from trl_balcap.plan.run import RunPlan

__all__ = ["LANGUAGE_LORA", "ways_out"]

# Adapters on the language model only: Qwen-VL's vision encoders use some of the same layer names.
LANGUAGE_LORA = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def ways_out(plan: RunPlan) -> list[str]:
    """
    Changes that would make a plan fit, each tried by planning again: those that suffice alone, else
    the shortest sequence that suffices together.

    Args:
        plan ([`RunPlan`]): A plan that does not fit.
    """
    alone = [words for words, changed in _changes(plan) if changed.fits]
    if alone:
        return alone
    together: list[str] = []
    while not plan.fits:
        smaller = [
            (changed.memory.peak, words, changed)
            for words, changed in _changes(plan)
            if changed.memory.peak < plan.memory.peak
        ]
        if not smaller:
            return [
                f"larger GPUs or a smaller model: with {'; '.join(together) or 'every setting'} it "
                f"still needs {plan.memory.peak / GIB:.1f} GiB"
            ]
        _, words, plan = min(smaller, key=lambda change: change[0])
        together.append(words)
    return ["all of these together: " + "; ".join(together)]


def _changes(plan: RunPlan) -> Iterator[tuple[str, RunPlan]]:
    setup, batch = plan.setup, plan.batch
    if batch.per_device_train_batch_size > 1 and batch.per_device_train_batch_size % 2 == 0:
        smaller = dataclasses.replace(
            batch,
            per_device_train_batch_size=batch.per_device_train_batch_size // 2,
            gradient_accumulation_steps=batch.gradient_accumulation_steps * 2,
            steps_per_generation=batch.micro_batches * 2,
        )
        yield (
            f"per_device_train_batch_size {smaller.per_device_train_batch_size} with "
            f"gradient_accumulation_steps {smaller.gradient_accumulation_steps} (the same batch)",
            _planned(plan, batch=smaller),
        )
    half = batch.micro_batches // 2
    width = batch.per_device_train_batch_size * batch.processes
    if half and setup.vllm is None and not (half * width) % batch.num_generations:
        fewer = dataclasses.replace(batch, steps_per_generation=half)
        yield (
            f"steps_per_generation {half} (fewer completions generated at once)",
            _planned(plan, batch=fewer),
        )
    if not setup.gradient_checkpointing:
        yield "gradient_checkpointing true", _with(plan, gradient_checkpointing=True)
    if setup.zero_stage < 3 and setup.processes > 1:
        yield "ZeRO-3 (examples/accelerate/zero3.yaml)", _with(plan, zero_stage=3)
    if not setup.offload_optimizer and setup.processes > 1:
        yield (
            "ZeRO-3 with the optimizer on the host (examples/accelerate/zero3-offload.yaml)",
            _with(plan, zero_stage=3, offload_optimizer=True),
        )
    if setup.zero_stage == 3 and setup.gather_for_generation and setup.vllm is None:
        yield (
            "ds3_gather_for_generation false (slow generation, layer by layer)",
            _with(plan, gather_for_generation=False),
        )
    if setup.vllm != "server":
        yield "use_vllm with vllm_mode server, on its own GPUs", _with(plan, vllm="server")
    if not setup.zero_stage and setup.optim not in ("adamw_8bit", "adamw_bnb_8bit", "sgd"):
        yield "optim adamw_8bit (needs bitsandbytes)", _with(plan, optim="adamw_8bit")
    if not setup.peft:
        shape = _with_adapter(plan.shape)
        lora = dataclasses.replace(setup, peft=True)
        yield (
            f"use_peft with lora_target_modules '{LANGUAGE_LORA}'",
            _planned(plan, shape=shape, setup=lora),
        )
    elif setup.bits == 16 and not setup.zero_stage:
        yield "load_in_4bit (needs bitsandbytes)", _with(plan, bits=4)


@functools.cache
def _with_adapter(shape: ModelShape) -> ModelShape:
    adapter = LoraConfig(r=16, target_modules=LANGUAGE_LORA)
    return model_shape(shape.name, shape.config, adapter)


def _with(plan: RunPlan, **changes: Any) -> RunPlan:
    return _planned(plan, setup=dataclasses.replace(plan.setup, **changes))


def _planned(
    plan: RunPlan,
    *,
    shape: ModelShape | None = None,
    setup: Setup | None = None,
    batch: GenerationBatch | None = None,
) -> RunPlan:
    shape, setup, batch = shape or plan.shape, setup or plan.setup, batch or plan.batch
    memory = memory_plan(
        shape,
        setup,
        batch,
        image=plan.image,
        prompt_tokens=plan.prompt_tokens,
        completion_tokens=plan.settings.max_completion_length,
        gpu_memory=plan.gpu_memory,
    )
    return dataclasses.replace(plan, shape=shape, setup=setup, batch=batch, memory=memory)

"""Captions from vLLM, in this process."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL.Image import Image

from trl_balcap.captioning.engine import (
    Captioner,
    Generation,
    Placement,
    adapter_base,
    ask_hub,
    user_turn,
)

__all__ = ["vllm_captioner"]


def vllm_captioner(
    model: str, how: Generation, placement: Placement | None = None, most_images: int = 1
) -> Captioner:
    """
    A captioner that runs vLLM.

    Args:
        model (`str`): A checkpoint or a PEFT adapter, on disk or on the Hub.
        how ([`Generation`]): Prompt, limits, temperature and seed.
        placement ([`Placement`], *optional*): How many GPUs share the model.
        most_images (`int`, *optional*, defaults to `1`): Largest number of images in a row.

    Raises:
        `ValueError`: if vLLM is not installed.
        `OSError`: if `model` is neither a folder nor on the Hub.
    """
    if find_spec("vllm") is None:
        raise ValueError(
            "vLLM is not installed. Run `pip install vllm`, or use --engine transformers."
        )
    base = adapter_base(model)
    ask_hub(base or model)
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]
    from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

    options: dict[str, Any] = {}
    if placement is not None and placement.tensor_parallel_size is not None:
        options["tensor_parallel_size"] = placement.tensor_parallel_size
    if how.seed is not None:
        options["seed"] = how.seed
    if most_images > 1:
        options["limit_mm_per_prompt"] = {"image": most_images}
    if base is None:
        llm, lora = LLM(model=model, **options), None
    else:
        rank = json.loads((Path(model) / "adapter_config.json").read_text(encoding="utf-8"))["r"]
        llm = LLM(model=base, enable_lora=True, max_lora_rank=max(8, rank), **options)
        lora = LoRARequest("adapter", 1, str(Path(model).resolve()))
    sampling = SamplingParams(temperature=how.temperature, max_tokens=how.max_new_tokens)

    def captions(rows: Sequence[Sequence[Image]]) -> list[str]:
        conversations = [user_turn(how.prompt, *images) for images in rows]
        outputs = llm.chat(conversations, sampling, lora_request=lora, use_tqdm=False)
        return [output.outputs[0].text.strip() for output in outputs]

    return captions

"""A model's size from its configuration, built on the meta device without loading weights."""

import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

__all__ = ["SHIPPED", "ModelShape", "Tower", "load_config", "meta_model", "model_shape"]

# Hub ids whose configuration ships with the package: the models of the recipes.
SHIPPED = {
    "Qwen/Qwen2.5-VL-3B-Instruct": "qwen2.5-vl-3b.json",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2.5-vl-7b.json",
    "Qwen/Qwen3-VL-4B-Instruct": "qwen3-vl-4b.json",
    "llava-hf/llava-1.5-7b-hf": "llava-1.5-7b.json",
}


@dataclass(frozen=True)
class Tower:
    """A stack of transformer layers: the language model or the vision encoder."""

    layers: int
    hidden: int
    intermediate: int
    heads: int  # width of all query heads together
    key_values: int  # width of all key (or value) heads together


@dataclass(frozen=True)
class ModelShape:
    """The sizes that memory depends on: counts in parameters, widths in elements."""

    name: str
    model_type: str
    parameters: int
    trainable: int
    linear: int  # parameters of linear layers except the head, which quantisation shrinks
    head: int  # parameters of the output head
    head_trains: bool
    vision_trains: bool
    vocabulary: int
    language: Tower
    vision: Tower | None
    config: Any = field(compare=False)


def load_config(name: str, *, network: bool = False) -> Any:
    """
    Load a model's configuration: from a local folder, [`SHIPPED`], or the local Hub cache.

    Args:
        name (`str`): Folder or Hub id.
        network (`bool`, *optional*, defaults to `False`): Whether to download it from the Hub.

    Raises:
        `ValueError`: if the configuration is not available without the network.
    """
    if not Path(name).is_dir() and name in SHIPPED:
        text = (
            resources.files("trl_balcap.plan").joinpath("architectures", SHIPPED[name]).read_text()
        )
        values = json.loads(text)
        return AutoConfig.for_model(values["model_type"]).from_dict(values)
    try:
        return AutoConfig.from_pretrained(name, local_files_only=not network)
    except OSError as error:
        raise ValueError(
            f"No configuration found for {name!r}: it is not a folder with a config.json, not one "
            f"of {', '.join(SHIPPED)}, and not in the local Hub cache. Pass a local folder, or "
            "download it from the Hub with --network."
        ) from error


def meta_model(config: Any, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """
    Build a model from its configuration on the meta device: shapes without weights.

    Example:

    ```python
    >>> model = meta_model(load_config("Qwen/Qwen2.5-VL-3B-Instruct"))
    >>> sum(parameter.numel() for parameter in model.parameters())
    3754622976

    ```
    """
    multimodal = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    build = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
    with torch.device("meta"):
        return build.from_config(config, dtype=dtype)


def model_shape(name: str, config: Any, peft_config: Any = None) -> ModelShape:
    """
    Count the parameters of a model, and of its adapter as PEFT would add it.

    Args:
        name (`str`): Name of the model.
        config (`PretrainedConfig`): Its configuration, e.g. from [`load_config`].
        peft_config (`PeftConfig`, *optional*): The adapter; `None` trains every parameter.

    Example:

    ```python
    >>> shape = model_shape("llava", load_config("llava-hf/llava-1.5-7b-hf"))
    >>> shape.parameters, shape.language.layers, shape.vision.layers
    (7063427072, 32, 24)

    ```
    """
    model = meta_model(config)
    head = model.get_output_embeddings().weight  # type: ignore[operator]
    linear = sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.weight is not head
    )
    if peft_config is not None:
        from peft import get_peft_model

        model = get_peft_model(model, peft_config)  # type: ignore[arg-type]
    named = list(model.named_parameters())
    vision = getattr(config, "vision_config", None)
    text = config.get_text_config()
    return ModelShape(
        name=name,
        model_type=config.model_type,
        parameters=sum(parameter.numel() for _, parameter in named),
        trainable=sum(parameter.numel() for _, parameter in named if parameter.requires_grad),
        linear=linear,
        head=head.numel(),
        head_trains=head.requires_grad,
        vision_trains=any(
            parameter.requires_grad and (".visual." in key or ".vision_tower." in key)
            for key, parameter in named
        ),
        vocabulary=head.shape[0],
        language=_tower(text),
        vision=None if vision is None else _tower(vision),
        config=config,
    )


def _tower(config: Any) -> Tower:
    # Qwen's vision encoders use depth and num_heads, unlike all others.
    layers = getattr(config, "depth", None) or config.num_hidden_layers
    heads = getattr(config, "num_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    return Tower(
        layers=layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=heads * width,
        key_values=key_value_heads * width,
    )

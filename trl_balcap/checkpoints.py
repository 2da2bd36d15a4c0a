"""Weights of a checkpoint that were written under other names than the model has in memory."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

__all__ = ["load_renamed_weights"]

logger = logging.getLogger(__name__)


def load_renamed_weights(model: Any, checkpoint: str | Path) -> bool:
    """
    Loads the weights of a checkpoint whose names differ from the model's own; does nothing for any
    other.

    `save_pretrained` writes Qwen2.5-VL, LLaVA and other vision-language models under the names of
    their Hub checkpoints (`visual.*` for `model.visual.*`). The Trainer loads them back by name,
    finds none, warns, and goes on from the weights that it began with
    (https://github.com/huggingface/transformers/issues/43701). `from_pretrained` knows the names.

    Args:
        model (`PreTrainedModel`): The model to load into, in place.
        checkpoint (`str` or `Path`): Folder that `save_pretrained` wrote.

    Returns:
        `bool`: Whether the names differed and the weights were loaded.

    Example:

    ```python
    >>> import tempfile
    >>> from transformers import AutoModelForImageTextToText
    >>> from trl_balcap.scenes.captioner import build_qwen
    >>> checkpoint = build_qwen(tempfile.mkdtemp())
    >>> model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    >>> load_renamed_weights(model, checkpoint)  # written as visual.*, held as model.visual.*
    True

    ```
    """
    written = _names(Path(checkpoint))
    if written <= model.state_dict().keys():
        return False
    dtypes = {parameter.dtype for parameter in model.parameters()}
    # float32 holds what bfloat16 and float16 do: nothing of a mixed model is rounded on the way.
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    loaded = type(model).from_pretrained(checkpoint, dtype=dtype)
    model.load_state_dict(loaded.state_dict())
    logger.warning(
        "The weights of %s were found under their names on the Hub, and loaded: keys that the Trainer "
        "has called missing or unexpected are not.",
        checkpoint,
    )
    return True


def _names(checkpoint: Path) -> set[str]:
    index, weights = checkpoint / SAFE_WEIGHTS_INDEX_NAME, checkpoint / SAFE_WEIGHTS_NAME
    if index.is_file():
        return set(json.loads(index.read_text())["weight_map"])
    if weights.is_file():
        with safe_open(weights, framework="pt") as file:
            return set(file.keys())
    return set()  # an adapter, or what DeepSpeed and FSDP write: their own loaders know it

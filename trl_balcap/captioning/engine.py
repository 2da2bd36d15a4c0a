"""The inputs and outputs shared by all captioning engines."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    RepositoryNotFoundError,
)
from PIL.Image import Image

from trl_balcap.judge.images import encode_image

__all__ = ["Captioner", "Generation", "Placement", "adapter_base", "prompt_of", "user_turn"]

Captioner: TypeAlias = Callable[[Sequence[Sequence[Image]]], Sequence[str]]
"""Turns a batch of rows, each with one or more images, into captions, on this machine."""


@dataclass(frozen=True)
class Generation:
    """
    How captions are generated.

    Args:
        prompt (`str`):
            The user's message.
        max_new_tokens (`int`, *optional*, defaults to `512`):
            Maximum tokens of a caption.
        temperature (`float`, *optional*, defaults to `0.0`):
            Sampling temperature; 0 is greedy.
        batch_size (`int`, *optional*, defaults to `8`):
            Images at a time; with servers, requests in flight at each.
        seed (`int`, *optional*):
            Sampling seed for engines on this machine. A run from the start then always gives the
            same captions; a resumed run draws new samples.

    Raises:
        `ValueError`: if one of them is out of range.
    """

    prompt: str
    max_new_tokens: int = 512
    temperature: float = 0.0
    batch_size: int = 8
    seed: int | None = None

    def __post_init__(self):
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        if not self.temperature >= 0.0:
            raise ValueError(f"temperature must be 0 (greedy) or more, got {self.temperature}.")
        if not self.prompt.strip():
            raise ValueError(
                "The prompt is empty. Pass the text to ask the model, or leave it out."
            )


@dataclass(frozen=True)
class Placement:
    """
    Placement of a model that is too large for one GPU, on this machine.

    Args:
        device_map (`str`, *optional*):
            For transformers, such as `"auto"`, which spreads the model over all GPUs. By default
            the model is on the first GPU, or on the CPU.
        tensor_parallel_size (`int`, *optional*):
            For vLLM: number of GPUs that share each layer.

    Raises:
        `ValueError`: if that number is below 1.
    """

    device_map: str | None = None
    tensor_parallel_size: int | None = None

    def __post_init__(self):
        if self.tensor_parallel_size is not None and self.tensor_parallel_size < 1:
            raise ValueError(
                f"tensor_parallel_size must be 1 or more, got {self.tensor_parallel_size}."
            )


def prompt_of(prompt: str, n_images: int) -> str:
    """
    The prompt for a row with several images: it says how many there are, as CaptionQA's captioner
    does.

    Example:

    ```python
    >>> prompt_of("Describe this image in detail.", 2)
    'You are viewing 2 related images. Describe this image in detail.'
    >>> prompt_of("Describe this image in detail.", 1)
    'Describe this image in detail.'

    ```
    """
    return prompt if n_images == 1 else f"You are viewing {n_images} related images. {prompt}"


def user_turn(prompt: str, *images: Image) -> list[dict[str, Any]]:
    """Chat messages that ask `prompt` about images, in OpenAI's format."""
    shown = [{"url": encode_image(image).url, "detail": "high"} for image in images]
    content: list[dict[str, Any]] = [{"type": "image_url", "image_url": one} for one in shown]
    text = {"type": "text", "text": prompt_of(prompt, len(images))}
    return [{"role": "user", "content": [*content, text]}]


def adapter_base(model: str) -> str | None:
    """The base model of a PEFT adapter folder, `None` for anything else."""
    config = Path(model) / "adapter_config.json"
    if not config.is_file():
        return None
    return json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]


def ask_hub(model: str) -> None:
    """
    Ask the Hub once for a model that is not a folder. Engines ask it many times, with retries each,
    and vLLM has several errors for a missing model.

    Raises:
        `OSError`: if neither the Hub nor the local cache has the model.
    """
    from transformers.utils.hub import cached_file  # slow, and only some engines ask

    if Path(model).exists():
        return
    try:
        cached_file(model, "config.json")
    except OSError:
        cached_file(model, "adapter_config.json")  # an adapter has no other


def trained_prompt(model: str) -> str | None:
    """
    The prompt that a model was trained with, which [`BalCapTrainer`] saves beside its weights.

    Args:
        model (`str`): A checkpoint's or an adapter's folder, or its name on the Hub.

    Returns:
        `str` or `None`: `None` if no single prompt was saved.

    Raises:
        `ValueError`: if the model's `captioning.json` is not as the trainer writes it.
    """
    path = _settings_file(model)
    if path is None:
        return None
    try:
        prompt = json.loads(path.read_text(encoding="utf-8"))["prompt"]
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        if prompt is None or isinstance(prompt, str):
            return prompt
        problem = f"its prompt is {prompt!r}"
    raise ValueError(
        f"{path} does not have the training prompt ({problem}). Pass --prompt, or remove the file."
    )


def _settings_file(model: str) -> Path | None:
    """`captioning.json` of a folder, or of a Hub repository (from the local cache if it is up to
    date)."""
    if Path(model).is_dir():
        path = Path(model) / "captioning.json"
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(model, "captioning.json"))
    except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):
        return None  # if there is no such model at all, loading it will say so

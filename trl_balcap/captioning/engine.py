"""What every captioning engine is given, and what it gives back."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from PIL.Image import Image

from trl_balcap.judge import JudgeError
from trl_balcap.judge.images import encode_image

__all__ = ["Captioner", "Generation", "adapter_base", "user_turn"]

Captioner: TypeAlias = Callable[[Sequence[Image]], Sequence[str | JudgeError]]
"""A batch of images to their captions; an error in place of a caption that was not given."""


@dataclass(frozen=True)
class Generation:
    """
    How captions are generated.

    Args:
        prompt (`str`):
            The user's message.
        max_new_tokens (`int`, *optional*, defaults to `512`):
            Longest caption in tokens.
        temperature (`float`, *optional*, defaults to `0.0`):
            0 is greedy.
        batch_size (`int`, *optional*, defaults to `8`):
            Images at a time (requests at a time for the api).

    Raises:
        `ValueError`: if one of them is out of range.
    """

    prompt: str
    max_new_tokens: int = 512
    temperature: float = 0.0
    batch_size: int = 8

    def __post_init__(self):
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        if not self.temperature >= 0.0:
            raise ValueError(f"temperature must be 0 (greedy) or more, got {self.temperature}.")
        if not self.prompt.strip():
            raise ValueError("The prompt is empty: it is what the model is asked.")


def user_turn(prompt: str, image: Image) -> list[dict[str, Any]]:
    """Chat messages that ask `prompt` about an image, as servers of OpenAI's form take them."""
    shown = {"url": encode_image(image).url, "detail": "high"}
    content = [{"type": "image_url", "image_url": shown}, {"type": "text", "text": prompt}]
    return [{"role": "user", "content": content}]


def adapter_base(model: str) -> str | None:
    """The base model of a PEFT adapter's folder, `None` for anything else."""
    config = Path(model) / "adapter_config.json"
    if not config.is_file():
        return None
    return json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]


def trained_prompt(model: str) -> str | None:
    """
    The user's message that a model was trained with, as [`BalCapTrainer`] keeps it in the folder.

    Args:
        model (`str`): A checkpoint's or an adapter's folder, or any other model's name.

    Returns:
        `str` or `None`: `None` where no one prompt is kept, and for a model that is no folder.

    Raises:
        `ValueError`: if the folder's `captioning.json` is not what the trainer writes.
    """
    path = Path(model) / "captioning.json"
    if not path.is_file():
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
        f"{path} does not name the prompt of training ({problem}). Give a prompt, or remove it."
    )

"""Captions from a transformers model, a batch of images at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from trl_balcap.captioning.engine import (
    Captioner,
    Generation,
    Placement,
    adapter_base,
    ask_hub,
    prompt_of,
)

__all__ = ["generate_captions", "transformers_captioner"]


def transformers_captioner(
    model: str, how: Generation, placement: Placement | None = None
) -> Captioner:
    """
    A captioner that runs a transformers model, on the GPU if there is one.

    Args:
        model (`str`): A checkpoint or a PEFT adapter, on disk or on the Hub.
        how ([`Generation`]): Prompt, limits, temperature, batch size and seed.
        placement ([`Placement`], *optional*): A map of devices for a model larger than one.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    ask_hub(model)
    device_map = None if placement is None else placement.device_map
    # An adapter's folder loads as its base model with the adapter applied.
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        model, dtype="auto", device_map=device_map
    )
    if device_map is None:
        loaded.to("cuda" if torch.cuda.is_available() else "cpu")
    processor = AutoProcessor.from_pretrained(_processor_source(model))
    if how.seed is not None:
        torch.manual_seed(how.seed)

    def captions(rows: Sequence[Sequence[Image]]) -> list[str]:
        return generate_captions(
            loaded,
            processor,
            rows,
            prompt=how.prompt,
            batch_size=how.batch_size,
            max_new_tokens=how.max_new_tokens,
            temperature=how.temperature,
        )

    return captions


def _processor_source(model: str) -> str:
    """The processor of a model; for an adapter saved without one, its base model's."""
    base = adapter_base(model)
    names = ("processor_config.json", "preprocessor_config.json")
    if base is None or any((Path(model) / name).is_file() for name in names):
        return model
    return base


@torch.no_grad()
def generate_captions(
    model: Any,
    processor: Any,
    images: Sequence[Image | Sequence[Image]],
    *,
    prompt: str,
    batch_size: int = 16,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    seed: int | None = None,
) -> list[str]:
    """
    Caption images with an image-text-to-text model from transformers.

    Args:
        model (`PreTrainedModel`):
            The captioner, on its device. Its mode (train or eval) is restored afterwards.
        processor (`ProcessorMixin`):
            Its processor. Padding is on the left here, as generation needs.
        images (`Sequence[PIL.Image.Image or Sequence[PIL.Image.Image]]`):
            Images, already scaled down if that matters. Several in place of one get one
            caption together, see [`~captioning.engine.prompt_of`].
        prompt (`str`):
            The user's message.
        batch_size (`int`, *optional*, defaults to `16`):
            Images at a time.
        max_new_tokens (`int`, *optional*, defaults to `512`):
            Maximum tokens of a caption.
        temperature (`float`, *optional*, defaults to `0.0`):
            Sampling temperature over the whole distribution; 0 is greedy.
        seed (`int`, *optional*):
            Seed of the sampling, set on the global generator.

    Returns:
        `list[str]`: captions in the order of the images, without special tokens, stripped.

    Raises:
        `ValueError`: if the temperature is negative.

    Example:

    ```python
    >>> from transformers import AutoModelForImageTextToText, AutoProcessor
    >>> from trl_balcap.scenes.captioner import captioner_path
    >>> from trl_balcap.scenes.make import scene_rows
    >>> model = AutoModelForImageTextToText.from_pretrained(captioner_path(), dtype="float32")
    >>> processor = AutoProcessor.from_pretrained(captioner_path())
    >>> [caption] = generate_captions(
    ...     model, processor, [scene_rows(1)[0]["image"]], prompt="Describe the image."
    ... )
    >>> caption.endswith(".")
    True

    ```
    """
    if temperature < 0.0:
        raise ValueError(f"temperature must be 0 (greedy) or more, got {temperature}.")
    if seed is not None:
        torch.manual_seed(seed)
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature > 0.0:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    was_training = model.training
    model.eval()
    captions: list[str] = []
    rows = [list(row) if isinstance(row, Sequence) else [row] for row in images]
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        messages = [
            [
                {
                    "role": "user",
                    "content": [
                        *({"type": "image", "image": image} for image in row),
                        {"type": "text", "text": prompt_of(prompt, len(row))},
                    ],
                }
            ]
            for row in batch
        ]
        texts = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        inputs = processor(
            images=batch,
            text=texts,
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_tensors="pt",
        ).to(model.device)
        generated = model.generate(**inputs, max_new_tokens=max_new_tokens, **sampling)
        new_tokens = generated[:, inputs["input_ids"].shape[1] :]
        texts = processor.batch_decode(new_tokens, skip_special_tokens=True)
        captions += [text.strip() for text in texts]
    model.train(was_training)
    return captions

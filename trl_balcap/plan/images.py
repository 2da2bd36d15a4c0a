"""The number of tokens of an image in a model's prompt, and of patches in its encoder."""

from dataclasses import dataclass
from typing import Any

from qwen_vl_utils.vision_process import smart_resize

__all__ = ["ImageTokens", "image_tokens"]


@dataclass(frozen=True)
class ImageTokens:
    """One image: tokens for the language model, patches for the encoder, and the rule used."""

    tokens: int
    patches: int
    patch_values: int  # numbers stored by the processor per patch
    rule: str


def image_tokens(config: Any, width: int, height: int) -> ImageTokens:
    """
    Tokens and patches of an image of `width` x `height` pixels.

    Qwen-VL models cut the image, resized to multiples of `patch_size x spatial_merge_size`, into
    patches and merge them 2 by 2; LLaVA-1.5 resizes every image to its encoder's square.

    Args:
        config (`PretrainedConfig`): The model's configuration.
        width (`int`): Pixels, after [`~data.images.bounded_size`].
        height (`int`): Pixels.

    Raises:
        `ValueError`: if the rule of this model is unknown.

    Example:

    ```python
    >>> from trl_balcap.plan.model import load_config
    >>> image_tokens(load_config("Qwen/Qwen2.5-VL-7B-Instruct"), 448, 448).tokens
    256
    >>> image_tokens(load_config("llava-hf/llava-1.5-7b-hf"), 448, 448).tokens
    576

    ```
    """
    vision = getattr(config, "vision_config", None)
    if vision is None:
        return ImageTokens(0, 0, 0, "no vision encoder")
    if hasattr(vision, "spatial_merge_size"):
        side = vision.patch_size * vision.spatial_merge_size
        rows, columns = smart_resize(height, width, factor=side)
        tokens = (rows // side) * (columns // side)
        patches = tokens * vision.spatial_merge_size**2
        values = 3 * vision.patch_size**2 * vision.temporal_patch_size
        rule = f"{columns} x {rows} px / ({side} px)^2"
        return ImageTokens(tokens, patches, values, rule)
    if config.model_type == "llava":
        side = vision.image_size // vision.patch_size
        tokens = side**2 + (config.vision_feature_select_strategy == "full")
        rule = f"({vision.image_size} px / {vision.patch_size} px)^2, whatever the image"
        return ImageTokens(tokens, side**2 + 1, 3 * vision.patch_size**2, rule)
    raise ValueError(
        f"The number of tokens per image is unknown for model type {config.model_type!r}. Pass it "
        "with --image-tokens."
    )

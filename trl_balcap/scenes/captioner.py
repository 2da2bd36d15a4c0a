"""The tiny captioners: real architectures and real processors, small enough for two CPU cores.

`captioner_path` is the shipped Qwen2.5-VL checkpoint, weak on purpose (see `build_captioner`).
`build_qwen` and `build_llava` write checkpoints with random weights. All of them load with just
`AutoProcessor.from_pretrained` and `AutoModelForImageTextToText.from_pretrained`.
"""

import random
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from trl_balcap.scenes.grammar import META_SENTENCES, Faults, describe, faulty_caption
from trl_balcap.scenes.lexicon import hedge
from trl_balcap.scenes.world import CANVAS, RICHNESS, random_scene

__all__ = ["MAX_NEW_TOKENS", "PROMPT", "build_llava", "build_qwen", "captioner_path"]

PROMPT = "Describe the image in detail."
"""The only instruction that the captioners know."""

MAX_NEW_TOKENS = 100
"""Enough for twice the tokens of the longest reference, plus the end token."""

_PATCH = 14
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE_TOKENS"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def captioner_path() -> Path:
    """Folder of the shipped captioner.

    On held-out scenes, it reaches precision 0.55, recall 0.44 and linguistic quality 0.87 when
    sampled at temperature 1, and 0.63, 0.59 and 0.85 with greedy decoding (docs/scenes.md). 120
    training steps raise all of them above 0.89.

    Returns:
        `pathlib.Path`: A checkpoint folder for `from_pretrained`.

    Example:

    ```python
    >>> (captioner_path() / "config.json").exists()
    True

    ```
    """
    return Path(str(resources.files("trl_balcap.scenes") / "captioner"))


def _all_words(richness: str) -> list[str]:
    """Captions that hold every word of the grammar many times."""
    rng = random.Random(0)
    if richness == "rich":
        texts = [describe(random_scene(rng, (1, 16), richness="rich"), rng) for _ in range(1000)]
        return [*texts, *(hedge(text, rng) for text in texts)]
    faults = Faults(wrong=0.3, vague=0.3, meta=0.3, broken=0.5)
    return [faulty_caption(random_scene(rng, (1, 9)), rng, faults) for _ in range(1000)]


def _tokenizer(special_tokens: list[str], richness: str = "small") -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every word of the grammar is one token and any text can be
    encoded."""
    captions = _all_words(richness)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        min_frequency=1,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", *special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([*captions, *META_SENTENCES, PROMPT, "system user assistant"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", *special_tokens],
        padding_side="left",
    )


def _end_and_padding(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    # If these are left out, configuration classes fill in the token ids of a large vocabulary.
    return {
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _generation_config(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    ends = (tokenizer.eos_token_id, tokenizer.pad_token_id)
    return GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # A sampled image token has no image, so the trainer's next forward pass would fail on it.
        suppress_tokens=[token for token in tokenizer.all_special_ids if token not in ends],
        max_new_tokens=MAX_NEW_TOKENS,
    )


def _enlarge_init(model: PreTrainedModel, factor: float) -> None:
    """Multiply every weight matrix except the embeddings.

    transformers draws them with a standard deviation of 0.02, which suits widths in the thousands.
    At width 128, that is four times too small to learn colours and shapes within minutes.
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() >= 2 and "embed_tokens" not in name and "lm_head" not in name:
                weight.mul_(factor)


def build_qwen(
    path: str | Path,
    *,
    seed: int = 0,
    hidden_size: int = 32,
    num_layers: int = 2,
    num_vision_layers: int = 2,
    init_factor: float = 3.0,
    richness: str = "small",
) -> Path:
    """Write a Qwen2.5-VL checkpoint with random weights, in which each visual token is one cell of
    the board.

    Args:
        path (`str` or `Path`): Output folder; created if missing.
        seed (`int`, *optional*, defaults to `0`): The same seed gives the same weights.
        hidden_size (`int`, *optional*, defaults to `32`):
            Width of the language model and the vision tower; a multiple of 32, so that half the
            width of each of the four heads is even.
        num_layers (`int`, *optional*, defaults to `2`): Layers of the language model.
        num_vision_layers (`int`, *optional*, defaults to `2`): Layers of the vision tower.
        init_factor (`float`, *optional*, defaults to `3.0`):
            Factor applied to the initial weight matrices; three makes training from scratch work.
        richness (`str`, *optional*, defaults to `"small"`):
            The scenes it is for: their size in pixels, and their words.

    Returns:
        `Path`: The folder.

    Raises:
        `ValueError`: if `hidden_size` is not a multiple of 32.
    """
    if hidden_size % 32:
        raise ValueError(
            f"hidden_size is {hidden_size}, but must be a multiple of 32: four heads, "
            "each with a rotary half that splits into time, height and width."
        )
    path = Path(path)
    vision_tokens = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = _tokenizer(vision_tokens, richness)
    canvas = RICHNESS[richness].canvas
    ids = tokenizer.get_vocab()
    half = hidden_size // 4 // 2
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden_size,
            "intermediate_size": 3 * hidden_size,
            "num_hidden_layers": num_layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "max_window_layers": num_layers,
            "use_sliding_window": False,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8],
            },
            **_end_and_padding(tokenizer),
        },
        vision_config={
            "depth": num_vision_layers,
            "hidden_size": hidden_size,
            "intermediate_size": 2 * hidden_size,
            "num_heads": 4,
            "out_hidden_size": hidden_size,
            "patch_size": _PATCH,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": canvas,
            "fullatt_block_indexes": list(range(num_vision_layers)),
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        **_end_and_padding(tokenizer),
    )
    pixels = {"shortest_edge": (2 * _PATCH) ** 2, "longest_edge": canvas**2}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=pixels),
        chat_template=_CHAT_TEMPLATE.replace(
            "IMAGE_TOKENS", "<|vision_start|><|image_pad|><|vision_end|>"
        ),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
    _enlarge_init(model, init_factor)
    model.generation_config = _generation_config(tokenizer)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def build_llava(path: str | Path, *, seed: int = 0, hidden_size: int = 32) -> Path:
    """Write a LLaVA-1.5 checkpoint with random weights, the same tokenizer and 36 visual tokens.

    Args:
        path (`str` or `Path`): Output folder; created if missing.
        seed (`int`, *optional*, defaults to `0`): The same seed gives the same weights.
        hidden_size (`int`, *optional*, defaults to `32`):
            Width of the language model and the vision tower.

    Returns:
        `Path`: The folder.
    """
    path = Path(path)
    tokenizer = _tokenizer(["<image>"])
    # LLaVA reads the tower's second-to-last layer (vision_feature_layer=-2); the last is unused.
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=hidden_size,
            intermediate_size=2 * hidden_size,
            projection_dim=hidden_size,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=CANVAS,
            patch_size=_PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden_size,
            intermediate_size=3 * hidden_size,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2048,
            **_end_and_padding(tokenizer),
        ),
        image_token_index=tokenizer.get_vocab()["<image>"],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(CANVAS // _PATCH) ** 2,
        **_end_and_padding(tokenizer),
    )
    side = {"height": CANVAS, "width": CANVAS}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": CANVAS}, crop_size=side),
        tokenizer=tokenizer,
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=_CHAT_TEMPLATE.replace("IMAGE_TOKENS", "<image>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    _enlarge_init(model, 3.0)
    model.generation_config = _generation_config(tokenizer)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path

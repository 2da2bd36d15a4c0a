"""Tiny checkpoints of other families' real architectures, with the captioner's tokenizer."""

from pathlib import Path

import torch
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    GenerationConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from trl_balcap.scenes.captioner import _CHAT_TEMPLATE, _end_and_padding, _tokenizer

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}


def save(model, processor, tokenizer: PreTrainedTokenizerFast, path: Path) -> Path:
    ends = _end_and_padding(tokenizer)
    model.generation_config = GenerationConfig(
        **ends,
        suppress_tokens=[
            token for token in tokenizer.all_special_ids if token not in ends.values()
        ],
    )
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def build_qwen3_vl(path: Path) -> Path:
    tokenizer = _tokenizer(["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"])
    ids = tokenizer.get_vocab()
    config = Qwen3VLConfig(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "head_dim": 8,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
            **_end_and_padding(tokenizer),
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "out_hidden_size": 32,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        **_end_and_padding(tokenizer),
    )
    pixels = {"shortest_edge": 28**2, "longest_edge": 84**2}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels, patch_size=14),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(size=pixels, patch_size=14),
        chat_template=_CHAT_TEMPLATE.replace(
            "IMAGE_TOKENS", "<|vision_start|><|image_pad|><|vision_end|>"
        ),
    )
    torch.manual_seed(0)
    return save(Qwen3VLForConditionalGeneration(config), processor, tokenizer, path)


def build_llava_next(path: Path) -> Path:
    tokenizer = _tokenizer(["<image>"])
    grid = [[42, 84], [84, 42], [84, 84]]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            projection_dim=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=42,
            patch_size=14,
        ),
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer), **_end_and_padding(tokenizer)),
        image_token_index=tokenizer.get_vocab()["<image>"],
        image_grid_pinpoints=grid,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        **_end_and_padding(tokenizer),
    )
    side = {"height": 42, "width": 42}
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": 42},
            crop_size=side,
            image_grid_pinpoints=grid,
        ),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=_CHAT_TEMPLATE.replace("IMAGE_TOKENS", "<image>"),
    )
    torch.manual_seed(0)
    return save(LlavaNextForConditionalGeneration(config), processor, tokenizer, path)


def build_gemma3(path: Path) -> Path:
    names = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    plain = _tokenizer(list(names.values()))
    # Gemma's processor asks its tokenizer for image tokens by these names.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer,
        eos_token=plain.eos_token,
        pad_token=plain.pad_token,
        extra_special_tokens=names,
        padding_side="left",
    )
    ids = tokenizer.get_vocab()
    config = Gemma3Config(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "head_dim": 8,
            "sliding_window": 64,
            **_end_and_padding(tokenizer),
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 14,
        },
        mm_tokens_per_image=4,
        image_token_index=ids[names["image_token"]],
        boi_token_index=ids[names["boi_token"]],
        eoi_token_index=ids[names["eoi_token"]],
        **_end_and_padding(tokenizer),
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=_CHAT_TEMPLATE.replace("IMAGE_TOKENS", names["boi_token"]),
    )
    torch.manual_seed(0)
    return save(Gemma3ForConditionalGeneration(config), processor, tokenizer, path)

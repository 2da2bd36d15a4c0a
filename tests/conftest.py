"""Tiny models of real architectures and drawn scenes, made once a test process."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
from pathlib import Path

import pytest
from datasets import Dataset, Image
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from trl_balcap.scenes.captioner import _end_and_padding, build_llava, build_qwen
from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.world import draw, random_scene

collect_ignore = ["workers"]  # torchrun starts these, pytest does not


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory) -> Path:
    return build_qwen(tmp_path_factory.mktemp("models") / "qwen")


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory) -> Path:
    return build_llava(tmp_path_factory.mktemp("models") / "llava")


@pytest.fixture(scope="session")
def tiny_text(tiny_qwen, tmp_path_factory) -> Path:
    """A text-only Qwen2 with the captioner's tokenizer."""
    path = tmp_path_factory.mktemp("models") / "text"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tiny_qwen / "tokenizer.json"),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
    )
    tokenizer.save_pretrained(path)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **_end_and_padding(tokenizer),
    )
    Qwen2ForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture
def terminal(monkeypatch) -> None:
    """Commands print as on a terminal of 80 columns without colours."""
    for name, value in {"TTY_COMPATIBLE": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def scenes() -> Dataset:
    """Eight drawn scenes as a captioning dataset."""
    return scene_dataset(8)


def scene_dataset(rows: int, seed: int = 0) -> Dataset:
    rng = random.Random(seed)
    drawn = [random_scene(rng) for _ in range(rows)]
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": "Describe the image."}]] * rows,
            "image": [draw(scene) for scene in drawn],
            "reference": [describe(scene) for scene in drawn],
        }
    ).cast_column("image", Image())

"""The tiny captioners, the script that trains them, and scenes as a dataset."""

import json
import random
import re
from statistics import mean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from trl_balcap.data import DEFAULT_PROMPT, load_captions
from trl_balcap.scenes.build_captioner import train_on, weak_caption
from trl_balcap.scenes.captioner import (
    MAX_NEW_TOKENS,
    PROMPT,
    build_llava,
    build_qwen,
    captioner_path,
)
from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.make import scene_rows, write_scenes
from trl_balcap.scenes.oracle import score
from trl_balcap.scenes.parsing import parse_caption
from trl_balcap.scenes.world import draw, random_scene

LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def load(path):
    model = AutoModelForImageTextToText.from_pretrained(path, dtype="float32").eval()
    return AutoProcessor.from_pretrained(path), model


@pytest.fixture(scope="module")
def shipped():
    return load(captioner_path())


@pytest.fixture(scope="module", params=[build_qwen, build_llava])
def tiny(request, tmp_path_factory):
    return load(request.param(tmp_path_factory.mktemp("tiny")))


def inputs(processor, images):
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return processor(
        text=[prompt] * len(images),
        images=[[image] for image in images],
        padding=True,
        return_tensors="pt",
    )


def caption(processor, model, images, **kwargs):
    batch = inputs(processor, images)
    with torch.no_grad():
        ids = model.generate(**batch, **kwargs)
    return processor.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def test_the_captioner_knows_the_default_prompt():
    assert PROMPT == DEFAULT_PROMPT


def test_the_shipped_folder_is_small_and_complete():
    files = {file.name: file.stat().st_size for file in captioner_path().iterdir()}
    assert sum(files.values()) <= 4 * 1024**2
    assert {"config.json", "model.safetensors", "tokenizer.json", "processor_config.json"} <= set(
        files
    )


def test_the_shipped_captioner_is_a_real_qwen(shipped):
    processor, model = shipped
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    assert model.dtype == torch.float32
    tokenizer, generation = processor.tokenizer, model.generation_config
    assert generation.eos_token_id == tokenizer.eos_token_id
    assert generation.pad_token_id == tokenizer.pad_token_id
    assert generation.max_new_tokens == MAX_NEW_TOKENS
    targets = [name for name, _ in model.named_modules() if re.fullmatch(LORA_TARGETS, name)]
    assert len(targets) == 7 * model.config.text_config.num_hidden_layers


def test_one_visual_token_is_one_cell(shipped):
    processor, _ = shipped
    batch = inputs(processor, [row["image"] for row in scene_rows(2)])
    image_token = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert (batch["input_ids"] == image_token).sum(dim=1).tolist() == [9, 9]


def mean_of(scores, reward: str) -> float:
    return mean(getattr(one, reward) for one in scores)  # a None is an error


def test_the_shipped_captioner_is_weak_but_sensible(shipped):
    rng = random.Random(7)
    scenes = [random_scene(rng) for _ in range(64)]
    model, processor = shipped
    captions = caption(model, processor, [draw(scene) for scene in scenes], do_sample=False)
    scores = [
        score(text, describe(scene), scene) for text, scene in zip(captions, scenes, strict=True)
    ]
    assert None not in [claim for text in captions for claim in parse_caption(text)]
    assert 0.4 <= mean_of(scores, "precision") <= 0.8
    assert 0.3 <= mean_of(scores, "recall") <= 0.7
    assert 0.6 <= mean_of(scores, "linguistic") <= 0.95


def test_twice_a_reference_fits_into_the_generation_limit(shipped):
    processor, _ = shipped
    rng = random.Random(0)
    references = [describe(random_scene(rng, (4, 4)), rng) for _ in range(100)]
    longest = max(len(ids) for ids in processor.tokenizer(references)["input_ids"])
    assert 2 * longest + 1 <= MAX_NEW_TOKENS


@given(text=st.text())
def test_the_tokenizer_writes_any_text(shipped, text):
    tokenizer = shipped[0].tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


@given(seed=st.integers(0, 10_000))
def test_every_word_is_one_token(shipped, seed):
    rng = random.Random(seed)
    text = describe(random_scene(rng, (1, 9)), rng)
    words = re.findall(r"\w+|\.", text)
    assert len(shipped[0].tokenizer(text)["input_ids"]) == len(words)


def test_tiny_models_load_generate_and_learn(tiny):
    processor, model = tiny
    images = [row["image"] for row in scene_rows(2)]
    assert len(caption(processor, model, images, max_new_tokens=4)) == 2
    batch = inputs(processor, images)
    model(**batch, labels=batch["input_ids"]).loss.backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert all("vision" in name for name in without)  # LLaVA's last vision layer is never read
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("build", [build_qwen, build_llava])
def test_the_seed_decides_the_weights(build, tmp_path):
    folders = [build(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    a, b, c = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert a == b
    assert a != c
    tokenizers = {(folder / "tokenizer.json").read_text() for folder in folders}
    assert len(tokenizers) == 1


def test_building_leaves_the_global_seed_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_qwen(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_build_qwen_refuses_a_width_that_four_heads_cannot_share(tmp_path):
    with pytest.raises(ValueError, match="hidden_size is 40"):
        build_qwen(tmp_path, hidden_size=40)


def test_training_lowers_the_loss_and_repeats(tmp_path):
    lines = []
    for _ in range(2):
        processor, model = load(build_qwen(tmp_path, seed=3))
        train_on(
            lambda scene, rng: describe(scene, rng),
            model,
            processor,
            steps=20,
            learning_rate=5e-3,
            seed=0,
            batch_size=4,
            report=lines.append,
        )
    assert lines[:20] == lines[20:]
    losses = [float(line.split("loss ")[1]) for line in lines[:20]]
    assert losses[0] > 6.0  # ln(518) = 6.2: every token is as likely
    assert losses[-1] < 4.5


def test_the_weak_author_is_often_wrong():
    rng = random.Random(1)
    scenes = [random_scene(rng) for _ in range(400)]
    scores = [score(weak_caption(scene, rng), describe(scene), scene) for scene in scenes]
    assert mean_of(scores, "precision") == pytest.approx(0.62, abs=0.04)
    assert mean_of(scores, "recall") == pytest.approx(0.57, abs=0.04)


def test_scene_rows_start_the_same_whatever_their_number():
    three, five = scene_rows(3, seed=1), scene_rows(5, seed=1)
    assert [row["reference"] for row in three] == [row["reference"] for row in five[:3]]
    assert three[0]["image"].tobytes() == five[0]["image"].tobytes()
    assert scene_rows(1, seed=2)[0]["reference"] != three[0]["reference"]
    with pytest.raises(ValueError, match="got -1"):
        scene_rows(-1)


def test_scenes_on_disk_are_a_dataset(tmp_path):
    captions = write_scenes(tmp_path / "scenes", 3, seed=1)
    lines = [json.loads(line) for line in captions.read_text().splitlines()]
    assert [line["image"] for line in lines] == [
        "images/000.png",
        "images/001.png",
        "images/002.png",
    ]
    rows = scene_rows(3, seed=1)
    with Image.open(tmp_path / "scenes" / "images" / "002.png") as image:
        assert image.tobytes() == rows[2]["image"].tobytes()
    dataset = load_captions(tmp_path / "scenes")
    assert list(dataset["reference"]) == [row["reference"] for row in rows]
    with pytest.raises(FileExistsError, match="is not overwritten"):
        write_scenes(tmp_path / "scenes", 3)

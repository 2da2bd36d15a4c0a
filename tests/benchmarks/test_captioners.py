"""How the base captioners of the rich world are built."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.reproduction.captioners import begin, build, learn, listed
from benchmarks.reproduction.measure import held_out
from benchmarks.reproduction.sampling import FastSampler
from benchmarks.reproduction.settings import CAPTIONERS, SETTINGS
from benchmarks.reproduction.train import write_captions
from trl_balcap.scenes.captioner import captioner_path
from trl_balcap.scenes.claims import ThingClaim
from trl_balcap.scenes.parsing import parse_caption
from trl_balcap.scenes.world import random_scene


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captioner") / "clean"
    begin(folder)
    return folder


def embeddings(folder: Path) -> torch.Tensor:
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    return model.get_input_embeddings().weight.detach()


def test_new_words_start_as_words_of_the_shipped_captioner(begun):
    words, known = (
        AutoProcessor.from_pretrained(folder).tokenizer.get_vocab()
        for folder in (begun, captioner_path())
    )
    rows, shipped = embeddings(begun), embeddings(captioner_path())
    assert torch.equal(rows[words["Ġred"]], shipped[known["Ġred"]])
    nearest = torch.cosine_similarity(rows[words["Ġcrimson"]][None], shipped).argmax()
    assert nearest == known["Ġred"]


def test_a_list_names_every_thing_once():
    scene = random_scene(random.Random(0), richness="rich")
    claims = parse_caption(listed(scene, random.Random(0)))
    told = [claim.thing for claim in claims if isinstance(claim, ThingClaim)]
    assert len(told) == len(claims) == len(scene.things)
    assert all(claim is not None and claim.holds_in(scene) for claim in claims)
    assert len(set(told)) == len(told)


def test_a_captioner_is_built_from_a_clean_one(begun, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.reproduction.captioners.WEAK", {"short": 1})
    out = tmp_path / "out"
    lines: list[str] = []
    build(out, ("short",), clean=begun, report=lines.append)
    assert lines[0].startswith("short: step 1 of 1: loss ")
    built = AutoModelForImageTextToText.from_pretrained(out / "short")
    assert built.dtype == torch.bfloat16
    assert (out / "short" / "model.safetensors").stat().st_size < 3.5e6
    assert AutoProcessor.from_pretrained(out / "short").tokenizer.get_vocab()["Ġcrimson"] > 0
    model: Any = AutoModelForImageTextToText.from_pretrained(begun, dtype=torch.float32)
    before = model.get_input_embeddings().weight.clone()
    lesson = (listed, (1, 1), 1, 0)
    processor = AutoProcessor.from_pretrained(begun)
    learn(model, processor, seed=0, report=lines.append, lessons=[lesson])
    assert not torch.equal(before, model.get_input_embeddings().weight)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("short", 0.15, 0.5), ("right", 0.75, 1.25), ("long", 1.8, 3.5)]
)
def test_a_shipped_base_is_as_long_as_its_name(name, low, high):
    folder = CAPTIONERS / name
    assert (folder / "model.safetensors").stat().st_size < 3.5e6
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder)
    model.generate = FastSampler(model)
    rows = held_out(12, "rich")
    captions = write_captions(
        model, processor, [row.scene for row in rows], SETTINGS["rich"], 0, do_sample=True
    )
    words = [len(caption.split()) for caption in captions]
    ratio = sum(words) / sum(len(row.reference.split()) for row in rows)
    assert low < ratio < high

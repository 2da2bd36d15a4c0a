"""`trl-balcap caption`: device map, tensor parallelism and seed reach the engine that has them."""

import json

import pytest
from PIL import Image
from transformers import AutoModelForImageTextToText

from trl_balcap.cli import main
from trl_balcap.data.rows import read_jsonl
from trl_balcap.scenes.make import write_scenes


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def captions(path) -> list[str]:
    return [row["caption"] for _, row in read_jsonl(path)]


def test_vllm_is_started_on_several_gpus_with_a_seed(vllm, picture, tmp_path):
    model, out = tmp_path / "model", tmp_path / "out.jsonl"
    model.mkdir()
    command = ["caption", str(model), str(picture), "--out", str(out), "--engine", "vllm"]
    assert main([*command, "--tensor-parallel-size", "4", "--seed", "7"]) == 0
    assert vllm["options"] == {"model": str(model), "tensor_parallel_size": 4, "seed": 7}
    assert read_jsonl(out)[0][1]["seed"] == 7


def test_vllm_is_told_of_rows_with_several_images(vllm, picture, tmp_path):
    model, listed = tmp_path / "model", tmp_path / "list.json"
    model.mkdir()
    listed.write_text(json.dumps([{"id": "1", "images": ["a.png"] * 3}]))
    command = ["caption", str(model), str(listed), "--out", str(tmp_path / "out.jsonl")]
    assert main([*command, "--engine", "vllm"]) == 0
    assert vllm["options"] == {"model": str(model), "limit_mm_per_prompt": {"image": 3}}


def test_an_adapter_in_vllm_is_placed_like_a_model(vllm, picture, tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    config = {"base_model_name_or_path": str(base), "r": 4}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    command = ["caption", str(adapter), str(picture), "--out", str(tmp_path / "out.jsonl")]
    assert main([*command, "--engine", "vllm", "--tensor-parallel-size", "2"]) == 0
    lora = {"enable_lora": True, "max_lora_rank": 8}
    assert vllm["options"] == {"model": str(base), "tensor_parallel_size": 2, **lora}


def test_transformers_places_the_model_by_the_map(tiny_qwen, picture, tmp_path, monkeypatch):
    """The model is really loaded and asked; without a GPU "auto" puts it where no map does."""
    asked = []
    load = AutoModelForImageTextToText.from_pretrained

    def from_pretrained(*args, **options):
        asked.append(options["device_map"])
        return load(*args, **options)

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", from_pretrained)
    command = ["caption", str(tiny_qwen), str(picture), "--engine", "transformers"]
    command += ["--max-new-tokens", "2"]
    assert main([*command, "--out", str(tmp_path / "1.jsonl"), "--device-map", "auto"]) == 0
    assert main([*command, "--out", str(tmp_path / "2.jsonl")]) == 0
    assert asked == ["auto", None]
    assert captions(tmp_path / "1.jsonl") == captions(tmp_path / "2.jsonl")


def test_a_seed_repeats_what_transformers_sampled(tiny_qwen, tmp_path):
    write_scenes(tmp_path / "scenes", 3)
    command = ["caption", str(tiny_qwen), str(tmp_path / "scenes"), "--engine", "transformers"]
    command += ["--max-new-tokens", "8", "--temperature", "1"]
    made = {}
    for name, seed in (("first", "3"), ("again", "3"), ("other", "4")):
        out = tmp_path / f"{name}.jsonl"
        assert main([*command, "--out", str(out), "--seed", seed]) == 0
        made[name] = captions(out)
    assert made["first"] == made["again"] != made["other"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--engine", "vllm", "--device-map", "auto"], "A device map is for --engine transformers"),
        (
            ["--engine", "transformers", "--tensor-parallel-size", "2"],
            "tensor_parallel_size is for --engine vllm",
        ),
        (["--engine", "vllm", "--tensor-parallel-size", "0"], "must be 1 or more, got 0"),
        (["--api-base", "http://localhost:9/v1", "--device-map", "auto"], "is on a server"),
        (["--api-base", "http://localhost:9/v1", "--seed", "1"], "The seed 1 is for an engine"),
    ],
)
def test_flags_of_another_engine_are_refused(flags, message, vllm, picture, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    command = ["caption", str(tmp_path / "model"), str(picture)]
    with pytest.raises(SystemExit):
        main([*command, "--out", str(tmp_path / "out.jsonl"), *flags])
    assert message in capsys.readouterr().err
    assert not vllm

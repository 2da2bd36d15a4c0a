"""`trl-balcap caption`: images to captions, by a model, an adapter or a server."""

import json
import shutil
import sys
import time
from typing import Any

import pytest
from PIL import Image
from skimage import data

from trl_balcap.captioning.engine import trained_prompt
from trl_balcap.captioning.run import caption_images, list_images
from trl_balcap.captioning.transformers import generate_captions
from trl_balcap.card import write_captioning_settings
from trl_balcap.cli import main
from trl_balcap.data.rows import BadRowsError
from trl_balcap.judge import JudgeConfigError
from trl_balcap.scenes.make import write_scenes
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.server_faults import ServerFaults


@pytest.fixture
def scenes_folder(tmp_path):
    write_scenes(tmp_path / "scenes", 5)
    return tmp_path / "scenes"


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_model_captions_a_folder(tiny_qwen, scenes_folder, tmp_path, capsys):
    out = tmp_path / "made" / "captions.jsonl"
    command = ["caption", str(tiny_qwen), str(scenes_folder), "--out", str(out)]
    command += ["--max-new-tokens", "6", "--batch-size", "2", "--engine", "transformers"]
    assert main(command) == 0
    made = rows(out)
    assert [row["id"] for row in made] == [f"00{i}.png" for i in range(5)]
    assert (out.parent / made[0]["image"]).is_file()
    assert made[0]["reference"].startswith(("There", "One", "Two", "Three", "Four", "In", "At"))
    assert "5 captions written, 0 already there" in capsys.readouterr().out

    # Greedy: batches of 2 and of 5 say the same.
    from transformers import AutoModelForImageTextToText, AutoProcessor

    images = [Image.open(scenes_folder / "images" / f"00{i}.png").convert("RGB") for i in range(5)]
    expected = generate_captions(
        AutoModelForImageTextToText.from_pretrained(tiny_qwen),
        AutoProcessor.from_pretrained(tiny_qwen),
        images,
        prompt="Describe the image in detail.",
        max_new_tokens=6,
    )
    assert [row["caption"] for row in made] == expected


def test_a_trained_model_is_asked_as_in_training(tiny_qwen, scenes_folder, tmp_path, capsys):
    """The prompt beside the weights, `--prompt` before it; a file made with another is refused."""
    model = shutil.copytree(tiny_qwen, tmp_path / "model")
    write_captioning_settings(model, "What do you see?", 6)
    command = ["caption", str(model), str(scenes_folder / "images"), "--engine", "transformers"]
    command += ["--max-new-tokens", "4"]
    trained, given = tmp_path / "trained.jsonl", tmp_path / "given.jsonl"
    assert main([*command, "--out", str(trained)]) == 0
    assert {row["prompt"] for row in rows(trained)} == {"What do you see?"}
    assert main([*command, "--out", str(trained)]) == 0
    assert "0 captions written, 5 already there" in capsys.readouterr().out
    assert main([*command, "--out", str(given), "--prompt", "Say."]) == 0
    assert {row["prompt"] for row in rows(given)} == {"Say."}
    with pytest.raises(SystemExit):
        main([*command, "--out", str(given)])
    refused = "was captioned with prompt 'Say.', but this run has 'What do you see?'"
    assert refused in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("kept", ['{"prompt": 3}', "{}", "[]", "{"])
def test_a_damaged_file_of_settings_is_named(tmp_path, kept):
    (tmp_path / "captioning.json").write_text(kept)
    with pytest.raises(ValueError, match="does not have the training prompt"):
        trained_prompt(str(tmp_path))


def test_a_model_without_a_prompt_of_its_own_has_none(tmp_path):
    assert trained_prompt("owner/name") is None
    write_captioning_settings(tmp_path, None, 6)  # trained with several
    assert trained_prompt(str(tmp_path)) is None


def test_the_prompt_of_a_model_on_the_hub(tmp_path, monkeypatch):
    """As the Hub's cache lies on disk: a name for the branch, a folder for the commit."""
    repository = tmp_path / "models--owner--captioner"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots" / "c0ffee").mkdir(parents=True)
    write_captioning_settings(repository / "snapshots" / "c0ffee", "What do you see?", 6)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert trained_prompt("owner/captioner") == "What do you see?"
    assert trained_prompt("owner/another") is None
    assert trained_prompt("no repository's name!") is None


def test_a_lora_adapter_captions_as_its_merged_model(tiny_qwen, scenes_folder, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText, AutoProcessor

    torch.manual_seed(0)
    base = AutoModelForImageTextToText.from_pretrained(tiny_qwen)
    config = LoraConfig(
        target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False
    )
    adapted = get_peft_model(base, config)
    with torch.no_grad():  # large enough to change what an untrained model says
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.normal_(std=1.0)
    adapted.save_pretrained(tmp_path / "adapter")
    merged: Any = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    AutoProcessor.from_pretrained(tiny_qwen).save_pretrained(tmp_path / "merged")
    made = {}
    for name, model in (("adapter", "adapter"), ("merged", "merged"), ("base", tiny_qwen)):
        out = tmp_path / f"{name}.jsonl"
        run = caption_images(
            str(tmp_path / model), scenes_folder, out, engine="transformers", max_new_tokens=12
        )
        assert run.written == 5
        made[name] = [row["caption"] for row in rows(out)]
    assert made["adapter"] == made["merged"]
    assert made["adapter"] != made["base"]


def test_a_server_captions_and_bad_images_are_told_and_skipped(tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(data.astronaut()).save(images / "astronaut.jpg")
    (images / "broken.png").write_bytes(b"not an image")
    Image.fromarray(data.coffee()).save(images / "coffee.png")
    asked = []

    def answer(messages):
        if len(messages[0]["content"][0]["image_url"]["url"]) < 300:
            return "White."  # the preflight's square
        asked.append(messages)
        return f" Caption {len(asked)}. "

    out = tmp_path / "captions.jsonl"
    command = ["caption", "openai/captioner", str(images), "--out", str(out), "--prompt", "Say."]
    with serve(answer=answer) as server:
        assert main([*command, "--api-base", server.url]) == 0
        shown = capsys.readouterr().out
        assert "broken.png: it is not an image that Pillow can read" in shown
        assert "2 captions written, 0 already there, 1 images skipped" in shown
        assert {row["caption"] for row in rows(out)} == {"Caption 1.", "Caption 2."}
        content = asked[0][0]["content"]
        assert [m["role"] for m in asked[0]] == ["user"]
        assert content[1] == {"type": "text", "text": "Say."}
        assert content[0]["image_url"]["url"].startswith("data:image/")

        # Half a row of a killed run is made again, whole ones are kept.
        kept, lost = out.read_text().splitlines()
        out.write_text(f"{kept}\n{lost[:30]}")
        assert main([*command, "--api-base", server.url]) == 0
        assert "1 captions written, 1 already there" in capsys.readouterr().out
        assert (len(asked), out.read_text().splitlines()[0]) == (3, kept)

        command[command.index("Say.")] = "Tell."
        with pytest.raises(SystemExit):
            main([*command, "--api-base", server.url])
    assert "was captioned with prompt 'Say.', but this run has 'Tell.'" in capsys.readouterr().err


def test_a_server_that_fails_leaves_the_image_out(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    out = tmp_path / "captions.jsonl"
    with serve(answer=lambda messages: "") as server:
        run = caption_images("openai/x", tmp_path / "a.png", out, api_base=server.url)
    assert (run.written, len(run.skipped)) == (0, 1)
    assert "no caption: unreadable" in run.skipped[0]
    assert out.read_text() == ""


def test_vllm_is_asked_in_its_own_words(vllm, tmp_path):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")

    model, adapter = tmp_path / "model", tmp_path / "adapter"
    model.mkdir()
    run = caption_images(str(model), tmp_path / "a.png", tmp_path / "1.jsonl", max_new_tokens=9)
    assert run.written == 1
    assert rows(tmp_path / "1.jsonl")[0]["caption"] == "A red square."
    assert vllm["options"] == {"model": str(model)}
    assert vllm["sampling"] == {"temperature": 0.0, "max_tokens": 9}
    ((turn,),) = vllm["conversations"]
    assert turn["role"] == "user"
    assert [part["type"] for part in turn["content"]] == ["image_url", "text"]

    adapter.mkdir()
    config = {"base_model_name_or_path": str(model), "r": 16}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    caption_images(str(adapter), tmp_path / "a.png", tmp_path / "2.jsonl", engine="vllm")
    assert vllm["options"] == {"model": str(model), "enable_lora": True, "max_lora_rank": 16}
    assert vllm["lora"] == ("adapter", 1, str(adapter))

    vllm.clear()
    with pytest.raises(FileNotFoundError, match="no folder org/gone, and no such model on the Hub"):
        caption_images("org/gone", tmp_path / "a.png", tmp_path / "3.jsonl", engine="vllm")
    assert not vllm  # it is said before vLLM is started


def test_vllm_that_is_not_there(tmp_path):
    if "vllm" in sys.modules:
        pytest.skip("vLLM is installed here")
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="vLLM is not installed"):
        caption_images("m", tmp_path / "a.png", tmp_path / "out.jsonl", engine="vllm")


def test_images_are_listed_from_what_users_have(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.PNG", "deep/a.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    assert [row.id for row in list_images(tmp_path)] == ["b.PNG", "deep/a.jpg"]
    assert [row.id for row in list_images(tmp_path / "b.PNG")] == ["b.PNG"]

    listed = tmp_path / "list.jsonl"
    listed.write_text('{"id": "nat_1", "image": "b.PNG", "reference": "A cup."}\n')
    (row,) = list_images(listed)
    assert (row.id, row.path, row.reference) == ("nat_1", tmp_path / "b.PNG", "A cup.")

    listed.write_text('{"image": "b.PNG"}\n{"picture": "x"}\n{"image": "other/b.PNG"}\n')
    with pytest.raises(BadRowsError) as caught:
        list_images(listed)
    assert [p.split(": ")[0] for p in caught.value.problems] == [f"{listed}:2", f"{listed}:3"]

    with pytest.raises(FileNotFoundError, match="File or folder not found:"):
        list_images(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="contains no images"):
        list_images(tmp_path / "empty")


# ---- what is wrong is said before it costs anything ---------------------------------------------


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_caption_that_reaches_the_bound_is_kept_as_far_as_it_goes(picture, tmp_path):
    """As the engines on this machine keep it: the server cuts "A red square." in half."""
    cut = ServerFaults(truncated=1.0)
    with serve(answer=lambda messages: "A red square", faults=cut) as server:
        run = caption_images("openai/x", picture, tmp_path / "out.jsonl", api_base=server.url)
    assert (run.written, run.skipped) == (1, [])
    assert rows(tmp_path / "out.jsonl")[0]["caption"] == "A red"


def test_a_wrong_port_is_said_at_once(picture, tmp_path):
    start = time.monotonic()
    with pytest.raises(JudgeConfigError, match=r"captioner openai/x at http.*:9/v1 does not work"):
        caption_images(
            "openai/x", picture, tmp_path / "out.jsonl", api_base="http://127.0.0.1:9/v1"
        )
    assert time.monotonic() - start < 30


def test_a_missing_key_is_said_at_once(picture, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(JudgeConfigError, match="needs a key: set OPENAI_API_KEY"):
        caption_images("openai/gpt-4o-mini", picture, tmp_path / "out.jsonl", engine="api")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"max_new_tokens": -5}, "max_new_tokens must be 1 or more, got -5"),
        ({"temperature": -1.0}, "temperature must be 0"),
        ({"max_pixels": 10}, "max_pixels must be at least 3136"),
        ({"prompt": " "}, "The prompt is empty"),
        ({"model": "./nomodel"}, r"Model not found: \./nomodel"),
        ({"out": "."}, r"\. is a folder\. Pass a file"),
        ({"api_base": "http://a.b", "engine": "vllm"}, "needs engine 'api', not 'vllm'"),
    ],
)
def test_wrong_arguments_are_said_before_a_model_is_loaded(picture, tmp_path, options, message):
    given = {"model": "no/model", "out": tmp_path / "out.jsonl", "engine": "transformers"} | options
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        caption_images(images=picture, **given)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("changed", ["temperature", "max_new_tokens", "max_pixels", "prompt"])
def test_a_run_is_not_resumed_in_another_way(picture, tmp_path, changed):
    out = tmp_path / "out.jsonl"
    how = {"temperature": 0.0, "max_new_tokens": 9, "max_pixels": 3136, "prompt": "Say."}
    other = {"temperature": 0.5, "max_new_tokens": 8, "max_pixels": 6272, "prompt": "Tell."}
    with serve(answer=lambda messages: "A red square.") as server:
        caption_images("openai/x", picture, out, api_base=server.url, **how)
        run = caption_images("openai/x", picture, out, api_base=server.url, **how)
        assert (run.written, run.kept) == (0, 1)
        with pytest.raises(ValueError, match=rf":1 was captioned with {changed} .*Choose another"):
            caption_images(
                "openai/x", picture, out, api_base=server.url, **how | {changed: other[changed]}
            )


def test_a_run_is_not_resumed_on_other_images_of_the_same_names(picture, tmp_path):
    out = tmp_path / "out.jsonl"
    (tmp_path / "other").mkdir()
    Image.new("RGB", (16, 16), "blue").save(tmp_path / "other" / "a.png")
    with serve(answer=lambda messages: "A square.") as server:
        caption_images("openai/x", picture, out, api_base=server.url)
        with pytest.raises(ValueError, match=r"'a\.png' is now another image"):
            caption_images("openai/x", tmp_path / "other", out, api_base=server.url)


def test_the_reference_of_a_list_rides_along_and_a_model_s_caption_is_none(picture, tmp_path):
    listed = tmp_path / "list.jsonl"
    listed.write_text('{"image": "a.png", "text": "A red square."}\n')
    assert list_images(listed)[0].reference == "A red square."
    listed.write_text('{"image": "a.png", "caption": "A cat.", "model": "org/model"}\n')
    assert list_images(listed)[0].reference is None


def test_captions_beside_the_images_are_their_references(picture, tmp_path):
    (tmp_path / "a.txt").write_text(" A red square.\n")
    assert [row.reference for row in list_images(tmp_path)] == ["A red square."]


def test_a_list_may_lie_elsewhere_than_its_images(picture, tmp_path):
    """A COCO file in `annotations`, its images in another folder."""
    coco = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}
    coco["annotations"] = [{"image_id": 1, "caption": "A red square."}]
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "captions.json"
    file.write_text(json.dumps(coco))
    [row] = list_images(file, image_folder=tmp_path)
    assert (row.id, row.path, row.reference) == ("1", picture, "A red square.")
    with pytest.raises(FileNotFoundError, match=r"Image folder not found: .*nowhere"):
        list_images(file, image_folder=tmp_path / "nowhere")

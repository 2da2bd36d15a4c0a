"""docs/your-photos.md, typed in its order on nine public-domain photographs, with a scripted model
and a Hub on this machine."""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import skimage

from tests.hub import Hub, serve_hub
from tests.test_publishing import PRIVATE
from trl_balcap import Judge
from trl_balcap.captioning.recaption import Recaption, recaption_cost, recaption_prompt
from trl_balcap.checkpoints import NOT_PUSHED
from trl_balcap.cli import main
from trl_balcap.data import load_captions
from trl_balcap.data.scored import Caption
from trl_balcap.evals.asking import cost
from trl_balcap.evals.metrics.b_capscore import BCapScore
from trl_balcap.exam.bank import make_exam
from trl_balcap.exam.run import exam_workload
from trl_balcap.judge.cost import estimate_calls_and_cost
from trl_balcap.judge.prices import price_of
from trl_balcap.scenes.captioner import captioner_path
from trl_balcap.scenes.server import serve

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your-photos.md").read_text(encoding="utf-8")
PHOTOS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
# The recipe's run on a CPU: one step of the tiny captioner in place of many of Qwen2.5-VL.
TINY = (
    f"--model_name_or_path {captioner_path()} --dtype float32 --attn_implementation sdpa --use_cpu "
    "--bf16 false --gradient_accumulation_steps 1 --max_completion_length 8 --max_steps 1 "
    "--eval_steps 1 --dataloader_num_workers 0 --report_to none"
)
CAPTION = "There is a thing in the middle. It is made of light and shade."


def scripted(messages) -> str:
    """A model that sees the same thing everywhere, and judges every second unit as wrong."""
    content = messages[-1]["content"]
    parts: list[Any] = [{"text": content}] if isinstance(content, str) else content
    text = parts[-1]["text"]
    if not text.startswith("{"):
        return f"{CAPTION} It takes {len(parts[0]['image_url']['url'])} bytes."
    asked = json.loads(text)
    verdicts = [
        {"id": one["id"], "correct": one["id"] % 2 == 1, "pointable": True, "covered": True}
        for one in asked.get("units", asked.get("assertions", []))
    ]
    reply = {
        "preflight": {"ready": True},
        "decompose": {"assertions": re.findall(r"[^.]+\.?", asked.get("text", ""))},
        "verify": {"verdicts": [_without(one, "covered") for one in verdicts]},
        "cover": {"verdicts": [_without(one, "correct", "pointable") for one in verdicts]},
        "linguistic": {"clarity": 8, "fluency": 9, "coherency": 9},
    }[asked["question"]]
    return json.dumps({**reply, "ticket": asked["ticket"]})


def _without(row: dict, *names: str) -> dict:
    return {name: value for name, value in row.items() if name not in names}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    data = Path(skimage.__file__).parent / "data"
    (tmp_path / "photos").mkdir()
    for name in PHOTOS:
        shutil.copy(data / name, tmp_path / "photos" / name)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody")
    return tmp_path


def typed() -> list[str]:
    """Each command of the page in its order."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def push(words: list[str], hub: Hub) -> str:
    """`hf upload`, whose Hub is the one on this machine."""
    here = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_nobody", "HF_HUB_OFFLINE": "0"}
    program = Path(sys.executable).with_name("hf")
    done = subprocess.run(
        [program, *words],
        capture_output=True,
        text=True,
        env={**os.environ, **here, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_from_top_to_bottom(folder, monkeypatch, capsys):
    said: dict[str, str] = {}
    with serve(answer=scripted) as server, serve_hub() as hub:
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        for command in typed():
            shorter = command.replace("--captions 64", "--captions 8")
            if "--eval_dataset" in command:
                shorter = f"{shorter.removeprefix('CUDA_VISIBLE_DEVICES=0 ')} {TINY}"
            program, *words = shlex.split(shorter)
            if program == "hf":
                said["push"] = push(words, hub)
            elif program == "python":
                monkeypatch.setattr("sys.argv", words)
                runpy.run_path(words[0], run_name="__main__")
            elif program == "awk":
                subprocess.run(command, shell=True, check=True)
            else:
                assert main(words) == 0, command
            printed = capsys.readouterr()
            said.setdefault(words[0], "")
            said[words[0]] += printed.out + printed.err
    # At an address of one's own no price is known, whatever the model is called.
    assert (
        "9 images, 0 already done: 9 captions by openai/gpt-4.1, price unknown"
        in (said["recaption"])
    )
    # 9 images x 3 samples: split, look, grade; 9 x 3 x 2 coverages.
    assert (
        "27 captions by openai/gpt-4.1, 135 questions to openai/gpt-4o-mini" in (said["recaption"])
    )
    assert "Judged 9 of 9: units wrong 33.3%" in said["references"]  # the second of three
    dataset: list[Any] = list(load_captions("clean.jsonl"))
    assert sorted(Path(row["id"]).name for row in dataset) == list(PHOTOS)
    assert all(row["image"].mode == "RGB" for row in dataset)
    assert all(row["reference"].startswith(CAPTION) for row in dataset)
    # Each is in one of the two: with nine, the first is held out.
    assert (len(load_captions("train.jsonl")), len(load_captions("held_out.jsonl"))) == (8, 1)
    assert "fits: " in said["plan"]
    assert "eval at 1/1 " in said["examples/train_qwen.py"]
    assert "1 captions written, 0 already there" in said["caption"]
    assert "Scored 1 of 1 captions" in said["score"]
    # The page on the run names the judge's exam.
    assert "openai/gpt-4o-mini: correct" in (folder / "out" / "report.html").read_text()
    assert hub.repo == "YOUR-NAME/captioner"
    assert {"README.md", "adapter_model.safetensors", "captioning.json"} <= hub.files.keys()
    assert hub.files["README.md"] == (folder / "out" / "README.md").read_bytes()
    assert not [name for name in hub.files if name.startswith(("checkpoint", *PRIVATE))]
    assert all((folder / "out" / name).exists() for name in ("verdicts", "report.html"))


def test_without_a_key_the_page_starts_at_the_check(tmp_path, monkeypatch, capsys):
    """With the drawn photographs, their references and their judge, as its first lines say."""
    monkeypatch.chdir(tmp_path)
    [draw] = re.findall(r"`trl-balcap (scenes make [^`]+)`", PAGE)
    [captions] = re.findall(r"references into `([^`]+)`", PAGE)
    [judge] = re.findall(r"Use `--judge ([^`]+)`", PAGE)
    [check] = [line for line in typed() if line.startswith("trl-balcap references")]
    assert main(shlex.split(draw)) == 0
    words = shlex.split(check.replace("refs.jsonl", captions))[1:]
    words[words.index("--judge") + 1] = judge
    assert main(words) == 0
    assert "Judged 40 of 40: units wrong 0.0%" in capsys.readouterr().out
    assert len(load_captions("clean.jsonl")) == 40


def test_an_upload_by_hand_leaves_out_what_a_push_leaves_out():
    [command] = re.findall(r"^hf upload .*$", PAGE, re.MULTILINE)
    assert re.findall(r'--exclude "(.*?)"', command) == ["checkpoint-*", *NOT_PUSHED]


def test_the_costs_on_the_page_are_the_commands_own():
    """1,000 photographs with references of 120 words, at litellm's prices."""
    writer, judge = Judge("openai/gpt-4.1"), Judge("openai/gpt-4o-mini")
    price = price_of(judge.settings.text[0])
    text = " ".join(["caption"] * 120)
    how = Recaption("openai/gpt-4.1", recaption_prompt(120))
    written = recaption_cost(1000, how, 120, writer, None)
    looked = estimate_calls_and_cost(
        [text], rollouts=100, distinct_references=0, rewards=("precision",), price=price
    )
    exam = exam_workload(make_exam(64))
    trained = estimate_calls_and_cost([text], rollouts=7200, distinct_references=900, price=price)
    held_out = estimate_calls_and_cost([text], rollouts=200, distinct_references=100, price=price)
    scored = BCapScore(judge).workload(
        [Caption(str(place), text, reference=f"{text} {place}") for place in range(100)]
    )
    expected = {
        "recaption": (written.writer_calls, written.usd),
        "references": (looked.calls, looked.usd),
        "exam": (exam.calls, cost(judge, exam)),
        "train": (trained.calls, trained.usd),
        "score": (scored.calls, cost(judge, scored)),
    }
    rows = re.findall(r"^\| \[`(\w+)`\].*\| ([\d,]+) \| ([\d.]+)", PAGE, re.MULTILINE)
    shown = {name: (int(calls.replace(",", "")), float(usd)) for name, calls, usd in rows}
    assert list(shown) == [
        "recaption", "references", "exam", "plan", "train", "report", "score", "push"
    ]  # fmt: skip
    assert f"{held_out.calls} calls and ${held_out.usd:.2f} for 100 photographs" in PAGE
    for name, (calls, usd) in expected.items():
        assert shown[name][0] == calls, name
        assert shown[name][1] == pytest.approx(usd, abs=0.005), name

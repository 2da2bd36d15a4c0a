"""docs/evaluation.md: commands that exist, and a merge that merges."""

import argparse
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
TEXT = PAGE.read_text(encoding="utf-8")


def shell_lines() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for name in ("agree", "bench", "caption", "leaderboard", "scenes", "score"):
        import_module(f"trl_balcap.commands.{name}").add_parser(commands)
    return parser


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("trl-balcap")])
def test_every_command_parses(parser, line):
    assert callable(parser.parse_args(line.split()[1:]).run)


def test_every_option_that_is_explained_exists(parser):
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    known = {
        option
        for command in commands.choices.values()
        for action in command._actions
        for option in action.option_strings
    }
    ours = TEXT.split("## General vision benchmarks")[0]
    named = set(re.findall(r"`(--[a-z-]+)", ours))
    assert len(named) > 15
    assert named <= known


def test_the_ten_benchmarks_are_the_same_in_every_line():
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| `(\w+)` \|$", TEXT, flags=re.MULTILINE)
    assert len(rows) == 10
    tasks = re.search(r"--tasks (blink\S+)", TEXT)
    assert tasks is not None
    assert tasks[1].split(",") == [task for _, task, _ in rows]
    data = re.search(r"--data (BLINK .*)", TEXT)
    assert data is not None
    assert data[1].split() == [name for _, _, name in rows]
    config = json.loads(re.findall(r"```json\n(\{\n.*?)```", TEXT, flags=re.DOTALL)[0])
    assert [entry["dataset"] for entry in config["data"].values()] == data[1].split()


def test_the_merge_merges(tiny_qwen, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file
    from transformers import AutoModelForImageTextToText, AutoProcessor

    torch.manual_seed(0)
    base = AutoModelForImageTextToText.from_pretrained(tiny_qwen)
    config = LoraConfig(target_modules=r".*language_model.*\.q_proj", init_lora_weights=False)
    adapted = get_peft_model(base, config)
    adapted.save_pretrained(tmp_path / "out" / "best-b-capscore")
    expected = adapted.merge_and_unload().state_dict()

    block = re.search(r"<!-- merge -->\n```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    assert block is not None
    script = block[1].replace("python merge", f"{sys.executable} merge")
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, check=True, capture_output=True)
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "out" / "merged")
    for name, weight in merged.state_dict().items():
        assert torch.equal(weight, expected[name]), name
    before = load_file(tiny_qwen / "model.safetensors")
    after = load_file(tmp_path / "out" / "merged" / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in after if "q_proj" in name)
    AutoProcessor.from_pretrained(tmp_path / "out" / "merged")

"""Wrong inputs, each answered in one line: the value, the rule, the way out, before anything
slow."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from trl_balcap import (
    BalCapConfig,
    BalCapTrainer,
    Judge,
    PrecisionReward,
    cgdpo_advantages,
    length_gate,
    load_captions,
)
from trl_balcap.cli import main
from trl_balcap.inputs import check_rewards
from trl_balcap.scenes.captioner import captioner_path
from trl_balcap.scenes.make import write_scenes

QWEN = "Qwen/Qwen2.5-VL-3B-Instruct"
JUDGED = f"--model_name_or_path {QWEN} --judge_model scenes/oracle"
CAPTIONER = str(captioner_path())
CAPTIONS = "--captions a=rows.jsonl --judge scenes/oracle"
IMAGES = "--images b-capscore=scenes"

# The command's words, and what its one line must say: what was given, and a way out.
COMMANDS = {
    "demo --steps -3 --out new": ["1 step or more", "got -3"],
    "demo --steps many": ["--steps", "'many'"],
    "demo --out text": ["text is a file", "--out"],
    "demo --out scenes": ["scenes already contains files", "--out"],
    "examples --out scenes": ["scenes already contains files", "--out"],
    "plan": ["names no model", "Set model_name_or_path"],
    f"plan -- {JUDGED} --dataset gone.jsonl": ["gone.jsonl", "--without-data"],
    f"plan -- --model_name_or_path {QWEN} --dataset scenes": ["scenes needs a judge", "--config"],
    f"plan -- {JUDGED} --dataset scenes --per_device_train_batch_size 128": [
        "has 9 rows",
        "needs 16 ",
        "lower per_device_train_batch_size",
    ],
    f"plan --judge_price -1 2 -- --model_name_or_path {QWEN}": ["0 or more", "got -1 and 2"],
    f"plan --gpu_memory -5 -- --model_name_or_path {QWEN}": ["above 0 GiB", "got -5"],
    f"plan --image-tokens 0 -- --model_name_or_path {QWEN}": ["1 or more", "got 0"],
    f"plan --num-processes 0 -- --model_name_or_path {QWEN}": ["must be at least 1", "got 0"],
    f"plan -- --model_name_or_path {QWEN} --num_generations many": ["--num_generations", "'many'"],
    f"plan -- --model_name_or_path {QWEN} --nothing 3": ["Unknown flags: --nothing 3"],
    "plan -- --model_name_or_path ./gone": ["'./gone'", "Pass a local folder"],
    "plan --config gone.yaml": ["File not found: gone.yaml"],
    "plan --config broken.yaml": ["broken.yaml:2: not YAML", "`key: value`"],
    "plan --config list.yaml": ["num_generations takes one value", "[1]"],
    "plan --config many.yaml": ["max_steps takes a whole number", "1.5"],
    "plan --config empty.yaml": ["empty.yaml contains nothing", "`key: value`"],
    "scenes serve --port 99999": ["from 0 (any free port) to 65535", "got 99999"],
    "scenes serve --latency -1": ["0 seconds or more", "got -1"],
    "scenes serve --faults stall": ["--faults is not valid JSON", "'stall'"],
    "scenes serve --noise {}x": ["--noise is not valid JSON"],
    "scenes make --n -1 --out new": ["0 or more", "got -1"],
    "scenes make --n 1 --out scenes": ["captions.jsonl already exists", "Choose another folder"],
    "caption ./gone scenes --out new.jsonl": ["Model not found: ./gone", "Pass the folder"],
    f"caption {CAPTIONER} gone --out new.jsonl": ["File or folder not found: gone"],
    f"caption {CAPTIONER} scenes --out folder": ["folder is a folder", "such as"],
    f"caption {CAPTIONER} scenes --out new.jsonl --batch-size 0": ["1 or more", "got 0"],
    f"caption {CAPTIONER} scenes --out new.jsonl --temperature -1": ["0 (greedy)", "got -1"],
    f"caption {CAPTIONER} scenes --out new.jsonl --max-new-tokens 0": ["1 or more", "got 0"],
    f"caption {CAPTIONER} scenes --out new.jsonl --max-pixels 0": ["at least 3136", "got 0"],
    "caption openai/x scenes --out new.jsonl --api-base localhost:1": ["'localhost:1'", "http://"],
    "recaption scenes --model nomodel --out new.jsonl": ["'nomodel'", "provider/model"],
    "recaption scenes --model ./nomodel --out new.jsonl": ["'./nomodel'", "provider/model"],
    "score": ["score needs a caption file", "--judge", "--out"],
    "score gone.jsonl --judge scenes/oracle --out new": ["File not found: gone.jsonl"],
    "score scenes/images/000.png --judge scenes/oracle --out new": ["000.png", ".jsonl"],
    "score rows.jsonl --judge scenes/oracle --out text": ["text is a file", "a folder", "--out"],
    "score rows.jsonl --judge scenes/oracle --out text/new": ["text is a file", "--out"],
    "score text --judge scenes/oracle --out new": ["text is not a supported file", ".jsonl"],
    "score latin.jsonl --judge scenes/oracle --out new": ["latin.jsonl:1", "Latin-1", "iconv"],
    "score rows.jsonl --judge scenes/oracle --out new --metrics bleu": ["'bleu'", "b-capscore"],
    "score rows.jsonl --judge openai/gpt-4o --out new": ["without a terminal", "--yes"],
    "score rows.jsonl --judge scenes/oracle --out new --max-concurrency 0": ["1 or more"],
    "score rows.jsonl --judge scenes/oracle --out new --price -1 2": ["0 or more", "-1"],
    "score rows.jsonl --judge openai/x --api-base localhost:8 --out new": ["http://"],
    "calibrate rows.jsonl --judge scenes/oracle --out new --temperature -2": ["from 0 to 2", "-2"],
    "calibrate rows.jsonl --judge scenes/oracle --out text": ["text is a file", "--out"],
    "calibrate rows.jsonl --judge scenes/oracle --out new --n 0": ["must be 1 or more", "got 0"],
    "agree gone.json": ["File not found: gone.json"],
    "agree text": ["text:1: not JSON"],
    "caption openai/x scenes --out new.jsonl --api-base http://127.0.0.1:9/v1": ["127.0.0.1:9"],
    "caption openai/gpt-4o scenes --out new.jsonl --engine api": ["OPENAI_API_KEY"],
    "recaption gone --model scenes/oracle --out new.jsonl": ["not found: gone"],
    "recaption folder --model scenes/oracle --out new.jsonl": ["folder contains no images"],
    "recaption scenes --model scenes/oracle --out folder": ["folder is a folder", "such as"],
    "recaption scenes --model scenes/oracle --out new.jsonl --words 0": ["1 or more", "got 0"],
    "recaption scenes --model scenes/oracle --out new.jsonl --samples 0": ["1 or more", "got 0"],
    "recaption scenes --model scenes/oracle --out new.jsonl --samples 3": ["--judge MODEL"],
    "recaption scenes --model scenes/oracle --out new.jsonl --image-pixels 0": ["3136", "got 0"],
    "recaption scenes --model openai/x --out new.jsonl --model-api-base localhost:1": ["http://"],
    "references gone": ["not found: gone"],
    "references bare.jsonl": ["bare.jsonl has no references", "recaption"],
    "references rows.jsonl --tokenizer nobody/gone": ["--tokenizer", "nobody/gone", "owner/name"],
    "references rows.jsonl --sample -1": ["0 or more", "got -1"],
    "references rows.jsonl --max-unsound 2": ["from 0 to 1", "got 2"],
    "references rows.jsonl --max-completion-length 0": ["1 or more", "got 0"],
    "references rows.jsonl --length-gate-lower nan": ["0 or more", "got nan"],
    "references rows.jsonl --out folder": ["folder is a folder", "such as"],
    "references rows.jsonl --out text/new": ["text is a file", "--out"],
    "references rows.jsonl --out rows.jsonl": ["rows.jsonl is the file to check", "another"],
    "bench --suite b-capscore --out new": ["--models MODEL", "--captions NAME=PATH"],
    "bench --captions a=rows.jsonl --suite bleu --out new": ["'bleu'", "b-capscore"],
    "bench --captions a=rows.jsonl --suite b-capscore --out new": ["--judge MODEL"],
    f"bench {CAPTIONS} --suite b-capscore --out text": ["text is a file", "--out"],
    f"bench {CAPTIONS} --suite b-capscore --out new --repeats 0": ["1 or more", "got 0"],
    f"bench {CAPTIONS} --suite b-capscore --out new --images gone": ["NAME=PATH", "'gone'"],
    f"bench {CAPTIONS} --suite b-capscore --out new --images bleu=scenes": ["'bleu'", "b-capscore"],
    f"bench {CAPTIONS} --suite b-capscore --out new --images b-capscore=gone": ["not found: gone"],
    f"bench {CAPTIONS} --suite b-capscore --out new --data bleu=text": ["'bleu'", "b-capscore"],
    f"bench {CAPTIONS} --suite b-capscore --out new --baseline gone": ["'gone'", "['a']"],
    f"bench {CAPTIONS} --suite captionqa --out new": ["--data captionqa=PATH"],
    "bench --captions a=gone.jsonl --suite b-capscore --out new --judge scenes/oracle": [
        "not found: gone.jsonl"
    ],
    "bench --captions a=text a=text --suite b-capscore --out new": ["'a' twice", "another name"],
    "bench --captions a=rows.jsonl --suite b-capscore --out new --judge openai/x@": ["no URL"],
    "bench --captions a=rows.jsonl --suite b-capscore --out new --judge bleu=openai/x": ["'bleu'"],
    f"bench --models ./gone {IMAGES} --suite b-capscore --out new --judge scenes/oracle": [
        "not found: ./gone",
        "owner/name",
    ],
    f"bench --models {CAPTIONER} --suite b-capscore --out new --judge scenes/oracle": [
        "--images b-capscore=FOLDER"
    ],
    "agree list.yaml --human-ranking gone.json": ["not found: gone.json"],
    "agree A=gone.jsonl": ["not found: gone.jsonl"],
    "agree A=rows.jsonl": ["rows.jsonl:1: not a scored row", "Score the captions"],
    "agree rows.jsonl": ["one number per model"],
    "report gone": ["nothing to report at gone", "output_dir"],
    "report folder --max-rollouts 0": ["1 or more", "got 0"],
    "report folder --serve --port 99999": ["65535", "got 99999"],
    "report scenes --out folder": ["folder is a folder", "such as"],
    "report folder --watch": ["--serve"],
    "examples --out text": ["text is a file", "--out"],
    "examples --out text/new": ["text is a file", "--out"],
}


def config(**settings: Any) -> BalCapConfig:
    small = {"per_device_train_batch_size": 8, "bf16": False, "report_to": "none"}
    return BalCapConfig("new", **small, **settings)


def trainer(**given: Any) -> BalCapTrainer:
    usual = {"reward_funcs": [PrecisionReward("scenes/oracle")], "args": config()}
    usual["train_dataset"] = "scenes/captions.jsonl"
    return BalCapTrainer(CAPTIONER, **(usual | given))


def rows(**columns: Any) -> Dataset:
    """Eight rows of the same reference, and more columns."""
    alike = {"reference": "A dog."} | columns
    return Dataset.from_dict({name: [value] * 8 for name, value in alike.items()})


# What is called, and what its error must say.
CALLS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "judge None": (
        lambda: Judge(None),  # pyright: ignore[reportArgumentType]
        ["model=None", "Name a model"],
    ),
    "judge ''": (lambda: Judge(""), ["model=''", "Name a model"]),
    **{
        f"judge {name}={value!r}": (
            lambda name=name, value=value: Judge("scenes/oracle", **{name: value}),
            [f"{name}={value!r}", said, "leave it out"],
        )
        for name, value, said in [
            ("temperature", -2, "from 0 to 2"),
            ("temperature", "hot", "from 0 to 2"),
            ("max_tokens", -5, "1 or more"),
            ("max_concurrency", 2.5, "whole number"),
            ("max_concurrency", 0.5, "whole number"),
            ("price", (1,), "two numbers"),
            ("price", (-1, 2), "0 or more"),
            ("timeout", "60", "number above 0"),
            ("max_pixels", "401408", "whole number"),
            ("api_base", "localhost:8000", "http://"),
            ("cache", 3, "folder"),
        ]
    },
    **{
        f"config {name}={value!r}": (
            lambda name=name, value=value: config(**{name: value}),
            [name, str(value), said],
        )
        for name, value, said in [
            ("length_gate_upper", "2", "must be a number"),
            ("length_gate_lower", -1, "0 <= length_gate_lower"),
            ("length_gate", "soft", "'mask', 'linear' or None"),
            ("credit", "token", "'assertion' or None"),
            ("length_gate_tokens", [200, 60], "fewest tokens and the most"),
            ("length_gated_rewards", "linguistic_reward", "Use ['linguistic_reward']"),
        ]
    },
    "advantages of a list": (
        lambda: cgdpo_advantages([[1.0]], num_generations=2),  # type: ignore[arg-type]
        ["got a list", "torch.tensor"],
    ),
    "advantages of one dimension": (
        lambda: cgdpo_advantages(torch.zeros(4), num_generations=2),
        ["shape (B, K)", "(4,)", "rewards[:, None]"],
    ),
    "gate of a float": (
        lambda: length_gate(0.5, torch.ones(1)),  # type: ignore[arg-type]
        ["got float", "torch.tensor"],
    ),
    "gate of two shapes": (
        lambda: length_gate(torch.zeros(4), torch.zeros(3)),
        ["(4,) and (3,)", "one ratio per completion"],
    ),
    "reward of a class": (
        lambda: PrecisionReward(Judge),  # type: ignore[arg-type]
        ["a Judge or a litellm model string", "class"],
    ),
    "reward of a number": (
        lambda: PrecisionReward(5),  # type: ignore[arg-type]
        ["a Judge or a litellm model string", "got 5"],
    ),
    "trainer with a class": (
        lambda: trainer(reward_funcs=[PrecisionReward]),
        ["reward_funcs[0] is the class PrecisionReward", "Use PrecisionReward(...)"],
    ),
    "trainer with two weights": (
        lambda: trainer(args=config(reward_weights=[1.0, 2.0])),
        ["2 values for 1 reward functions", "one per reward function"],
    ),
    "trainer with nothing": (
        lambda: trainer(train_dataset=load_captions("scenes").select([])),
        ["train_dataset has no rows"],
    ),
    "trainer with nine rows": (
        lambda: trainer(args=config(generation_batch_size=128)),
        ["has 9 rows", "needs 16", "generation_batch_size=72"],
    ),
    "trainer with a path that is none": (
        lambda: trainer(train_dataset="gone.jsonl"),
        ["File or folder not found: gone.jsonl"],
    ),
    **{
        f"trainer with the prompt {prompt!r}": (
            lambda prompt=prompt: trainer(train_dataset=rows(prompt=prompt)),
            ["prompt of row 0 of train_dataset", repr(prompt), "must be a string"],
        )
        for prompt in (["a"], 7)
    },
    "trainer without prompts": (
        lambda: trainer(train_dataset=rows()),
        ["train_dataset has the columns", "no `prompt`", "load_captions"],
    ),
    "trainer with an eval set without prompts": (
        lambda: trainer(eval_dataset=rows()),
        ["eval_dataset has the columns", "no `prompt`"],
    ),
    "reward of unequal columns": (
        lambda: asyncio.run(
            PrecisionReward("scenes/oracle")(prompts=["", ""], completions=["a", "b"], image=["x"])
        ),
        ["2 completions but 1 values", "`image`", "one value per completion"],
    ),
    "load_captions of URLs": (
        lambda: load_captions("url.jsonl"),
        ["url.jsonl:1", "https://example.org/a.png", "Download it"],
    ),
    "load_captions in Latin-1": (lambda: load_captions("latin.jsonl"), ["latin.jsonl:1", "iconv"]),
    "load_captions without references": (
        lambda: load_captions("bare.jsonl"),
        ["no reference column", "trl-balcap recaption", "references=False", "length_gate='none'"],
    ),
    "load_captions of another kind": (lambda: load_captions("text"), ["text", ".jsonl"]),
    "load_captions 5": (lambda: load_captions(5), ["takes a file, a folder", "got int"]),
    "load_captions gone": (
        lambda: load_captions("gone"),
        ["File or folder not found: gone", "Pass"],
    ),
    "load_captions ./gone/dir": (
        lambda: load_captions("./gone/dir"),
        ["File or folder not found:"],
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Nine scenes, and files of other kinds."""
    folder = tmp_path_factory.mktemp("wrong")
    write_scenes(folder / "scenes", 9)
    (folder / "folder").mkdir()
    row = {"image": "scenes/images/000.png", "caption": "A thing.", "reference": "Two things."}
    for name, text in {
        "broken.yaml": "a: [1\nb: 2\n",
        "list.yaml": f"model_name_or_path: {QWEN}\nnum_generations: [1]\n",
        "many.yaml": f"model_name_or_path: {QWEN}\nmax_steps: 1.5\n",
        "empty.yaml": "",
        "text": "some text",
        "rows.jsonl": json.dumps(row) + "\n",
    }.items():
        (folder / name).write_text(text)
    (folder / "bare.jsonl").write_text('{"image": "scenes/images/000.png"}\n')
    (folder / "url.jsonl").write_text(
        '{"image": "https://example.org/a.png", "caption": "A thing."}\n'
    )
    words = {"image": "scenes/images/000.png", "caption": "Fêlée.", "reference": "Fêlée."}
    accented = json.dumps(words, ensure_ascii=False)
    (folder / "latin.jsonl").write_text(accented, encoding="latin-1")
    (folder / "utf16.jsonl").write_text(accented, encoding="utf-16")
    return folder


@pytest.fixture
def nothing_slow(monkeypatch):
    """No model is loaded: a wrong input is seen before."""

    def loaded(*args, **kwargs):
        raise AssertionError("a model was loaded before the input was checked")

    monkeypatch.setattr("transformers.AutoModelForImageTextToText.from_pretrained", loaded)


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_says_it_in_one_line(words, folder, monkeypatch, capsys, nothing_slow):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code in (1, 2)
    said = capsys.readouterr().err
    assert said.strip().count("\n") == 0, said
    assert [part for part in COMMANDS[words] if part not in said] == [], said
    assert not (folder / "new").is_file()


@pytest.mark.parametrize("name", CALLS)
def test_a_call_says_it_in_one_line(name, folder, monkeypatch, nothing_slow):
    monkeypatch.chdir(folder)
    call, parts = CALLS[name]
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        call()
    said = str(raised.value)
    assert "\n" not in said
    assert [part for part in parts if part not in said] == [], said


@pytest.mark.parametrize("model", ["nomodel", "nobody/nomodel"])
def test_a_model_that_is_neither_here_nor_on_the_hub_is_one_line(
    model, folder, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    words = f"caption {model} scenes --out new.jsonl --engine transformers".split()
    with pytest.raises(SystemExit):
        main(words)
    said = capsys.readouterr().err
    assert f"no folder {model}, and no such model on the Hub" in said
    assert "(owner/name)" in said
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("trl-balcap: Model not found: no folder")


def test_utf_16_with_its_mark_is_read(folder):
    assert load_captions(folder / "utf16.jsonl")[0]["reference"] == "Fêlée."


def test_a_reward_given_twice_and_weights_of_0_are_warned_of(caplog):
    twice = [PrecisionReward("scenes/oracle")] * 2
    with caplog.at_level("WARNING"):
        check_rewards(twice, config(reward_weights=[0.0, 0.0]))
    assert "All reward_weights are 0" in caplog.text
    assert "2 reward functions are called 'precision_reward'" in caplog.text

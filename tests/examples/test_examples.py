"""The examples run as they are typed, in fewer steps."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, Image

from trl_balcap.cli import main
from trl_balcap.demo import demo_config, run_demo
from trl_balcap.plan.run import make_plan
from trl_balcap.scenes.make import write_scenes
from trl_balcap.scenes.server import serve

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def test_the_quickstart_of_the_readme(tmp_path, monkeypatch, capsys):
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[:1]
    assert len(code.strip().splitlines()) <= 15
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert 0.0 < float(capsys.readouterr().out.strip().splitlines()[-1]) < 1.0


@pytest.mark.parametrize("example", ["grpo_trainer.py", "rloo_trainer.py"])
def test_rewards_in_other_trainers(example, tmp_path):
    trainer = runpy.run_path(str(EXAMPLES / example))["main"](str(tmp_path), max_steps=1)
    log = trainer.state.log_history[-2]
    means = [log[f"rewards/{name}_reward/mean"] for name in ("precision", "recall", "linguistic")]
    assert all(0.0 < mean < 1.0 for mean in means), means
    assert 0.0 <= log["length_gate/too_long"] <= 1.0
    assert log["judge/precision_reward/unscored"] == 0.0


def run(*command: str, **environ: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PATH": path, **environ}
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_rewards_by_dotted_path_in_the_stock_command(tmp_path):
    output = run("bash", str(EXAMPLES / "trl_grpo.sh"), OUT=str(tmp_path), STEPS="1")
    assert "rewards/linguistic_reward/mean" in output
    assert (tmp_path / "model.safetensors").exists()


def test_train_qwen_takes_yaml_and_flags(tmp_path):
    config = tmp_path / "recipe.yaml"
    config.write_text(
        "judge_model: scenes/oracle\nmax_completion_length: 32\nper_device_train_batch_size: 8\n"
        "report_to: none\nlength_gate_tokens: [4, 400]\n"
    )
    output = run(
        "accelerate", "launch", "--cpu", "--num_processes", "1", str(EXAMPLES / "train_qwen.py"),
        "--config", str(config), "--output_dir", str(tmp_path / "out"), "--dtype", "float32",
        "--max_steps", "1", "--logging_steps", "1", "--rewards", "precision", "linguistic",
        "--use_peft", "--lora_target_modules", "q_proj", "v_proj",
    )  # fmt: skip
    assert re.search(r"1/1 P \S+ L \S+ len \S+ unscored 0%", output)
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()


def train_qwen(monkeypatch, *words: str) -> None:
    """The script in this process, on the command line's words."""
    small = ["--max_steps", "1", "--per_device_train_batch_size", "8", "--report_to", "none"]
    small += ["--use_cpu", "--disable_tqdm", "true", "--max_completion_length", "8"]
    monkeypatch.setattr(sys, "argv", ["train_qwen.py", *words, *small])
    runpy.run_path(str(EXAMPLES / "train_qwen.py"), run_name="__main__")


def test_train_qwen_trains_without_references(tiny_qwen, tmp_path, monkeypatch):
    write_scenes(tmp_path / "scenes", 8)
    photos = tmp_path / "scenes" / "images"  # and no captions beside them
    words = ["--dataset", str(photos), "--output_dir", str(tmp_path / "out")]
    words += ["--model_name_or_path", str(tiny_qwen), "--dtype", "float32"]
    words += ["--judge_model", "openai/oracle", "--rewards", "precision", "linguistic"]
    with serve() as server:
        words += ["--judge_api_base", server.url]
        with pytest.raises(ValueError, match="no reference column") as refused:
            train_qwen(monkeypatch, *words)
        for way in ("trl-balcap recaption", "references=False", "length_gate='none'"):
            assert way in str(refused.value)
        train_qwen(monkeypatch, *words, "--length_gate", "none")
        asked = server.stats()["calls"]
    assert asked["linguistic"] > 0
    assert "cover" not in asked
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_train_qwen_trains_on_questions_about_photos_without_captions(
    tiny_qwen, tmp_path, monkeypatch
):
    """Only the linguistic reward is gated, so a run without it needs no reference to measure by."""
    write_scenes(tmp_path / "scenes", 8)
    questions = tmp_path / "questions.jsonl"
    photos = str(tmp_path / "scenes" / "images")
    judge = ["--judge", "scenes/oracle", "--count", "1", "--out", str(questions)]
    assert main(["make-questions", photos, *judge]) == 0
    words = ["--dataset", str(questions), "--output_dir", str(tmp_path / "out")]
    words += ["--model_name_or_path", str(tiny_qwen), "--dtype", "float32"]
    words += ["--judge_model", "scenes/oracle", "--rewards", "utility"]
    train_qwen(monkeypatch, *words)
    assert (tmp_path / "out" / "model.safetensors").exists()
    for gated in (["linguistic"], ["--length_gated_rewards", "utility_reward"]):
        with pytest.raises(ValueError, match="no reference column"):
            train_qwen(monkeypatch, *words, *gated)


@pytest.mark.parametrize("dataset", ["dataset", "eval_dataset"])
def test_train_qwen_refuses_to_judge_photos_as_drawn_scenes(dataset, tmp_path, monkeypatch):
    """Before the file is opened: it does not exist."""
    words = [f"--{dataset}", "photos.jsonl", "--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=f"^{dataset}=photos.jsonl needs a judge") as refused:
        train_qwen(monkeypatch, *words)
    for way in ("--judge_model openai/gpt-4o-mini", "--config", "--judge_model scenes/oracle"):
        assert way in str(refused.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=f"^{dataset}=photos.jsonl needs a judge"):
        make_plan(None, ["--model_name_or_path", "Qwen/Qwen2.5-VL-3B-Instruct", *words])


def test_train_qwen_resumes_and_reads_the_split_of_its_training_data_alone(
    tiny_qwen, tmp_path, monkeypatch
):
    """The eval set is a file, which has no split "extra"; `True` is no folder."""
    write_scenes(tmp_path / "scenes", 8)
    captions = tmp_path / "scenes" / "captions.jsonl"
    pictures = sorted(map(str, (tmp_path / "scenes" / "images").iterdir()))
    saved = Dataset.from_dict({"image": pictures, "reference": ["There is one thing."] * 8})
    DatasetDict({"extra": saved.cast_column("image", Image())}).save_to_disk(tmp_path / "saved")
    words = ["--dataset", str(tmp_path / "saved"), "--dataset_split", "extra"]
    words += ["--eval_dataset", str(captions), "--output_dir", str(tmp_path / "out")]
    words += ["--judge_model", "scenes/oracle"]
    words += ["--model_name_or_path", str(tiny_qwen), "--dtype", "float32", "--save_steps", "1"]
    train_qwen(monkeypatch, *words)
    train_qwen(monkeypatch, *words, "--resume_from_checkpoint", "True")
    assert (tmp_path / "out" / "checkpoint-2").exists()  # it went on from step 1


def test_train_qwen_without_arguments_is_the_demos_training_run(tmp_path, monkeypatch):
    script = runpy.run_path(str(EXAMPLES / "train_qwen.py"))
    arguments, model = script["CaptioningArguments"](), script["ModelConfig"]()
    script["main"](arguments, demo_config(tmp_path, max_steps=1), model)
    assert (tmp_path / "model.safetensors").exists()


def test_the_demo_leaves_a_run_folder_and_repeats_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("trl_balcap.demo.run.HELD_OUT_SCENES", 8)
    tables = []
    for name in ("first", "second"):
        run_demo(tmp_path / name, seed=3, max_steps=1)
        tables.append((tmp_path / name / "table.json").read_text())
    assert tables[0] == tables[1]
    assert {path.name for path in (tmp_path / "first").iterdir()} >= {
        "checkpoint",
        "captions_before_after.jsonl",
        "reward_curves.png",
        "table.json",
        "report.html",
    }
    checkpoint = tmp_path / "first" / "checkpoint"
    card = (checkpoint / "README.md").read_text()
    assert "\n# trl-balcap-demo-captioner\n" in card
    assert "An image captioner: the tiny captioner of drawn scenes" in card
    assert "\nlicense: apache-2.0\n" in card
    assert f"model='{checkpoint}'" in card
    with pytest.raises(FileExistsError, match="already contains files"):
        run_demo(tmp_path / "first")

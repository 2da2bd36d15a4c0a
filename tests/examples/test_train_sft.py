"""SFT on the references by the recipes of RL, and RL from where SFT ended."""

import json
import runpy
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from trl import ModelConfig, SFTConfig, TrlParser

from trl_balcap.config import BalCapConfig, CaptioningArguments

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = sorted((EXAMPLES / "configs").glob("*.yaml"))
SCRIPT = runpy.run_path(str(EXAMPLES / "train_sft.py"))


def parsed(*words: str):
    parser = SCRIPT["RecipeParser"]((CaptioningArguments, SFTConfig, ModelConfig))
    return parser.parse_args_and_config([*words, "--use_cpu", "--bf16", "false"])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_of_rl_is_one_of_sft(recipe, capsys):
    captioning, args, model = parsed("--config", str(recipe))

    said = yaml.safe_load(recipe.read_text())
    assert captioning.dataset == said["dataset"]
    assert model.model_name_or_path == said["model_name_or_path"]
    assert args.output_dir == f"{said['output_dir']}-sft"
    assert args.learning_rate == SFTConfig(use_cpu=True, bf16=False).learning_rate
    assert args.per_device_train_batch_size == said["per_device_train_batch_size"]
    known = {f.name for kind in (CaptioningArguments, SFTConfig, ModelConfig) for f in fields(kind)}
    named = capsys.readouterr().out
    assert "learning_rate" in named
    assert [key for key in said if key not in known and key not in named] == []


def test_a_key_that_nobody_knows_is_refused(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("output_dir: runs/x\nlerning_rate: 1.0\n")
    with pytest.raises(ValueError, match="lerning_rate"):
        parsed("--config", str(recipe))


def test_sft_and_then_rl(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"output_dir: {tmp_path}/run\njudge_model: scenes/oracle\nmax_completion_length: 24\n"
        "per_device_train_batch_size: 8\nnum_generations: 4\nreport_to: none\ndtype: float32\n"
        "logging_steps: 1\nsave_strategy: 'no'\n"
    )
    SCRIPT["main"](*parsed("--config", str(recipe), "--max_steps", "2"))
    left_out = "for RL only: judge_model, max_completion_length, num_generations."
    assert left_out in capsys.readouterr().out
    trained = tmp_path / "run-sft"
    assert json.loads((trained / "config.json").read_text())["model_type"] == "qwen2_5_vl"

    script = runpy.run_path(str(EXAMPLES / "train_qwen.py"))
    parser = TrlParser((CaptioningArguments, BalCapConfig, ModelConfig))
    start = ["--model_name_or_path", str(trained), "--max_steps", "1", "--use_cpu"]
    script["main"](
        *parser.parse_args_and_config(["--config", str(recipe), *start, "--bf16", "false"])
    )
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_sft_learns_the_reference_and_nothing_else(tmp_path):
    """The labels are the tokens of the reference: prompt and image are not trained on."""
    from transformers import AutoProcessor
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from trl_balcap.demo import demo_scenes
    from trl_balcap.scenes.captioner import captioner_path

    loaded = demo_scenes(tmp_path, rows=2)
    rows = SCRIPT["answered"](loaded)
    processor = AutoProcessor.from_pretrained(captioner_path())
    collate = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
    batch = collate([rows[0], rows[1]])
    for row, labels in enumerate(batch["labels"]):
        text = processor.tokenizer.decode(labels[labels >= 0], skip_special_tokens=True)
        assert text.strip() == loaded[row]["reference"]

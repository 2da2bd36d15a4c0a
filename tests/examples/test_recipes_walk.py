"""Every recipe trains a step on a tiny model of its family: only what a GPU, a key or 90,000 images
would be needed for is replaced."""

import runpy
from pathlib import Path

import pytest
import yaml
from trl import TrlParser

from tests.tiny_models import build_qwen3_vl
from trl_balcap.scenes.make import write_scenes

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = sorted((EXAMPLES / "configs").glob("*.yaml"))


@pytest.fixture(scope="session")
def tiny_qwen3_vl(tmp_path_factory) -> Path:
    return build_qwen3_vl(tmp_path_factory.mktemp("models") / "qwen3-vl")


@pytest.fixture(scope="session")
def tiny_of(tiny_qwen, tiny_llava, tiny_qwen3_vl) -> dict[str, Path]:
    return {"Qwen2.5-VL": tiny_qwen, "llava-1.5": tiny_llava, "Qwen3-VL": tiny_qwen3_vl}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_trains_a_step(recipe, tiny_of, tmp_path, monkeypatch):
    script = runpy.run_path(str(EXAMPLES / "train_qwen.py"))
    trainers = []

    class Kept(script["BalCapTrainer"]):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            trainers.append(self)

    script["main"].__globals__["BalCapTrainer"] = Kept
    write_scenes(tmp_path / "scenes", 4)
    name = yaml.safe_load(recipe.read_text())["model_name_or_path"]
    [tiny] = [path for family, path in tiny_of.items() if family in name]
    kinds = (script["CaptioningArguments"], script["BalCapConfig"], script["ModelConfig"])
    captioning, args, model = TrlParser(kinds).parse_args_and_config(
        [
            "--config", str(recipe), "--output_dir", str(tmp_path / "out"),
            "--model_name_or_path", str(tiny), "--dataset", str(tmp_path / "scenes"),
            "--dtype", "float32", "--attn_implementation", "sdpa", "--bf16", "false", "--use_cpu",
            "--judge_model", "scenes/oracle", "--judge_cache", str(tmp_path / "verdicts"),
            "--use_vllm", "false", "--report_to", "none", "--disable_tqdm", "true",
            "--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "1",
            "--max_completion_length", "8", "--max_steps", "2",
        ],
    )  # fmt: skip
    script["main"](captioning, args, model)

    [trainer] = trainers
    first, second, *_ = trainer.state.log_history
    assert first["learning_rate"] == 0.0  # the warm-up warms up
    assert 0.0 < second["learning_rate"] < args.learning_rate
    for reward in ("precision", "recall"):  # 8 tokens close the gate of the third
        assert first[f"judge/{reward}_reward/unscored"] == 0.0
    assert first["length_gate/too_short"] == 1.0
    assert trainer.num_generations == 8
    named = dict(trainer.model.named_parameters())
    if model.use_peft:
        adapted = {name for name in named if "lora_" in name}
        assert adapted
        assert all("language_model" in name for name in adapted)
    else:
        assert all(parameter.requires_grad for parameter in named.values())

"""Every recipe in examples/configs parses as the scripts parse it, and fits what it names."""

import functools
import re
from pathlib import Path

import pytest
import yaml
from trl import ModelConfig, TrlParser

from trl_balcap.config import BalCapConfig, CaptioningArguments
from trl_balcap.plan.memory import GIB
from trl_balcap.plan.run import RunPlan, make_plan

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = sorted((EXAMPLES / "configs").glob("*.yaml"))


def named(file: Path) -> str:
    return file.stem


@functools.cache
def planned(recipe: Path) -> RunPlan:
    """The plan for GPUs of the size that the recipe's first lines name."""
    gigabytes = re.search(r"of (\d+) GB", recipe.read_text())
    assert gigabytes is not None
    return make_plan(str(recipe), gpu_memory=float(gigabytes[1]), without_data=True)


def test_the_recipes_that_users_are_promised():
    assert {file.stem for file in RECIPES} == {
        "llava-1.5-7b",
        "lora-24gb",
        "lora-48gb",
        "lora-80gb",
        "multi-node",
        "qwen2.5-vl-3b",
        "qwen2.5-vl-7b",
        "qwen3-vl-4b",
        "self-hosted-judge",
        "vllm-server",
    }


@pytest.mark.parametrize("recipe", RECIPES, ids=named)
def test_a_recipe_parses(recipe):
    parser = TrlParser((CaptioningArguments, BalCapConfig, ModelConfig))
    captioning, args, model = parser.parse_args_and_config(["--config", str(recipe), "--use_cpu"])

    assert model.model_name_or_path
    assert model.dtype == "bfloat16"
    assert args.bf16
    assert args.multi_objective_aggregation == "normalize_then_sum"
    assert (args.length_gate, args.length_gate_lower, args.length_gate_upper) == ("mask", 0.5, 2.0)
    assert args.learning_rate < 1e-4  # a number, not YAML's string "1e-6"
    # Under "constant" alone, transformers takes no notice of warmup_steps.
    assert (args.lr_scheduler_type, args.warmup_steps) == ("constant_with_warmup", 10)
    assert model.lora_dropout == 0.0 or not model.use_peft  # it would stay on while TRL samples
    assert captioning.judge_options()["model"] == captioning.judge_model


@pytest.mark.parametrize("recipe", RECIPES, ids=named)
def test_a_recipe_fits_the_gpus_that_its_first_line_names(recipe):
    plan = planned(recipe)
    assert plan.fits
    header = recipe.read_text().split("\n#\n")[0]
    gpus = [int(number) for number in re.findall(r"(\d+) GPUs of", header)]
    machines = plan.launch.machines
    assert plan.launch.processes == (gpus[0] * machines if gpus else 1)


@pytest.mark.parametrize("recipe", RECIPES, ids=named)
def test_a_recipe_takes_other_rewards_than_the_three(recipe):
    rewards = ["--rewards", "precision", "linguistic"]
    assert make_plan(str(recipe), rewards, without_data=True).settings.reward_weights is None


@pytest.mark.parametrize("recipe", RECIPES, ids=named)
def test_the_comment_on_the_batch_is_the_batch(recipe):
    """`# 4 x 8 GPUs x 4 micro-batches = 128 completions = 16 prompts x 8.`"""
    batch = planned(recipe).batch
    width = f"{batch.per_device_train_batch_size} x "
    if batch.processes > 1:
        width += f"{batch.processes} GPUs x "
    assert (
        f"{width}{batch.micro_batches} micro-batch{'es' * (batch.micro_batches > 1)} = "
        f"{batch.completions} completions = {batch.prompts} prompts x {batch.num_generations}."
        in recipe.read_text()
    )


@pytest.mark.parametrize("recipe", RECIPES, ids=named)
def test_the_sizes_and_prices_in_a_recipe_are_the_plans(recipe):
    plan, text = planned(recipe), recipe.read_text()
    size = re.search(r"about (\d+) GB each", text)
    if size is not None:  # bf16 weights, and AdamW's float32 weights and two moments: 14 bytes
        assert float(size[1]) == pytest.approx(14 * plan.shape.parameters / 1e9, abs=0.5)
    else:
        assert plan.setup.peft  # an adapter's checkpoint is small
        [needed] = re.findall(r"Estimated to need ([\d.]+) GiB", text)
        assert float(needed) == pytest.approx(plan.memory.peak / GIB, abs=0.05)
    of_a_batch = plan.judging.batch.usd
    if of_a_batch is None:
        assert "No key, no bill" in text
        return
    of_an_image = of_a_batch / plan.batch.prompts
    [of_1000] = re.findall(r"1,000 images cost about \$(\d+)", text)
    assert 1000 * of_an_image == pytest.approx(float(of_1000), rel=0.1)
    for of_an_epoch in re.findall(r"an epoch of 90,000 about \$([\d,]+)", text):
        assert 90_000 * of_an_image == pytest.approx(float(of_an_epoch.replace(",", "")), rel=0.1)


@pytest.mark.parametrize("recipe", RECIPES, ids=named)
def test_the_commands_in_a_recipe_name_files_that_exist(recipe):
    text = recipe.read_text()
    paths = re.findall(r"examples/[\w./-]+\.(?:yaml|py)", text)
    assert f"examples/configs/{recipe.name}" in paths
    missing = [path for path in paths if not (EXAMPLES.parent / path).is_file()]
    assert not missing
    launch = re.search(r"--config_file (examples/accelerate/\S+)", text)
    named_by_recipe = yaml.safe_load(text).get("accelerate_config")
    if launch is not None:
        assert (recipe.parent / named_by_recipe).resolve() == (
            EXAMPLES.parent / launch[1]
        ).resolve()
    else:
        assert named_by_recipe is None


@pytest.mark.parametrize(
    ("name", "stage", "machines"),
    [("zero2", 2, 1), ("zero3", 3, 1), ("zero3-offload", 3, 1), ("zero3-2-machines", 3, 2)],
)
def test_an_accelerate_file_is_one_that_accelerate_reads(name, stage, machines):
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

    config = load_config_from_file(str(EXAMPLES / "accelerate" / f"{name}.yaml"))
    assert isinstance(config, ClusterConfig)
    assert (config.deepspeed_config or {}).get("zero_stage") == stage
    assert (config.num_machines, config.num_processes) == (machines, 8 * machines)

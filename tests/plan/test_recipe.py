"""Recipes and accelerate files, read without a GPU."""

import json

import pytest

from tests.plan.recipes import write
from trl_balcap.plan.recipe import Launch, read_launch, read_recipe


def test_a_recipe_is_read_without_a_gpu_and_flags_override_it(tmp_path):
    recipe = write(tmp_path / "r.yaml", "num_generations: 4\nlearning_rate: 1.0e-6\nbf16: true\n")
    settings = read_recipe(recipe, ["--num_generations", "16"])
    assert (settings.num_generations, settings.learning_rate, settings.bf16) == (16, 1e-6, True)


def test_what_a_recipe_may_not_say(tmp_path):
    recipe = write(tmp_path / "r.yaml", "num_generation: 4\n")
    with pytest.raises(ValueError, match=r"r\.yaml has unknown keys: num_generation"):
        read_recipe(recipe, [])
    with pytest.raises(ValueError, match=r"Unknown flags: --groups 4"):
        read_recipe(None, ["--groups", "4"])
    with pytest.raises(FileNotFoundError, match=r"File not found: .*gone\.yaml"):
        read_recipe(tmp_path / "gone.yaml", [])
    with pytest.raises(ValueError, match=r"contains a list, not settings"):
        read_recipe(write(tmp_path / "l.yaml", "- 1\n"), [])


def test_launch_from_accelerate_files(tmp_path):
    deepspeed = {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}}
    write(tmp_path / "ds.json", json.dumps(deepspeed))
    beside = write(
        tmp_path / "a.yaml",
        "distributed_type: DEEPSPEED\nnum_processes: 4\nnum_machines: 2\n"
        "deepspeed_config: {deepspeed_config_file: ds.json}\n",
    )
    assert read_launch(beside) == Launch(4, 2, 3, True, False, beside)
    ddp = write(tmp_path / "b.yaml", "distributed_type: MULTI_GPU\nnum_processes: 2\n")
    assert read_launch("b.yaml", recipe=tmp_path / "recipe.yaml") == Launch(2, source=ddp)
    fsdp = write(tmp_path / "c.yaml", "distributed_type: FSDP\nnum_processes: 2\n")
    with pytest.raises(ValueError, match=r"distributed_type FSDP, but must have DEEPSPEED"):
        read_launch(fsdp)

"""What the command prints: fits or not, and the ways out."""

from pathlib import Path

import pytest

from tests.plan.recipes import QWEN_3B, QWEN_7B, captions_folder, write
from trl_balcap import BalCapConfig, BalCapTrainer, LinguisticReward, PrecisionReward
from trl_balcap.cli import main
from trl_balcap.plan.run import make_plan
from trl_balcap.plan.ways_out import ways_out

ROOT = Path(__file__).parents[2]


def test_the_command_prints_terms_and_verdict(tmp_path, capsys):
    folder = captions_folder(tmp_path, words=300)
    recipe = write(
        tmp_path / "r.yaml",
        f"model_name_or_path: {QWEN_3B}\ndtype: bfloat16\ndataset: {folder}\nbf16: true\n"
        "judge_model: scenes/oracle\nper_device_train_batch_size: 2\n"
        "gradient_accumulation_steps: 8\n",
    )
    assert main(["plan", "--config", recipe, "--gpu_memory", "80"]) == 0
    page = capsys.readouterr().out
    assert "3,754,622,976" in page
    assert "2 x 1 GPUs x 8 micro-batches = 16 completions = 2 prompts x 8" in page
    assert "\nfits: " in page
    # 1500 bytes / 4 x 2.0 = 750 tokens, beyond the default of 512: 768 is the next 64.
    assert "open to 750 tokens" in page
    assert "Raise it to 768" in page
    assert "is unknown" not in page  # the exact judge is free

    assert main(["plan", "--config", recipe, "--gpu_memory", "24"]) == 1
    page = capsys.readouterr().out
    assert "does not fit" in page
    assert "use_peft" in page


def test_the_launch_line_says_where_its_numbers_are_from(capsys):
    zero_3 = str(ROOT / "examples/accelerate/zero3.yaml")
    said = {
        (): "1 GPUs, no ZeRO (one process, no accelerate config)",
        ("--num-processes", "4"): "4 GPUs, no ZeRO (--num-processes, no accelerate config)",
        ("--accelerate-config", zero_3): f"8 GPUs, ZeRO-3 ({zero_3})",
        ("--accelerate-config", zero_3, "--num-processes", "4"): (
            f"4 GPUs, ZeRO-3 (--num-processes, {zero_3})"
        ),
    }
    for flags, launch in said.items():
        main(["plan", *flags, "--", "--model_name_or_path", QWEN_3B])
        shown = "".join(capsys.readouterr().out.split())  # a narrow terminal breaks the line
        assert f"launch{''.join(launch.split())}" in shown


def test_bad_settings_leave_the_command_in_one_line(tmp_path, capsys):
    recipe = write(tmp_path / "r.yaml", f"model_name_or_path: {QWEN_3B}\nnum_generations: 7\n")
    with pytest.raises(SystemExit, match="1"):
        main(["plan", "--config", recipe])
    assert "not a multiple of num_generations (7)" in capsys.readouterr().err


def test_the_plan_refuses_weights_that_training_refuses(tmp_path, capsys):
    weights = f"model_name_or_path: {QWEN_3B}\nreward_weights: [1.0, 2.0, 1.0]\n"
    recipe = write(tmp_path / "r.yaml", weights)
    with pytest.raises(SystemExit, match="1"):
        main(["plan", "--config", recipe, "--", "--rewards", "precision", "linguistic"])
    said = capsys.readouterr()
    assert "fits" not in said.out
    rewards = [PrecisionReward("scenes/oracle"), LinguisticReward("scenes/oracle")]
    config = BalCapConfig(str(tmp_path), use_cpu=True, bf16=False, reward_weights=[1, 2, 1])
    with pytest.raises(ValueError, match="3 values for 2 reward functions") as refused:
        BalCapTrainer("no/model", rewards, config)
    assert f"trl-balcap: {refused.value}" in said.err


def test_ways_out_fit_when_they_are_taken():
    """7B, all weights: too much for one GPU; ZeRO-3 on 8 of them is enough."""
    flags = ["--model_name_or_path", QWEN_7B, "--dtype", "bfloat16", "--bf16", "true"]
    zero_2 = str(Path(__file__).parents[2] / "examples/accelerate/zero2.yaml")
    plan = make_plan(None, flags, accelerate_config=zero_2, gpu_memory=40.0)
    assert not plan.fits
    assert any("ZeRO-3 with the optimizer on the host" in way for way in ways_out(plan))

    offloaded = str(Path(__file__).parents[2] / "examples/accelerate/zero3-offload.yaml")
    fixed = make_plan(None, flags, accelerate_config=offloaded, gpu_memory=40.0)
    assert fixed.fits


def test_where_nothing_helps_the_plan_says_so():
    flags = ["--model_name_or_path", QWEN_7B, "--dtype", "bfloat16", "--bf16", "true"]
    [way] = ways_out(make_plan(None, flags, gpu_memory=2.0))
    assert way.startswith("larger GPUs or a smaller model: with ")
    assert "use_peft" in way

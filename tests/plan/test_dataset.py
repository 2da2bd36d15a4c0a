"""What the plan takes from a dataset on disk, and the datasets that it refuses."""

import json
from pathlib import Path

import pytest
import skimage

from tests.plan.recipes import QWEN_3B, captions_folder, write
from trl_balcap.plan.notes import notes
from trl_balcap.plan.run import make_plan


def test_a_dataset_on_disk_gives_image_sizes_lengths_and_the_run(tmp_path):
    """600 x 400 px is 21 x 14 tokens; 500 bytes a reference; 12 rows in batches of 2 prompts."""
    flags = ["--model_name_or_path", QWEN_3B, "--dataset", str(captions_folder(tmp_path))]
    flags += ["--judge_model", "scenes/oracle"]
    flags += ["--per_device_train_batch_size", "16", "--num_train_epochs", "3"]

    plan = make_plan(None, flags)

    assert plan.image.tokens == 21 * 14
    assert plan.sample is not None
    assert plan.sample.reference_tokens == pytest.approx(500 / 4)
    assert plan.steps == 3 * 12 // 2


def test_a_run_without_references_is_planned_by_its_own_rewards_and_band(tmp_path):
    """16 completions a batch: one question each of language, two of precision."""
    file = tmp_path / "bare.jsonl"
    photo = Path(skimage.__file__).parent / "data" / "coffee.png"
    write(file, (json.dumps({"image": str(photo)}) + "\n") * 12)
    flags = ["--model_name_or_path", QWEN_3B, "--dataset", str(file)]
    flags += ["--judge_model", "scenes/oracle"]
    flags += ["--per_device_train_batch_size", "16", "--rewards", "precision", "linguistic"]
    with pytest.raises(ValueError, match="has no reference column"):
        make_plan(None, flags)

    plan = make_plan(None, [*flags, "--length_gate_tokens", "60", "600"])

    assert plan.judging.batch.calls == 3 * 16
    said = "\n".join(notes(plan))
    assert "12 rows without references" in said
    assert "open to 600 tokens (length_gate_tokens)" in said
    assert "Raise it to 640" in said


def test_a_dataset_that_is_not_there_is_no_stand_in():
    flags = ["--model_name_or_path", QWEN_3B, "--dataset", "photos/gone.jsonl"]
    flags += ["--judge_model", "scenes/oracle"]
    with pytest.raises(
        FileNotFoundError, match=r"File or folder not found: photos/gone\.jsonl.*--without"
    ):
        make_plan(None, flags)
    plan = make_plan(None, flags, without_data=True)
    assert plan.sample is None
    assert plan.fits


def test_a_dataset_smaller_than_one_generation_batch_is_refused(tmp_path):
    """12 rows, 16 prompts a batch: 8 x 16 / 8. With 12 micro-batches it is 12 prompts."""
    flags = ["--model_name_or_path", QWEN_3B, "--dataset", str(captions_folder(tmp_path))]
    flags += ["--judge_model", "scenes/oracle"]
    flags += ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps"]
    with pytest.raises(ValueError, match=r"has 12 rows.*needs 16 .*steps_per_generation=12"):
        make_plan(None, [*flags, "16"])
    assert make_plan(None, [*flags, "12"]).batch.prompts == 12

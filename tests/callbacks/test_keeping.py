"""A bounded sample of what the judge saw, kept while training, and a disk that fails."""

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from tests.conftest import scene_dataset
from trl_balcap import BalCapConfig, BalCapTrainer, Judge, LinguisticReward, PrecisionReward
from trl_balcap.callbacks import KeepVerdictsCallback
from trl_balcap.report import read_thumbnails, read_verdicts
from trl_balcap.report.log import read_log, read_run_facts


def train(model, out, **config):
    judge = Judge("scenes/oracle")
    options = {
        "use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True,
        "per_device_train_batch_size": 8, "num_generations": 2, "max_completion_length": 8,
        "max_steps": 4, "logging_steps": 2, "save_strategy": "no", "log_verdicts": 3, **config,
    }  # fmt: skip
    trainer = BalCapTrainer(
        str(model),
        [PrecisionReward(judge), LinguisticReward(judge)],
        BalCapConfig(str(out), **options),
        train_dataset=scene_dataset(8),
    )
    trainer.train()
    return trainer


def test_a_few_images_a_logged_step_with_all_their_rollouts(tiny_qwen, tmp_path):
    trainer = train(tiny_qwen, tmp_path)
    rows = read_verdicts(tmp_path / "verdicts")
    assert {row["step"] for row in rows} == {1, 2, 4}
    assert len(rows) == 3 * 3 * 2  # steps, images, rollouts
    last = rows[-6:]
    assert [row["group"] for row in last] == ["0", "0", "1", "1", "2", "2"]
    logged = list(trainer._logs["advantages"])[:6]
    assert [row["advantage"] for row in last] == pytest.approx(logged)
    for row in last:
        assert row["prompt"] == "Describe the image."
        assert row["gated"]  # 8 tokens beside a reference of 20 and more
        assert row["rewards"]["linguistic_reward"] is None
        assert row["gated_rewards"] == {"linguistic_reward": 0.0}
        assert row["reasons"] == {"linguistic_reward": "length_gate"}
        assert row["tokens"] <= 8
    assert {row["image"] for row in rows} <= read_thumbnails(tmp_path / "verdicts").keys()
    assert [row["step"] for row in read_log(tmp_path / "verdicts")][:2] == [2, 4]
    facts = read_run_facts(tmp_path / "verdicts")
    assert facts["length_gate"] == [0.5, 2.0]
    assert facts["rewards"]["linguistic_reward"]["gated"]


def test_nothing_is_kept_where_it_is_turned_off(tiny_qwen, tmp_path):
    train(tiny_qwen, tmp_path, log_verdicts=False, max_steps=1)
    assert not (tmp_path / "verdicts").exists()


def test_a_disk_that_cannot_be_written_to_ends_the_keeping_alone(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    callback = KeepVerdictsCallback(tmp_path / "file" / "verdicts", {}, images=1)
    for _ in range(2):
        callback.keep([{"step": 1, "split": "train", "id": "a", "completion": "A dog."}])
    args = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    callback.on_train_end(args, TrainerState(), TrainerControl())
    assert len([r for r in caplog.records if "no longer kept" in r.message]) == 1


@pytest.mark.parametrize("value", [-1, 1.5])
def test_how_many_are_kept_is_a_whole_number(value):
    with pytest.raises(ValueError, match="log_verdicts must be a whole number, 0 or more"):
        BalCapConfig("out", bf16=False, use_cpu=True, log_verdicts=value)

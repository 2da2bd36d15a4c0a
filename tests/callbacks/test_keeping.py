"""A bounded sample of what the judge saw, kept while training, and a disk that fails."""

import threading
from typing import Any

import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tests.conftest import scene_dataset
from trl_balcap import (
    BalCapConfig,
    BalCapTrainer,
    Judge,
    JudgeReward,
    LinguisticReward,
    PrecisionReward,
)
from trl_balcap.callbacks import KeepVerdictsCallback
from trl_balcap.callbacks.sending import VerdictSender
from trl_balcap.data.completions import completion_text
from trl_balcap.report import read_thumbnails, read_verdicts
from trl_balcap.report.log import read_log, read_run_facts


def build(model, out, *rewards, **config):
    judge = Judge("scenes/oracle")
    options = {
        "use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True,
        "per_device_train_batch_size": 8, "num_generations": 2, "max_completion_length": 8,
        "max_steps": 4, "logging_steps": 2, "save_strategy": "no", "log_verdicts": 3, **config,
    }  # fmt: skip
    return BalCapTrainer(
        str(model),
        [PrecisionReward(judge), LinguisticReward(judge), *rewards],
        BalCapConfig(str(out), **options),
        train_dataset=scene_dataset(8),
    )


def train(model, out, **config):
    trainer = build(model, out, **config)
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


class Interrupt(TrainerCallback):
    """Notes the captions of each logged step; the first time, interrupts after the third."""

    trainer: Any
    interrupts = True

    def __init__(self):
        self.captions: dict[int, list[str]] = {}

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in (logs or {}):
            captions = list(self.trainer._logs["completion"])[:6]  # 3 images, 2 rollouts
            self.captions[state.global_step] = [completion_text(one) for one in captions]
            if self.interrupts and state.global_step == 3:
                self.interrupts = False
                raise KeyboardInterrupt


@pytest.mark.parametrize("resumes", [False, True], ids=["from step 0", "from a checkpoint"])
def test_another_run_keeps_its_own_beside_what_it_resumes(tiny_qwen, tmp_path, resumes):
    config = {"save_strategy": "steps", "save_steps": 2, "logging_steps": 1, "length_gate": None}
    trainer, noting = build(tiny_qwen, tmp_path, learning_rate=1e-2, **config), Interrupt()
    noting.trainer = trainer
    trainer.add_callback(noting)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    first, noting.captions = noting.captions, {}
    trainer.train(resume_from_checkpoint=resumes)
    assert noting.captions.keys() == ({3, 4} if resumes else {1, 2, 3, 4})
    kept: dict[int, list[str]] = {}
    for row in read_verdicts(tmp_path / "verdicts"):
        kept.setdefault(row["step"], []).append(row["completion"])
    assert kept == (first if resumes else {}) | noting.captions
    if not resumes:
        assert all(first[step] != noting.captions[step] for step in first)


def test_rows_that_an_interrupted_run_would_have_sent_are_not_sent(tmp_path):
    sender = VerdictSender(["tensorboard"], [])
    callback = KeepVerdictsCallback(tmp_path, {}, images=1, sender=sender)
    callback.keep([{"step": 1, "split": "train", "id": "a", "completion": "A dog."}])
    args = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    callback.on_train_begin(args, TrainerState(), TrainerControl())
    assert sender._waiting == []


class OddReward(JudgeReward):
    """Tells its verdicts in forms of its own."""

    __name__ = "odd_reward"

    async def score(self, row):
        row.seen["units"] = ["a dog"]  # the report's units are texts with `covered`
        row.seen["assertions"] = [{"statement": "There is a dog."}]
        row.seen["clarity"] = "good"
        row.seen["lock"] = threading.Lock()  # cannot be sent to another process
        row.seen["by place"] = {(0, 1): "dog"}  # no key of JSON
        row.seen["places"] = (0, 1)
        return 1.0


def test_values_of_another_form_are_details(tiny_qwen, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    trainer = build(
        tiny_qwen, tmp_path, OddReward("scenes/oracle"), report_to="tensorboard", max_steps=2
    )
    trainer.train()
    rows = read_verdicts(tmp_path / "verdicts")
    assert len(rows) == 2 * 3 * 2  # steps, images, rollouts
    told = [row for row in rows if row["extra"]]  # an empty caption is not judged
    assert told
    for row in told:
        assert row["rewards"]["odd_reward"] == 1.0
        assert (row["units"], row["clarity"]) == (None, None)
        assert row["extra"].pop("lock").startswith("<unlocked _thread.lock")
        row["extra"].pop("pointable", None)  # of the precision reward
        assert row["extra"] == {
            "units": ["a dog"],
            "assertions": [{"statement": "There is a dog."}],
            "clarity": "good",
            "by place": "{(0, 1): 'dog'}",
            "places": [0, 1],
        }
    said = [r.message for r in caplog.records if "does not fit its column" in r.message]
    assert len(said) == 3  # units, assertions and clarity, once each
    assert said[0].startswith(
        "odd_reward gave the report a value that does not fit its column: 'units' must be "
        "list<item: struct<text: string, covered: bool>>, got ['a dog']. "
    )


def test_an_image_that_cannot_be_opened_leaves_its_captions(tmp_path):
    callback = KeepVerdictsCallback(tmp_path, {}, images=2)
    rows = callback.sample(
        {"image": ["no-such-file.png"] * 2 + [scene_dataset(1)[0]["image"]] * 2},
        step=1,
        split="train",
        num_generations=2,
        completions=["A dog.", "A cat.", "A star.", "A circle."],
        rewards={},
        observations={},
    )
    callback.keep(rows)
    callback._wait()
    kept = read_verdicts(tmp_path)
    assert [row["completion"] for row in kept] == ["A dog.", "A cat.", "A star.", "A circle."]
    assert [row["image"] is None for row in kept] == [True, True, False, False]


def test_verdicts_that_cannot_be_added_to_end_the_keeping_alone(tiny_qwen, tmp_path, caplog):
    (tmp_path / "verdicts").mkdir()
    (tmp_path / "verdicts" / "images-000000-cut.parquet").write_bytes(b"PAR1")  # a full disk
    trainer = train(tiny_qwen, tmp_path)
    assert trainer.state.global_step == 4
    [said] = [r.message for r in caplog.records if "no longer kept" in r.message]
    assert "is not a complete Parquet file" in said
    assert "The report lacks what is judged and logged from here on" in said


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

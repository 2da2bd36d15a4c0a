"""CaptionEvalCallback: evaluates on time, logs, and keeps the checkpoint that is best by
b-CapScore."""

import json
import math
import socket
import subprocess
import sys
from typing import Any

import pytest
from datasets import Dataset, Image
from trl import GRPOConfig, GRPOTrainer

from trl_balcap.evals.callback import CaptionEvalCallback
from trl_balcap.judge import Judge
from trl_balcap.scenes.make import scene_rows


def held_out(n: int = 3) -> list[dict]:
    return scene_rows(n, seed=5)


@pytest.fixture
def trainer(tiny_qwen, tmp_path):
    rows = scene_rows(4)
    dataset = Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": "Describe the image."}]] * 4,
            "image": [row["image"] for row in rows],
        }
    ).cast_column("image", Image())

    def free_reward(completions: list, **_: Any) -> list[float | None]:
        return [float(place) for place in range(len(completions))]

    config = GRPOConfig(
        output_dir=str(tmp_path / "run"),
        max_steps=5,
        per_device_train_batch_size=2,
        num_generations=2,
        max_completion_length=6,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
    )
    return GRPOTrainer(
        model=str(tiny_qwen), reward_funcs=free_reward, args=config, train_dataset=dataset
    )


class FixedScores(CaptionEvalCallback):
    """The captioning and the logging are real; the verdicts are given."""

    def __init__(self, *args, scores, **kwargs):
        super().__init__(*args, **kwargs)
        self.scores = iter(scores)
        self.seen = []

    def _score(self, captions, step):
        self.seen.append((step, captions))
        problem, logs, _ = super()._score(captions, step)
        return problem, logs, next(self.scores)


def test_it_evaluates_every_n_steps_and_keeps_the_best(trainer, tmp_path):
    callback = FixedScores(
        trainer,
        held_out(),
        Judge("scenes/oracle"),
        every_n_steps=2,
        scores=[40.0, 50.0, 30.0],
    )
    trainer.add_callback(callback)
    trainer.train()
    assert [step for step, _ in callback.seen] == [2, 4, 5]  # every second, and the last
    assert all(len(captions) == 3 for _, captions in callback.seen)
    record = json.loads((callback.best_folder / "b_capscore.json").read_text())
    assert record == {"step": 4, "score": 50.0}
    assert (callback.best_folder / "model.safetensors").is_file()
    assert (callback.best_folder / "preprocessor_config.json").is_file() or (
        callback.best_folder / "processor_config.json"
    ).is_file()

    logged = [entry for entry in trainer.state.log_history if "eval_captions_unscored" in entry]
    assert [entry["step"] for entry in logged] == [2, 4, 5]
    # An untrained model says nothing that is a claim: its captions are judged, and score 0.
    assert all(0 <= entry["eval_greedy_b_capscore"] <= 1 for entry in logged)
    assert all(entry["eval_captions_unscored"] == 0 for entry in logged)
    training = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(training) == 5  # the evaluation took nothing out of the training's own log
    rows = (tmp_path / "run" / "caption_eval" / "step-4.jsonl").read_text().splitlines()
    assert [json.loads(row)["caption"] for row in rows] == callback.seen[1][1]


def test_a_resumed_run_has_the_old_best_to_beat(trainer):
    callback = CaptionEvalCallback(trainer, held_out(), Judge("scenes/oracle"), every_n_steps=2)
    callback.best_folder.mkdir(parents=True)
    (callback.best_folder / "b_capscore.json").write_text('{"step": 4, "score": 50.0}')
    callback.on_train_begin(trainer.args, trainer.state, trainer.control)
    assert callback.best is None  # a new run in the same folder starts from nothing
    trainer.state.global_step = 4
    callback.on_train_begin(trainer.args, trainer.state, trainer.control)
    assert callback.best == 50.0


def test_a_judge_that_is_mostly_down_names_no_best(trainer):
    judge = Judge("openai/x", api_base="http://127.0.0.1:9/v1", max_retries=0, max_unscored=0.5)
    judge.preflight = _ready  # type: ignore[method-assign]
    callback = CaptionEvalCallback(trainer, held_out(2), judge, every_n_steps=2)
    problem, logs, score = callback._score(["A cup.", ""], step=2)
    assert problem is None
    assert logs["eval_captions_unscored"] == 0.5
    assert score == 0.0  # half is judged, as much as max_unscored asks for
    _, logs, score = callback._score(["A cup.", "A chair."], step=2)
    assert (logs["eval_captions_unscored"], score) == (1.0, None)
    assert "eval_greedy_b_capscore" not in logs


async def _ready(*, vision=True):
    return None


def test_a_judge_that_cannot_work_is_said_when_training_begins(trainer):
    judge = Judge("openai/x", api_base="http://127.0.0.1:9/v1", max_retries=0)
    trainer.add_callback(CaptionEvalCallback(trainer, held_out(1), judge, every_n_steps=2))
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:9"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_judge_that_is_down_in_an_evaluation_lets_the_run_go_on(trainer, caplog):
    judge = Judge("openai/x", api_base="http://127.0.0.1:9/v1", max_retries=0)
    callback = CaptionEvalCallback(trainer, held_out(1), judge, every_n_steps=2)
    callback.evaluate(2)
    assert "The evaluation at step 2: it has no scores, for the judge openai/x at" in caplog.text
    assert callback.best is None
    assert trainer.state.log_history == []


def test_a_disk_that_cannot_be_written_to_costs_the_record_and_not_the_run(trainer):
    callback = CaptionEvalCallback(trainer, held_out(2), Judge("scenes/oracle"), every_n_steps=2)
    folder = callback.best_folder.parent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "caption_eval").write_text("a file in the way")
    problem, logs, score = callback._score([row["reference"] for row in callback.rows], step=2)
    assert problem is not None
    assert "could not be kept in" in problem
    assert (logs["eval_greedy_b_capscore"], score) == (1.0, 100.0)


@pytest.mark.parametrize(
    ("rows", "every", "message"),
    [
        ([], 2, "is empty"),
        ([{"image": None, "reference": "x"}], 2, "Row 0 of the evaluation dataset"),
        ([{"image": object(), "reference": " "}], 2, "Row 0 of the evaluation dataset"),
        ([{"image": object(), "reference": "x"}], 0, "every_n_steps must be 1 or more"),
    ],
)
def test_what_cannot_be_evaluated_is_said_at_start(trainer, rows, every, message):
    with pytest.raises(ValueError, match=message):
        CaptionEvalCallback(trainer, rows, Judge("scenes/oracle"), every_n_steps=every)


def test_logged_numbers_are_numbers(trainer):
    callback = CaptionEvalCallback(trainer, held_out(2), Judge("scenes/oracle"), every_n_steps=1)
    perfect = [row["reference"] for row in callback.rows]
    _, logs, score = callback._score(perfect, step=1)
    assert score == 100.0
    assert logs["eval_greedy_b_capscore"] == logs["eval_greedy_b_capscore_of_means"] == 1.0
    assert not any(math.isnan(value) for value in logs.values())


TWO_RANKS = """
import json, sys
from datasets import Dataset, Image
from trl import GRPOConfig, GRPOTrainer
from trl_balcap.evals.callback import CaptionEvalCallback
from trl_balcap.judge import Judge
from trl_balcap.scenes.make import scene_rows

model, out = sys.argv[1:]
rows = scene_rows(4)
prompt = [{"role": "user", "content": "Describe the image."}]
dataset = Dataset.from_dict(
    {"prompt": [prompt] * 4, "image": [row["image"] for row in rows]}
).cast_column("image", Image())
config = GRPOConfig(
    output_dir=out, max_steps=2, per_device_train_batch_size=2, num_generations=2,
    max_completion_length=6, logging_steps=1, save_strategy="no", report_to=[], use_cpu=True,
    bf16=False, ddp_find_unused_parameters=False,
)
trainer = GRPOTrainer(
    model=model,
    reward_funcs=lambda completions, **_: [float(i) for i in range(len(completions))],
    args=config,
    train_dataset=dataset,
)
callback = CaptionEvalCallback(trainer, scene_rows(5, seed=5), Judge("scenes/oracle"), every_n_steps=1)
trainer.add_callback(callback)
trainer.train()
rank = trainer.accelerator.process_index
found = [entry for entry in trainer.state.log_history if "eval_greedy_b_capscore" in entry]
with open(f"{out}/rank{rank}.json", "w") as file:
    json.dump({"best": callback.best, "logged": found}, file)
"""  # noqa: E501


@pytest.mark.slow
def test_two_processes_share_the_captioning_and_agree(tiny_qwen, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TWO_RANKS)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command += ["--master_port", str(port), str(script), str(tiny_qwen), str(out)]
    subprocess.run(command, check=True, timeout=280, capture_output=True, text=True)
    first, second = (json.loads((out / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["best"] == second["best"] == 0.0  # an untrained model makes no claim
    assert [entry["step"] for entry in first["logged"]] == [1, 2]
    rows = (out / "caption_eval" / "step-2.jsonl").read_text().splitlines()
    assert [json.loads(row)["id"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert (out / "best-b-capscore" / "model.safetensors").is_file()

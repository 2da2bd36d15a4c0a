"""CaptionEvalCallback: evaluates on time, logs, and keeps the checkpoint that is best by
b-CapScore."""

import json
import math
from typing import Any

import pytest
from accelerate import PartialState
from datasets import Dataset, Image
from trl import GRPOConfig, GRPOTrainer

from tests.two_ranks import on_two_ranks
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
    trainer.state.global_step = 4
    callback.on_train_begin(trainer.args, trainer.state, trainer.control)
    assert callback.best == 50.0


def test_a_new_run_has_nothing_to_beat(trainer):
    callback = CaptionEvalCallback(trainer, held_out(), Judge("scenes/oracle"), every_n_steps=2)
    callback.best_folder.mkdir(parents=True)
    (callback.best_folder / "b_capscore.json").write_text('{"step": 4, "score": 50.0}')
    callback.best = 50.0  # of an earlier train() in this process
    callback.on_train_begin(trainer.args, trainer.state, trainer.control)
    assert callback.best is None


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


async def test_it_works_in_a_notebook_whose_cells_run_in_a_loop(trainer):
    trainer.args.max_steps = 1
    trainer.add_callback(
        CaptionEvalCallback(trainer, held_out(1), Judge("scenes/oracle"), every_n_steps=1)
    )
    trainer.train()
    assert [
        row["step"] for row in trainer.state.log_history if "eval_greedy_b_capscore" in row
    ] == [1]


def test_a_failing_preflight_is_said_with_its_traceback(trainer):
    async def broken(*, vision=True):
        raise OSError("no certificates on this machine")

    judge = Judge("scenes/oracle")
    judge.preflight = broken  # type: ignore[method-assign]
    callback = CaptionEvalCallback(trainer, held_out(1), judge, every_n_steps=2)
    with pytest.raises(RuntimeError, match="Preparing caption evaluations failed") as error:
        callback.on_train_begin(trainer.args, trainer.state, trainer.control)
    assert "OSError: no certificates on this machine" in str(error.value)


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


def test_gradient_checkpointing_goes_on_with_the_users_settings(trainer):
    settings = {"use_reentrant": False, "preserve_rng_state": False}
    trainer.args.gradient_checkpointing_kwargs = settings
    trainer.model.gradient_checkpointing_enable(settings)
    callback = CaptionEvalCallback(
        trainer, held_out(1), Judge("scenes/oracle"), every_n_steps=1, max_new_tokens=2
    )
    callback._caption()
    used = [
        layer._gradient_checkpointing_func.keywords
        for layer in trainer.model.modules()
        if getattr(layer, "gradient_checkpointing", False)
    ]
    assert used
    assert all(keywords == settings for keywords in used)


@pytest.mark.parametrize(("rows", "ranks", "each"), [(5, 2, 3), (4, 2, 2), (1, 4, 1), (9, 4, 3)])
def test_all_ranks_caption_equally_many_images(trainer, monkeypatch, rows, ranks, each):
    """Or a rank that has one batch less would leave the others alone in a generation."""
    callback = CaptionEvalCallback(
        trainer, held_out(rows), Judge("scenes/oracle"), every_n_steps=1, max_new_tokens=2
    )
    callback._caption()  # TRL and accelerate have looked up the one process that there is
    shares = []

    def gather(pairs):
        shares.append([place for place, _ in pairs])
        return [(place, "A cup.") for place in range(rows)]

    monkeypatch.setattr("trl_balcap.evals.callback.gather_object", gather)
    state = PartialState._shared_state
    monkeypatch.setitem(state, "num_processes", ranks)
    for rank in range(ranks):
        monkeypatch.setitem(state, "process_index", rank)
        assert callback._caption() == ["A cup."] * rows  # each once
    assert [len(share) for share in shares] == [each] * ranks
    assert {place for share in shares for place in share} == set(range(rows))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "zero_stage"), [("ddp", 0), ("zero3", 3)])
def test_two_processes_share_the_captioning_and_agree(kind, zero_stage, tiny_qwen, tmp_path):
    on_two_ranks(kind, "caption_eval", tiny_qwen, tmp_path)
    first, second = (json.loads((tmp_path / f"rank-{r}.json").read_text()) for r in range(2))
    assert first["zero_stage"] == second["zero_stage"] == zero_stage
    assert first["best"] == second["best"] == 0.0  # an untrained model makes no claim
    assert first["steps"] == [1, 2]
    assert "OSError: no certificates on this machine" in first["raised"]
    assert second["raised"] == first["raised"]  # the main process's, and nobody waits for it
    rows = (tmp_path / "caption_eval" / "step-2.jsonl").read_text().splitlines()
    assert [json.loads(row)["id"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert (tmp_path / "best-b-capscore" / "model.safetensors").is_file()

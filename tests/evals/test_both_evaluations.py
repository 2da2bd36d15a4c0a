"""A run that the trainer and CaptionEvalCallback both evaluate: two sets of numbers, one scale."""

import json

import pytest

from trl_balcap import (
    BalCapConfig,
    BalCapTrainer,
    Judge,
    LinguisticReward,
    PrecisionReward,
    RecallReward,
    load_captions,
)
from trl_balcap.card import card_text
from trl_balcap.evals import CaptionEvalCallback
from trl_balcap.report.charts import charts, headline
from trl_balcap.report.runs import Run
from trl_balcap.scenes.captioner import captioner_path
from trl_balcap.scenes.make import scene_rows, write_scenes


def test_greedy_and_sampled_scores_have_their_own_names_from_0_to_1(tmp_path):
    write_scenes(tmp_path / "scenes", 8)
    scenes = load_captions(tmp_path / "scenes" / "captions.jsonl")
    judge = Judge("scenes/oracle")
    trainer = BalCapTrainer(
        str(captioner_path()),
        [PrecisionReward(judge), RecallReward(judge), LinguisticReward(judge)],
        BalCapConfig(
            str(tmp_path / "run"), max_steps=2, per_device_train_batch_size=8, num_generations=8,
            max_completion_length=64, eval_strategy="steps", eval_steps=1, logging_steps=1,
            per_device_eval_batch_size=8, save_strategy="no", report_to="none", use_cpu=True,
            bf16=False, model_init_kwargs={"dtype": "float32"},
        ),
        train_dataset=scenes,
        eval_dataset=scenes.select(range(2)),
    )  # fmt: skip
    callback = CaptionEvalCallback(trainer, scene_rows(3, seed=5), judge, every_n_steps=1)
    trainer.add_callback(callback)
    trainer.train()

    log = trainer.state.log_history
    greedy = [row for row in log if "eval_greedy_b_capscore" in row]
    sampled = [row for row in log if "eval_b_capscore" in row]
    assert [row["step"] for row in greedy] == [row["step"] for row in sampled] == [1, 2]
    assert not any(row in sampled for row in greedy)
    assert all(0.1 < row["eval_b_capscore"] < 1 for row in sampled)

    # The log has what the kept verdicts say, and the best is still known in percent.
    lines = (tmp_path / "run" / "caption_eval" / "step-2.jsonl").read_text().splitlines()
    scores = [json.loads(line)["score"] for line in lines]
    assert greedy[-1]["eval_greedy_b_capscore"] == pytest.approx(sum(scores) / 3)
    assert callback.best == pytest.approx(
        100 * max(row["eval_greedy_b_capscore"] for row in greedy)
    )

    def table(history):
        card = card_text(trainer.facts, name="m", where="m", prompt=None, history=history)
        return card[card.index("On the evaluation set") :]

    def line(rows, name, key):
        return f"| {name} | {100 * rows[0][key]:.1f} | {100 * rows[-1][key]:.1f} |"

    assert table(log).startswith("On the evaluation set, greedy captions (percent):")
    assert line(greedy, "b_capscore", "eval_greedy_b_capscore") in table(log)
    assert table(sampled).startswith("On the evaluation set, sampled captions (percent):")
    assert line(sampled, "b_capscore", "eval_b_capscore") in table(sampled)
    assert line(sampled, "recall", "eval_rewards/recall_reward/mean") in table(sampled)

    run = Run("run", log=[row for row in log if "eval_b_capscore" in row or row in greedy])
    shown = {one["label"]: one["last"] for one in headline(run)}
    assert shown["b-CapScore, evaluation, greedy (%)"] == pytest.approx(
        100 * greedy[-1]["eval_greedy_b_capscore"]
    )
    assert shown["b-CapScore, evaluation, sampled (%)"] == pytest.approx(
        100 * sampled[-1]["eval_b_capscore"]
    )
    drawn = {chart["title"]: chart for chart in charts(run)}
    assert {"Evaluation, greedy captions", "Evaluation, sampled captions"} <= drawn.keys()

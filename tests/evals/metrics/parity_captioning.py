"""DCScore's and CaptionQA's numbers: our functions on the official scripts' inputs."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evals.metrics.parity_checks import ScriptedJudge, close, scores_of
from trl_balcap.data.scored import Caption
from trl_balcap.evals.metrics.captionqa import CaptionQA, record_of
from trl_balcap.evals.metrics.dcscore import PROMPTS as DCSCORE_PROMPTS
from trl_balcap.evals.metrics.dcscore import DCScore, OracleFacts, official_crash
from trl_balcap.evals.prompting import own_prompts
from trl_balcap.evals.rules import captionqa, dcscore

# ---- DCScore -----------------------------------------------------------------------------------


def compute_precision_recall(inputs, official, tmp_path):
    def scores():
        return dcscore.fact_scores(
            inputs["predicted"], inputs["oracle"], inputs["verification"], inputs["mapping"]
        )

    if "error" in official:
        with pytest.raises(dcscore.InvalidReplyError):
            scores()
        return
    found = scores()
    close({**found._asdict(), "trial_dcscore": found.score}, official)


def parse_text_json(inputs, official, tmp_path):
    close(dcscore.read_reply(inputs["text"]), official["parsed"])


def format_json_input(inputs, official, tmp_path):
    assert dcscore.format_facts(inputs["items"]) == official["text"]


def pipeline(inputs, official, tmp_path):
    names = [row.get("image_name", row.get("image_path")) for row in inputs["captions"]]
    captions = []
    for place, (name, row) in enumerate(zip(names, inputs["captions"], strict=True)):
        image = tmp_path / Path(name).name
        Image.new("RGB", (8, 8)).save(image)
        captions.append(Caption(str(place), row["caption"], image))
    annotations = {
        row["image_name"]: OracleFacts(row["oracle_caption"], tuple(row["oracle_facts"]))
        for row in inputs["oracles"]
    }
    metric = DCScore(annotations, own_prompts(DCSCORE_PROMPTS))
    judge = ScriptedJudge(inputs["judge_replies_per_call"])
    rows = [asyncio.run(metric.score(caption, judge)) for caption in captions]

    if official["crash"] is not None:
        # Where the official process dies, ours goes on: every caption still gets its row.
        if "UnboundLocalError" in official["crash"]:
            assert official_crash(rows)
            assert len(rows[0]["attempts"]) >= 1
        assert all((row["score"] is None) == (row["reason"] is not None) for row in rows)
        return

    assert len(judge.calls) == official["n_api_calls"]
    assert sum(call.n for call in judge.calls) == official["n_completions"]
    assert len(judge.left) == official["unused_replies"]
    for call, theirs in zip(judge.calls, official["api_calls"], strict=True):
        ours = (call.temperature, call.n, call.max_tokens, call.multimodal)
        assert ours == tuple(theirs[k] for k in ("temperature", "n", "max_tokens", "multimodal"))
        assert call.messages[0]["content"] == theirs["system"]
        assert theirs["model"] == DCScore.official_judge
    assert not official_crash(rows)
    for name, theirs in official["per_caption"].items():
        row = rows[int(name.removesuffix(".json"))]
        assert (row["score"] is not None) == theirs["valid"], name
        trials = row.get("trials", []) if theirs["valid"] else []
        assert len(trials) == theirs["n_trials"]
        for trial, their_trial in zip(trials, theirs["trials"], strict=True):
            close({key: trial[key] for key in their_trial}, their_trial, name)
        for key in ("precision", "recall", "f1_score"):
            close(row.get(key), theirs[key], f"{name}.{key}")
            close(row.get(f"{key}_relevant"), theirs[f"{key}_relevant"], f"{name}.{key}_relevant")
    headline = scores_of(DCScore, rows)["DCScore"]
    close(headline, official["dcscore_unrounded"], "DCScore")
    printed = official["compute_results_stdout"]
    if headline is not None:
        assert f"DCScore: {headline:.2f}" in printed


# ---- CaptionQA ---------------------------------------------------------------------------------


def extract_letter(inputs, official, tmp_path):
    assert captionqa.extract_letter(inputs["reply"], inputs["num_options"]) == official["letter"]


def is_yesno_question(inputs, official, tmp_path):
    question, choices = inputs["question"], inputs["choices"]
    assert captionqa.is_yesno_question(question, choices) is official["is_yesno"]
    assert captionqa.options_of(question, choices) == official["choices"]


def normalize_gt_letter(inputs, official, tmp_path):
    if "error" in official:
        with pytest.raises(IndexError):
            captionqa.true_letter(inputs["choices"], inputs["answer"])
        return
    assert captionqa.true_letter(inputs["choices"], inputs["answer"]) == official["letter"]


def run(inputs, official, tmp_path):
    dataset = inputs["dataset"]
    if inputs["split"] != "all" and all("domain" in row for row in dataset):
        dataset = [row for row in dataset if row["domain"] == inputs["split"]]
    captions = inputs["captions"]
    prepared, _ = captionqa.prepare_questions(dataset, captions, seed=inputs["seed"])
    answered: list[tuple[captionqa.ChoiceQuestion, captionqa.Answer]] = []
    asked_in_runs = []
    for replies in (inputs["judge_replies"], inputs["second_run_replies"]):
        if replies is None:
            continue
        # The script resumes by counting an image's answers, and so asks its tail again where an
        # earlier question was skipped. Ours does not; this replays theirs.
        done: dict[str, int] = {}
        for question, _ in answered:
            done[question.image_id] = done.get(question.image_id, 0) + 1
        asked = [q for q in prepared if q.index >= done.get(q.image_id, 0)]
        assert len(asked) <= len(replies)
        answered += [
            (question, captionqa.score_reply(question, reply))
            for question, reply in zip(asked, replies, strict=False)
        ]
        asked_in_runs.append(asked)

    if official["results"] is None:
        assert not answered
        assert official["n_judge_calls"] == 0
        return
    results: dict[str, list[dict[str, Any]]] = {}
    for question, answer in answered:
        results.setdefault(question.image_id, []).append(
            {
                "question": question.text,
                "model_answer": answer.text,
                "is_correct": answer.correct,
                "is_cannot_answer": answer.cannot_answer,
                "score": answer.score,
                "category": question.category,
            }
        )
    for image_id, theirs in official["results"].items():
        ours = [
            {key: record[key] for key in their_record}
            for record, their_record in zip(results[image_id], theirs, strict=True)
        ]
        close(ours, theirs, image_id)
    assert set(results) == set(official["results"])
    rows = captionqa_rows(answered)
    found = scores_of(CaptionQA, rows)
    summary = official["summary"]
    n = sum(len(row["questions"]) for row in rows)
    assert n == summary["total_questions"]
    percents = {
        "mean of questions": summary["average_score"],
        "accuracy": summary["overall_accuracy"],
        "cannot answer": summary["cannot_answer_count"] / n if n else None,
    }
    for name, share in percents.items():
        close(found[name], None if share is None else 100 * float(share), name)
    close(n * (found["mean of questions"] or 0.0) / 100, float(summary["total_score"]), "total")
    parts = CaptionQA.breakdown(rows)
    for category, theirs in official["per_category"].items():
        close(parts[category]["n"], theirs["n"], category)
        ours = [parts[category][name] for name in ("score", "accuracy", "cannot answer")]
        close(ours, [100 * float(theirs[name]) for name in ("score", "acc", "cannot")], category)

    def as_asked(questions):
        return [
            {"image_id": q.image_id, "q_idx": q.index, "permutation": list(q.permutation)}
            for q in questions
        ]

    def hashes(questions):
        texts = [captionqa.question_prompt(captions[q.image_id], q) for q in questions]
        return [hashlib.sha256(text.encode()).hexdigest() for text in texts]

    # A second run may be recorded alone or with the first.
    records = [[q for asked in asked_in_runs for q in asked], asked_in_runs[-1], prepared]
    assert official["asked"] in [as_asked(record) for record in records]
    assert official["n_judge_calls"] in [len(record) for record in records]
    assert official["prompt_sha256"] in [hashes(record) for record in records]


def captionqa_rows(
    answered: list[tuple[captionqa.ChoiceQuestion, captionqa.Answer]],
) -> list[dict[str, Any]]:
    """Scored rows of these answers, one an image."""
    rows: dict[str, dict[str, Any]] = {}
    for question, answer in answered:
        row = rows.setdefault(question.image_id, {"id": question.image_id, "questions": []})
        row["questions"].append(record_of(question, answer))
    return list(rows.values())


def lmms_eval_run(inputs, official, tmp_path):
    questions, _ = captionqa.prepare_questions(
        inputs["dataset"], inputs["captions"], seed=inputs["seed"], mode="lmms-eval"
    )
    answered = [
        (question, captionqa.score_reply(question, reply, mode="lmms-eval"))
        for question, reply in zip(questions, inputs["judge_replies"], strict=True)
    ]
    found = scores_of(CaptionQA, captionqa_rows(answered))
    names = {
        "captionqa_score": "mean of questions",
        "captionqa_accuracy": "accuracy",
        "captionqa_cannot_answer_rate": "cannot answer",
    }
    close({n: round((found[name] or 0.0) / 100, 4) for n, name in names.items()}, official)

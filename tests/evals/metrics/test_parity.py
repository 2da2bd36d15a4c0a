"""
The published benchmarks' own numbers, case by case.

`parity/*.json` holds invented inputs with what the official scripts gave for them: each case has a
`kind`, `inputs` and `official_output`. `EVAL_PARITY_DIR` names another folder of such files.
"""

import asyncio
import hashlib
import json
import math
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from trl_balcap.data.rows import BadRowsError
from trl_balcap.data.scored import Caption
from trl_balcap.evals import arena
from trl_balcap.evals.asking import ask_judge
from trl_balcap.evals.bootstrap import estimate, resampling_weights
from trl_balcap.evals.leaderboard import rows_of_battles
from trl_balcap.evals.metrics.caparena import (
    MAX_TOKENS,
    TEMPERATURE,
    TOP_P,
    CapArenaAuto,
    load_references,
)
from trl_balcap.evals.metrics.caparena import PROMPTS as CAPARENA_PROMPTS
from trl_balcap.evals.metrics.captionqa import CaptionQA, record_of
from trl_balcap.evals.metrics.dcscore import PROMPTS as DCSCORE_PROMPTS
from trl_balcap.evals.metrics.dcscore import DCScore, OracleFacts, official_crash
from trl_balcap.evals.metrics.protocol import Metric
from trl_balcap.evals.prompting import own_prompts
from trl_balcap.evals.rules import caparena, captionqa, dcscore
from trl_balcap.judge import Judge, JudgeError

FOLDER = Path(os.environ.get("EVAL_PARITY_DIR", Path(__file__).parent / "parity"))
REL = 1e-9
CASES = [case for path in sorted(FOLDER.glob("*.json")) for case in json.loads(path.read_text())]


def close(ours: Any, official: Any, where: str = "") -> None:
    """Equal up to 1e-9 relative in every number, exactly elsewhere."""
    if isinstance(official, dict):
        assert set(ours) == set(official), where
        for key, value in official.items():
            close(ours[key], value, f"{where}.{key}")
    elif isinstance(official, list):
        assert len(ours) == len(official), where
        for place, value in enumerate(official):
            close(ours[place], value, f"{where}[{place}]")
    elif isinstance(official, float) or (isinstance(official, int) and isinstance(ours, float)):
        assert ours is not None, where
        assert math.isclose(ours, official, rel_tol=REL, abs_tol=1e-12), (where, ours, official)
    else:
        assert ours == official, (where, ours, official)


def scores_of(metric: type[Metric], rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """The corpus scores that the table of `trl-balcap score` shows for these rows."""
    weights = resampling_weights(len(rows), rounds=1)
    return {s.name: estimate(s, weights).value for s in metric.statistics(rows)}


@pytest.fixture
def chat_server():
    """A loopback server that answers each request with the next (status, body), and keeps the
    requests."""
    started = []

    def start(responses: list[tuple[int, Any]]) -> SimpleNamespace:
        left, requests = list(responses), []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status, body = left.pop(0) if len(left) > 1 else left[0]
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format, *args):
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        started.append((server, thread))
        url = f"http://127.0.0.1:{server.server_port}/v1"
        return SimpleNamespace(url=url, requests=requests)

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


class ScriptedJudge:
    """Gives out replies call by call, in order, and keeps what was asked."""

    def __init__(self, replies_per_call: list[list[str | None]]):
        self.left: list[list[str | None]] = list(replies_per_call)
        self.calls: list[SimpleNamespace] = []

    async def __call__(self, messages, *, tag, temperature, max_tokens, top_p=None, n=1, attempt=0):
        image = not isinstance(messages[-1]["content"], str)
        self.calls.append(
            SimpleNamespace(
                messages=messages,
                temperature=temperature,
                max_tokens=max_tokens,
                top_p=top_p,
                n=n,
                multimodal=image,
            )
        )
        replies = self.left.pop(0)
        if "<<raise>>" in replies:
            raise JudgeError("unreadable", "the scripted judge was told to fail")
        return replies


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


# ---- CapArena-Auto -----------------------------------------------------------------------------


def judge_loop(inputs, official, tmp_path):
    first, second = inputs["source1"], inputs["source2"]
    assert CapArenaAuto.official_judge == "gpt-4o-2024-08-06"
    if "human" in (first, second):  # such battles stand in no leaderboard and are never judged
        assert official["n_calls"] == 0
        battle = {"source1": first, "source2": second, "judge": "Caption 1 is better"}
        assert arena.winners([battle]) == []
        return
    judge = ScriptedJudge([[reply] for reply in inputs["replies"]])
    metric = CapArenaAuto({}, own_prompts(CAPARENA_PROMPTS))
    battle = caparena.Battle("i", first, second, "a", "b", "c", second)

    async def fight():
        return await metric.fight(battle, judge, None)

    if official["crash"] is not None:
        # A reply without content kills the official script; to ours it is one more bad reply.
        judge.left.append(["Reason: x\nJudgment: Tie"])
        assert asyncio.run(fight())[0].verdict is not None
        return
    judged, _ = asyncio.run(fight())
    assert judged.verdict == official["judge"]
    assert len(judge.calls) == official["n_calls"]
    accepted = caparena.verdict_of(judged.verdict) is not None
    assert accepted is official["accepted_by_scorer"]
    sent = official["first_call_params"]
    assert judge.calls[0].max_tokens == sent["max_tokens"]
    assert judge.calls[0].top_p == sent["top_p"]
    # The payload's 0.5 is overridden where it is sent; the kind call_llm checks that.
    assert judge.calls[0].temperature == 0.1
    assert sent["model"] == CapArenaAuto.official_judge


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """A reply with what every OpenAI-compatible server sends beside the content that the cases
    keep."""
    choices = [
        {"index": 0, "finish_reason": "stop"}
        | choice
        | {"message": {"role": "assistant"} | choice["message"]}
        for choice in body.get("choices", [])
    ]
    return {"id": "1", "object": "chat.completion", "created": 1} | body | {"choices": choices}


def call_llm(inputs, official, tmp_path, chat_server):
    """Sending is the judge's: what the script sends, and that its failures are no verdicts."""
    responses = inputs["responses"]
    server = chat_server([(s, completion(body) if s == 200 else body) for s, body in responses])
    sent = official["requests"][0]
    judge = Judge(f"openai/{sent['model']}", api_base=server.url, api_key="k", max_retries=0)
    messages = [{"role": "user", "content": "x"}] * sent["n_messages"]
    ask = ask_judge(judge)

    def replies():
        question = ask(
            messages,
            tag="caparena",
            temperature=TEMPERATURE,
            max_tokens=MAX_TOKENS,
            top_p=TOP_P,
        )
        return asyncio.run(question)

    if official.get("returned"):
        assert replies() == [official["returned"]]
    else:
        with pytest.raises(JudgeError):
            replies()
    request = server.requests[0]
    assert {key: request[key] for key in ("model", "max_tokens", "top_p", "temperature")} == {
        key: sent[key] for key in ("model", "max_tokens", "top_p", "temperature")
    }
    assert len(request["messages"]) == sent["n_messages"]


def auto_pairs(inputs, official, tmp_path):
    def battles():
        return caparena.auto_battles(
            inputs["references"],
            inputs["captions"],
            inputs["model"],
            seed=inputs["python_random_seed_set_by_harness"],
        )

    if official["crash"] is not None:
        with pytest.raises(KeyError):
            battles()
        return
    ours = [battle._asdict() for battle in battles()]
    close([{key: row[key] for key in row if key != "verdict"} for row in ours], official["items"])


def auto_scores(inputs, official, tmp_path):
    if official["crash"] is not None:
        # What kills the official scorer is refused before a judge is asked.
        references = {
            item["img"]: {
                "captions": {"human": "h", item["ref_model"]: "a"},
                "ref_model": item["ref_model"],
            }
            for item in inputs["items"]
        }
        path = tmp_path / "references.json"
        path.write_text(json.dumps(references))
        with pytest.raises(BadRowsError):
            load_references(path)
        return
    rows = rows_of_battles(inputs["model"], inputs["items"])
    found = scores_of(CapArenaAuto, rows)
    ours = {f"score_{s}": found[f"Score_{s}"] for s in caparena.BASELINES.values()}
    ours |= {"score_avg": found["Score_Avg"], "length_avg": found["Length_Avg"]}
    close(ours, {key: official[key] for key in ours})
    judged = [row["ref_model"] for row in rows if row["score"] is not None]
    assert {name: judged.count(name) for name in caparena.BASELINES} == official["n_valid"]
    columns = [float(cell) for cell in official["row"].split("|")[1:-1]]
    shown = [ours[k] for k in ("score_avg", "score_gpt", "score_cog", "score_cpm", "length_avg")]
    assert [float(f"{value:.2f}") for value in shown] == columns


# ---- CapArena's human arena --------------------------------------------------------------------


def elo(inputs, official, tmp_path):
    if official["crash"] is not None:
        with pytest.raises((ValueError, KeyError)):
            arena.bootstrap_ranking(arena.winners(inputs["battles"]))
        return
    fights = arena.winners(inputs["battles"])
    assert len(fights) == official["n_battles"]
    close(arena.elo_ratings(fights), official["online_elo"])
    ranking = arena.bootstrap_ranking(fights)
    assert ranking.models == official["bootstrap_median_ranking"]
    assert ranking.rounded == official["bootstrap_median_rounded"]
    close(ranking.median, official["bootstrap_median"])
    close(ranking.low, official["bootstrap_q025"])
    close(ranking.high, official["bootstrap_q975"])


def caption_agreement(inputs, official, tmp_path):
    def agreement():
        return arena.caption_agreement(
            inputs["items"], include_tie=inputs["include_tie"], in_400=inputs["in_400"]
        )

    if official["crash"] is not None:
        with pytest.raises((KeyError, ValueError)):
            agreement()
        return
    found = agreement()
    close(found.overall, official["overall"])
    assert found.n == official["n"]
    close(found.levels, official["levels"])
    close(found.n_ties, official["tie_num"])


def model_agreement(inputs, official, tmp_path):
    def agreement():
        return arena.model_agreement(inputs["metric_ranking"], inputs["human_ranking"])

    if official["crash"] is not None:
        with pytest.raises(ValueError, match="is not in the human ranking"):
            agreement()
        return
    found = agreement()
    close(found.spearman, official["spearman"])
    close(found.kendall, official["kendall"])
    assert found.human_positions == official["human_positions"]


CHECKS = {
    check.__name__: check
    for check in (
        compute_precision_recall,
        parse_text_json,
        format_json_input,
        pipeline,
        extract_letter,
        is_yesno_question,
        normalize_gt_letter,
        run,
        lmms_eval_run,
        judge_loop,
        call_llm,
        auto_pairs,
        auto_scores,
        elo,
        caption_agreement,
        model_agreement,
    )
}


@pytest.mark.parametrize("case", CASES, ids=[f"{case['kind']}:{case['name']}" for case in CASES])
def test_official_number(case, tmp_path, request):
    assert case["kind"] in CHECKS, f"the test knows no kind {case['kind']!r}; add its check"
    extra = (request.getfixturevalue("chat_server"),) if case["kind"] == "call_llm" else ()
    CHECKS[case["kind"]](case["inputs"], case["official_output"], tmp_path, *extra)


def test_there_are_cases():
    assert len(CASES) > 0, f"no case in {FOLDER}"
    assert "EVAL_PARITY_DIR" in os.environ or {case["kind"] for case in CASES} == set(CHECKS)

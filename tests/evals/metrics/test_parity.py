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

from trl_balcap.data.scored import Caption
from trl_balcap.evals import arena
from trl_balcap.evals.asking import ask_judge
from trl_balcap.evals.bootstrap import estimate, resampling_weights
from trl_balcap.evals.metrics import caparena, captionqa, dcscore
from trl_balcap.evals.prompting import own_prompts
from trl_balcap.judge import Judge, JudgeError

FOLDER = Path(os.environ.get("EVAL_PARITY_DIR", Path(__file__).parent / "parity"))
REL = 1e-9
BRADLEY_TERRY_ELO = 0.1  # sklearn's solver stops about 0.03 Elo from the optimum
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


@pytest.fixture
def chat_server():
    """A loopback server that answers each request with the next (status, body), and keeps the requests."""
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
        self.left = list(replies_per_call)
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
        row["image_name"]: dcscore.OracleFacts(row["oracle_caption"], tuple(row["oracle_facts"]))
        for row in inputs["oracles"]
    }
    metric = dcscore.DCScore(annotations, own_prompts("dcscore"))
    judge = ScriptedJudge(inputs["judge_replies_per_call"])
    rows = [asyncio.run(metric.score(caption, judge)) for caption in captions]

    if official["crash"] is not None:
        # Where the official process dies, ours goes on: every caption still gets its row.
        if "UnboundLocalError" in official["crash"]:
            assert dcscore.official_crash(rows)
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
        assert theirs["model"] == dcscore.OFFICIAL_JUDGE
    assert not dcscore.official_crash(rows)
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
    headline = estimate(dcscore.statistics(rows)[0], resampling_weights(len(rows), rounds=1))
    close(headline.value, official["dcscore_unrounded"], "DCScore")
    printed = official["compute_results_stdout"]
    if headline.value is not None:
        assert f"DCScore: {headline.value:.2f}" in printed


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
    answered: list[tuple[captionqa.Question, captionqa.Answer]] = []
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
    counted = captionqa.tally(answer for _, answer in answered)
    close(
        {
            "total_questions": counted.n,
            "total_score": counted.total_score,
            "average_score": counted.score,
            "correct_answers": counted.n_correct,
            "overall_accuracy": counted.accuracy,
            "cannot_answer_count": counted.n_cannot_answer,
        },
        official["summary"],
        "summary",
    )
    close(
        {
            category: {
                "n": part.n,
                "score": part.score,
                "acc": part.accuracy,
                "cannot": part.cannot_answer_rate,
            }
            for category, part in captionqa.by_category(answered).items()
        },
        official["per_category"],
        "per_category",
    )

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


def lmms_eval_run(inputs, official, tmp_path):
    questions, _ = captionqa.prepare_questions(
        inputs["dataset"], inputs["captions"], seed=inputs["seed"], mode="lmms-eval"
    )
    counted = captionqa.tally(
        captionqa.score_reply(question, reply, mode="lmms-eval")
        for question, reply in zip(questions, inputs["judge_replies"], strict=True)
    )
    ours = (counted.score, counted.accuracy, counted.cannot_answer_rate)
    names = ("captionqa_score", "captionqa_accuracy", "captionqa_cannot_answer_rate")
    close({n: round(v or 0.0, 4) for n, v in zip(names, ours, strict=True)}, official)


# ---- CapArena-Auto -----------------------------------------------------------------------------


def judge_loop(inputs, official, tmp_path):
    first, second = inputs["source1"], inputs["source2"]
    assert caparena.OFFICIAL_JUDGE == "gpt-4o-2024-08-06"
    if "human" in (first, second):  # such battles stand in no leaderboard and are never judged
        assert official["n_calls"] == 0
        battle = {"source1": first, "source2": second, "judge": "Caption 1 is better"}
        assert arena.winners([battle]) == []
        return
    judge = ScriptedJudge([[reply] for reply in inputs["replies"]])
    metric = caparena.CapArenaAuto({}, own_prompts("caparena"))
    battle = caparena.Battle("i", first, second, "a", "b", "c", second)

    async def fight():
        return await metric.fight(battle, judge, None)

    if official["crash"] is not None:
        # A reply without content kills the official script; to ours it is one more bad reply.
        judge.left += [["Reason: x\nJudgment: Tie"]]
        assert asyncio.run(fight())[0].judge is not None
        return
    judged, _ = asyncio.run(fight())
    assert judged.judge == official["judge"]
    assert len(judge.calls) == official["n_calls"]
    accepted = caparena.verdict_of(judged.judge) is not None
    assert accepted is official["accepted_by_scorer"]
    sent = official["first_call_params"]
    assert judge.calls[0].max_tokens == sent["max_tokens"]
    assert judge.calls[0].top_p == sent["top_p"]
    # The payload's 0.5 is overridden where it is sent; the kind call_llm checks that.
    assert judge.calls[0].temperature == 0.1
    assert sent["model"] == caparena.OFFICIAL_JUDGE


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """A reply with what every OpenAI-compatible server sends beside the content that the cases keep."""
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
            temperature=caparena.TEMPERATURE,
            max_tokens=caparena.MAX_TOKENS,
            top_p=caparena.TOP_P,
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
    close([{key: row[key] for key in row if key != "judge"} for row in ours], official["items"])


def auto_scores(inputs, official, tmp_path):
    battles = [
        caparena.Battle(**{"ref": "", "judge": None} | {k: item[k] for k in item})
        for item in inputs["items"]
    ]
    if official["crash"] is not None:
        error = KeyError if official["crash"].startswith("KeyError") else ValueError
        with pytest.raises(error):
            caparena.arena_scores(battles, inputs["model"])
        return
    scores = caparena.arena_scores(battles, inputs["model"])
    ours = {f"score_{short}": scores.by_baseline[n] for n, short in caparena.BASELINES.items()}
    ours |= {
        "n_valid": scores.n_judged,
        "score_avg": scores.score_avg,
        "length_avg": scores.length_avg,
    }
    close(ours, {key: official[key] for key in ours})
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
    theirs = official["bt_logistic_mle"]
    if "error" in theirs:
        with pytest.raises(ValueError, match="Bradley-Terry needs"):
            arena.bradley_terry(fights)
        return
    ours = arena.bradley_terry(fights)
    assert set(ours) == set(theirs)
    assert all(abs(ours[model] - theirs[model]) <= BRADLEY_TERRY_ELO for model in theirs)


def caption_agreement(inputs, official, tmp_path):
    def agreement():
        return arena.caption_agreement(
            inputs["items"], include_tie=inputs["include_tie"], in_400=inputs["in_400"]
        )

    if official["crash"] is not None:
        with pytest.raises(KeyError):
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

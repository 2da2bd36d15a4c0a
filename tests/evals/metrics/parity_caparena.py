"""CapArena's numbers: our functions on the official scripts' inputs."""

import asyncio
import json
from typing import Any

import pytest

from tests.evals.metrics.parity_checks import ScriptedJudge, close, scores_of
from trl_balcap.data.rows import BadRowsError
from trl_balcap.evals import arena
from trl_balcap.evals.asking import ask_judge
from trl_balcap.evals.leaderboard import rows_of_battles
from trl_balcap.evals.metrics.caparena import (
    MAX_TOKENS,
    TEMPERATURE,
    TOP_P,
    CapArenaAuto,
    load_references,
)
from trl_balcap.evals.metrics.caparena import PROMPTS as CAPARENA_PROMPTS
from trl_balcap.evals.prompting import own_prompts
from trl_balcap.evals.rules import caparena
from trl_balcap.judge import Judge, JudgeError


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

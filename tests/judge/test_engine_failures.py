"""A question that fails: its reason, what is asked once more, and when."""

import asyncio
import json
import pickle
import time
from typing import Any

import pytest

from tests.judge.exact_judge import CAPTION, judge_at
from trl_balcap.judge import JudgeError, Linguistic
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.server_faults import ServerFaults


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("stall", "timeout"),
        ("rate_limited", "rate_limited"),
        ("server_error", "server_error"),
        ("reset", "server_error"),
        ("truncated", "truncated"),
        ("malformed", "unreadable"),
        ("wrong_counts", "unreadable"),
        ("invented_ids", "unreadable"),
    ],
)
def test_a_failure_has_a_reason(fault, reason):
    rates: dict[str, Any] = {fault: 1.0}
    faults = ServerFaults(**rates)
    with serve(faults=faults) as server:
        judge = judge_at(server, timeout=1.0 if fault == "stall" else 60.0, max_retries=0)
        with pytest.raises(JudgeError) as caught:
            asyncio.run(judge.linguistic(CAPTION))

    assert caught.value.reason == reason


def test_a_refusal_is_not_asked_again():
    with serve(answer=lambda _: "", faults=ServerFaults(refused=1.0, seed=2)) as server:
        judge = judge_at(server)
        reasons = set()
        for i in range(6):  # in the message's refusal field, as content_filter, or as prose
            with pytest.raises(JudgeError) as caught:
                asyncio.run(judge.decompose(f"Caption {i}."))
            reasons.add(caught.value.reason)

    assert reasons == {"refused", "unreadable"}
    assert judge.stats.calls < 12


def test_an_unreadable_reply_is_asked_for_once_more():
    replies = iter(["I would say seven.", '{"clarity": 7, "fluency": 7, "coherency": 7}'])
    with serve(answer=lambda _: next(replies)) as server:
        judge = judge_at(server)
        assert asyncio.run(judge.linguistic(CAPTION)) == Linguistic(7.0, 7.0, 7.0)
    assert judge.stats.calls == 2


def test_an_empty_split_of_a_text_with_words_is_asked_for_once_more_and_not_kept(tmp_path):
    replies = iter(['{"assertions": []}'] * 3 + ['{"assertions": ["A dog."]}'])
    with serve(answer=lambda _: next(replies)) as server:
        judge = judge_at(server, cache=str(tmp_path))
        with pytest.raises(JudgeError, match="unreadable: no assertions for a text with words"):
            asyncio.run(judge.decompose("A dog. A cat."))
        assert asyncio.run(judge.decompose("A dog. A cat.")) == ["A dog."]
    assert judge.stats.calls == 4


def test_a_judge_that_ends_in_a_thought_is_cut_off():
    draft = '<think>Perhaps {"clarity": 9, "fluency": 9, "coherency": 9}'
    with serve(answer=lambda _: draft) as server, pytest.raises(JudgeError) as caught:
        asyncio.run(judge_at(server).linguistic(CAPTION))

    assert caught.value.reason == "truncated"


def test_a_long_reply_does_not_hold_up_the_judge_loop():
    # 100 KB of escaped quotes without an end took minutes on the loop that serves everyone.
    def answer(messages):
        question = json.loads(messages[1]["content"])
        long = question["text"] == "long"
        return (
            '{"a": "' + '\\"' * 100_000 if long else '{"clarity": 5, "fluency": 5, "coherency": 5}'
        )

    async def ask_both(judge):
        begin = time.monotonic()
        long = asyncio.ensure_future(judge.linguistic("long"))
        for i in range(20):
            await judge.linguistic(f"Caption {i}.")
        seconds = time.monotonic() - begin
        with pytest.raises(JudgeError, match="unreadable"):
            await long
        return seconds

    with serve(answer=answer) as server:
        assert asyncio.run(ask_both(judge_at(server))) < 5.0


def test_a_failing_reply_is_shown_in_short():
    with serve(answer=lambda _: "No. " * 1000) as server, pytest.raises(JudgeError) as caught:
        asyncio.run(judge_at(server).linguistic(CAPTION))

    assert caught.value.reply is not None
    assert caught.value.reply.startswith("No. No. ")
    assert len(caught.value.reply) < 450
    assert pickle.loads(pickle.dumps(caught.value)).reply == caught.value.reply


def test_retry_after_is_honoured():
    answered = [False]

    with serve(faults=ServerFaults(capacity=0, retry_after=1.5)) as full:
        judge = judge_at(full, max_retries=1)
        begin = time.monotonic()
        with pytest.raises(JudgeError):
            asyncio.run(judge.linguistic(CAPTION))
        answered[0] = True

    assert time.monotonic() - begin >= 1.5  # backoff alone would be 0.5 s
    assert judge.stats.calls == 2


def test_a_question_asked_again_goes_before_those_not_asked_yet(monkeypatch):
    monkeypatch.setattr("trl_balcap.judge.dispatch._BACKOFF_START", 0.02)
    answered = []

    def answer(messages):
        answered.append(int(json.loads(messages[1]["content"])["text"]))
        return '{"clarity": 7, "fluency": 7, "coherency": 7}'

    with serve(answer=answer, latency=0.05, faults=ServerFaults(server_error=0.3)) as server:
        judge = judge_at(server, max_concurrency=1, max_retries=9)

        async def ask_all():
            await asyncio.gather(*(judge.linguistic(str(i)) for i in range(20)))

        asyncio.run(ask_all())

    assert judge.stats.retries >= 3
    # One after the other, in order: a failure costs a question one or two places, not its turn.
    assert sorted(answered) == list(range(20))
    assert max(abs(place - i) for place, i in enumerate(answered)) <= 5

"""The bound of a reply, and a budget that holds whatever an endpoint counts."""

import asyncio
import time

import pytest

from tests.judge.endpoint_judge import CAPTION, judge_at
from tests.judge.servers import Answer, endpoint, tokens
from trl_balcap import LinguisticReward
from trl_balcap.judge import JudgeError


@pytest.mark.parametrize(
    ("options", "caption", "expected"),
    [
        ({}, CAPTION, 2048),
        ({}, "A dog. " * 1000, len('{"question": "linguistic", "text": ""}') + 7000),
        ({"max_tokens": 100}, CAPTION, 100),
        ({"max_tokens": None}, CAPTION, None),
    ],
)
def test_a_reply_has_a_bound_that_fits_the_question(options, caption, expected):
    with endpoint() as server:
        asyncio.run(judge_at(server, **options).linguistic(caption))
    assert server.requests[0].body.get("max_tokens") == expected


def test_a_dollar_budget_holds_with_many_under_way():
    # 100 tokens in, 100 out at $10 and $90 a million: 1 cent each, so 100 questions for a dollar.
    def answer(_):
        time.sleep(0.05)
        return Answer(usage=tokens(100, 100))

    with endpoint(answer) as server:
        judge = judge_at(server, budget_usd=1.0, price=(10.0, 90.0), max_tokens=120)
        reward = LinguisticReward(judge)
        reward._preflight_done = True
        captions = [f"Caption {i:03}." for i in range(256)]
        scores = asyncio.run(reward([""] * 256, captions))

    assert judge.stats.usd == pytest.approx(0.01 * len(server.requests))
    assert judge.stats.usd <= 1.0 + 1e-9
    assert judge.stats.usd > 0.9  # what the next question might have taken is left over
    assert sum(score is not None for score in scores) == len(server.requests)
    report = reward.take_report()
    assert report is not None
    assert report.budget_spent == "The judge budget of $1 is spent."


def test_a_reply_without_token_counts_costs_its_estimate():
    with endpoint(lambda _: Answer(usage=None)) as server:
        judge = judge_at(server, budget_usd=0.5, price=(0.0, 1000.0), max_tokens=100)

        async def ask_all():
            asked = (judge.linguistic(f"Caption {i}.") for i in range(20))
            return await asyncio.gather(*asked, return_exceptions=True)

        outcomes = asyncio.run(ask_all())

    # A reply of at most 100 tokens at $1000 a million: 10 cents.
    assert sum(isinstance(outcome, tuple) for outcome in outcomes) == 5
    assert {o.reason for o in outcomes if isinstance(o, JudgeError)} == {"over_budget"}
    assert judge.stats.usd == pytest.approx(0.5)
    assert judge.stats.uncounted_calls == 5

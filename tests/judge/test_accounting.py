"""What the exact judge's calls add up to: spent budgets, and the metrics of a batch."""

import pytest

from tests.judge.exact_judge import CAPTION, SCENE, batch_of, judge_at, rewards, score
from trl_balcap import LinguisticReward
from trl_balcap.scenes.server import serve


def test_the_call_budget_ends_the_asking():
    with serve() as server:
        judge = judge_at(server, budget_calls=3)
        reward = LinguisticReward(judge)
        scores = score([reward], [f"Caption {i}." for i in range(5)])[0]

        assert server.stats()["total"] == 3  # one preflight, two verdicts
    assert [s is None for s in scores] == [False, False, True, True, True]
    report = reward.take_report()
    assert report is not None
    assert report.unscored == {"over_budget": 3}
    assert report.budget_spent == "The budget of 3 judge calls is spent."


def test_the_dollar_budget_ends_the_asking():
    with serve() as server:
        # Some 420 prompt tokens a question at a dollar per thousand, after eight known as that.
        judge = judge_at(server, budget_usd=5.0, price=(1000.0, 0.0), max_concurrency=1)
        reward = LinguisticReward(judge)
        score([reward], [f"Caption {i}." for i in range(20)])
        report = reward.take_report()

    assert report is not None
    assert report.budget_spent == "The judge budget of $5 is spent."
    assert 4.5 < judge.stats.usd <= 5.0
    assert judge.stats.usd == pytest.approx(judge.stats.prompt_tokens / 1000)


def test_metrics_are_logged_once_a_batch_zeros_included():
    with serve() as server:
        judge = judge_at(server, price=(2.0, 10.0))
        functions, logged = rewards(judge), []
        batch = batch_of([SCENE] * 2, [CAPTION, "A cat sleeps."])

        def log(name, value):
            logged.append((name, value))

        score(functions, **batch, log_metric=log)
        first = dict(logged)
        assert len(logged) == len(first)  # no name twice
        calls = server.stats()["total"]
        logged.clear()
        score(functions, **batch, log_metric=log)
        second = dict(logged)

    assert first["judge/calls"] == calls
    assert first["judge/questions"] > calls
    assert first["judge/usd"] == pytest.approx(
        (2 * first["judge/prompt_tokens"] + 10 * first["judge/completion_tokens"]) / 1e6
    )
    assert 0 < first["judge/latency_p50"] <= first["judge/latency_p95"]
    assert first["judge/precision_reward/unscored"] == 0.0
    assert second.keys() == first.keys()
    assert second["judge/calls"] == second["judge/usd"] == 0.0
    assert second["judge/calls_total"] == calls
    assert second["judge/usd_total"] == first["judge/usd"]
    assert second["judge/cache_hits"] == second["judge/questions"]


def test_dollars_are_logged_only_where_the_price_is_known():
    logged: dict[str, float] = {}
    with serve() as server:  # an endpoint that litellm's table has no price of
        reward = LinguisticReward(judge_at(server))
        score([reward], [CAPTION], log_metric=logged.__setitem__)

    assert logged["judge/calls"] == 2.0  # the preflight and the caption
    assert "judge/usd" not in logged
    assert "judge/usd_total" not in logged

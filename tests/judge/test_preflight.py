"""What cannot work says so at start."""

import asyncio

import pytest

from tests.judge.exact_judge import CAPTION, judge_at, score
from trl_balcap import Judge, LinguisticReward
from trl_balcap.judge import JudgeConfigError
from trl_balcap.scenes.server import serve


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"api_key": "sk-wrong-one"}, "does not work: .*wrong API key", id="wrong_key"),
        pytest.param({"model": "openai/nobody"}, "'nobody' does not exist", id="wrong_model"),
        pytest.param(
            {"api_base": "http://127.0.0.1:9/v1", "max_retries": 0},
            "does not work: server_error",
            id="nobody_there",
        ),
        pytest.param(
            {"model": "nonsense"}, "does not know the provider of .*'nonsense'", id="no_provider"
        ),
        pytest.param(
            {"budget_usd": 5.0},
            "no price for openai/oracle.*budget_calls",
            id="budget_without_price",
        ),
    ],
)
def test_preflight_stops_a_judge_that_cannot_work(options, message):
    with serve(api_key="sk-right-one") as server:
        arguments = {"model": "openai/oracle", "api_base": server.url, "api_key": "sk-right-one"}
        with pytest.raises(JudgeConfigError, match=message):
            LinguisticReward(Judge(**(arguments | options))).preflight()


def test_a_missing_key_is_named(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(JudgeConfigError, match="set OPENAI_API_KEY in the environment"):
        asyncio.run(Judge("openai/gpt-4o-mini").preflight())


def test_a_model_that_is_no_judge_is_found_at_start():
    with serve(answer=lambda _: "Hello! How can I help you today?") as server:
        reward = LinguisticReward(judge_at(server))
        with pytest.raises(JudgeConfigError, match=r"does not answer in JSON.*Hello!"):
            reward.preflight()


def test_the_first_call_asks_the_preflight_where_no_trainer_does():
    with serve(api_key="sk-right-one") as server:
        reward = LinguisticReward(judge_at(server, api_key="sk-wrong-one"))
        with pytest.raises(JudgeConfigError, match="wrong API key"):
            score([reward], [CAPTION])


def test_the_preflight_tells_of_a_judge_that_does_not_repeat_the_ticket(caplog):
    with serve(answer=lambda _: '{"ready": true}') as server:
        asyncio.run(judge_at(server).preflight(vision=False))
    assert "does not repeat the request's ticket" in caplog.text
    caplog.clear()

    with serve() as server:
        asyncio.run(judge_at(server).preflight())
    assert not caplog.text


def test_a_providers_missing_package_is_an_error_of_the_settings(monkeypatch):
    from trl_balcap.judge.litellm_module import litellm_module

    async def lacking(**_):
        raise ImportError("boto3 is required. pip install boto3")

    monkeypatch.setattr(litellm_module(), "acompletion", lacking)
    with pytest.raises(JudgeConfigError, match="not installed: boto3"):
        asyncio.run(Judge("openai/m", api_base="http://127.0.0.1:9/v1").preflight())

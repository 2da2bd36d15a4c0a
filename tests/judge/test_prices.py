"""What a call is taken to cost."""

import asyncio

import pytest

from tests.judge.endpoint_judge import CAPTION, judge_at
from tests.judge.servers import Answer, endpoint, tokens
from trl_balcap.judge.deployments import Deployment
from trl_balcap.judge.prices import price_of


def test_cached_tokens_have_their_price():
    with endpoint(lambda _: Answer(usage=tokens(1000, 10, cached=600))) as server:
        judge = judge_at(server, price=(2.0, 10.0, 0.5))
        asyncio.run(judge.linguistic(CAPTION))

    assert judge.stats.cached_tokens == 600
    # 400 x 2 + 600 x 0.5 + 10 x 10, a million for a dollar
    assert judge.stats.usd == pytest.approx(1200e-6)
    assert judge.engine().metrics()["judge/cached_tokens"] == 600.0


@pytest.mark.parametrize(
    ("model", "base", "known"),
    [
        ("openai/gpt-4o", None, True),
        ("gpt-4o", None, True),
        ("openai/gpt-4o", "https://api.openai.com/v1", True),
        ("openai/gpt-4o", "http://localhost:8000/v1", False),
        ("hosted_vllm/gpt-4o", "http://localhost:8000/v1", False),
        ("ollama/gpt-4o", "http://localhost:11434", False),
        ("azure/gpt-4o", "https://east.example.com", True),
    ],
)
def test_a_model_of_ones_own_has_no_price_of_anothers(model, base, known):
    assert (price_of(Deployment(model, base)) is not None) == known


def test_an_endpoint_named_by_the_environment_has_no_price_either(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
    assert price_of(Deployment("openai/gpt-4o")) is None

"""Whose verdicts they are: servers set by the environment, and headers."""

import asyncio

import pytest

from tests.judge.endpoint_judge import CAPTION, judge_at
from tests.judge.servers import Answer, endpoint
from trl_balcap import Judge
from trl_balcap.judge.deployments import Deployment


@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("openai/m", "OPENAI_BASE_URL"),
        ("openai/m", "OPENAI_API_BASE"),
        ("hosted_vllm/m", "HOSTED_VLLM_API_BASE"),
    ],
)
def test_a_server_set_by_the_environment_has_verdicts_of_its_own(
    model, variable, tmp_path, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    other = '{"clarity": 9, "fluency": 9, "coherency": 9}'
    with endpoint() as first, endpoint(lambda _: Answer(texts=(other,))) as second:
        found = []
        for server in (first, second, first):
            monkeypatch.setenv(variable, server.url)
            found.append(asyncio.run(Judge(model, cache=tmp_path).linguistic(CAPTION)).clarity)

    assert found == [5.0, 9.0, 5.0]
    assert (len(first.requests), len(second.requests)) == (1, 1)


@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("openai/m", "OPENAI_API_BASE"),
        ("hosted_vllm/m", "HOSTED_VLLM_API_BASE"),
        ("ollama/m", "OLLAMA_API_BASE"),
        ("ollama_chat/m", "OLLAMA_API_BASE"),
        ("azure/m", "AZURE_API_BASE"),
        ("azure_ai/m", "AZURE_AI_API_BASE"),
        ("anthropic/m", "ANTHROPIC_BASE_URL"),
        ("gemini/m", "GEMINI_API_BASE"),
        ("vertex_ai/gemini-2.0-flash", "VERTEXAI_API_BASE"),
        ("bedrock/anthropic.m", "AWS_BEDROCK_RUNTIME_ENDPOINT"),
        ("mistral/m", "MISTRAL_API_BASE"),
        ("groq/m", "GROQ_API_BASE"),
        ("deepseek/m", "DEEPSEEK_API_BASE"),
        ("together_ai/m", "TOGETHER_AI_API_BASE"),
        ("openrouter/m", "OPENROUTER_API_BASE"),
        ("litellm_proxy/m", "LITELLM_PROXY_API_BASE"),
        ("lm_studio/m", "LM_STUDIO_API_BASE"),
        ("nvidia_nim/m", "NVIDIA_NIM_API_BASE"),
    ],
)
def test_who_answers_is_read_where_litellm_reads_it(model, variable, monkeypatch):
    before = Deployment(model).base()
    monkeypatch.setenv(variable, "http://localhost:8000/v1")
    assert Deployment(model).base() == "http://localhost:8000/v1" != before
    assert Deployment(model, "http://given/v1").base() == "http://given/v1"


def test_headers_tell_judges_apart_and_tokens_do_not(tmp_path):
    with endpoint() as server:

        def asks(**headers):
            before = len(server.requests)
            judge = judge_at(server, cache=tmp_path, extra={"extra_headers": headers})
            asyncio.run(judge.linguistic(CAPTION))
            return len(server.requests) - before

        assert asks(**{"X-Tenant": "a", "Authorization": "Bearer old-token"}) == 1
        assert server.requests[0].headers["x-tenant"] == "a"
        assert asks(**{"x-tenant": "a", "Authorization": "Bearer new-token"}) == 0
        assert asks(**{"X-Tenant": "b", "Authorization": "Bearer new-token"}) == 1

"""No redirect is followed and no flood is read, whichever client litellm has for a provider."""

import asyncio
import time

import httpx
import pytest

from tests.judge.servers import Answer, endpoint
from trl_balcap import Judge
from trl_balcap.judge import JudgeError
from trl_balcap.judge.wire import careful_requests

KEY, HEADER = "sk-secret-0123456789", "gateway-9876543210"

# litellm's ways to an endpoint: its own handler, the openai package, and what each provider does.
PROVIDERS = {
    "openai/m": {},
    "hosted_vllm/m": {},
    "anthropic/claude-3-haiku-20240307": {},
    "gemini/gemini-2.0-flash": {},
    "ollama/m": {},
    "ollama_chat/m": {},
    "azure/m": {"api_version": "2024-06-01"},
    "azure_ai/m": {},
    "mistral/m": {},
    "groq/m": {},
    "openrouter/m": {},
    "together_ai/m": {},
    "cohere_chat/m": {},
    "huggingface/m": {},
    "bedrock/anthropic.claude-3-haiku-20240307-v1:0": {
        "aws_access_key_id": "access",
        "aws_secret_access_key": KEY,
        "aws_region_name": "us-east-1",
    },
}


@pytest.mark.parametrize(
    ("model", "status"), [*((model, 302) for model in PROVIDERS), ("openai/m", 307)]
)
def test_a_redirect_takes_no_header_along(model, status):
    with endpoint() as elsewhere:
        target = {"Location": f"{elsewhere.url}/chat/completions?key=of-the-endpoint"}
        with endpoint(lambda _: Answer(status=status, headers=target)) as server:
            extra = {"extra_headers": {"X-Gateway": HEADER}, **PROVIDERS[model]}
            judge = Judge(model, api_base=server.url, api_key=KEY, extra=extra, max_retries=2)
            with pytest.raises(JudgeError) as caught:
                asyncio.run(judge.linguistic("A dog."))

    error = caught.value
    assert error.reason == "denied"
    host = elsewhere.url.removeprefix("http://").removesuffix("/v1")
    assert f"redirects ({status} to {host}), which is not followed" in error.message
    assert "of-the-endpoint" not in error.message
    assert (len(server.requests), elsewhere.requests) == (1, [])


def test_other_requests_of_the_process_follow_redirects_as_they_did():
    with endpoint() as elsewhere:
        target = {"Location": f"{elsewhere.url}/there"}
        with endpoint(lambda _: Answer(status=307, headers=target)) as server:
            with careful_requests() as met:
                assert httpx.post(server.url, json={}, follow_redirects=True).status_code == 307
            assert httpx.post(server.url, json={}, follow_redirects=True).status_code == 200
    assert met == [f"307 to {elsewhere.url.removeprefix('http://').removesuffix('/v1')}"]
    assert len(elsewhere.requests) == 1


@pytest.mark.parametrize(("status", "reason"), [(400, "refused"), (200, "server_error")])
def test_a_flood_is_cut_before_litellm_looks_for_secrets_in_it(status, reason):
    flood = "9" * 20_000_000
    with endpoint(lambda _: Answer(status=status, error=flood)) as server:
        judge = Judge("openai/m", api_base=server.url, api_key=KEY, max_retries=0)
        begin = time.monotonic()
        with pytest.raises(JudgeError) as caught:
            asyncio.run(judge.linguistic("A dog."))
    assert caught.value.reason == reason
    assert time.monotonic() - begin < 10.0  # else 50 s

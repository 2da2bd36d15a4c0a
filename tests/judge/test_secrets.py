"""What an endpoint, its URL and its errors may show of the secrets: nothing."""

import asyncio
import logging
import traceback

import pytest

from tests.judge.endpoint_judge import error_of, judge_at
from tests.judge.servers import GRADES, Answer, endpoint
from trl_balcap import Judge
from trl_balcap.judge import JudgeConfigError
from trl_balcap.judge.deployments import Deployment

SECRETS = ("sk-secret-0123456789", "gateway-9876543210", "query-1122334455")


def test_an_endpoint_that_echoes_its_request_shows_no_secret():
    key, header, query = SECRETS

    def answer(request):
        return Answer(status=400, error=f"{request.headers} {query}")

    with endpoint(answer) as server:
        judge = Judge(
            "openai/m",
            api_base=f"{server.url}?sig={query}",
            api_key=key,
            extra={"extra_headers": {"X-Gateway": f"Bearer {header}"}},
        )
        error = error_of(judge)
        with pytest.raises(JudgeConfigError) as wrong:
            asyncio.run(judge.preflight())

    assert error.reason == "refused"
    shown = [str(error), repr(error.reply), str(wrong.value), repr(judge)]
    shown += [repr(judge.settings), repr(judge.settings.text)]
    shown += traceback.format_exception(error) + traceback.format_exception(wrong.value)
    chain: list[BaseException | None] = [error]
    while chain[-1] is not None:
        shown.append(repr(chain[-1]))
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    for secret in SECRETS:
        assert secret not in "".join(shown)


@pytest.mark.parametrize("entry", ["text", "dict"])
def test_a_password_in_the_url_is_an_error_that_does_not_show_it(entry):
    base = "http://someone:user-password@judge:8000/v1"
    model = "openai/m" if entry == "text" else {"model": "openai/m", "api_base": base}
    with pytest.raises(JudgeConfigError, match=r"user or password.*extra_headers") as caught:
        Judge(model, api_base=base if entry == "text" else None)
    assert "user-password" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": {"model": "openai/m", "api_base": ""}}, "api_base of 'openai/m' is ''"),
        ({"model": {"model": "openai/m", "api_base": "judge:8"}}, "'judge:8', and must be a URL"),
        ({"model": {"model": "openai/m", "base_url": ""}}, "api_base of 'openai/m' is ''"),
        (
            {"model": {"model": "openai/m", "api_key": ""}},
            "api_key of 'openai/m' must be a non-empty",
        ),
        ({"model": [{"model": "", "api_key": SECRETS[0]}, 3]}, "Judge(model=...)"),
        ({"api_base": f"me:{SECRETS[0]}@judge:8000"}, "api_base='judge:8000'"),
        ({"api_base": f"judge:8000?key={SECRETS[0]}"}, "api_base='judge:8000'"),
        ({"extra": [SECRETS[0]]}, "extra=..."),
        ({"api_key": ""}, "api_key=..."),
    ],
)
def test_what_cannot_be_an_endpoint_is_said_without_its_secrets(settings, said):
    with pytest.raises(JudgeConfigError) as caught:
        Judge(**({"model": "openai/m"} | settings))
    assert said in str(caught.value)
    assert SECRETS[0] not in str(caught.value)


def test_secrets_are_known_however_deep_they_are():
    deep = {"extra_body": {"auth": {"tenants": [SECRETS[0]]}}, "aws_session_token": SECRETS[1]}
    assert {*SECRETS[:2]} <= {*Deployment("openai/m", extra=deep).secrets()}


def test_nothing_is_logged_of_a_failure(caplog):
    caplog.set_level(logging.DEBUG)
    with endpoint(lambda _: Answer(status=400, error=f"bad {SECRETS[0]}")) as server:
        error_of(judge_at(server, api_key=SECRETS[0]))
    assert SECRETS[0] not in caplog.text
    assert GRADES not in caplog.text


def test_an_error_that_echoes_the_request_is_scrubbed():
    from trl_balcap.judge.failures import scrub

    judge = Judge("openai/m", api_key="sk-secret-0123456789")
    message = "Bad key sk-secret-0123456789 in data:image/png;base64,iVBORw0KGgo= after"

    assert scrub(message, *judge.settings.text) == (
        "Bad key [key] in data:image/png;base64,[image] after"
    )

"""What an endpoint may do to a run: echo its keys, bill it, stall it, refuse it."""

import asyncio
import logging
import subprocess
import sys
import time
import traceback

import pytest

from tests.judge.servers import GRADES, Answer, endpoint, tokens
from trl_balcap import Judge, LinguisticReward
from trl_balcap.judge import INFRASTRUCTURE_REASONS, REASONS, JudgeConfigError, JudgeError
from trl_balcap.judge.deadline import within
from trl_balcap.judge.deployments import Deployment
from trl_balcap.judge.prices import price_of

CAPTION = "A dog."


def judge_at(server, **options):
    return Judge(**({"model": "openai/m", "api_base": server.url} | options))


def error_of(judge, caption=CAPTION):
    with pytest.raises(JudgeError) as caught:
        asyncio.run(judge.linguistic(caption))
    return caught.value


# ---- what the endpoint's status means -----------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason", "calls"),
    [
        (400, "refused", 1),
        (401, "denied", 1),
        (402, "denied", 1),
        (403, "denied", 1),
        (404, "denied", 1),
        (413, "refused", 1),
        (422, "refused", 1),
        (429, "rate_limited", 2),
        (500, "server_error", 2),
        (503, "server_error", 2),
    ],
)
def test_a_status_is_asked_again_only_where_that_can_help(status, reason, calls):
    with endpoint(lambda _: Answer(status=status, error="no")) as server:
        error = error_of(judge_at(server, max_retries=1))
    assert (error.reason, len(server.requests)) == (reason, calls)


def test_infrastructure_is_what_the_next_row_would_meet_too():
    assert set(INFRASTRUCTURE_REASONS) == {"timeout", "rate_limited", "server_error", "denied"}
    assert set(INFRASTRUCTURE_REASONS) < set(REASONS)


# ---- time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wish", ["1e9", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_wish_for_more_than_is_left_ends_the_question_and_not_the_batch(wish):
    answers = iter([Answer(status=429, headers={"Retry-After": wish}, error="no")])
    with endpoint(lambda _: next(answers, Answer())) as server:
        judge = judge_at(server, max_concurrency=1, batch_deadline=20.0)
        begin = time.monotonic()
        assert error_of(judge).reason == "rate_limited"
        assert time.monotonic() - begin < 10.0
        # The next batch does not wait for the end of that wish either.
        assert judge.engine().text[0].limit.paused_for() <= 30.0


def test_a_date_is_waited_for():
    from email.utils import formatdate

    begin = time.time()
    wish = {"Retry-After": formatdate(begin + 3, usegmt=True)}
    answers = iter([Answer(status=429, headers=wish, error="no")])
    with endpoint(lambda _: next(answers, Answer())) as server:
        assert asyncio.run(judge_at(server).linguistic(CAPTION)) == (5.0, 5.0, 5.0)
    assert time.time() >= int(begin + 3)  # the date has whole seconds


def test_what_is_left_is_counted_from_the_batch():
    answers = iter([Answer(status=429, headers={"Retry-After": "5"}, error="no")])
    with endpoint(lambda _: next(answers, Answer())) as server:
        judge = judge_at(server)

        async def in_a_batch():
            with within(2.0):
                await judge.linguistic(CAPTION)

        begin = time.monotonic()
        from trl_balcap.judge.background import submit

        with pytest.raises(JudgeError, match="rate_limited"):
            submit(in_a_batch()).result()
        assert time.monotonic() - begin < 2.0


def test_a_timeout_is_asked_again_twice_and_no_more():
    def answer(_):
        time.sleep(3)
        return Answer()

    with endpoint(answer) as server:
        error = error_of(judge_at(server, timeout=0.2))
        assert error.reason == "timeout"
        assert len(server.requests) == 3


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


# ---- money --------------------------------------------------------------------------------------


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


FORKED = """
import asyncio, logging, os, sys
from trl_balcap import Judge
logging.basicConfig()
judge = Judge("openai/m", api_base=sys.argv[1], budget_calls=100)
asyncio.run(judge.linguistic("Before."))
child = os.fork()
if child == 0:
    asyncio.run(judge.linguistic("In the child."))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_process_says_that_it_counts_its_own_budget():
    with endpoint() as server:
        done = run_python(FORKED, server.url)
    assert done.stderr.count("counts its budget from zero") == 1


# ---- who answers --------------------------------------------------------------------------------


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


# ---- secrets ------------------------------------------------------------------------------------

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


# ---- several samples ----------------------------------------------------------------------------

MESSAGES = [{"role": "user", "content": "Name a colour."}]


def samples_of(judge, n, **options):
    return asyncio.run(judge.complete(MESSAGES, n=n, temperature=1.0, **options))


def test_samples_of_one_prompt_are_one_request(tmp_path):
    numbers = iter(range(100))

    def answer(request):
        texts = tuple(f"colour {next(numbers)}" for _ in range(request.body.get("n", 1)))
        return Answer(texts=texts, usage=tokens(500, 10))

    with endpoint(answer) as server:
        judge = judge_at(server, cache=tmp_path)
        assert samples_of(judge, 3) == ["colour 0", "colour 1", "colour 2"]
        assert [request.body.get("n") for request in server.requests] == [3]
        assert judge.stats.prompt_tokens == 500

        # Another process, which wants one more: only that one is asked for.
        again = judge_at(server, cache=tmp_path)
        assert samples_of(again, 4) == ["colour 0", "colour 1", "colour 2", "colour 3"]
        assert [request.body.get("n") for request in server.requests] == [3, None]
        assert again.stats.disk_hits == 3


@pytest.mark.parametrize("refuses", [True, False])
def test_a_server_that_knows_no_n_is_asked_one_by_one(refuses):
    def answer(request):
        if refuses and request.body.get("n", 1) > 1:
            return Answer(status=400, error="n must be 1")
        return Answer(texts=("red",))

    with endpoint(answer) as server:
        judge = judge_at(server)
        assert samples_of(judge, 3) == ["red"] * 3
        first = len(server.requests)
        assert samples_of(judge, 3, first_sample=3) == ["red"] * 3

    assert first == (4 if refuses else 3)
    assert len(server.requests) - first == 3  # it is not tried again


def test_a_sample_that_is_refused_leaves_the_others():
    def answer(request):
        return Answer(texts=("red", "", "blue"))

    with endpoint(answer) as server:
        judge = judge_at(server)
        with pytest.raises(JudgeError, match="unreadable"):
            samples_of(judge, 3)
        assert [samples_of(judge, 1, first_sample=i) for i in (0, 2)] == [["red"], ["blue"]]
    assert len(server.requests) == 1


# ---- at the end ---------------------------------------------------------------------------------

GIVEN_UP = """
import asyncio, sys
from trl_balcap import Judge
judge = Judge("openai/m", api_base=sys.argv[1])
async def main():
    first = asyncio.ensure_future(judge.linguistic("First."))
    others = [asyncio.ensure_future(judge.linguistic(f"Caption {i}.")) for i in range(9)]
    await asyncio.gather(first, *others)
asyncio.run(main())
"""


def test_a_process_that_gives_up_leaves_no_task_behind():
    def answer(request):
        if "First." in str(request.body):
            return Answer(status=400, error="no")
        time.sleep(100)
        return Answer()

    with endpoint(answer) as server:
        begin = time.monotonic()
        done = run_python(GIVEN_UP, server.url, code=1)
    assert "JudgeError: refused" in done.stderr
    for complaint in ("Task was destroyed", "never retrieved", "never awaited", "Unclosed"):
        assert complaint not in done.stderr
    assert time.monotonic() - begin < 100


def test_a_providers_missing_package_is_an_error_of_the_settings(monkeypatch):
    from trl_balcap.judge.litellm_module import litellm_module

    async def lacking(**_):
        raise ImportError("boto3 is required. pip install boto3")

    monkeypatch.setattr(litellm_module(), "acompletion", lacking)
    with pytest.raises(JudgeConfigError, match="not installed: boto3"):
        asyncio.run(Judge("openai/m", api_base="http://127.0.0.1:9/v1").preflight())


def run_python(text, *arguments, code=0):
    command = [sys.executable, "-c", text, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == code, done.stderr
    return done


def test_nothing_is_logged_of_a_failure(caplog):
    caplog.set_level(logging.DEBUG)
    with endpoint(lambda _: Answer(status=400, error=f"bad {SECRETS[0]}")) as server:
        error_of(judge_at(server, api_key=SECRETS[0]))
    assert SECRETS[0] not in caplog.text
    assert GRADES not in caplog.text

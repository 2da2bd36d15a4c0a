"""The exact judge over real HTTP: right answers, faults at the rates asked for, honest counters."""

import asyncio
import base64
import io
import json
import os
import random
import time
from collections import Counter
from typing import Any

import aiohttp
import pytest
from PIL import Image

from trl_balcap.scenes.grammar import Faults, describe, faulty_caption
from trl_balcap.scenes.noise import Noise
from trl_balcap.scenes.oracle import answer
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.server_faults import REFUSAL, ServerFaults
from trl_balcap.scenes.world import Scene, Thing, draw, random_scene


def numbered(texts) -> list[dict]:
    return [{"id": number, "text": text} for number, text in enumerate(texts, start=1)]


STAR = Thing("blue", "star", "small", "middle", "right")
ONE = Scene((STAR,))
PREFLIGHT = {"question": "preflight"}
COVER = {
    "question": "cover",
    "assertions": numbered(["There is one thing.", "The mood is cosy."]),
    "units": numbered(["There is one thing.", "There are two things."]),
}


def chat(question: dict, image: Image.Image | None = None) -> list[dict]:
    parts: list[dict] = [{"type": "text", "text": json.dumps(question)}]
    if image is not None:
        png = io.BytesIO()
        image.save(png, "PNG")
        url = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return [{"role": "system", "content": "You judge."}, {"role": "user", "content": parts}]


async def post(server, session, question, image=None, *, model="oracle", **options):
    body = {"model": model, "messages": chat(question, image)}
    url = f"{server.url}/chat/completions"
    async with session.post(url, json=body, **options) as reply:
        return reply.status, await reply.json(), reply.headers


def content(payload: dict) -> str:
    return payload["choices"][0]["message"]["content"]


# --- answers -----------------------------------------------------------------------------------


async def test_the_reply_is_the_exact_answer_in_the_openai_format():
    question = {"question": "look", "text": "There is one thing. The top left shows a star."}
    with serve() as server:
        async with aiohttp.ClientSession() as session:
            status, payload, _ = await post(server, session, question, draw(ONE))
    assert status == 200
    assert payload["object"] == "chat.completion"
    assert payload["model"] == "oracle"
    assert payload["choices"][0]["finish_reason"] == "stop"
    assert payload["choices"][0]["message"]["role"] == "assistant"
    usage = payload["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    assert json.loads(content(payload)) == {
        "assertions": ["There is one thing.", "The top left shows a star."],
        "verdicts": [
            {"id": 1, "correct": True, "pointable": True},
            {"id": 2, "correct": False, "pointable": True},
        ],
    }


async def test_it_serves_from_a_process_of_its_own():
    with serve(process=True, latency=0.05, api_key="k", models=["judge"]) as server:
        headers = {"Authorization": "Bearer k"}
        async with aiohttp.ClientSession(headers=headers) as session:
            status, payload, _ = await post(server, session, PREFLIGHT, model="judge")
            assert (status, json.loads(content(payload))) == (200, {"ready": True})
            assert (await post(server, session, PREFLIGHT, model="oracle"))[0] == 404
        assert server.stats()["calls"] == {"preflight": 1}
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):  # it is gone with the block
            await post(server, session, PREFLIGHT)


async def test_litellm_reaches_it_as_any_openai_server():
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    question = {"question": "verify", "assertions": numbered(["There is one thing."])}
    with serve(api_key="right") as server:
        reply: Any = await litellm.acompletion(
            "openai/oracle", chat(question, draw(ONE)), api_base=server.url, api_key="right"
        )
        assert json.loads(reply.choices[0].message.content) == answer(question, ONE)
        with pytest.raises(litellm.AuthenticationError, match="wrong API key"):
            await litellm.acompletion(
                "openai/oracle", chat(question), api_base=server.url, api_key="wrong", max_retries=0
            )
        with pytest.raises(litellm.NotFoundError, match="does not exist"):
            await litellm.acompletion(
                "openai/gpt-9", chat(question), api_base=server.url, api_key="right", max_retries=0
            )


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/v1/chat/completions", b"{", 400, "not a chat completion request"),
        ("POST", "/v1/chat/completions", b"[]", 400, "not a chat completion request"),
        ("POST", "/v1/chat/completions", b'{"model": "oracle"}', 400, "messages"),
        ("POST", "/v1/chat/completions", b'{"model": "owl", "messages": []}', 404, "'owl'"),
        ("POST", "/v1/chat/completions", b'{"model": "oracle", "messages": []}', 400, "question"),
        (
            *("POST", "/v1/chat/completions"),
            b'{"model": "oracle", "messages": [], "stream": true}',
            *(400, "does not stream"),
        ),
        ("GET", "/v1/completions", None, 404, "no such path"),
    ],
)
async def test_a_bad_request_is_told_what_is_wrong(method, path, body, status, message):
    with serve() as server:
        url = server.url.removesuffix("/v1") + path
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, data=body) as reply,
        ):
            assert reply.status == status
            assert message in (await reply.json())["error"]["message"]


async def test_the_models_are_listed():
    with serve() as server:
        async with aiohttp.ClientSession() as session, session.get(f"{server.url}/models") as reply:
            names = [model["id"] for model in (await reply.json())["data"]]
    assert names == ["oracle", "scenes/oracle"]


async def test_a_script_answers_in_the_judges_place():
    def script(messages):
        return f"I read {len(messages)} messages."

    with serve(answer=script) as server:
        async with aiohttp.ClientSession() as session:
            status, payload, _ = await post(server, session, {"any": "text"}, model="gpt-4o")
        assert (status, content(payload)) == (200, "I read 2 messages.")
        assert server.stats()["calls"] == {"other": 1}
    with (
        pytest.raises(ValueError, match="process=False in scripted mode"),
        serve(answer=script, process=True),
    ):
        pass


async def test_the_served_judge_can_be_noisy():
    question = {"question": "linguistic", "text": "The mood is cosy."}
    with serve(noise=Noise(linguistic=1.0, every_call=True)) as server:
        async with aiohttp.ClientSession() as session:
            replies = {content((await post(server, session, question))[1]) for _ in range(4)}
    assert len(replies) == 4


# --- time and counters -------------------------------------------------------------------------


async def test_questions_wait_side_by_side():
    with serve(latency=0.3) as server:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            start = time.perf_counter()
            await asyncio.gather(*(post(server, session, PREFLIGHT) for _ in range(30)))
            took = time.perf_counter() - start
        stats = server.stats()
        assert 0.3 <= took < 3.0  # one after the other they take 9 s
        assert stats["max_in_flight"] == 30
        assert stats["in_flight"] == 0
        server.reset_stats()
        assert server.stats()["max_in_flight"] == 0


async def test_calls_are_counted_by_question():
    with serve() as server:
        async with aiohttp.ClientSession() as session:
            for question in (PREFLIGHT, COVER, COVER):
                await post(server, session, question)
            stats = server.stats()
            assert stats["calls"] == {"preflight": 1, "cover": 2}
            assert stats["total"] == 3
            assert stats["open_connections"] == 1  # kept alive by the session
        server.reset_stats()
        assert server.stats()["calls"] == {}


async def test_a_client_that_gives_up_leaves_nothing_in_flight():
    with serve(faults=ServerFaults(stall=1.0)) as server:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(TimeoutError):
                await post(server, session, PREFLIGHT, timeout=aiohttp.ClientTimeout(total=0.2))
        for _ in range(50):
            if server.stats()["in_flight"] == 0:
                break
            await asyncio.sleep(0.05)
        assert server.stats()["in_flight"] == 0
        assert server.stats()["faults"] == {"stall": 1}


# --- faults ------------------------------------------------------------------------------------


async def ask_with(faults: ServerFaults, question: dict = COVER, times: int = 12) -> list:
    """(status, payload, headers) of every attempt at one question."""
    with serve(faults=faults) as server:
        async with aiohttp.ClientSession() as session:
            return [await post(server, session, question) for _ in range(times)]


async def test_server_errors():
    assert {status for status, _, _ in await ask_with(ServerFaults(server_error=1.0))} == {500, 503}


async def test_rate_limits_say_when_to_come_back():
    status, payload, headers = (await ask_with(ServerFaults(rate_limited=1.0, retry_after=2.5)))[0]
    assert (status, headers["Retry-After"]) == (429, "2.5")
    assert payload["error"]["code"] == "rate_limit_exceeded"


async def test_connections_are_reset():
    with serve(faults=ServerFaults(reset=1.0)) as server:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientOSError, match="reset"):
                await post(server, session, PREFLIGHT)


async def test_truncated_replies_say_so():
    _, payload, _ = (await ask_with(ServerFaults(truncated=1.0)))[0]
    whole = json.dumps(answer(COVER), ensure_ascii=False)
    assert content(payload) == whole[: len(whole) // 2]
    assert payload["choices"][0]["finish_reason"] == "length"


async def test_malformed_replies_hold_no_object():
    replies = {content(payload) for _, payload, _ in await ask_with(ServerFaults(malformed=1.0))}
    assert len(replies) == 3  # cut short, prose, an empty list
    for reply in replies:
        try:
            value = json.loads(reply)
        except ValueError:
            value = None
        assert not isinstance(value, dict)


@pytest.mark.parametrize("fault", ["wrong_counts", "invented_ids"])
@pytest.mark.parametrize(
    "question",
    [
        {"question": "decompose", "text": "There is one thing."},
        {"question": "verify", "assertions": COVER["assertions"]},
        COVER,
        {"question": "linguistic", "text": "There is one thing."},
        {"question": "look", "text": "There is one thing."},
        {"question": "read", "text": "There is one thing.", "units": COVER["units"]},
        PREFLIGHT,
    ],
    ids=lambda question: question["question"],
)
async def test_a_reply_that_does_not_fit_is_never_the_right_one(fault, question):
    exact = answer(question, ONE)
    rates: dict[str, Any] = {fault: 1.0}
    with serve(faults=ServerFaults(**rates)) as server:
        async with aiohttp.ClientSession() as session:
            replies = [
                json.loads(content((await post(server, session, question, draw(ONE)))[1]))
                for _ in range(6)
            ]
    for reply in replies:
        assert reply != exact
        if "verdicts" in exact:
            asked = [verdict["id"] for verdict in exact["verdicts"]]
            assert [verdict["id"] for verdict in reply["verdicts"]] != asked


async def test_refusals_come_in_three_kinds():
    seen = set()
    for _, payload, _ in await ask_with(ServerFaults(refused=1.0)):
        choice = payload["choices"][0]
        seen.add(
            (
                choice["message"]["content"],
                choice["message"].get("refusal"),
                choice["finish_reason"],
            )
        )
    assert seen == {(REFUSAL, None, "stop"), (None, REFUSAL, "stop"), ("", None, "content_filter")}


async def test_a_question_meets_the_same_faults_whatever_its_ticket():
    async def statuses(ticket):
        met = await ask_with(ServerFaults(server_error=0.5), {**COVER, "ticket": ticket}, times=16)
        return [status for status, _, _ in met]

    met = await statuses("bcdfghjk")

    assert set(met) == {200, 500, 503}
    assert await statuses("zxwvtsrq") == met


async def test_fenced_replies_hold_the_right_answer():
    _, payload, _ = (await ask_with(ServerFaults(fenced=1.0)))[0]
    fenced = content(payload).split("```json\n")[1].split("\n```")[0]
    assert json.loads(fenced) == answer(COVER)


async def test_a_server_over_capacity_turns_the_rest_away():
    with serve(latency=0.3, faults=ServerFaults(capacity=5)) as server:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            replies = await asyncio.gather(*(post(server, session, PREFLIGHT) for _ in range(20)))
        statuses = Counter(status for status, _, _ in replies)
        assert set(statuses) == {200, 429}
        assert statuses[429] == server.stats()["faults"]["over_capacity"]
        assert statuses[200] >= 5


async def test_a_dead_server_stays_dead():
    replies = await ask_with(ServerFaults(dead_after=3), times=6)
    assert [status for status, _, _ in replies] == [200, 200, 200, 503, 503, 503]


async def test_faults_are_the_same_in_any_order_and_as_many_as_asked_for():
    rng = random.Random(0)
    scenes = [random_scene(rng) for _ in range(300)]
    texts = [faulty_caption(scene, rng, Faults(wrong=0.5)) + describe(scene) for scene in scenes]
    faults = ServerFaults(server_error=0.1, truncated=0.1, malformed=0.1, seed=5)

    async def outcomes(order):
        found = {}
        with serve(faults=faults) as server:
            async with aiohttp.ClientSession() as session:

                async def one(number):
                    question = {"question": "linguistic", "text": texts[number]}
                    status, payload, _ = await post(server, session, question)
                    found[number] = (status, status == 200 and content(payload))

                await asyncio.gather(*(one(number) for number in order))
            return found, server.stats()["faults"]

    forward, met = await outcomes(range(300))
    backward, _ = await outcomes(reversed(range(300)))
    assert forward == backward
    assert sum(met.values()) == pytest.approx(90, abs=32)  # 4 standard deviations
    assert set(met) == {"server_error", "truncated", "malformed"}


async def test_a_retry_throws_the_dice_again_unless_told_otherwise():
    anew = [status for status, _, _ in await ask_with(ServerFaults(rate_limited=0.5), times=30)]
    assert set(anew) == {200, 429}
    once = ServerFaults(rate_limited=0.5, every_attempt=False)
    assert len({status for status, _, _ in await ask_with(once, times=30)}) == 1


def test_impossible_faults_are_refused():
    with pytest.raises(ValueError, match=r"add up to 1\.2"):
        ServerFaults(stall=0.6, reset=0.6)
    with pytest.raises(ValueError, match=r"reset must be a rate of 0 or more, got -0\.1"):
        ServerFaults(reset=-0.1)

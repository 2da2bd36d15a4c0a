"""Whatever an endpoint sends back, a question ends with a verdict or a `JudgeError`, in time."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.judge.servers import GRADES, tokens
from trl_balcap import Judge
from trl_balcap.judge import JudgeError


@contextlib.contextmanager
def raw_endpoint(*parts: bytes, pause: float = 0.0) -> Iterator[str]:
    """An endpoint that answers each connection with these bytes, and closes it."""
    server = socket.create_server(("127.0.0.1", 0), backlog=64)

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def http(body: bytes, status: str = "200 OK", kind: str = "application/json", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def chat(message: Any, **more: Any) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
    return http(json.dumps(body | {"choices": [choice]} | more).encode())


def said(text: Any, **more: Any) -> bytes:
    return chat({"role": "assistant", "content": text}, **more)


STRANGE = {
    "nothing": b"",
    "no_http": b"hello\r\n\r\n",
    "a_page": http(b"<html>Sign in</html>", kind="text/html"),
    "an_empty_body": http(b""),
    "null": http(b"null"),
    "a_list": http(b"[]"),
    "a_number": http(b"5"),
    "an_error_with_200": http(b'{"error": {"message": "overloaded", "code": 503}}'),
    "no_choices": http(b'{"id": "1", "object": "chat.completion", "model": "m"}'),
    "choices_null": http(b'{"id": "1", "choices": null, "model": "m"}'),
    "choices_empty": said(GRADES, choices=[]),
    "choice_null": said(GRADES, choices=[None]),
    "no_message": said(GRADES, choices=[{"index": 0, "finish_reason": "stop"}]),
    "message_null": chat(None),
    "message_a_text": chat(GRADES),
    "content_null": said(None),
    "content_a_number": said(5),
    "content_an_object": said({"clarity": 5}),
    "a_tool_call": chat(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        }
    ),
    "a_stream": http(b'data: {"choices": []}\n\ndata: [DONE]\n\n', kind="text/event-stream"),
    "half_a_body": http(b'{"id": "1", "choices": [{"index": 0, ')[:-10],
    "not_utf_8": http(b'{"id": "\xff\xfe", "choices": [{"message": {"content": "\xff"}}]}'),
    "not_gzip": http(b"plain", "200 OK", "application/json", "Content-Encoding: gzip"),
    "status_unknown": http(b"{}", "599 Odd"),
    "status_204": http(b"", "204 No Content"),
    "status_101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "nul": said("\x00"),
    "many_numbers": said('{"clarity": 1e999, "fluency": 5, "coherency": 5}'),
    "a_number_of_5000_digits": said('{"clarity": ' + "9" * 5000 + "}"),
    "deep": said('{"a":' * 100_000),
    "deep_body": http(b"[" * 100_000),
}


def error_of(judge: Judge) -> JudgeError:
    with pytest.raises(JudgeError) as caught:
        asyncio.run(judge.linguistic("A dog."))
    return caught.value


@pytest.mark.parametrize("model", ["openai/m", "ollama/m", "anthropic/m"])
@pytest.mark.parametrize("answer", STRANGE)
def test_what_is_no_answer_is_a_judge_error(answer, model):
    with raw_endpoint(STRANGE[answer]) as url:
        judge = Judge(model, api_base=url, api_key="none", max_retries=0, timeout=5.0)
        error = error_of(judge)
    assert error.reason in ("unreadable", "server_error", "refused", "denied")


def test_an_answer_without_an_end_is_a_timeout():
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    with raw_endpoint(head, *[b" "] * 100, pause=0.1) as url:
        judge = Judge("openai/m", api_base=url, api_key="none", max_retries=0, timeout=0.5)
        begin = time.monotonic()
        assert error_of(judge).reason == "timeout"
        assert time.monotonic() - begin < 3.0


@pytest.mark.parametrize(
    "usage",
    [
        pytest.param(None, id="null"),
        pytest.param({}, id="empty"),
        pytest.param({"prompt_tokens": -5, "completion_tokens": -5}, id="negative"),
        pytest.param({"prompt_tokens": None, "completion_tokens": None}, id="nulls"),
        pytest.param(tokens(10, 5) | {"prompt_tokens_details": None}, id="no_details"),
        pytest.param(tokens(10, 5, cached=10**9), id="more_cached_than_read"),
        pytest.param(tokens(10, 5, cached=-7), id="cached_below_0"),
    ],
)
def test_no_token_count_makes_judging_cheaper_than_free(usage):
    with raw_endpoint(said(GRADES, usage=usage)) as url:
        judge = Judge("openai/m", api_base=url, api_key="none", price=(1.0, 2.0), budget_usd=5.0)
        assert asyncio.run(judge.linguistic("A dog.")).clarity == 5.0
    stats = judge.stats
    assert stats.prompt_tokens > 0
    assert 0 <= stats.cached_tokens <= stats.prompt_tokens
    assert stats.completion_tokens >= 0
    assert 0 < stats.usd < 0.1

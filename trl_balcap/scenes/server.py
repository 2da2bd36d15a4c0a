"""The exact judge over HTTP, in the OpenAI chat-completions format: `trl-balcap scenes serve`.

For tests and benchmarks: a judge with a known latency, known faults and counters. The handler does
next to nothing besides answering, so that what a benchmark measures is the client.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

from trl_balcap.scenes import oracle
from trl_balcap.scenes.server_faults import REFUSAL, ServerFaults, spoil_ids, spoil_text

__all__ = ["ServerHandle", "add_parser", "run", "serve"]

_MAX_BODY = 64 * 1024**2
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST


class _ChatServer:
    """State and handler of one server; lives in one event loop."""

    def __init__(
        self,
        answer: Callable[[list[dict[str, Any]]], str],
        models: Sequence[str] | None,
        latency: float,
        api_key: str | None,
        faults: ServerFaults,
    ):
        self.answer = answer
        self.models = models
        self.latency = latency
        self.api_key = api_key
        self.faults = faults
        self.throws_dice = faults.throws_dice
        self.attempts: Counter[bytes] = Counter()
        self.in_flight = 0
        self.reset_stats()

    def reset_stats(self) -> None:
        self.calls: Counter[str] = Counter()
        self.faults_met: Counter[str] = Counter()
        self.max_in_flight = self.in_flight

    def stats(self) -> dict[str, Any]:
        return {
            "calls": dict(self.calls),
            "total": self.calls.total(),
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "faults": dict(self.faults_met),
            "open_connections": len(self.http.connections) - 1,  # the one that asks for the stats
        }

    async def start(self, host: str, port: int) -> int:
        # handler_cancellation: a client that gave up leaves no stalled handler behind.
        self.http = web.Server(
            self.handle,
            request_factory=self._request,  # type: ignore[arg-type]
            handler_cancellation=True,
            access_log=None,
        )
        loop = asyncio.get_running_loop()
        self.listener = await loop.create_server(self.http, host, port, backlog=4096)
        return self.listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.listener.close()
        await self.http.shutdown(timeout=0.1)

    @staticmethod
    def _request(message, payload, protocol, writer, task) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(
            message, payload, protocol, writer, task, loop, client_max_size=_MAX_BODY
        )

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.endswith("/chat/completions") and request.method == "POST":
            # Counted from the first byte on, so that max_in_flight is what the client keeps open.
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            try:
                return await self._chat(request)
            finally:
                self.in_flight -= 1
        if request.path == "/stats" and request.method == "GET":
            return _json_response(200, self.stats())
        if request.path == "/stats" and request.method == "DELETE":
            self.reset_stats()
            return _json_response(200, self.stats())
        if request.path.endswith("/models") and request.method == "GET":
            models = [{"id": name, "object": "model"} for name in self.models or ()]
            return _json_response(200, {"object": "list", "data": models})
        return _error(404, f"no such path: {request.method} {request.path}.")

    async def _chat(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if self.api_key is not None and (
            request.headers.get("Authorization") != f"Bearer {self.api_key}"
        ):
            return _error(401, "wrong API key.", code="invalid_api_key")
        try:
            payload = json.loads(body)
            model, messages = payload["model"], payload["messages"]
        except (ValueError, KeyError, TypeError) as error:
            return _error(400, f"not a chat completion request: {error!r}.")
        if self.models is not None and model not in self.models:
            return _error(404, f"the model {model!r} does not exist.", code="model_not_found")
        if payload.get("stream"):
            return _error(400, "this server does not stream: leave `stream` out.")

        name = oracle.question_name(messages)
        self.calls[name] += 1
        faults = self.faults
        if faults.dead_after is not None and self.calls.total() > faults.dead_after:
            return self._meet("dead", _error(503, "the judge is down."))
        if faults.capacity is not None and self.in_flight > faults.capacity:
            return self._meet("over_capacity", self._too_many_requests())
        fault, variant = None, 0
        if self.throws_dice:
            key = hashlib.blake2b(body, digest_size=16).digest()
            fault, variant = faults.pick(body, self.attempts[key])
            self.attempts[key] += 1
        if fault is not None:
            self.faults_met[fault] += 1
        if fault == "stall":
            await asyncio.sleep(faults.stall_seconds)
        if self.latency:
            await asyncio.sleep(self.latency)
        if fault == "server_error":
            return _error((500, 503)[variant % 2], "the server had an error.")
        if fault == "rate_limited":
            return self._too_many_requests()
        if fault == "reset":
            return _reset(request)

        try:
            content = self.answer(messages)
        except oracle.QuestionError as error:
            return _error(400, str(error))
        message: dict[str, Any] = {"role": "assistant", "content": content}
        finish_reason = "stop"
        if fault == "truncated":
            message["content"], finish_reason = content[: len(content) // 2], "length"
        elif fault == "malformed":
            message["content"] = spoil_text(content, variant)
        elif fault in ("wrong_counts", "invented_ids"):
            message["content"] = spoil_ids(content, fault, variant)
        elif fault == "fenced":
            message["content"] = f"Here is my verdict:\n```json\n{content}\n```\nI am sure."
        elif fault == "refused":
            if variant % 3 == 0:
                message["content"] = REFUSAL
            elif variant % 3 == 1:
                message.update(content=None, refusal=REFUSAL)
            else:
                message["content"], finish_reason = "", "content_filter"
        return _completion(model, message, finish_reason, len(body))

    def _meet(self, fault: str, response: web.Response) -> web.Response:
        self.faults_met[fault] += 1
        return response

    def _too_many_requests(self) -> web.Response:
        response = _error(429, "rate limit reached.", code="rate_limit_exceeded")
        response.headers["Retry-After"] = f"{self.faults.retry_after:g}"
        return response


def _completion(
    model: str, message: dict[str, Any], finish_reason: str, prompt_characters: int
) -> web.Response:
    prompt_tokens = prompt_characters // 4  # four characters a token: an estimate
    completion_tokens = len(message["content"] or "") // 4 + 1
    text = (
        f'{{"id":"chatcmpl-scenes","object":"chat.completion","created":{int(time.time())},'
        f'"model":{json.dumps(model)},"choices":[{{"index":0,"message":{json.dumps(message)},'
        f'"finish_reason":"{finish_reason}"}}],"usage":{{"prompt_tokens":{prompt_tokens},'
        f'"completion_tokens":{completion_tokens},'
        f'"total_tokens":{prompt_tokens + completion_tokens}}}}}'
    )
    return web.Response(body=text.encode(), content_type="application/json")


def _json_response(status: int, value: Any) -> web.Response:
    body = json.dumps(value).encode()
    return web.Response(status=status, body=body, content_type="application/json")


def _error(status: int, message: str, code: str | None = None) -> web.Response:
    error = {"message": message, "type": "scenes_error", "param": None, "code": code}
    return _json_response(status, {"error": error})


def _reset(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        request.transport.abort()
    return web.Response()  # goes nowhere: the connection is closed


@dataclass
class ServerHandle:
    """
    A running server.

    Attributes:
        url (`str`): The `api_base` to give to a client, `http://host:port/v1`.
    """

    url: str

    def stats(self) -> dict[str, Any]:
        """Counters since the start or the last reset: `calls` per question, `total`, `in_flight`,
        `max_in_flight`, `faults` that were met, `open_connections`."""
        return self._ask("GET")

    def reset_stats(self) -> None:
        """Set the counters to 0, between two runs of a benchmark."""
        self._ask("DELETE")

    def _ask(self, method: str) -> dict[str, Any]:
        request = urllib.request.Request(self.url.removesuffix("/v1") + "/stats", method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback, no proxy
        with opener.open(request, timeout=30) as reply:
            return json.load(reply)


@contextlib.contextmanager
def serve(
    *,
    answer: Callable[[list[dict[str, Any]]], str] | None = None,
    models: Sequence[str] | None = None,
    latency: float = 0.0,
    api_key: str | None = None,
    faults: ServerFaults | None = None,
    noise: oracle.Noise | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    process: bool = False,
) -> Iterator[ServerHandle]:
    r"""
    A judge over HTTP for as long as the `with` block lasts.

    Args:
        answer (`Callable`, *optional*):
            Scripted mode: gets the messages, returns the reply's text. The exact judge by default.
        models (`Sequence[str]`, *optional*):
            Model names that exist; others are answered 404. Defaults to `oracle` and
            `scenes/oracle`, and to any name in scripted mode.
        latency (`float`, *optional*, defaults to `0.0`):
            Seconds that every answer takes.
        api_key (`str`, *optional*):
            The only key that is let in; others are answered 401. `None` lets everyone in.
        faults ([`ServerFaults`], *optional*):
            What goes wrong, and how often.
        noise ([`Noise`], *optional*):
            Makes the exact judge a noisy one.
        host (`str`, *optional*, defaults to `"127.0.0.1"`):
            Address to listen on.
        port (`int`, *optional*, defaults to `0`):
            Port to listen on; 0 picks a free one.
        process (`bool`, *optional*, defaults to `False`):
            Serve from a process of its own in place of a thread, so that the client's CPU time is
            measured alone. Not in scripted mode.

    Yields:
        [`ServerHandle`]: with `url` and `stats()`.

    Raises:
        ValueError: for `process=True` with `answer`, which cannot be sent to another process.
        RuntimeError: where the server's process ends before it listens.

    Example:

    ```python
    >>> import json, urllib.request
    >>> from trl_balcap.scenes.server import serve

    >>> body = {"model": "any", "messages": [{"role": "user", "content": "2 + 2?"}]}
    >>> with serve(answer=lambda messages: "4") as server:
    ...     reply = urllib.request.urlopen(
    ...         f"{server.url}/chat/completions", json.dumps(body).encode()
    ...     )
    ...     json.load(reply)["choices"][0]["message"]["content"]
    '4'

    ```
    """
    faults = faults or ServerFaults()
    noise = noise or oracle.Noise()
    if process:
        if answer is not None:
            raise ValueError(
                "answer is a function of this process: use process=False in scripted mode."
            )
        with _in_process(models, latency, api_key, faults, noise, host, port) as handle:
            yield handle
        return
    chat = _chat_server(answer, models, latency, api_key, faults, noise)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="scenes-server", daemon=True)
    thread.start()
    try:
        port = asyncio.run_coroutine_threadsafe(chat.start(host, port), loop).result(30)
        try:
            yield ServerHandle(f"http://{host}:{port}/v1")
        finally:
            asyncio.run_coroutine_threadsafe(chat.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


def _chat_server(answer, models, latency, api_key, faults, noise) -> _ChatServer:
    if answer is None:
        answer = oracle.Oracle(noise)
        models = models or ("oracle", "scenes/oracle")
    return _ChatServer(answer, models, latency, api_key, faults)


@contextlib.contextmanager
def _in_process(models, latency, api_key, faults, noise, host, port) -> Iterator[ServerHandle]:
    command = [sys.executable, "-m", __name__, "--port", str(port), "--host", host]
    command += ["--latency", str(latency), "--faults", json.dumps(asdict(faults))]
    command += ["--noise", json.dumps(asdict(noise)), "--until-stdin-closes"]
    for name in models or ():
        command += ["--model", name]
    if api_key is not None:
        command += ["--api-key", api_key]
    # The child ends when its stdin closes, so it cannot outlive a parent that is killed.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            line = child.stdout.readline() if child.stdout is not None else ""
            if not line.startswith("http"):
                raise RuntimeError(f"the server's process ended at once, exit code {child.wait()}.")
            yield ServerHandle(line.strip())
        finally:
            child.terminate()
            child.wait(30)


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add `serve` to the subcommands of `trl-balcap scenes`."""
    parser = subparsers.add_parser(
        "serve",
        help="serve the exact judge of scenes over HTTP",
        description="Serve the exact judge of scenes over HTTP, in the OpenAI chat format. "
        "Clients use the model `openai/oracle` with the printed address as api_base.",
    )
    _add_arguments(parser)
    parser.set_defaults(run=run)
    return parser


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=8000, help="0 picks a free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds an answer takes")
    parser.add_argument("--api-key", help="the only key that is let in; everyone by default")
    parser.add_argument(
        "--model",
        action="append",
        help="a model name that exists (repeatable); oracle and scenes/oracle by default",
    )
    parser.add_argument(
        "--faults",
        default="{}",
        help='JSON object of fault rates, such as \'{"stall": 0.1, "seed": 1}\'',
    )
    parser.add_argument(
        "--noise",
        default="{}",
        help='JSON object of the judge\'s noise, such as \'{"linguistic": 0.5, "flip": 0.1}\'',
    )
    parser.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted. The first line on stdout is the address.

    Raises:
        ValueError: for `--faults` or `--noise` that cannot be; the message says what can.
        OSError: where the port is taken.
    """
    faults, noise = ServerFaults.from_json(args.faults), oracle.Noise.from_json(args.noise)
    chat = _chat_server(None, args.model, args.latency, args.api_key, faults, noise)
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how a user ends it
        asyncio.run(_serve_forever(chat, args.host, args.port, args.until_stdin_closes))
    return 0


async def _serve_forever(chat: _ChatServer, host: str, port: int, until_stdin_closes: bool) -> None:
    port = await chat.start(host, port)
    sys.stdout.write(f"http://{host}:{port}/v1\n")
    sys.stdout.flush()
    try:
        if until_stdin_closes:
            await asyncio.to_thread(sys.stdin.read)
        else:
            await asyncio.Event().wait()
    finally:
        await chat.stop()


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(prog="python -m trl_balcap.scenes.server")
    _add_arguments(_parser)
    sys.exit(run(_parser.parse_args()))

"""The judge's side of the OpenAI chat-completions format: a handler, its faults and its counters.

It does almost nothing except answer, so that a benchmark measures the client.
"""

import asyncio
import hashlib
import json
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from trl_balcap.scenes import oracle
from trl_balcap.scenes.server_faults import REFUSAL, ServerFaults, spoil_ids, spoil_text

__all__ = ["ChatServer"]

_MAX_BODY = 64 * 1024**2
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST


class ChatServer:
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
            "open_connections": len(self.http.connections) - 1,  # minus the stats request's own
        }

    async def start(self, host: str, port: int) -> int:
        # handler_cancellation: a client that gives up leaves no stalled handler behind.
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
            # Count from the first byte, so that max_in_flight is what the client keeps open.
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
            # A repeated question has a new ticket but is still the same question.
            ticket = oracle.ticket_of(messages)
            asked = body.replace(ticket.encode(), b"") if ticket else body
            key = hashlib.blake2b(asked, digest_size=16).digest()
            fault, variant = faults.pick(asked, self.attempts[key])
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
    prompt_tokens = prompt_characters // 4  # an estimate: four characters per token
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
    return web.Response()  # never sent: the connection is closed

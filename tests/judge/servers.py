"""An endpoint whose every HTTP answer a test writes itself."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GRADES = '{"clarity": 5, "fluency": 5, "coherency": 5}'


@dataclass
class Request:
    """What an endpoint was sent."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Answer:
    """What it answers: status, headers, and a body (a chat completion of the texts by default)."""

    texts: tuple[str, ...] = (GRADES,)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    usage: dict[str, Any] | None = None
    error: str | None = None

    def body(self) -> bytes:
        if self.error is not None:
            return json.dumps({"error": {"message": self.error, "type": "x"}}).encode()
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
            for i, text in enumerate(self.texts)
        ]
        found = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
        found |= {"choices": choices}
        return json.dumps(found | ({} if self.usage is None else {"usage": self.usage})).encode()


def tokens(prompt: int, completion: int, cached: int = 0) -> dict[str, Any]:
    """The usage of an answer."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


@dataclass
class Endpoint:
    """A running endpoint: its base URL and what it was sent."""

    url: str
    requests: list[Request] = field(default_factory=list)


@contextlib.contextmanager
def endpoint(answer: Callable[[Request], Answer] = lambda _: Answer()) -> Iterator[Endpoint]:
    """An endpoint on loopback for as long as the block lasts; any path is answered."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length) or b"{}")
            request = Request(self.path, dict(self.headers), body)
            running.requests.append(request)
            given = answer(request)
            content = given.body()
            self.send_response(given.status)
            for name, value in given.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            with contextlib.suppress(ConnectionError):  # the client has given up
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_POST  # what a client makes of a POST that a 302 redirects

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 512

    server = Server(("127.0.0.1", 0), Handler)
    running = Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()

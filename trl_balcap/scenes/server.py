"""The exact judge over HTTP, in the OpenAI chat-completions format: `trl-balcap scenes serve`.

For tests and benchmarks: a judge with a known latency, known faults and counters.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trl_balcap.scenes.chat_server import ChatServer
from trl_balcap.scenes.noise import Noise
from trl_balcap.scenes.oracle import Oracle
from trl_balcap.scenes.server_faults import ServerFaults

__all__ = ["ServerHandle", "serve", "serve_forever"]


@dataclass
class ServerHandle:
    """
    A running server.

    Attributes:
        url (`str`): The `api_base` for the client, `http://host:port/v1`.
        pid (`int`, *optional*): The server's process id, if it has its own process.
    """

    url: str
    pid: int | None = None

    def stats(self) -> dict[str, Any]:
        """Counters since the start or the last reset: `calls` per question, `total`, `in_flight`,
        `max_in_flight`, `faults` that occurred, and `open_connections`."""
        return self._ask("GET")

    def reset_stats(self) -> None:
        """Reset the counters to 0, for example between two benchmark runs."""
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
    noise: Noise | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    process: bool = False,
) -> Iterator[ServerHandle]:
    r"""
    Run a judge over HTTP for the duration of the `with` block.

    Args:
        answer (`Callable`, *optional*):
            Scripted mode: takes the messages and returns the text of the reply. Defaults to the
            exact judge.
        models (`Sequence[str]`, *optional*):
            Model names that exist; others get a 404. Defaults to `oracle` and `scenes/oracle`, and
            to any name in scripted mode.
        latency (`float`, *optional*, defaults to `0.0`):
            Seconds that every answer takes.
        api_key (`str`, *optional*):
            The only key that is accepted; others get a 401. `None` accepts any request.
        faults ([`ServerFaults`], *optional*):
            What goes wrong, and how often.
        noise ([`Noise`], *optional*):
            Makes the exact judge noisy.
        host (`str`, *optional*, defaults to `"127.0.0.1"`):
            Address to listen on.
        port (`int`, *optional*, defaults to `0`):
            Port to listen on; 0 picks a free one.
        process (`bool`, *optional*, defaults to `False`):
            Whether to serve from a separate process instead of a thread, so that the client's CPU
            time can be measured alone. Not available in scripted mode.

    Yields:
        [`ServerHandle`]: with `url` and `stats()`.

    Raises:
        `ValueError`: for `process=True` with `answer`, which cannot be sent to another process.
        `RuntimeError`: if the server's process exits before it starts listening.

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
    noise = noise or Noise()
    if process:
        if answer is not None:
            raise ValueError(
                "answer is a function of this process: use process=False in scripted mode."
            )
        settings = {"models": models, "latency": latency, "api_key": api_key}
        settings |= {"faults": asdict(faults), "noise": asdict(noise), "host": host, "port": port}
        with _in_process(settings) as handle:
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


def _chat_server(
    answer: Callable[[list[dict[str, Any]]], str] | None,
    models: Sequence[str] | None,
    latency: float,
    api_key: str | None,
    faults: ServerFaults,
    noise: Noise,
) -> ChatServer:
    if answer is None:
        answer = Oracle(noise)
        models = models or ("oracle", "scenes/oracle")
    return ChatServer(answer, models, latency, api_key, faults)


@contextlib.contextmanager
def _in_process(settings: dict[str, Any]) -> Iterator[ServerHandle]:
    # The settings go through stdin, so that the key does not show up in process listings. The child
    # exits when its stdin closes, so it cannot outlive a parent that is killed.
    with subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(settings) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
            if not line.startswith("http"):
                raise RuntimeError(
                    f"the server process exited immediately with code {child.wait()}."
                )
            yield ServerHandle(line.strip(), child.pid)
        finally:
            child.terminate()
            child.wait(30)


def serve_forever(
    *,
    models: Sequence[str] | None = None,
    latency: float = 0.0,
    api_key: str | None = None,
    faults: ServerFaults | None = None,
    noise: Noise | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_listening: Callable[[str], None] = lambda url: None,
    until: Callable[[], object] | None = None,
) -> None:
    """
    Serve the exact judge until interrupted: `trl-balcap scenes serve`.

    Args:
        models, latency, api_key, faults, noise, host, port: As in [`serve`].
        on_listening (`Callable`, *optional*):
            Called with the address once the server accepts requests.
        until (`Callable`, *optional*):
            Called in a thread; the server stops when it returns. By default, it never returns.

    Raises:
        `ValueError`: for an invalid port or a negative latency.
        `OSError`: if the port is in use.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be from 0 (any free port) to 65535, got {port}.")
    if latency < 0:
        raise ValueError(f"latency must be 0 seconds or more, got {latency:g}.")
    chat = _chat_server(None, models, latency, api_key, faults or ServerFaults(), noise or Noise())

    async def run() -> None:
        url = f"http://{host}:{await chat.start(host, port)}/v1"
        on_listening(url)
        try:
            await (asyncio.Event().wait() if until is None else asyncio.to_thread(until))
        finally:
            await chat.stop()

    asyncio.run(run())


def _child() -> None:
    """The process that `serve(process=True)` starts; the first line of stdin holds its settings."""
    settings = json.loads(sys.stdin.readline())
    faults, noise = ServerFaults(**settings.pop("faults")), Noise(**settings.pop("noise"))

    def say(url: str) -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()

    serve_forever(**settings, faults=faults, noise=noise, on_listening=say, until=sys.stdin.read)


if __name__ == "__main__":
    _child()

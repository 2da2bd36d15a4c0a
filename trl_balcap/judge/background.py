"""One background thread with one event loop per process, where all judging happens.

TRL runs async rewards on a loop of its own, evaluations use `asyncio.run`, scripts call from
threads. litellm keeps its connections per event loop, so judging on the caller's loop would open a
new set of connections for each and leave the old ones unclosed. Here every caller's coroutine is
sent to the same loop, and what lives on it (limits, flights, statistics) needs no lock.
"""

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


in_place: ContextVar[bool] = ContextVar("in_place", default=False)
"""Whether this task's `run_in_executor` of a partial runs at once, on the judge loop itself.

litellm hands the preparation of each request to a thread. Where that is half a millisecond of
Python and waits for nothing, the thread costs more than it frees: it contends for the interpreter
with the loop that waits for it.
"""


class _InPlace(ThreadPoolExecutor):
    """A thread pool that lets tasks with `in_place` set keep their work."""

    def submit(self, fn, /, *args, **kwargs):
        # Only partials: a look-up of a host's address comes as a plain function, and waits.
        if not (in_place.get() and isinstance(fn, partial)):
            return super().submit(fn, *args, **kwargs)
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_result(fn(*args, **kwargs))  # what it raises, it raises where it was asked for
        return future


class _Background:
    """The loop and its thread."""

    def __init__(self):
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_InPlace(thread_name_prefix="trl-balcap-judge-pool"))
        self.thread = threading.Thread(
            target=self.loop.run_forever, name="trl-balcap-judge", daemon=True
        )
        self.thread.start()

    def close(self) -> None:
        async def close_all():
            # What nobody waits for any more is called off, or Python tells of each at exit.
            pending = asyncio.all_tasks() - {asyncio.current_task()}
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            for closer in _closers:
                await closer()
            # Transports close some turns of the loop after the session that owns them.
            await asyncio.sleep(0.1)

        asyncio.run_coroutine_threadsafe(close_all(), self.loop).result(timeout=10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=10)
        self.loop.close()


_background: _Background | None = None
_closers: list[Callable[[], Awaitable[None]]] = []
_lock = threading.Lock()


def _current() -> _Background:
    global _background
    with _lock:
        # A forked child inherits the object but not the thread, so it makes its own.
        if _background is None or _background.pid != os.getpid():
            _background = _Background()
            if not _closers:
                atexit.register(_close_at_exit)
        return _background


def judge_loop() -> asyncio.AbstractEventLoop:
    """The event loop on which all judging of this process happens; made at the first call."""
    return _current().loop


def submit(coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
    """Start `coroutine` on the judge loop and return at once; safe from any thread."""
    return asyncio.run_coroutine_threadsafe(coroutine, judge_loop())


async def on_judge_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await `coroutine` on the judge loop, from any loop. Cancelling the wait cancels the work."""
    if asyncio.get_running_loop() is judge_loop():
        return await coroutine
    return await asyncio.wrap_future(submit(coroutine))


def call_at_close(closer: Callable[[], Awaitable[None]]) -> None:
    """Have `closer` awaited on the judge loop before the process ends, if there is a loop by then.

    It runs before whatever was registered with `atexit` so far: a library that closes its own
    connections at exit would do so on another loop, where they cannot be closed.
    """
    if closer not in _closers:
        _closers.append(closer)
    atexit.unregister(_close_at_exit)
    atexit.register(_close_at_exit)


def _close_at_exit() -> None:
    global _background
    if _background is not None and _background.pid == os.getpid():
        _background.close()
    _background = None


def _forget_in_child() -> None:
    global _background, _lock
    _background = None
    _lock = threading.Lock()  # the parent may have held it at the fork


os.register_at_fork(after_in_child=_forget_in_child)

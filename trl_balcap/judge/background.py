"""One background thread with one event loop per process, where all judging happens.

TRL runs async rewards on its own loop, evaluations use `asyncio.run`, scripts call from threads.
litellm keeps its connections per event loop, so judging on the caller's loop would open new
connections each time and leave the old ones open. Here every caller's coroutine is sent to the same
loop, and what lives on it (limits, flights, statistics) needs no lock.
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
"""Whether `run_in_executor` of a partial runs in place in this task, on the judge loop itself.

litellm prepares each request in a thread. If that is half a millisecond of Python without I/O, the
thread costs more than it saves: it competes for the interpreter with the loop that waits for it.
"""


class _InPlace(ThreadPoolExecutor):
    """A thread pool that runs the work of tasks with `in_place` set in the calling thread."""

    def submit(self, fn, /, *args, **kwargs):
        # Only partials: a DNS lookup comes as a plain function, and blocks.
        if not (in_place.get() and isinstance(fn, partial)):
            return super().submit(fn, *args, **kwargs)
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_result(fn(*args, **kwargs))  # an exception propagates to the caller
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
            # Cancel tasks that nobody awaits any more, or Python warns about each at exit.
            pending = asyncio.all_tasks() - {asyncio.current_task()}
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            for closer in _closers:
                await closer()
            # Transports close a few loop iterations after their session.
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
        # A forked child inherits the object but not the thread, so it starts its own.
        if _background is None or _background.pid != os.getpid():
            _background = _Background()
            if not _closers:
                atexit.register(_close_at_exit)
        return _background


def judge_loop() -> asyncio.AbstractEventLoop:
    """The event loop for all judging in this process, created at the first call."""
    return _current().loop


def submit(coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
    """Start `coroutine` on the judge loop and return immediately; safe from any thread."""
    return asyncio.run_coroutine_threadsafe(coroutine, judge_loop())


async def on_judge_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await `coroutine` on the judge loop, from any loop. Cancelling the wait cancels the work."""
    if asyncio.get_running_loop() is judge_loop():
        return await coroutine
    return await asyncio.wrap_future(submit(coroutine))


def call_at_close(closer: Callable[[], Awaitable[None]]) -> None:
    """Await `closer` on the judge loop before the process exits, if there is a loop by then.

    It runs before anything registered with `atexit` so far: a library that closes its own
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
    _lock = threading.Lock()  # the parent may have held it when forking


os.register_at_fork(after_in_child=_forget_in_child)

"""Sends one question per image ahead of the others, to fill a judge's prefix cache."""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator

from trl_balcap.judge.questions import Question

_KEPT = 300.0  # seconds; OpenAI drops a prefix after five to ten minutes without use
_MOST = 4096


class PrefixTurns:
    """Holds back questions with the same prefix until the first of them is answered.

    Simultaneous questions would all miss a cache that stores a prefix only when its first request
    is answered. A prefix is the question's kind (its system prompt) and its images, which precede
    the rest of the message. An instance belongs to one event loop.

    Args:
        on (`bool`):
            Whether to hold questions back at all.
    """

    def __init__(self, on: bool):
        self._on = on
        self._answered: OrderedDict[tuple[str, ...], asyncio.Event] = OrderedDict()
        self._since: dict[tuple[str, ...], float] = {}

    @contextlib.asynccontextmanager
    async def turn(self, question: Question) -> AsyncIterator[None]:
        """Context manager that waits until the question may be sent."""
        if not self._on or not question.images:
            yield
            return
        prefix = (question.name, *(image.digest for image in question.images))
        answered = self._answered.get(prefix)
        if answered is not None and time.monotonic() - self._since[prefix] < _KEPT:
            await answered.wait()
            yield
            return
        answered = self._answered[prefix] = asyncio.Event()
        self._since[prefix] = time.monotonic()
        if len(self._answered) > _MOST:
            oldest, _ = self._answered.popitem(last=False)
            del self._since[oldest]
        try:
            yield
        finally:
            answered.set()  # answered or failed: let the others go

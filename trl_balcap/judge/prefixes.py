"""One question of an image ahead of the others, so that a judge's prefix cache has the image."""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator

from trl_balcap.judge.questions import Question

_KEPT = 300.0  # seconds; OpenAI drops a prefix that was not used for five to ten minutes
_MOST = 4096


class PrefixTurns:
    """Lets the first question with a prefix be answered before the others with it are sent.

    Simultaneous questions all miss a cache that counts a prefix once its first request was
    answered. What a prefix is: the question's kind (its system prompt) and its images, which come
    before the rest of the message. Lives on one event loop.

    Args:
        on (`bool`):
            Whether anybody waits at all.
    """

    def __init__(self, on: bool):
        self._on = on
        self._answered: OrderedDict[tuple[str, ...], asyncio.Event] = OrderedDict()
        self._since: dict[tuple[str, ...], float] = {}

    @contextlib.asynccontextmanager
    async def turn(self, question: Question) -> AsyncIterator[None]:
        """A block in which the question may be sent."""
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
            answered.set()  # answered or failed: the others wait no longer

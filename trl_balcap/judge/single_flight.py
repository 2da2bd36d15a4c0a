"""Single-flight with a memo: equal questions are asked only once, whether concurrent or
successive."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from trl_balcap.judge.stats import JudgeStats

MEMO_SIZE = 8192  # results kept in memory, least recently used go first


@dataclass
class _Flight:
    """A call in flight and its number of waiters; it is cancelled when there are none left."""

    task: asyncio.Task[Any]
    waiters: int = 0


class SingleFlight:
    """Results by key: remembered, joined in flight, or computed. Belongs to one event loop."""

    def __init__(self, stats: JudgeStats, memo_size: int = MEMO_SIZE):
        self._stats = stats
        self._memo_size = memo_size
        self._memo: OrderedDict[str, Any] = OrderedDict()
        self._flights: dict[str, _Flight] = {}

    def __len__(self) -> int:
        """Number of calls in flight."""
        return len(self._flights)

    def knows(self, key: str) -> bool:
        """Whether the result of `key` is remembered or in flight."""
        return key in self._memo or key in self._flights

    async def result(self, key: str, make: Callable[[], Awaitable[Any]]) -> Any:
        """The result of `make`, which runs once for all callers with the same `key`."""
        self._stats.questions += 1
        if key in self._memo:
            self._memo.move_to_end(key)
            self._stats.cache_hits += 1
            return self._memo[key]
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.ensure_future(make()))
            flight.task.add_done_callback(lambda task: self._landed(key, task))
        else:
            self._stats.shared += 1
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                flight.task.cancel()
                self._flights.pop(key, None)

    def _landed(self, key: str, task: asyncio.Task[Any]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
        if not task.cancelled() and task.exception() is None:
            self._memo[key] = task.result()
            if len(self._memo) > self._memo_size:
                self._memo.popitem(last=False)

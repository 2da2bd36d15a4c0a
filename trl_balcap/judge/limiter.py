"""How many questions may be under way at once, learned from how the judge answers."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable


class AdaptiveLimit:
    """A concurrency limit that falls when the judge pushes back and climbs back when it answers.

    Starts at the maximum, because a training batch is a burst and an unthrottled judge should get
    it whole. A push-back (429, timeout) cuts the limit by `_CUT`, once for all questions that were
    under way together: they are one event, not a hundred. It climbs by a step for each round (as
    many answers as the limit): a tenth of the distance while far below the limit that failed last,
    one by one near it, and faster again once that limit has proven good. A judge that names a time
    to wait (Retry-After) is left alone until then by everyone.

    Waiters are served by priority, then first come first served. Lives on one event loop.
    """

    _CUT = 0.7
    _NEAR = 0.85  # of the limit that failed: from here on, climb carefully

    def __init__(self, maximum: int, clock: Callable[[], float] = time.monotonic):
        self.maximum = maximum
        self.limit = float(maximum)
        self.in_flight = 0
        self.cuts = 0
        self._clock = clock
        self._failed_at = float(maximum)
        self._answers = 0
        self._resume_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._order = itertools.count()
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []

    async def acquire(self, priority: int = 0) -> int:
        """Wait for a place; returns the epoch to hand back to `push_back`."""
        if self._waiters or not self._free():
            waiter = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiters, (priority, next(self._order), waiter))
            self._wake()
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self.release()  # the place was given in the same moment
                raise
        else:
            self.in_flight += 1
        return self.cuts

    def release(self) -> None:
        self.in_flight -= 1
        self._wake()

    def answered(self) -> None:
        """A question was answered: after a round of these the limit climbs."""
        self._answers += 1
        if self._answers < self.limit or self.limit >= self.maximum:
            return
        self._answers = 0
        if self.limit < self._NEAR * self._failed_at:
            step = max(1.0, 0.25 * (self._failed_at - self.limit))
        elif self.limit <= self._failed_at:
            step = 1.0
        else:
            step = max(1.0, 0.1 * self.limit)
        self.limit = min(self.limit + step, float(self.maximum))
        self._wake()

    def push_back(self, epoch: int, retry_after: float | None = None) -> None:
        """The judge asked for less. `epoch` is what `acquire` returned for that question."""
        if retry_after:
            self._resume_at = max(self._resume_at, self._clock() + retry_after)
        self._answers = 0
        if epoch == self.cuts:  # sent since the last cut, so that cut was not enough
            self.cuts += 1
            self._failed_at = max(2.0, min(self.limit, self.in_flight))
            self.limit = max(1.0, self._CUT * self._failed_at)

    def paused_for(self) -> float:
        """Seconds until the judge may be asked again."""
        return max(0.0, self._resume_at - self._clock())

    def load(self) -> float:
        """How full it is, 1.0 at the limit: where there is a choice, take the emptiest."""
        return (self.in_flight + len(self._waiters)) / max(1.0, int(self.limit))

    def _free(self) -> bool:
        return self.in_flight < int(self.limit) and not self.paused_for()

    def _wake(self) -> None:
        while self._waiters and self._free():
            _, _, waiter = heapq.heappop(self._waiters)
            if not waiter.done():
                self.in_flight += 1
                waiter.set_result(None)
        if self._waiters and self._timer is None and (pause := self.paused_for()):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(pause, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._wake()

"""Adapts the number of concurrent questions to how the judge answers."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable


class AdaptiveLimit:
    """AIMD: a concurrency limit that falls when the judge pushes back and rises when it answers.

    It starts at the maximum: a training batch is a burst, and a judge that can take it should get
    all of it. Outcomes are counted in rounds of as many answers as the limit. Up to an eighth of a
    round may be refused without consequence: every hosted judge fails occasionally, whatever its
    load, and a limit that fell at every failure would end near one. More push-backs (429, timeout)
    cut the limit below the number in flight, once for all questions sent before the cut: a hundred
    refusals of one burst are one event. Then it rises after each round: by a quarter of the way
    while clearly below the limit that failed, one by one near it, and by a tenth more once that
    limit has held. Only the refused question waits as long as the judge asks (Retry-After); if even
    one at a time is refused, all wait.

    Waiters are served by priority, then first come, first served; those that arrive in the same
    turn of the event loop are sorted first. One is served per turn: if a hundred requests were
    prepared concurrently, all would be sent late; one after the other, only the last one is. A
    limit belongs to one event loop.

    Args:
        maximum (`int`):
            Upper bound of the limit.
        clock (`Callable`, *optional*):
            Monotonic clock, in seconds.
    """

    _STRAY = 1 / 8  # of a round: this many push-backs say nothing about the load
    _FEW = 64  # questions at the start of a burst, too few to rule out chance
    _CUT = 0.8  # of the number in flight
    _NEAR = 0.9  # of the limit that failed; above this, climb carefully

    def __init__(self, maximum: int, clock: Callable[[], float] = time.monotonic):
        self.maximum = maximum
        self.limit = float(maximum)
        self.in_flight = 0
        self.epoch = 0  # number of cuts so far
        self._clock = clock
        self._failed_at = float(maximum)
        self._answers = self._refusals = 0  # in this round
        self._peak = self._peak_before = 0  # most in flight, in this round and the previous one
        self._left = 0.0  # in flight at the cut, less those refused since
        self._answers_since_cut = 0
        self._resume_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._waking = False
        self._order = itertools.count()
        self._waiters: list[tuple[int, int, asyncio.Future[int]]] = []

    async def acquire(self, priority: int = 0) -> int:
        """Wait for a slot, lowest `priority` first.

        Returns:
            `int`: the epoch, to pass to [`push_back`].
        """
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (priority, next(self._order), waiter))
        self._wake_soon()
        try:
            return await waiter  # the epoch when the slot was given, however late this resumes
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()  # cancelled just as the slot was given
            raise

    def release(self) -> None:
        """Give the slot back."""
        self.in_flight -= 1
        self._wake()

    def answered(self) -> None:
        """A question was answered; after a round of answers the limit rises."""
        self._answers += 1
        self._answers_since_cut += 1
        if self._answers < self.limit:
            return
        self._begin_round()
        if self.limit >= self.maximum:
            return
        if self.limit < self._NEAR * self._failed_at:
            step = max(1.0, 0.25 * (self._failed_at - self.limit))
        elif self.limit <= self._failed_at:
            step = 1.0
        else:
            step = max(1.0, 0.1 * self.limit)
        self.limit = min(self.limit + step, float(self.maximum))
        self._wake()

    def push_back(self, epoch: int, retry_after: float | None = None) -> None:
        """The judge pushed back.

        Args:
            epoch (`int`):
                What `acquire` returned for that question.
            retry_after (`float`, *optional*):
                Seconds for which the judge asked us to wait.
        """
        if retry_after and self.limit <= 1.0:
            self._resume_at = max(self._resume_at, self._clock() + retry_after)
        if epoch == self.epoch:  # sent since the last cut, so that cut may not have been enough
            self._refusals += 1
            # A burst still being sent is judged by the part that was sent.
            sent = max(self._FEW, self._peak, self._peak_before)
            if self._refusals > int(self._STRAY * min(self.limit, sent)):
                self._cut()
        elif epoch == self.epoch - 1:
            # Part of the burst that caused the cut. The judge accepted the questions that are in
            # flight or were answered since. Near the end of a batch these are few, so count those
            # that were not refused.
            self._left -= 1
            took = max(self._left, float(self.in_flight + self._answers_since_cut))
            self._failed_at = max(2.0, min(self._failed_at, took))
            self.limit = max(1.0, min(self.limit, took - 1.0))

    def _cut(self) -> None:
        self.epoch += 1
        under_way = min(int(self.limit), max(self._peak, self._peak_before))
        self._failed_at = max(2.0, float(under_way))
        # The first push-back does not mean that all in flight are too many: only the last one was.
        cut = self._CUT * self._failed_at if self.epoch > 1 else self._failed_at - 1.0
        self.limit = max(1.0, min(self.limit, cut))
        self._left = self._failed_at - self._refusals
        self._answers_since_cut = 0
        self._begin_round()

    def _begin_round(self) -> None:
        self._answers = self._refusals = 0
        self._peak_before, self._peak = self._peak, self.in_flight

    def paused_for(self) -> float:
        """Seconds until the judge can be asked again."""
        return max(0.0, self._resume_at - self._clock())

    def load(self) -> float:
        """Load relative to the limit, 1.0 when full. Used to pick the least loaded deployment."""
        return (self.in_flight + len(self._waiters)) / max(1, int(self.limit))

    def _wake(self) -> None:
        self._waking = False
        paused = self.paused_for()
        while self._waiters and not paused and self.in_flight < int(self.limit):
            _, _, waiter = heapq.heappop(self._waiters)
            if not waiter.done():
                self.in_flight += 1
                self._peak = max(self._peak, self.in_flight)
                waiter.set_result(self.epoch)
                self._wake_soon()
                break
        if self._waiters and paused and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(paused, self._resume)

    def _wake_soon(self) -> None:
        if self._waiters and not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _resume(self) -> None:
        self._timer = None
        self._wake()

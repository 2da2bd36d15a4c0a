"""A bar while a batch is judged for long: one for all rewards at work, and only where one looks."""

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from tqdm.auto import tqdm

from trl_balcap.judge import Judge
from trl_balcap.judge.ranks import is_first_rank

__all__ = ["JudgingBar"]

AFTER = 5.0  # seconds; a batch that is judged sooner shows nothing
EVERY = 0.5

T = TypeVar("T")


class JudgingBar:
    """
    Shows how many scores are in, how many answers came from the cache, what was spent, and the time
    left, beside the Trainer's own bar. Where the output is no terminal and no notebook, and on all
    ranks but the first, it shows nothing.
    """

    def __init__(self):
        self._waits: dict[object, tuple[Sequence[Any], Judge]] = {}
        self._bar: tqdm | None = None
        self._began = 0.0
        self._before: tuple[int, float] = (0, 0.0)

    async def wait(self, outcomes: "asyncio.Future[T]", rows: Sequence[Any], judge: Judge) -> T:
        """
        Await the outcomes of a reward.

        Args:
            outcomes (`asyncio.Future`): What to wait for.
            rows (`Sequence[Row]`): The rows that are scored, `judged` as soon as they are.
            judge ([`Judge`]): Who is asked.
        """
        if not _is_watched():
            return await outcomes
        if not self._waits:
            self._began = time.monotonic()
            self._before = (judge.stats.cache_hits, judge.stats.usd)
        wait = object()
        self._waits[wait] = (rows, judge)
        try:
            while not (await asyncio.wait([outcomes], timeout=EVERY))[0]:
                self._show()
            return await outcomes
        except asyncio.CancelledError:
            outcomes.cancel()
            raise
        finally:
            del self._waits[wait]
            if not self._waits and self._bar is not None:
                self._bar.close()
                self._bar = None

    def _show(self) -> None:
        if time.monotonic() - self._began < AFTER:
            return
        waits = list(self._waits.values())
        total = sum(len(rows) for rows, _ in waits)
        if self._bar is None:
            self._bar = tqdm(desc="judging", unit="score", leave=False, dynamic_ncols=True)
            self._bar.start_t -= time.monotonic() - self._began
        self._bar.total = max(total, self._bar.total or 0)
        # Rewards that have finished are no longer waited for: their rows are all judged.
        left = sum(not row.judged for rows, _ in waits for row in rows)
        self._bar.n = self._bar.total - left
        stats = waits[0][1].stats
        cached, spent = stats.cache_hits - self._before[0], stats.usd - self._before[1]
        self._bar.set_postfix_str(f"{cached} from cache, ${spent:.2f}")


def _is_watched() -> bool:
    return (sys.stderr.isatty() or "ipykernel" in sys.modules) and is_first_rank()

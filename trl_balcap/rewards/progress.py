"""A progress bar for slow judging: one for all rewards, and only where somebody can see it."""

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from tqdm.auto import tqdm

from trl_balcap.judge import Judge
from trl_balcap.judge.ranks import is_first_rank

__all__ = ["JudgingBar"]

AFTER = 5.0  # seconds; faster batches show nothing
EVERY = 0.5

T = TypeVar("T")


class JudgingBar:
    """
    Shows the number of scores, the answers from the cache, the money spent and the time left, below
    the Trainer's own bar. Shows nothing outside terminals and notebooks, or on other ranks than the
    first.
    """

    def __init__(self):
        self._waits: dict[object, tuple[Sequence[Any], Judge]] = {}
        self._bar: tqdm | None = None
        self._began = 0.0
        self._before: tuple[int, float] = (0, 0.0)

    async def wait(self, outcomes: "asyncio.Future[T]", rows: Sequence[Any], judge: Judge) -> T:
        """
        Wait for the outcomes of a reward.

        Args:
            outcomes (`asyncio.Future`): The outcomes to wait for.
            rows (`Sequence[Row]`): The rows being scored, marked `judged` as they finish.
            judge ([`Judge`]): The judge.
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
        # Drop rewards that have finished: all their rows are judged.
        left = sum(not row.judged for rows, _ in waits for row in rows)
        self._bar.n = self._bar.total - left
        stats = waits[0][1].stats
        cached, spent = stats.cache_hits - self._before[0], stats.usd - self._before[1]
        self._bar.set_postfix_str(f"{cached} from cache, ${spent:.2f}")


def _is_watched() -> bool:
    return (sys.stderr.isatty() or "ipykernel" in sys.modules) and is_first_rank()

"""From messages to a reply: budget, limit, attempt, retry. The one owner of retries."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from trl_balcap.judge import client
from trl_balcap.judge.client import Reply
from trl_balcap.judge.collector import fewer_collections
from trl_balcap.judge.endpoints import Endpoint, pick
from trl_balcap.judge.errors import JudgeError
from trl_balcap.judge.failures import Failure
from trl_balcap.judge.ranks import world_size
from trl_balcap.judge.settings import JudgeSettings
from trl_balcap.judge.stats import BatchMetrics, JudgeStats

_BACKOFF_START, _BACKOFF_MAX = 0.5, 30.0  # seconds


class Dispatcher:
    """Sends questions to endpoints and counts what that takes."""

    def __init__(self, settings: JudgeSettings, stats: JudgeStats):
        self._settings = settings
        self._stats = stats
        self._latencies: deque[float] = deque(maxlen=65536)  # since the last metrics()
        self._under_way = 0
        self._batch = BatchMetrics()

    async def send(
        self,
        endpoints: Sequence[Endpoint],
        messages: list[dict[str, Any]],
        *,
        tag: str,
        priority: int,
        max_retries: int | None = None,
        keep_truncated: bool = False,
        **how: Any,
    ) -> Reply:
        """A complete reply, or one that was cut off where such are kept, after as many tries as it
        takes and is allowed."""
        if max_retries is None:
            max_retries = self._settings.max_retries
        tried: list[Endpoint] = []  # since the last wait
        tries = 0
        while True:
            self._check_budget()
            endpoint = pick(endpoints, tried)
            # Those who have waited for the judge do not wait again behind those who have not.
            epoch = await endpoint.limit.acquire(priority if not tries else -tries)
            try:
                reply = await self._attempt(endpoint, tag, messages, how)
            except Failure as failure:
                endpoint.failed(failure, epoch)
                tried.append(endpoint)
                elsewhere = any(e.works() and e not in tried for e in endpoints)
                tries += 1
                if tries > max_retries or not (failure.again or (failure.fatal and elsewhere)):
                    raise failure.as_error(endpoint.deployment) from failure
                wait = _backoff(tries, failure.retry_after)
            else:
                endpoint.worked()
                kept = keep_truncated and reply.failure and reply.failure.reason == "truncated"
                if reply.failure is not None and not kept:
                    raise reply.failure.as_error(endpoint.deployment)
                return reply
            finally:
                endpoint.limit.release()
            self._stats.retries += 1
            if not elsewhere:
                # Outside of the limit, so that a waiting question keeps no slot.
                tried.clear()
                await asyncio.sleep(wait)

    async def _attempt(
        self, endpoint: Endpoint, tag: str, messages: list[dict[str, Any]], how: Mapping[str, Any]
    ) -> Reply:
        self._check_budget()
        stats = self._stats
        stats.calls += 1
        stats.calls_of[tag] += 1
        start = time.monotonic()
        self._under_way += 1
        try:
            with fewer_collections():
                reply = await client.ask_once(
                    endpoint.deployment, messages, timeout=self._settings.timeout, **how
                )
        finally:
            self._under_way -= 1
        self._latencies.append(time.monotonic() - start)
        stats.answers += 1
        stats.prompt_tokens += reply.prompt_tokens
        stats.completion_tokens += reply.completion_tokens
        if endpoint.price is None:
            stats.unpriced_calls += 1
        else:
            prompt, completion = endpoint.price
            stats.usd += (reply.prompt_tokens * prompt + reply.completion_tokens * completion) / 1e6
        return reply

    def _check_budget(self) -> None:
        """Raise if this process has spent its share of the budget, or would with what is under way."""
        stats, settings, ranks = self._stats, self._settings, world_size()
        calls, usd = settings.budget_calls, settings.budget_usd
        if calls is not None and stats.calls >= calls / ranks:
            raise JudgeError("over_budget", f"The budget of {calls} judge calls is spent.")
        if usd is not None:
            expected = stats.usd * (1 + self._under_way / max(1, stats.answers))
            if expected >= usd / ranks:
                raise JudgeError("over_budget", f"The judge budget of ${usd:g} is spent.")

    def metrics(self, limit: float) -> dict[str, float]:
        """The numbers of what happened since the last call of this method, for TRL's log."""
        taken = self._batch.take(self._stats, self._latencies, limit, world_size())
        self._latencies.clear()
        return taken


def _backoff(tries: int, retry_after: float | None) -> float:
    """Seconds before the next try: exponential backoff with equal jitter, at least `retry_after`.

    Half of the doubling and a quarter on top of the judge's wish are random, so that questions that
    failed together do not come back together.
    """
    longest = min(_BACKOFF_MAX, _BACKOFF_START * 2.0 ** (tries - 1))
    backoff = longest * random.uniform(0.5, 1.0)
    return max(backoff, (retry_after or 0.0) * random.uniform(1.0, 1.25))

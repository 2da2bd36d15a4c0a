"""Gets a reply to messages: budget, limit, attempt, retry. All retries happen here."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from trl_balcap.judge import client
from trl_balcap.judge.bill import charge
from trl_balcap.judge.budget import Budget
from trl_balcap.judge.client import Reply, ReplyText
from trl_balcap.judge.collector import fewer_collections
from trl_balcap.judge.deadline import seconds_left
from trl_balcap.judge.endpoints import Endpoint, pick
from trl_balcap.judge.errors import JudgeError
from trl_balcap.judge.failures import Failure
from trl_balcap.judge.ranks import batch_deadline, world_size
from trl_balcap.judge.settings import JudgeSettings
from trl_balcap.judge.stats import BatchMetrics, JudgeStats

_BACKOFF_START, _BACKOFF_MAX = 0.5, 30.0  # seconds
_TIMEOUTS = 2  # after this many, give up: each one holds up the batch


class Dispatcher:
    """Sends questions to endpoints and counts what they use."""

    def __init__(self, settings: JudgeSettings, stats: JudgeStats):
        self._settings = settings
        self._stats = stats
        self._budget = Budget(settings, stats)
        self._latencies: deque[float] = deque(maxlen=65536)  # since the last metrics()
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
    ) -> str:
        """The text of a complete reply, after as many retries as needed and allowed.

        `keep_truncated` also accepts a reply that was cut off.

        Raises:
            `JudgeError`: if there is none.
        """
        endpoint, reply = await self._exchange(endpoints, messages, tag, priority, max_retries, how)
        text = _text(reply.choices[0], endpoint, keep_truncated)
        if isinstance(text, JudgeError):
            raise text
        return text

    async def send_for_samples(
        self,
        endpoints: Sequence[Endpoint],
        messages: list[dict[str, Any]],
        *,
        n: int,
        tag: str,
        priority: int,
        keep_truncated: bool = False,
        **how: Any,
    ) -> list[str | JudgeError]:
        """The texts of one reply with up to `n` samples, with an error for each incomplete one.

        Raises:
            `JudgeError`: if there is no reply.
        """
        how = how | {"n": n}
        endpoint, reply = await self._exchange(endpoints, messages, tag, priority, None, how)
        return [_text(choice, endpoint, keep_truncated) for choice in reply.choices[:n]]

    def metrics(self, limit: float) -> dict[str, float]:
        """Metrics since the last call of this method, for TRL's log."""
        taken = self._batch.take(self._stats, self._latencies, limit, world_size())
        self._latencies.clear()
        return taken

    async def _exchange(
        self,
        endpoints: Sequence[Endpoint],
        messages: list[dict[str, Any]],
        tag: str,
        priority: int,
        max_retries: int | None,
        how: Mapping[str, Any],
    ) -> tuple[Endpoint, Reply]:
        """The reply to a question and its endpoint; retries happen here and nowhere else."""
        if max_retries is None:
            max_retries = self._settings.max_retries
        end = time.monotonic() + batch_deadline(self._settings.batch_deadline)
        tried: list[Endpoint] = []  # since the last wait
        tries = timeouts = 0
        while True:
            self._budget.check()
            endpoint = pick(endpoints, tried)
            # A question that has already waited for the judge goes ahead of new ones.
            epoch = await endpoint.limit.acquire(priority if not tries else -tries)
            try:
                reply = await self._attempt(endpoint, tag, messages, how)
            except Failure as failed:
                failure = failed
                left = seconds_left(end - time.monotonic())
                endpoint.failed(failure, epoch, left)
            else:
                endpoint.worked()
                return endpoint, reply
            finally:
                endpoint.limit.release()
            tried.append(endpoint)
            elsewhere = any(e.works() and e not in tried for e in endpoints)
            tries += 1
            timeouts += failure.reason == "timeout"
            wait = 0.0 if elsewhere else _backoff(tries, failure.retry_after)
            again = failure.again or (failure.fatal and elsewhere)
            if not again or tries > max_retries or timeouts > _TIMEOUTS or wait > left:
                raise failure.as_error(endpoint.deployment)
            self._stats.retries += 1
            if not elsewhere:
                # Outside the limit, so that a waiting question holds no slot.
                tried.clear()
                await asyncio.sleep(wait)

    async def _attempt(
        self, endpoint: Endpoint, tag: str, messages: list[dict[str, Any]], how: Mapping[str, Any]
    ) -> Reply:
        held = await self._budget.reserve(
            tag, messages, endpoint.price, max_tokens=how.get("max_tokens"), n=how.get("n", 1)
        )
        stats = self._stats
        stats.calls += 1
        stats.calls_of[tag] += 1
        start = time.monotonic()
        try:
            with fewer_collections():
                reply = await client.ask_once(
                    endpoint.deployment, messages, timeout=self._settings.timeout, **how
                )
        except BaseException:
            self._budget.release(held)
            raise
        self._latencies.append(time.monotonic() - start)
        stats.answers += 1
        stats.uncounted_calls += reply.usage is None
        stats.unpriced_calls += endpoint.price is None
        taken = self._budget.settle(held, reply.usage)
        charge(None if endpoint.price is None else endpoint.price.usd(taken))
        stats.prompt_tokens += taken.prompt
        stats.cached_tokens += taken.cached
        stats.completion_tokens += taken.completion
        return reply


def _text(choice: ReplyText, endpoint: Endpoint, keep_truncated: bool) -> str | JudgeError:
    failure = choice.failure
    if failure is None or (keep_truncated and failure.reason == "truncated"):
        return choice.text
    return failure.as_error(endpoint.deployment)


def _backoff(tries: int, retry_after: float | None) -> float:
    """Seconds before the next try: exponential backoff with equal jitter, at least `retry_after`.

    Half of the backoff is random, as is up to a quarter added to `retry_after`, so that questions
    that failed together do not come back together.
    """
    longest = min(_BACKOFF_MAX, _BACKOFF_START * 2.0 ** (tries - 1))
    backoff = longest * random.uniform(0.5, 1.0)
    return max(backoff, (retry_after or 0.0) * random.uniform(1.0, 1.25))

"""What judging takes: calls, cache hits, tokens, money, latency."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class JudgeStats:
    """Counts since the judge was made in this process.

    Args:
        questions (`int`): What was asked, by whomever.
        calls (`int`): Requests that were sent, retries included.
        calls_of (`Counter[str]`): The same by question, or by the `tag` of [`Judge.complete`].
        answers (`int`): Replies that came, readable or not.
        cache_hits (`int`): Questions answered from memory or from the disk.
        disk_hits (`int`): Those of them that came from the disk.
        shared (`int`): Questions that joined an equal one under way.
        retries (`int`): Requests sent again after a failed one.
        prompt_tokens, completion_tokens (`int`): As the judge counts them.
        cached_tokens (`int`): Those prompt tokens that the judge had read before.
        usd (`float`): What those tokens cost, where the price is known.
        uncounted_calls (`int`): Answers without token counts, which count as their estimate.
        unpriced_calls (`int`): Answered requests whose price is not known.
    """

    questions: int = 0
    calls: int = 0
    calls_of: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    cache_hits: int = 0
    disk_hits: int = 0
    shared: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    uncounted_calls: int = 0
    unpriced_calls: int = 0


_SUMS = (
    "questions",
    "calls",
    "cache_hits",
    "shared",
    "retries",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "usd",
)


class BatchMetrics:
    """From running statistics to the numbers of one batch, as TRL logs them.

    TRL averages a metric over the ranks, so sums are multiplied by their number: what is logged is
    the sum over all ranks.
    """

    def __init__(self):
        self._before = dict.fromkeys(_SUMS, 0.0)
        self._latency_p50 = self._latency_p95 = 0.0

    def take(
        self, stats: JudgeStats, latencies: Sequence[float], limit: float, world_size: int
    ) -> dict[str, float]:
        """The metrics of what happened since the last `take`; latencies stay if none was measured.

        Dollars are left out where a price is not known: 0 would say that judging is free.
        """
        now = {name: float(getattr(stats, name)) for name in _SUMS}
        metrics = {f"judge/{name}": (now[name] - self._before[name]) * world_size for name in _SUMS}
        self._before = now
        metrics["judge/calls_total"] = stats.calls * world_size
        metrics["judge/tokens_total"] = (stats.prompt_tokens + stats.completion_tokens) * world_size
        metrics["judge/usd_total"] = stats.usd * world_size
        if latencies:
            ordered = sorted(latencies)
            self._latency_p50, self._latency_p95 = quantile(ordered, 0.5), quantile(ordered, 0.95)
        metrics["judge/latency_p50"] = self._latency_p50
        metrics["judge/latency_p95"] = self._latency_p95
        metrics["judge/concurrency_limit"] = limit
        if stats.unpriced_calls:
            del metrics["judge/usd"], metrics["judge/usd_total"]
        return metrics


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted values lie, by nearest rank.

    ```python
    >>> quantile([1.0, 2.0, 3.0, 10.0], 0.5), quantile([1.0, 2.0, 3.0, 10.0], 0.95)
    (2.0, 10.0)

    ```
    """
    rank = -(-share * len(ordered) // 1)  # ceiling
    return ordered[max(0, int(rank) - 1)]

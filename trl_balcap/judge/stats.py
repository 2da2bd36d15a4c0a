"""What judging uses: calls, cache hits, tokens, money, time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class JudgeStats:
    """Counts since the judge was created in this process.

    Args:
        questions (`int`): Questions asked.
        calls (`int`): Requests sent, including retries.
        calls_of (`Counter[str]`): The same by question, or by the `tag` of [`Judge.complete`].
        answers (`int`): Replies received, readable or not.
        cache_hits (`int`): Questions answered from memory or disk.
        disk_hits (`int`): Cache hits from disk.
        shared (`int`): Questions that joined an equal one in flight.
        retries (`int`): Requests sent again after a failure.
        prompt_tokens, completion_tokens (`int`): As counted by the judge.
        cached_tokens (`int`): Prompt tokens from the judge's prefix cache.
        usd (`float`): Cost of the tokens with a known price.
        uncounted_calls (`int`): Answers without token counts; their estimates are counted.
        unpriced_calls (`int`): Answered requests without a known price.
        canaries, canaries_right (`int`): Statements of known truth in united questions, and how
            many of them the judge got right.
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
    canaries: int = 0
    canaries_right: int = 0


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
    """Turns running statistics into the metrics of one batch, as TRL logs them.

    TRL averages metrics over the ranks, so sums are multiplied by the number of ranks: the log
    then shows the sum over all ranks.
    """

    def __init__(self):
        self._before = dict.fromkeys(_SUMS, 0.0)
        self._latency_p50 = self._latency_p95 = 0.0
        self._canaries = (0, 0)
        self._canary_accuracy: float | None = None

    def take(
        self, stats: JudgeStats, latencies: Sequence[float], limit: float, world_size: int
    ) -> dict[str, float]:
        """Metrics since the last `take`; latencies and canary accuracy are kept if none was
        measured since.

        Dollars are left out if a price is unknown: 0 would mean that judging is free.
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
        asked, right = stats.canaries - self._canaries[0], stats.canaries_right - self._canaries[1]
        self._canaries = (stats.canaries, stats.canaries_right)
        if asked:
            self._canary_accuracy = right / asked
        if self._canary_accuracy is not None:
            metrics["judge/canary_accuracy"] = self._canary_accuracy
        if stats.unpriced_calls:
            del metrics["judge/usd"], metrics["judge/usd_total"]
        return metrics


def quantile(ordered: Sequence[float], share: float) -> float:
    """The quantile `share` of the sorted values, by nearest rank.

    ```python
    >>> quantile([1.0, 2.0, 3.0, 10.0], 0.5), quantile([1.0, 2.0, 3.0, 10.0], 0.95)
    (2.0, 10.0)

    ```
    """
    rank = -(-share * len(ordered) // 1)  # ceiling
    return ordered[max(0, int(rank) - 1)]

"""What judging takes: calls, cache hits, tokens, money, latency."""

from collections import Counter, deque
from dataclasses import dataclass, field


@dataclass
class JudgeStats:
    """Counts since the judge was made in this process. `usd` is `None` if the price is unknown."""

    questions: int = 0
    calls: int = 0
    calls_of: Counter[str] = field(default_factory=Counter)
    cache_hits: int = 0
    shared: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    unpriced_calls: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=4096))

"""Deployments with their state: each has a concurrency limit and a circuit breaker."""

import time
from collections.abc import Callable, Sequence
from functools import cached_property

from trl_balcap.judge.deployments import Deployment, provider_of, supports_schema
from trl_balcap.judge.failures import Failure
from trl_balcap.judge.limiter import AdaptiveLimit
from trl_balcap.judge.litellm_module import litellm_module
from trl_balcap.judge.prices import TokenPrice, given_price, price_of
from trl_balcap.judge.settings import JudgeSettings

OPENS_AFTER = 3  # failures in a row
_OPEN_MAX = 60.0  # seconds
_PAUSE = 30.0  # seconds, if the judge asks for more than the time left in the batch


class CircuitBreaker:
    """Keeps questions away from a failing deployment: closed, open for a while, then half-open.

    It opens after three failures in a row. Each further failure doubles the time for which it is
    open, up to a minute. When half-open, it lets through one question at a time; an answer closes
    it.

    Args:
        clock (`Callable`, *optional*):
            Monotonic clock, in seconds.

    Example:

    ```python
    >>> seconds = [0.0]
    >>> breaker = CircuitBreaker(clock=lambda: seconds[0])
    >>> for _ in range(3):
    ...     breaker.failed()
    >>> breaker.lets_through(under_way=0)
    False
    >>> seconds[0] = 2.0
    >>> breaker.lets_through(under_way=0), breaker.lets_through(under_way=1)
    (True, False)
    >>> breaker.worked()
    >>> breaker.lets_through(under_way=1)
    True

    ```
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0

    def lets_through(self, under_way: float) -> bool:
        """Whether one more question may be sent in addition to those in flight."""
        if self._clock() < self._open_until:
            return False
        return self._failures < OPENS_AFTER or under_way == 0

    def worked(self) -> None:
        self._failures = 0

    def failed(self, weight: int = 1) -> None:
        """Record a failure; one that would hit every later question counts `OPENS_AFTER` times."""
        self._failures += weight
        if self._failures >= OPENS_AFTER:
            rest = min(_OPEN_MAX, 2.0 ** min(10, self._failures - OPENS_AFTER + 1))
            self._open_until = self._clock() + rest


class Endpoint:
    """A deployment, its concurrency limit, its circuit breaker and its price."""

    def __init__(self, deployment: Deployment, settings: JudgeSettings):
        self.deployment = deployment
        self.limit = AdaptiveLimit(settings.max_concurrency)
        self._breaker = CircuitBreaker()
        self._settings = settings

    @cached_property
    def has_schema(self) -> bool:
        """Whether the provider constrains replies to a JSON schema."""
        structured = self._settings.structured
        return supports_schema(self.deployment) if structured is None else structured

    @cached_property
    def price(self) -> TokenPrice | None:
        """The price of its tokens, if known."""
        given = self._settings.price
        return price_of(self.deployment) if given is None else given_price(given)

    @cached_property
    def takes_n(self) -> bool:
        """Whether one request may ask for several samples; set to `False` once that is refused."""
        supported = litellm_module().get_supported_openai_params(
            self.deployment.model, provider_of(self.deployment)
        )
        return "n" in (supported or ())

    def works(self) -> bool:
        """Whether questions can be sent here."""
        return self._breaker.lets_through(self.limit.load())

    def worked(self) -> None:
        self._breaker.worked()
        self.limit.answered()

    def failed(self, failure: Failure, epoch: int, left: float) -> None:
        """Record a failure of a question whose batch has `left` seconds left."""
        if failure.reason in ("timeout", "rate_limited"):
            wait = failure.retry_after
            # A wait beyond the batch's end says little about the judge: the next batch retries.
            self.limit.push_back(epoch, wait if wait is None or wait <= left else _PAUSE)
        if failure.fatal:
            self._breaker.failed(OPENS_AFTER)
        elif failure.reason in ("timeout", "server_error"):
            self._breaker.failed()


def pick(endpoints: Sequence[Endpoint], tried: Sequence[Endpoint]) -> Endpoint:
    """The least loaded working endpoint that has not just failed on this question."""
    if len(endpoints) == 1:
        return endpoints[0]
    return min(
        endpoints, key=lambda e: (not e.works(), e in tried, e.limit.paused_for(), e.limit.load())
    )

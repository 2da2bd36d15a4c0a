"""Deployments with what has been learned about them: a limit each, and a circuit breaker."""

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
_PAUSE = 30.0  # seconds, where the judge asks for more than the batch has


class CircuitBreaker:
    """Keeps questions away from a deployment that fails: closed, open for a while, half-open.

    It opens after three failures in a row, for twice as long at each further one, up to a minute.
    Half-open, one question at a time tries whether the deployment is back; its answer closes the
    breaker.

    Args:
        clock (`Callable`, *optional*):
            Seconds on a monotonic clock.

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
        """Whether one more question may be sent beside those under way."""
        if self._clock() < self._open_until:
            return False
        return self._failures < OPENS_AFTER or under_way == 0

    def worked(self) -> None:
        self._failures = 0

    def failed(self, weight: int = 1) -> None:
        """A failure; one that no later question can escape weighs `OPENS_AFTER`."""
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
        """Whether replies are held to a JSON schema by the provider."""
        structured = self._settings.structured
        return supports_schema(self.deployment) if structured is None else structured

    @cached_property
    def price(self) -> TokenPrice | None:
        """What its tokens cost, where that is known."""
        given = self._settings.price
        return price_of(self.deployment) if given is None else given_price(given)

    @cached_property
    def takes_n(self) -> bool:
        """Whether one request may ask for several samples; set to False where that was refused."""
        supported = litellm_module().get_supported_openai_params(
            self.deployment.model, provider_of(self.deployment)
        )
        return "n" in (supported or ())

    def works(self) -> bool:
        """Whether to send a question there."""
        return self._breaker.lets_through(self.limit.load())

    def worked(self) -> None:
        self._breaker.worked()
        self.limit.answered()

    def failed(self, failure: Failure, epoch: int, left: float) -> None:
        """A question failed whose batch waits for `left` seconds more."""
        if failure.reason in ("timeout", "rate_limited"):
            wait = failure.retry_after
            # A wish beyond the batch's end is no measure of the judge: the next batch asks anew.
            self.limit.push_back(epoch, wait if wait is None or wait <= left else _PAUSE)
        if failure.fatal:
            self._breaker.failed(OPENS_AFTER)
        elif failure.reason in ("timeout", "server_error"):
            self._breaker.failed()


def pick(endpoints: Sequence[Endpoint], tried: Sequence[Endpoint]) -> Endpoint:
    """The emptiest endpoint that works and has not just failed at this question."""
    if len(endpoints) == 1:
        return endpoints[0]
    return min(
        endpoints, key=lambda e: (not e.works(), e in tried, e.limit.paused_for(), e.limit.load())
    )

"""How long a question's batch will wait for its answer."""

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

_ends: ContextVar[float | None] = ContextVar("ends", default=None)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Questions started in this block are useless after this many seconds.

    ```python
    >>> with within(10.0):
    ...     9.0 < seconds_left(60.0) <= 10.0
    True
    >>> seconds_left(60.0)
    60.0

    ```
    """
    token = _ends.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends.reset(token)


def seconds_left(default: float) -> float:
    """Seconds left in the block in which this question was started; `default` outside any."""
    ends = _ends.get()
    return default if ends is None else max(0.0, ends - time.monotonic())

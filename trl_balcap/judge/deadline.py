"""How long the batch that a question belongs to will wait for it."""

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

_ends: ContextVar[float | None] = ContextVar("ends", default=None)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Questions that are begun in this block are of no use after so many seconds.

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
    """Seconds until the end of the block that this question was begun in; `default` outside."""
    ends = _ends.get()
    return default if ends is None else max(0.0, ends - time.monotonic())

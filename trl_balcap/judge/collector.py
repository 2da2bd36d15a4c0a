"""Slows down Python's cycle collector while questions are in flight.

A batch of questions in flight is about a hundred thousand objects that live until their answers.
By default, the collector runs every 700 objects, mistakes them for long-lived ones, and ends up
searching the whole heap every second batch, which takes 0.3 s with torch and litellm loaded. The
threshold belongs to the process, so it is raised only for that time, and only if it is lower.
"""

import contextlib
import gc
import threading
from collections.abc import Iterator

_THRESHOLD = 20_000
_lock = threading.Lock()
_under_way = 0
_before: tuple[int, int, int] | None = None


@contextlib.contextmanager
def fewer_collections() -> Iterator[None]:
    """Collect young objects only every 20,000 while any such block is open.

    ```python
    >>> with fewer_collections():
    ...     gc.get_threshold()[0] >= 20_000
    True

    ```
    """
    global _under_way, _before
    with _lock:
        _under_way += 1
        now = gc.get_threshold()
        if _under_way == 1 and 0 < now[0] < _THRESHOLD:  # 0: the collector is off
            _before = now
            gc.set_threshold(_THRESHOLD, *now[1:])
    try:
        yield
    finally:
        with _lock:
            _under_way -= 1
            if _under_way == 0 and _before is not None:
                if gc.get_threshold() == (
                    _THRESHOLD,
                    *_before[1:],
                ):  # else somebody else changed it
                    gc.set_threshold(*_before)
                _before = None

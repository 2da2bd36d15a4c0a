"""Python's cycle collector, slowed down while questions are under way.

A batch of questions under way is some hundred thousand objects that live for a latency. Python's
default collector runs every 700 of them, takes them for objects that stay, and so comes to search
the whole heap, 0.3 s where torch and litellm are loaded, every second batch. The setting is the
process's, so it is raised only for that time, and only where it is lower.
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
    """Collect young objects every 20,000 for as long as any such block is open.

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
        if _under_way == 1 and 0 < now[0] < _THRESHOLD:  # 0 is a collector turned off
            _before = now
            gc.set_threshold(_THRESHOLD, *now[1:])
    try:
        yield
    finally:
        with _lock:
            _under_way -= 1
            if _under_way == 0 and _before is not None:
                if gc.get_threshold() == (_THRESHOLD, *_before[1:]):  # else someone else set it
                    gc.set_threshold(*_before)
                _before = None

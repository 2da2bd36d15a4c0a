"""A table of numbers by id that stays small, for millions of rows."""

from hashlib import blake2b

import numpy as np

__all__ = ["IdTable"]

_RECENT = 65_536


class IdTable:
    """
    Numbers by id, at 16 bytes for each: ids are kept as 64-bit digests, sorted in a few arrays.

    In ten million ids, two have the same digest with a probability of 3 in a million.

    Example:

    ```python
    >>> places = IdTable()
    >>> places["a.png"] = 3
    >>> places.get("a.png"), places.get("b.png"), "b.png" in places, len(places)
    (3, None, False, 1)

    ```
    """

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._sorted: list[
            tuple[np.ndarray, np.ndarray]
        ] = []  # digests and numbers, large to small

    def __setitem__(self, identity: str, number: int) -> None:
        self._recent[_digest(identity)] = number
        if len(self._recent) >= _RECENT:
            self._sort()

    def get(self, identity: str) -> int | None:
        """The number of an id, as set last; `None` if there is none."""
        digest = _digest(identity)
        if digest in self._recent:
            return self._recent[digest]
        for digests, numbers in reversed(self._sorted):
            place = int(np.searchsorted(digests, np.uint64(digest)))
            if place < len(digests) and int(digests[place]) == digest:
                return int(numbers[place])
        return None

    def __contains__(self, identity: str) -> bool:
        return self.get(identity) is not None

    def __len__(self) -> int:
        self._sort(whole=True)
        return len(self._sorted[0][0])

    def _sort(self, *, whole: bool = False) -> None:
        digests = np.fromiter(self._recent.keys(), np.uint64, len(self._recent))
        numbers = np.fromiter(self._recent.values(), np.int64, len(self._recent))
        self._recent.clear()
        # Each array is at least twice as long as the next, so there are few to search.
        while self._sorted and (whole or len(self._sorted[-1][0]) < 2 * len(digests)):
            older = self._sorted.pop()
            digests = np.concatenate([older[0], digests])
            numbers = np.concatenate([older[1], numbers])
        order = np.argsort(digests, kind="stable")
        digests, numbers = digests[order], numbers[order]
        latest = np.ones(len(digests), dtype=bool)
        latest[:-1] = digests[1:] != digests[:-1]
        self._sorted.append((digests[latest], numbers[latest]))


def _digest(identity: str) -> int:
    content = identity.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big")

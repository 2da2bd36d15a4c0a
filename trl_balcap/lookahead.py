"""Generation batches of one update, written ahead of the judge that reads the first of them.

Where one update takes several generation batches, TRL generates one, waits for its rewards,
computes its loss, and only then generates the next. The policy does not change in between, so the
next can be generated while the judge reads: the same completions' gradients, in less time.
"""

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Generated", "LookAhead"]


class Generated(Exception):
    """Leaves TRL's generate-and-score once the completions of a later batch exist."""


class LookAhead:
    """
    Which batches of the update under way have completions that TRL has not asked for yet.

    Example:

    ```python
    >>> ahead, first, second = LookAhead(), ["a"], ["b"]
    >>> def score(batch):  # as TRL: generate, then ask for rewards
    ...     output = ahead.take(batch)
    ...     return output or ahead.keep(batch, f"completion of {batch[0]}")
    >>> ahead.begin([first, second])
    >>> score(first)
    'completion of a'
    >>> ahead.generate_later(first, score)  # while the judge reads it
    >>> ahead.take(second)
    'completion of b'

    ```
    """

    def __init__(self):
        self._window: Sequence[Any] = ()
        self._ready: list[tuple[Any, Any]] = []
        self._leaving = False

    def begin(self, batches: Sequence[Any]) -> None:
        """An update begins that generates these batches, in this order."""
        self._window, self._ready = batches, []

    def take(self, batch: Any) -> Any:
        """What was generated for a batch ahead of its turn, once; `None` where nothing was."""
        for place, (known, output) in enumerate(self._ready):
            if known is batch:
                del self._ready[place]
                return output
        return None

    def keep(self, batch: Any, output: Any) -> Any:
        """
        Hand `output` on, or keep it where the batch is generated ahead of its turn.

        Raises:
            [`Generated`]: in the latter case; [`LookAhead.generate_later`] catches it.
        """
        if not self._leaving:
            return output
        self._ready.append((batch, output))
        raise Generated

    def generate_later(self, batch: Any, generate: Callable[[Any], Any]) -> None:
        """
        Generate what the update needs after `batch`, unless it is there already.

        Args:
            batch:
                The batch under way; one that is not of this update, such as an evaluation's, has
                nothing after it.
            generate (`Callable`):
                Begins TRL's generate-and-score with a batch; it comes to [`LookAhead.keep`].
        """
        here = next((i for i, known in enumerate(self._window) if known is batch), None)
        if here is None:
            return
        for later in self._window[here + 1 :]:
            if any(known is later for known, _ in self._ready):
                continue
            self._leaving = True
            try:
                generate(later)
            except Generated:
                continue
            finally:
                self._leaving = False

"""Generation batches written before TRL asks for them: which are held, and what was found of them.

TRL generates a batch, waits for its rewards, computes its loss, and only then generates the next.
Where the next is generated while the judge reads, the same work takes less time. Within an update
the policy is the same in both orders; a batch of the next update is written by the policy before
this one, and its log-probabilities under that policy are kept with it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Generated", "LookAhead", "Peekable", "Written"]


class Generated(Exception):
    """Leaves TRL's generate-and-score once all of a later batch is there that its judge needs."""


@dataclass
class Written:
    """
    What was generated for a batch before TRL asked for it.

    Args:
        output (`tuple`):
            What TRL's `_generate` returned.
        logps (`tuple`, *optional*):
            What TRL's `_get_per_token_logps_and_entropies` returned under the policy that wrote
            it. `None` where the same policy trains on it.
        metrics (`dict[str, list[float]]`):
            What TRL logged of it, for the step that trains on it.
        tokens (`float`):
            Tokens by which it made TRL's `num_tokens` grow.
    """

    output: Any
    logps: Any = None
    metrics: dict[str, list[float]] = field(default_factory=dict)
    tokens: float = 0.0


class Peekable:
    """
    An iterator whose next items can be seen before they are taken.

    Example:

    ```python
    >>> numbers = Peekable(iter([1, 2, 3]))
    >>> next(numbers), numbers.peek(5), list(numbers)
    (1, [2, 3], [2, 3])

    ```
    """

    def __init__(self, source: Iterable[Any]):
        self.source = source
        self._iterator = iter(source)
        self._seen: deque[Any] = deque()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._seen.popleft() if self._seen else next(self._iterator)

    def peek(self, count: int) -> list[Any]:
        """The next items: `count` of them, or as many as there are."""
        while len(self._seen) < count:
            try:
                self._seen.append(next(self._iterator))
            except StopIteration:
                break
        return list(self._seen)[:count]


class LookAhead:
    """
    Which batches have completions that TRL has not asked for yet.

    Example:

    ```python
    >>> ahead, first, second = LookAhead(), ["a"], ["b"]
    >>> def score(batch):  # as TRL: generate, then ask for rewards
    ...     output = ahead.take(batch)
    ...     return output or ahead.keep(batch, f"completion of {batch[0]}")
    >>> ahead.begin([first, second])
    0
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

    def begin(self, batches: Sequence[Any]) -> int:
        """
        An update begins that generates these batches, in this order.

        Returns:
            `int`: How many other batches were held; they are given up.
        """
        kept = [held for held in self._ready if any(held[0] is batch for batch in batches)]
        given_up = len(self._ready) - len(kept)
        self._window, self._ready = batches, kept
        return given_up

    def held(self, batch: Any) -> Any:
        """What is held for a batch, or `None`; it stays held."""
        return next((output for known, output in self._ready if known is batch), None)

    def take(self, batch: Any) -> Any:
        """What was generated for a batch ahead of its turn, once; `None` where nothing was."""
        output = self.held(batch)
        self._ready = [held for held in self._ready if held[0] is not batch]
        return output

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
        Generate what is needed after `batch`, unless it is there already.

        Args:
            batch:
                The batch under way; one that is not of this update, such as an evaluation's, has
                nothing after it.
            generate (`Callable`):
                Begins TRL's generate-and-score with a batch; it comes to [`LookAhead.keep`].

        Raises:
            `RuntimeError`: where `generate` returns without having come there.
        """
        here = next((i for i, known in enumerate(self._window) if known is batch), None)
        if here is None:
            return
        for later in self._window[here + 1 :]:
            if self.held(later) is not None:
                continue
            self._leaving = True
            try:
                generate(later)
            except Generated:
                continue
            finally:
                self._leaving = False
            raise RuntimeError(
                "TRL scored a batch that was to be generated only. This release of TRL does not "
                "fit: set judge_lookahead=False and judge_lag=0, or use a release that was tried."
            )

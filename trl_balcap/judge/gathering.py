"""Rows of a batch with the same image wait for each other, so that one question serves all of them.

The others wait for a row at most once: until it has submitted its assertions, or until its task
ends, for any reason. So no row can block the others forever, and a slow one delays them by at most
half of their remaining time.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

from trl_balcap.judge.images import EncodedImage

T = TypeVar("T")
Shown = tuple[EncodedImage, ...]


@dataclass(eq=False)
class Seat:
    """One row's place in its batch."""

    gathering: "Gathering"
    image: Any
    encoded: asyncio.Future[Shown]
    row: "asyncio.Task[Any] | None" = None
    brought: Sequence[str] = ()
    together: asyncio.Future[list[Sequence[str]]] | None = None  # set while the row waits

    async def bring(self, texts: Sequence[str], patience: float) -> list[Sequence[str]]:
        """Submit `texts`, and return what all rows of the same image ask, in the order of the rows.

        Args:
            texts (`Sequence[str]`):
                What this row asks.
            patience (`float`):
                Seconds to wait for the other rows. Those that come later ask on their own.
        """
        if self not in self.gathering.expected or self.together is not None:
            return [texts]
        self.brought = texts
        self.together = asyncio.get_running_loop().create_future()
        self.gathering.look()
        await asyncio.wait([self.together], timeout=patience)
        if not self.together.done():
            self.gathering.go_ahead(self)
        return self.together.result()

    def leave(self) -> None:
        """Stop the others from waiting for this row."""
        self.gathering.leave(self)


class Gathering:
    """Tracks which rows of a batch are still expected. Belongs to one event loop.

    Args:
        encode (`Callable`):
            Encodes an image as it is sent to the judge; equal images have equal encodings.
    """

    def __init__(self, encode: Callable[[Any], Coroutine[Any, Any, Shown]]):
        self._encode = encode
        self.expected: list[Seat] = []

    def start(self, image: Any, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start a row's task, in which [`seat_of`] finds its seat, if the row has an image."""
        if image is None:
            return asyncio.ensure_future(work)
        seat = Seat(self, image, asyncio.ensure_future(self._encode(image)))
        self.expected.append(seat)
        context = copy_context()
        context.run(_seat.set, seat)
        task = seat.row = asyncio.get_running_loop().create_task(work, context=context)
        # Not in a `finally`: a task cancelled before its first step never reaches it.
        task.add_done_callback(lambda _: self.leave(seat))
        seat.encoded.add_done_callback(self._encoded)
        return task

    def _encoded(self, encoded: asyncio.Future[Shown]) -> None:
        if not encoded.cancelled():
            encoded.exception()  # the row gets this error when it needs the image
        self.look()

    def leave(self, seat: Seat) -> None:
        if seat in self.expected:
            self.expected.remove(seat)
            seat.encoded.cancel()
            self.look()

    def look(self) -> None:
        """Release the rows of each image whose rows have all arrived."""
        if not all(seat.encoded.done() for seat in self.expected):
            return  # we do not know yet which image each row is about
        rows: dict[Any, list[Seat]] = {}
        for seat in self.expected:
            rows.setdefault(_key(seat), []).append(seat)
        for seats in rows.values():
            if all(seat.together is not None for seat in seats):
                self._go(seats)

    def go_ahead(self, seat: Seat) -> None:
        """Release those rows of this row's image that have arrived."""
        mine = [s for s in self.expected if s.together is not None and _key(s) == _key(seat)]
        self._go(mine)

    def _go(self, seats: Sequence[Seat]) -> None:
        texts = [seat.brought for seat in seats]
        for seat in seats:
            self.expected.remove(seat)
            if seat.together is not None and not seat.together.done():
                seat.together.set_result(texts)


_seat: ContextVar[Seat | None] = ContextVar("seat", default=None)


def seat_of(image: Any) -> Seat | None:
    """The seat of the current task's row, if the row is about this image.

    A task started by a row has no seat: other rows may wait for it, so it must not wait for them.
    """
    seat = _seat.get()
    mine = seat is not None and seat.row is asyncio.current_task() and seat.image is image
    return seat if mine else None


def _key(seat: Seat) -> Any:
    encoded = seat.encoded
    if not encoded.done() or encoded.cancelled() or encoded.exception() is not None:
        return seat  # equal to no other key
    return tuple(image.digest for image in encoded.result())

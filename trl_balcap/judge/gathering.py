"""The rows of a batch that are about one image wait for each other, so that one question serves
all.

A row is waited for once at most: until it has brought what it asks about its image, or until its
task is over, however it ends. So no row can hold up the others for good; and one that is merely
slow holds them up for half of the time that they have left.
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
    """One row's place among those of its batch."""

    gathering: "Gathering"
    image: Any
    encoded: asyncio.Future[Shown]
    row: "asyncio.Task[Any] | None" = None
    brought: Sequence[str] = ()
    together: asyncio.Future[list[Sequence[str]]] | None = None  # while the row waits

    async def bring(self, texts: Sequence[str], patience: float) -> list[Sequence[str]]:
        """What the rows of this row's image ask about it, `texts` among it, in the rows' order.

        Args:
            texts (`Sequence[str]`):
                What this row asks.
            patience (`float`):
                Seconds after which those that have not come are left behind; they ask on their own.
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
        """Be waited for no longer."""
        self.gathering.leave(self)


class Gathering:
    """Who is still to come, of the rows of one batch. Lives on one event loop.

    Args:
        encode (`Callable`):
            From an image to what is sent of it, which tells equal images.
    """

    def __init__(self, encode: Callable[[Any], Coroutine[Any, Any, Shown]]):
        self._encode = encode
        self.expected: list[Seat] = []

    def start(self, image: Any, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """The task of a row, in which [`seat_of`] finds its seat. A row without image has none."""
        if image is None:
            return asyncio.ensure_future(work)
        seat = Seat(self, image, asyncio.ensure_future(self._encode(image)))
        self.expected.append(seat)
        context = copy_context()
        context.run(_seat.set, seat)
        task = seat.row = asyncio.get_running_loop().create_task(work, context=context)
        # Not in a finally: a task that is called off before its first step never gets there.
        task.add_done_callback(lambda _: self.leave(seat))
        seat.encoded.add_done_callback(self._encoded)
        return task

    def _encoded(self, encoded: asyncio.Future[Shown]) -> None:
        if not encoded.cancelled():
            encoded.exception()  # the row meets it where it needs the image
        self.look()

    def leave(self, seat: Seat) -> None:
        if seat in self.expected:
            self.expected.remove(seat)
            seat.encoded.cancel()
            self.look()

    def look(self) -> None:
        """Let every image's rows go that are all there."""
        if not all(seat.encoded.done() for seat in self.expected):
            return  # anyone may yet turn out to be about any image
        rows: dict[Any, list[Seat]] = {}
        for seat in self.expected:
            rows.setdefault(_key(seat), []).append(seat)
        for seats in rows.values():
            if all(seat.together is not None for seat in seats):
                self._go(seats)

    def go_ahead(self, seat: Seat) -> None:
        """Let the rows of this row's image go that are there."""
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
    """The seat of the row whose task this is, if the row is about this image.

    A task that a row has begun has none: other rows may wait for it, and it must not wait for them.
    """
    seat = _seat.get()
    mine = seat is not None and seat.row is asyncio.current_task() and seat.image is image
    return seat if mine else None


def _key(seat: Seat) -> Any:
    encoded = seat.encoded
    if not encoded.done() or encoded.cancelled() or encoded.exception() is not None:
        return seat  # like no other
    return tuple(image.digest for image in encoded.result())

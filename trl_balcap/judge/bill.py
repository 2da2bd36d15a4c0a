"""What a caption's questions cost: its task opens a bill, and each answer that is paid for under it
is put on it.

A question that several captions share is on the bill of the one that asked it first; an answer out
of a cache is on none. So bills add up to what was spent, and one of them alone may be less than its
caption would have cost by itself.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["Bill", "charge", "open_bill"]


@dataclass
class Bill:
    """
    Args:
        usd (`float`, *optional*):
            Dollars so far; `None` as soon as the price of an answer is not known.
    """

    usd: float | None = 0.0


_bill: ContextVar[Bill | None] = ContextVar("trl_balcap_bill", default=None)


@contextlib.contextmanager
def open_bill() -> Iterator[Bill]:
    """
    A bill for what is asked inside, in tasks that are started there too.

    ```python
    >>> with open_bill() as bill:
    ...     charge(0.25)
    ...     charge(0.5)
    >>> bill
    Bill(usd=0.75)

    ```
    """
    bill = Bill()
    before = _bill.set(bill)
    try:
        yield bill
    finally:
        _bill.reset(before)


def charge(usd: float | None) -> None:
    """Put an answer on the open bill, if there is one."""
    bill = _bill.get()
    if bill is not None:
        bill.usd = None if usd is None or bill.usd is None else bill.usd + usd

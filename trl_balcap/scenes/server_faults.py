"""What can go wrong with a judge behind HTTP, at rates that a test chooses.

The dice are a hash of the seed, the request body and how often that body was sent before: the same
requests get the same faults in any order and at any concurrency, and a retry rolls again.
"""

import hashlib
import json
from dataclasses import dataclass

__all__ = ["REFUSAL", "ServerFaults", "spoil_ids", "spoil_text"]

REFUSAL = "I'm sorry, but I can't help with that request."

_RATES = (
    "server_error",
    "rate_limited",
    "stall",
    "reset",
    "truncated",
    "malformed",
    "wrong_counts",
    "invented_ids",
    "refused",
    "fenced",
)


@dataclass(frozen=True)
class ServerFaults:
    r"""
    Share of requests that get each fault. A request gets at most one fault.

    Args:
        server_error (`float`, *optional*, defaults to `0.0`):
            Status 500 or 503, half of the time each.
        rate_limited (`float`, *optional*, defaults to `0.0`):
            Status 429 with a `Retry-After` header of `retry_after` seconds.
        stall (`float`, *optional*, defaults to `0.0`):
            The answer comes `stall_seconds` late.
        reset (`float`, *optional*, defaults to `0.0`):
            The connection is reset (TCP RST) instead of answered.
        truncated (`float`, *optional*, defaults to `0.0`):
            The reply is cut off in the middle, with `finish_reason="length"`.
        malformed (`float`, *optional*, defaults to `0.0`):
            `finish_reason="stop"`, but the reply contains no readable JSON object: it is cut short,
            prose, or an empty list.
        wrong_counts (`float`, *optional*, defaults to `0.0`):
            A verdict is missing or appears twice. Replies without verdicts get values of the wrong
            type or out of range.
        invented_ids (`float`, *optional*, defaults to `0.0`):
            A verdict has an id that was never asked about. Replies without ids are changed as
            above.
        refused (`float`, *optional*, defaults to `0.0`):
            A refusal: as text, in the message's `refusal` field, or as
            `finish_reason="content_filter"`.
        fenced (`float`, *optional*, defaults to `0.0`):
            Not a failure: the correct reply, wrapped in prose and a Markdown fence.
        retry_after (`float`, *optional*, defaults to `1.0`):
            Seconds in the `Retry-After` header.
        stall_seconds (`float`, *optional*, defaults to `3600.0`):
            How long a stall lasts.
        capacity (`int`, *optional*):
            Requests that may be in flight at once; any more get a 429. `None` for no limit.
        dead_after (`int`, *optional*):
            After this many questions, every request gets a 503: a judge that died for good.
        every_attempt (`bool`, *optional*, defaults to `True`):
            Whether a retry rolls the dice again. `False`: a question that fails once always fails.
        seed (`int`, *optional*, defaults to `0`):
            Seed for the dice.

    Raises:
        `ValueError`: if a rate is negative or the rates add up to more than 1.

    Example:

    ```python
    >>> from trl_balcap.scenes.server_faults import ServerFaults

    >>> ServerFaults(stall=1.0).pick(b"any body", attempt=0)[0]
    'stall'
    >>> ServerFaults().pick(b"any body", attempt=0)[0] is None
    True

    ```
    """

    server_error: float = 0.0
    rate_limited: float = 0.0
    stall: float = 0.0
    reset: float = 0.0
    truncated: float = 0.0
    malformed: float = 0.0
    wrong_counts: float = 0.0
    invented_ids: float = 0.0
    refused: float = 0.0
    fenced: float = 0.0
    retry_after: float = 1.0
    stall_seconds: float = 3600.0
    capacity: int | None = None
    dead_after: int | None = None
    every_attempt: bool = True
    seed: int = 0

    def __post_init__(self):
        rates = {name: getattr(self, name) for name in _RATES}
        for name, rate in rates.items():
            if rate < 0:
                raise ValueError(f"{name} must be a rate of 0 or more, got {rate}.")
        if sum(rates.values()) > 1 + 1e-9:
            raise ValueError(
                f"the fault rates add up to {sum(rates.values()):g}, but must add up to at most 1, "
                "since a request has at most one fault. Lower some of them."
            )

    @property
    def throws_dice(self) -> bool:
        """Whether any rate is above 0."""
        return any(getattr(self, name) > 0 for name in _RATES)

    def pick(self, body: bytes, attempt: int) -> tuple[str | None, int]:
        """
        The fault that this request gets, and a number that picks among the fault's variants.

        Args:
            body (`bytes`): Body of the request.
            attempt (`int`): How often the same body was sent before.
        """
        if not self.every_attempt:
            attempt = 0
        digest = hashlib.blake2b(b"%d:%d:" % (self.seed, attempt) + body, digest_size=16).digest()
        throw = int.from_bytes(digest[:8], "big") / 2**64
        for name in _RATES:
            throw -= getattr(self, name)
            if throw < 0:
                return name, int.from_bytes(digest[8:], "big")
        return None, 0


def spoil_text(content: str, variant: int) -> str:
    """A reply that contains no readable JSON object.

    Example:

    ```python
    >>> spoil_text('{"ready": true}', variant=0)
    '{"ready":'

    ```
    """
    return (content[: len(content) * 3 // 5], "All of them look right to me.", "[]")[variant % 3]


def spoil_ids(content: str, fault: str, variant: int) -> str:
    """
    A well-formed reply that does not fit its question.

    Args:
        content (`str`): The correct reply, a JSON object.
        fault (`str`): `"wrong_counts"` or `"invented_ids"`.
        variant (`int`): If even, the last verdict is missing; if odd, it appears twice.

    Example:

    ```python
    >>> spoil_ids('{"verdicts": [{"id": 1, "covered": true}]}', "invented_ids", 0)
    '{"verdicts": [{"id": 1001, "covered": true}]}'
    >>> spoil_ids('{"clarity": 9, "fluency": 9, "coherency": 9}', "wrong_counts", 0)
    '{"clarity": 99, "fluency": 99, "coherency": 99}'

    ```
    """
    reply = json.loads(content)
    if reply.get("verdicts"):
        last = reply["verdicts"][-1]
        if fault == "invented_ids":
            last["id"] += 1000
        elif variant % 2:
            reply["verdicts"].append(last)
        else:
            reply["verdicts"].pop()
    elif "assertions" in reply:
        reply["assertions"] = [17]
    elif "clarity" in reply:
        reply.update(clarity=99, fluency=99, coherency=99)
    else:
        reply = {}
    return json.dumps(reply)

"""The budget: what was spent, what is in flight, and what the next question may cost."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trl_balcap.judge.client import Usage
from trl_balcap.judge.errors import JudgeError
from trl_balcap.judge.prices import TokenPrice
from trl_balcap.judge.ranks import world_size
from trl_balcap.judge.settings import JudgeSettings
from trl_balcap.judge.stats import JudgeStats

_TOKENS_PER_BYTE = 0.5  # an upper bound for prompts, until the judge has counted one
_TOKENS_PER_IMAGE = 2600  # likewise; 1,280 visual tokens of Qwen2.5-VL, twice that elsewhere
_REPLY = 2048  # tokens, if there is no limit
_LEARNED = 8  # answers to a kind of question, after which the dearest of them is the estimate


@dataclass
class _Seen:
    """The most that questions of a kind have used so far."""

    answers: int = 0
    prompt_share: float = 0.0  # as a fraction of the first estimate
    completion: int = 0


@dataclass
class Reservation:
    """What a question in flight may use: tokens and dollars. Settled by its answer."""

    tag: str
    usage: Usage
    first_prompt: int
    usd: float
    price: TokenPrice | None = field(default=None)


class Budget:
    """Enforces `budget_calls` and `budget_usd`: nothing is sent that might exceed them.

    Each question in flight has a reservation, at first from its size and the maximum length of its
    reply, later from the dearest answers to questions of its kind. A question that does not fit
    next to those in flight waits for their answers, which usually cost less than reserved; one that
    does not fit next to what is already spent is refused. An answer without token counts costs its
    reservation.

    Each rank may spend an equal share.
    """

    def __init__(self, settings: JudgeSettings, stats: JudgeStats):
        self._calls, self._usd = settings.budget_calls, settings.budget_usd
        self._stats = stats
        self._seen: dict[str, _Seen] = {}
        self._reserved = 0.0
        self._open = 0
        self._settled: list[asyncio.Future[None]] = []

    def check(self) -> None:
        """Raise if nothing is left.

        Raises:
            `JudgeError`: with the reason `"over_budget"`.
        """
        if self._calls is not None and self._stats.calls >= self._calls / world_size():
            raise JudgeError("over_budget", f"The budget of {self._calls} judge calls is spent.")
        if self._usd is not None and self._stats.usd >= self._usd / world_size():
            raise JudgeError("over_budget", self._spent())

    async def reserve(
        self,
        tag: str,
        messages: list[dict[str, Any]],
        price: TokenPrice | None,
        *,
        max_tokens: int | None,
        n: int,
    ) -> Reservation:
        """Reserve what a question may use, as soon as it fits.

        Raises:
            `JudgeError`: if it can no longer fit.
        """
        while True:
            self.check()
            held = self._estimate(tag, messages, price, max_tokens, n)
            left = float("inf")
            if self._usd is not None:
                left = self._usd / world_size() - self._stats.usd
            if held.usd <= left - self._reserved + 1e-12:
                self._reserved += held.usd
                self._open += 1
                return held
            if not self._open:
                raise JudgeError("over_budget", self._spent())
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._settled.append(waiter)
            await waiter

    def settle(self, held: Reservation, usage: Usage | None) -> Usage:
        """Replace a reservation by what was used; returns the tokens to count."""
        taken = usage or held.usage
        if usage is not None:
            seen = self._seen.setdefault(held.tag, _Seen())
            seen.answers += 1
            seen.prompt_share = max(seen.prompt_share, usage.prompt / held.first_prompt)
            seen.completion = max(seen.completion, usage.completion)
        if held.price is not None:
            self._stats.usd += held.price.usd(taken)
        self.release(held)
        return taken

    def release(self, held: Reservation) -> None:
        """Cancel a reservation; without an answer, nothing is counted."""
        self._reserved -= held.usd
        self._open -= 1
        settled, self._settled = self._settled, []
        for waiter in settled:
            if not waiter.done():
                waiter.set_result(None)

    def _estimate(
        self,
        tag: str,
        messages: list[dict[str, Any]],
        price: TokenPrice | None,
        max_tokens: int | None,
        n: int,
    ) -> Reservation:
        texts, images = _size(messages)
        first = max(1, round(texts * _TOKENS_PER_BYTE) + images * _TOKENS_PER_IMAGE)
        seen = self._seen.get(tag)
        if seen is None or seen.answers < _LEARNED:
            usage = Usage(first, (max_tokens or _REPLY) * n)
        else:
            usage = Usage(round(first * seen.prompt_share), seen.completion)
        usd = 0.0 if price is None else price.usd(usage)
        return Reservation(tag, usage, first, usd, price)

    def _spent(self) -> str:
        return f"The judge budget of ${self._usd:g} is spent."


def _size(messages: list[dict[str, Any]]) -> tuple[int, int]:
    """Bytes of text and number of images."""
    texts = images = 0
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            if isinstance(part, Mapping) and part.get("type") == "text":
                texts += len(str(part.get("text", "")).encode("utf-8", "replace"))
            else:
                images += 1
    return texts, images

"""Several samples of one prompt: in one request if the provider supports it, else in several."""

import asyncio
from collections.abc import Sequence
from typing import Any

from trl_balcap.judge.dispatch import Dispatcher
from trl_balcap.judge.endpoints import Endpoint
from trl_balcap.judge.errors import JudgeError

Sample = str | JudgeError


async def ask_for_samples(
    dispatcher: Dispatcher,
    endpoints: Sequence[Endpoint],
    messages: list[dict[str, Any]],
    n: int,
    *,
    tag: str,
    **how: Any,
) -> list[Sample]:
    """`n` replies to the same messages, with an error for each missing one.

    One request bills the prompt once. A server that rejects or ignores `n` is asked for the
    samples one by one from then on.
    """
    found: list[Sample] = []
    if n > 1 and all(endpoint.takes_n for endpoint in endpoints):
        try:
            found += await dispatcher.send_for_samples(
                endpoints, messages, n=n, tag=tag, priority=1, **how
            )
        except JudgeError as error:
            if error.reason != "refused":
                return [error] * n
        if len(found) < min(n, 2):
            for endpoint in endpoints:
                endpoint.takes_n = False

    async def one() -> Sample:
        try:
            return await dispatcher.send(endpoints, messages, tag=tag, priority=1, **how)
        except JudgeError as error:
            return error

    return found + list(await asyncio.gather(*(one() for _ in range(n - len(found)))))

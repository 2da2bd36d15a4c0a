"""
Raw questions to the judge: chat messages, replies, and the estimated workload.

Every metric asks through [`Ask`], so that tests can replace the judge with a function.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from trl_balcap.judge import Judge, JudgeError
from trl_balcap.judge.prices import price_of

__all__ = [
    "Ask",
    "Calls",
    "Workload",
    "ask_judge",
    "chat",
    "cost",
    "image_url",
    "is_reply_failure",
    "workload",
]

CHARS_PER_TOKEN = 4.0  # English with GPT-4o's tokenizer; a rule of thumb for the cost estimate
MAX_ATTEMPTS = 5  # per question, in every benchmark
TOKENS_PER_IMAGE = 1000  # GPT-4o at high detail uses 765 for a square photo, 1105 for a wide one


class Ask(Protocol):
    """
    `n` replies to chat messages. `attempt` counts earlier attempts at the same question: a new
    attempt must not be answered from the cache.

    Raises:
        `JudgeError`: if the judge does not answer.
    """

    async def __call__(
        self,
        messages: list[dict[str, Any]],
        *,
        tag: str,
        temperature: float,
        max_tokens: int,
        top_p: float | None = None,
        n: int = 1,
        attempt: int = 0,
    ) -> Sequence[str | None]: ...


@dataclass(frozen=True)
class Calls:
    """Requests without retries, and their tokens, estimated from characters (for replies, from
    typical ones)."""

    n: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Calls") -> "Calls":
        return Calls(
            self.n + other.n,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True)
class Workload:
    """What a metric will ask, estimated before the first call, of the text model and of the one
    that sees images."""

    text: Calls = Calls()
    vision: Calls = Calls()

    def __add__(self, other: "Workload") -> "Workload":
        return Workload(self.text + other.text, self.vision + other.vision)

    @property
    def calls(self) -> int:
        """All requests."""
        return self.text.n + self.vision.n


def workload(
    *, prompt_chars: float, completion_chars: float, calls: int = 1, image: bool = False
) -> Workload:
    """The workload of `calls` equal calls, with or without an image."""
    prompt_tokens = prompt_chars / CHARS_PER_TOKEN + image * TOKENS_PER_IMAGE
    made = Calls(
        calls, round(calls * prompt_tokens), round(calls * completion_chars / CHARS_PER_TOKEN)
    )
    return Workload(vision=made) if image else Workload(text=made)


def chat(system: str, user: str, image: str | None = None) -> list[dict[str, Any]]:
    """Chat messages of one question; an image (a data URL) comes before the text, as in the
    original scripts."""
    content: Any = user
    if image is not None:
        content = [
            {"type": "image_url", "image_url": {"url": image, "detail": "high"}},
            {"type": "text", "text": user},
        ]
    return [{"role": "system", "content": system}, {"role": "user", "content": content}]


def image_url(path: Path, *, reencode: bool) -> str:
    """
    Data URL of an image file: its bytes unchanged, or re-encoded as an RGB JPEG.

    The official scripts send whole files, unscaled (CapArena unchanged, DeCapBench re-encoded), so
    this is the one place that does not go through [`~data.images.open_image`].
    """
    if not reencode:
        with Image.open(path) as image:
            kind = Image.MIME.get(image.format or "", "image/png")
        data = path.read_bytes()
    else:
        kind = "image/jpeg"
        buffer = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").save(buffer, "JPEG")
        data = buffer.getvalue()
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def ask_judge(judge: Judge, *, earlier_runs: int = 0) -> Ask:
    """
    [`Ask`] through a judge's engine: its cache, retries, limits and budget.

    `earlier_runs` counts runs that failed on this caption: their replies are in the cache and must
    not be used again.
    """

    async def ask(
        messages: list[dict[str, Any]],
        *,
        tag: str,
        temperature: float,
        max_tokens: int,
        top_p: float | None = None,
        n: int = 1,
        attempt: int = 0,
    ) -> Sequence[str | None]:
        shows_image = not isinstance(messages[-1]["content"], str)
        return await judge.complete(
            messages,
            model=judge.settings.vision[0].model if shows_image else None,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            n=n,
            first_sample=(attempt + MAX_ATTEMPTS * earlier_runs) * n,
            tag=tag,
        )

    return ask


def is_reply_failure(error: JudgeError) -> bool:
    """Whether the judge answered, but not as asked: another attempt may do better."""
    return error.reason in ("truncated", "unreadable", "refused")


def cost(judge: Judge, work: Workload) -> float | None:
    """
    Cost of a workload in dollars, `None` if the price of a model involved is unknown.

    Example:

    ```python
    >>> work = workload(prompt_chars=4_000_000, completion_chars=400_000)
    >>> cost(Judge("scenes/oracle", price=(2.5, 10.0)), work)  # 1M and 0.1M tokens
    3.5

    ```
    """
    total = 0.0
    for calls, places in ((work.text, judge.settings.text), (work.vision, judge.settings.vision)):
        if not calls.n:
            continue
        price = judge.settings.price or price_of(places[0])
        if price is None:
            return None
        total += (calls.prompt_tokens * price[0] + calls.completion_tokens * price[1]) / 1e6
    return total

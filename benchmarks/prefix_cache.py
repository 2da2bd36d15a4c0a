"""The gain and cost of sending one question about an image ahead of the others.

    python -m benchmarks.prefix_cache

A judge on loopback models a prefix cache: tokens in blocks with chained hashes, and images as the
number of tokens a vision model uses for them. A block counts as cached once a request with it was
sent (`at once`) or answered (`once answered`). Caching starts at 1,024 tokens, as OpenAI documents
(`1,024`), or at the first block of 16 tokens, as in vLLM (`16`). The exact judge answers; its
reading time depends on the tokens that are not cached. 64 rollouts of 8 images, all three rewards.
"""

import asyncio
import contextlib
import hashlib
import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from rich.console import Console
from rich.table import Table

from benchmarks.results_file import write_results
from trl_balcap import Judge, LinguisticReward, PrecisionReward, RecallReward
from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.oracle import Oracle
from trl_balcap.scenes.world import draw, random_scene

BLOCK = 16  # tokens
IMAGE_TOKENS = 1000
FIXED, PER_TOKEN, PER_REPLY_TOKEN = 0.4, 1 / 5000, 1 / 200  # seconds
PRICE = (0.15, 0.60, 0.075)  # gpt-4o-mini's, dollars per million


@dataclass
class PrefixCache:
    """Blocks of tokens that have been read before."""

    at_once: bool
    least: int
    known: set[bytes] = field(default_factory=set)

    def read(self, blocks: list[bytes]) -> int:
        """Number of cached tokens at the start of a request with these blocks."""
        hits = 0
        for block in blocks:
            if block not in self.known:
                break
            hits += 1
        if self.at_once:
            self.known.update(blocks)
        return hits * BLOCK if hits * BLOCK >= self.least else 0

    def answered(self, blocks: list[bytes]) -> None:
        self.known.update(blocks)


def blocks_of(messages: list[dict[str, Any]]) -> list[bytes]:
    """The chained hashes of a request's full blocks.

    ```python
    >>> one = blocks_of([{"role": "system", "content": "x" * 640}])
    >>> two = blocks_of([{"role": "system", "content": "x" * 320 + "y" * 320}])
    >>> len(one), [a == b for a, b in zip(one, two)].count(True)
    (10, 5)

    ```
    """
    tokens: list[bytes] = []
    for message in messages:
        content = message["content"]
        parts: list[dict[str, Any]] = (
            [{"type": "text", "text": content}] if isinstance(content, str) else content
        )
        for part in parts:
            if part["type"] == "text":
                text = part["text"].encode()
                tokens += [text[i : i + 4] for i in range(0, len(text), 4)]
            else:
                image = hashlib.sha256(part["image_url"]["url"].encode()).digest()
                tokens += [image] * IMAGE_TOKENS
    hashes, last = [], b""
    for i in range(0, len(tokens) - BLOCK + 1, BLOCK):
        last = hashlib.sha256(last + b"\0".join(tokens[i : i + BLOCK])).digest()
        hashes.append(last)
    return hashes


@contextlib.contextmanager
def caching_judge(cache: PrefixCache) -> Iterator[str]:
    """The exact judge behind a prefix cache; yields its base URL."""
    oracle = Oracle()

    async def answer(request: web.Request) -> web.Response:
        messages = (await request.json())["messages"]
        blocks = blocks_of(messages)
        prompt = len(blocks) * BLOCK
        cached = cache.read(blocks)
        text = oracle(messages)
        completion = len(text) // 4
        await asyncio.sleep(FIXED + (prompt - cached) * PER_TOKEN + completion * PER_REPLY_TOKEN)
        cache.answered(blocks)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "oracle"}
        return web.json_response(reply | {"choices": [choice], "usage": usage})

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", answer)
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(app)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner.addresses[0][1]

    port = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(timeout=30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=30)


def rollouts(seed: int, *, prompts: int = 8, group: int = 8) -> dict[str, list[Any]]:
    """Completions, images and references of a batch."""
    rng = random.Random(seed)
    batch: dict[str, list[Any]] = {"completions": [], "image": [], "reference": []}
    for _ in range(prompts):
        scene = random_scene(rng)
        image, reference = draw(scene), describe(scene)
        for _ in range(group):
            batch["completions"].append(describe(random_scene(rng)))
            batch["image"].append(image)
            batch["reference"].append(reference)
    return batch


def measure(*, at_once: bool, least: int, prefix_first: bool) -> dict[str, float]:
    """Seconds, tokens and dollars of one batch."""
    with caching_judge(PrefixCache(at_once, least)) as url:
        judge = Judge("openai/oracle", api_base=url, price=PRICE, prefix_first=prefix_first)
        rewards = [kind(judge) for kind in (PrecisionReward, RecallReward, LinguisticReward)]

        async def score(batch: dict[str, Any]) -> list[list[float | None]]:
            count = len(batch["completions"])
            return list(await asyncio.gather(*(r(prompts=[""] * count, **batch) for r in rewards)))

        asyncio.run(score(rollouts(99, prompts=1, group=1)))  # warms up imports and connections
        stats, before = judge.stats, (judge.stats.prompt_tokens, judge.stats.cached_tokens)
        usd, begin = stats.usd, time.monotonic()
        scores = asyncio.run(score(rollouts(0)))
        return {
            "seconds": time.monotonic() - begin,
            "prompt tokens": stats.prompt_tokens - before[0],
            "cached": stats.cached_tokens - before[1],
            "usd": stats.usd - usd,
            "missing": float(sum(score is None for column in scores for score in column)),
        }


def main() -> None:
    table = Table(title="64 rollouts of 8 images, behind a prefix cache", title_justify="left")
    for name in ("counts", "from", "sent", "seconds", "prompt tokens", "cached", "dollars"):
        table.add_column(name, justify="right")
    found = {}
    for at_once in (True, False):
        for least in (BLOCK, 1024):
            for first in (False, True):
                result = measure(at_once=at_once, least=least, prefix_first=first)
                counts = "at once" if at_once else "once answered"
                sent = "one first" if first else "all at once"
                found[f"{counts}, from {least}, {sent}"] = result
                tokens, cached = result["prompt tokens"], result["cached"]
                table.add_row(
                    counts,
                    str(least),
                    sent,
                    f"{result['seconds']:.2f}",
                    f"{tokens:,.0f}",
                    f"{cached / tokens:.0%}",
                    f"{result['usd']:.5f}",
                )
    Console(width=100).print(table)
    path = write_results("prefix_cache", json.loads(json.dumps(found)))
    Console().print(f"Written to {path}")


if __name__ == "__main__":
    main()

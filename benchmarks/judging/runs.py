"""Calls for repeated work, judging hidden behind generation, and a judge's capacity."""

import asyncio
import importlib
import time
from typing import Any

from benchmarks.judging.ways import GROUP, PROMPTS, Engine, rollouts


def run_calls(url):
    """Calls the engine makes when work repeats."""
    found = {}
    way = Engine(url, {})
    batch = rollouts(1)

    def count(name, **columns):
        before = way.calls
        way.batch(**columns)
        found[name] = (way.calls - before, len(columns["completions"]))

    count("64 different captions, 8 new references", **batch)
    later = rollouts(1, prompts=PROMPTS) | {"completions": rollouts(2)["completions"]}
    count("64 different captions, references seen before", **later)
    same = rollouts(3)
    same["completions"] = [same["completions"][i - i % GROUP] for i in range(len(same["image"]))]
    count("the 8 captions of a prompt are equal, new references", **same)
    count("the same batch once more", **same)
    for profile in ("fused", "united"):
        way = Engine(url, {"profile": profile})
        way.batch(**batch)
        found[f"{profile}: 64 different captions, 8 new references"] = (way.calls, 64)
    return found


def run_hidden(url, *, window):
    """Seconds spent waiting for judging that starts `window` seconds before it is needed."""
    way = Engine(url, {})
    waited = {}
    for name, early in (("awaited only", False), ("started early", True)):
        batch = rollouts(5 + early)
        if early:
            for reward in way.rewards:
                reward.start(**batch)
        time.sleep(window)
        clock = time.monotonic()
        way.batch(**batch)
        waited[name] = time.monotonic() - clock
    return waited


class InspectLimit:
    """inspect_ai's adaptive controller, unmodified, in place of the engine's own."""

    def __init__(self):
        inspect = importlib.import_module("inspect_ai.util._concurrency")  # optional
        self.controller = inspect.AdaptiveConcurrencyController(
            "judge", inspect.AdaptiveConcurrency(), False
        )
        self.answered = self.controller.notify_success

    async def acquire(self, priority=0):
        await self.controller.semaphore.__aenter__()

    def release(self):
        self.controller._limiter.release()

    def push_back(self, epoch, retry_after=None):
        self.controller.notify_retry(retry_after)


INSPECT = "inspect_ai's"


def endpoints(judge) -> list[Any]:
    """The engine's endpoints, whose limits are replaced below."""
    return list(judge.engine().text)


def run_capacity(url, *, limit, questions):
    """Seconds and refusals of questions to a judge whose capacity the client does not know."""
    from trl_balcap import Judge
    from trl_balcap.judge import JudgeError

    if limit == INSPECT:
        judge = Judge("openai/oracle", api_base=url, max_retries=50)
        for endpoint in endpoints(judge):
            endpoint.limit = InspectLimit()
    elif limit == "adaptive":
        judge = Judge("openai/oracle", api_base=url, max_concurrency=256, max_retries=50)
    else:
        judge = Judge("openai/oracle", api_base=url, max_concurrency=int(limit), max_retries=50)
        for endpoint in endpoints(judge):
            endpoint.limit.push_back = lambda *_: None  # like a fixed semaphore

    async def ask(i):
        try:
            await judge.linguistic(f"Caption {i}.")
        except JudgeError:
            return False
        return True

    async def everything():
        return await asyncio.gather(*(ask(i) for i in range(questions)))

    asyncio.run(judge.preflight())
    clock = time.monotonic()
    answered = sum(asyncio.run(everything()))
    return {
        "seconds": time.monotonic() - clock,
        "refused": judge.stats.retries,
        "answered": answered,
    }

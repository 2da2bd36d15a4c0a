"""Calls as work repeats, judging behind generation, the fused profile, and a judge's capacity."""

import asyncio
import importlib
import random
import statistics
import time
from typing import Any

from benchmarks.judging.ways import GROUP, PROMPTS, Engine, rollouts


def run_calls(url):
    """Calls of the engine as work repeats."""
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
    fused = Engine(url, {"profile": "fused"})
    before = fused.calls
    fused.batch(**batch)
    found["fused: 64 different captions, 8 new references"] = (fused.calls - before, 64)
    return found


def run_hidden(url, *, window):
    """Seconds that are waited for judging which starts `window` seconds before it is needed."""
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


def run_fused(url, noisy_model):
    """How far the fused profile's scores are from the four questions', and what either takes."""
    from trl_balcap import Judge, LinguisticReward, PrecisionReward, RecallReward
    from trl_balcap.scenes.grammar import Faults, describe, faulty_caption
    from trl_balcap.scenes.world import draw, random_scene

    rng = random.Random(7)
    scenes = [random_scene(rng) for _ in range(96)]
    faults = Faults(wrong=0.2, omit=0.2, invent=0.2, meta=0.3)
    columns = {
        "completions": [faulty_caption(scene, rng, faults) for scene in scenes],
        "image": [draw(scene) for scene in scenes],
        "reference": [describe(scene) for scene in scenes],
    }

    def scores(profile, model):
        judge = Judge(model, api_base=url, profile=profile)
        functions = [c(judge) for c in (PrecisionReward, RecallReward, LinguisticReward)]

        async def batch():
            prompts = [""] * len(scenes)
            return await asyncio.gather(*(f(prompts=prompts, **columns) for f in functions))

        found = asyncio.run(batch())
        stats = judge.stats
        return found, (stats.calls, stats.prompt_tokens + stats.completion_tokens)

    def apart(a, b):
        return [
            statistics.mean(abs(x - y) for x, y in zip(p, q, strict=True))
            for p, q in zip(a, b, strict=True)
        ]

    four, four_takes = scores("questions", "openai/oracle")
    fused, fused_takes = scores("fused", "openai/oracle")
    found = {
        "exact judge": apart(four, fused),
        "takes": {"questions": four_takes, "fused": fused_takes},
    }
    noisy = {profile: scores(profile, noisy_model)[0] for profile in ("questions", "fused")}
    found["noisy judge"] = apart(noisy["questions"], noisy["fused"])
    return found


class InspectLimit:
    """inspect_ai's adaptive controller, as it comes, where the engine has its own."""

    def __init__(self):
        inspect = importlib.import_module("inspect_ai.util._concurrency")  # is optional
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
    """Those of the engine, whose limits are replaced below."""
    return list(judge.engine().text)


def run_capacity(url, *, limit, questions):
    """Questions to a judge whose places nobody told the client: seconds and refusals."""
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
            endpoint.limit.push_back = lambda *_: None  # as a fixed semaphore does

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

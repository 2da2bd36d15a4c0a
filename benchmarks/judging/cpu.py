"""CPU time of one call, by the way it is made and by the package that uses it."""

import asyncio
import cProfile
import os
import pstats
import time
from collections import Counter
from typing import Any

from benchmarks.judging.ways import chat


def linguistic_messages(i):
    return chat("linguistic", {"text": f"At the top left there is a large red circle. Number {i}."})


ROUTER = "litellm's Router"


def cpu_variants(url, router_alone):
    """Coroutine functions that make call `i`, one for each way of calling.

    A Router registers callbacks that run on every later call in its process, so it gets its own
    process.
    """
    import aiohttp
    import litellm
    import openai

    from trl_balcap import Judge
    from trl_balcap.judge import client

    if router_alone:
        router = litellm.Router(
            model_list=[
                {
                    "model_name": "judge",
                    "litellm_params": {
                        "model": "openai/oracle",
                        "api_base": url,
                        "api_key": "none",
                    },
                }
            ],
            num_retries=0,
        )

        async def routed(i):
            return await router.acompletion(
                model="judge", messages=linguistic_messages(i), temperature=0.0
            )

        async def nothing():
            return None

        return {ROUTER: routed}, nothing
    session = aiohttp.ClientSession()
    sdk = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    judge = Judge("openai/oracle", api_base=url)
    deployment = judge.settings.text[0]
    how = {"timeout": 60.0, "temperature": 0.0, "max_tokens": None}

    async def bare(i):
        body = {"model": "oracle", "messages": linguistic_messages(i), "temperature": 0.0}
        async with session.post(f"{url}/chat/completions", json=body) as reply:
            return await reply.json()

    def plain(i):
        return litellm.acompletion(
            model="openai/oracle",
            messages=linguistic_messages(i),
            api_base=url,
            api_key="none",
            temperature=0.0,
            timeout=60.0,
            max_retries=0,
            num_retries=0,
        )

    def openai_sdk(i):
        return sdk.chat.completions.create(
            model="oracle", messages=linguistic_messages(i), temperature=0.0
        )

    def tuned(i):
        return client.ask_once(deployment, linguistic_messages(i), **how)

    def engine(i):
        return judge.linguistic(f"At the top left there is a large red circle. Number {i}.")

    async def close():
        await session.close()
        await sdk.close()

    variants = {
        "aiohttp alone": bare,
        "openai package": openai_sdk,
        "litellm as it comes": plain,
        "litellm with our settings": tuned,
        "the engine": engine,
    }
    return variants, close


OURS = ("litellm with our settings", "the engine")
HANDLER = "EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER"


def run_cpu(url, *, calls, rounds, router_alone=False):
    """In its own process: CPU milliseconds per call in each round, variants in turn.

    The machine's speed changes from second to second, so the engine's overhead is computed within
    a round, where the two variants run back to back and take turns going first.
    """
    from trl_balcap.judge.background import judge_loop
    from trl_balcap.judge.litellm_module import litellm_module

    os.environ.pop(HANDLER, None)
    litellm_module()
    ms, profiles = {}, {}
    counter = iter(range(10_000_000))

    async def many(function, count):
        limit = asyncio.Semaphore(64)

        async def one():
            async with limit:
                await function(next(counter))

        await asyncio.gather(*(one() for _ in range(count)))

    async def main():
        variants, close = cpu_variants(url, router_alone)
        for round_ in range(rounds + 1):
            for name in list(variants)[:: -1 if round_ % 2 else 1]:
                os.environ[HANDLER] = "True" if name in OURS else "False"
                own = time.process_time()
                await many(variants[name], calls if round_ else 20)
                await asyncio.sleep(0.05)  # litellm's deferred work counts too
                if round_:  # the first round is a warm-up
                    ms.setdefault(name, []).append(1000 * (time.process_time() - own) / calls)
        for name in () if router_alone else ("litellm as it comes", OURS[0]):
            os.environ[HANDLER] = "True" if name in OURS else "False"
            profiler = cProfile.Profile(time.thread_time)  # waiting uses no CPU
            profiler.enable()
            await many(variants[name], calls)
            profiler.disable()
            profiles[name] = by_package(profiler, calls)
        await close()

    # On the judge loop, so that the engine's calls take no extra hop.
    asyncio.run_coroutine_threadsafe(main(), judge_loop()).result()
    return {"ms": ms, "profiles": profiles}


PARTS = {
    "litellm: logging and callbacks": (
        "litellm/litellm_core_utils/litellm_logging",
        "litellm/caching",
    ),
    "litellm: cost of the reply": (
        "litellm/cost_calculator",
        "litellm/litellm_core_utils/llm_cost",
    ),
    "litellm: model table": ("litellm/litellm_core_utils/fallback_generalizations",),
    "litellm: the rest": ("litellm/",),
    "openai package": ("/openai/",),
    "httpx": ("/httpx/", "/httpcore/"),
    "aiohttp": ("/aiohttp/", "/yarl/", "/multidict/"),
    "pydantic": ("/pydantic",),
    "asyncio": ("/asyncio/",),
}


def by_package(profiler, calls):
    """Milliseconds per call in each part of the stack; built-ins count towards their caller."""
    parts = Counter()
    stats: Any = pstats.Stats(profiler)
    for (file, _, _), (_, _, own, _, callers) in stats.stats.items():
        shares = {file: own}
        if file == "~":
            shares = {caller[0]: spent[2] for caller, spent in callers.items()}
        for place, spent in shares.items():
            part = next((p for p, keys in PARTS.items() if any(k in place for k in keys)), "other")
            parts[part] += 1000 * spent / calls
    return dict(parts)

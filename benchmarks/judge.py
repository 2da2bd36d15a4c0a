"""The judge engine beside three ways that people judge rollouts now. One run prints every table.

    python -m benchmarks.judge                 # about five minutes on two quiet cores
    python -m benchmarks.judge --repeats 1     # faster, noisier

A loopback server with a known latency answers from a process of its own; each way runs in a process
of its own too, so that CPU time is the client's alone. Times are medians of the repeats; the load of
the machine is recorded, because on a busy one they say little. Results go to
`benchmarks/results/judge.json` and `judge.md`.

The three ways, written as they are commonly written:

    sync        a synchronous reward function per question: `litellm.completion` in a loop
    async       TRL's async rewards: one `litellm.acompletion` per question, nothing shared
    semaphore   a semaphore of 256 and a new OpenAI client for each call

Where inspect_ai is installed (`pip install inspect_ai`), its adaptive limit runs beside the engine's.
"""

import argparse
import asyncio
import base64
import cProfile
import io
import json
import os
import pstats
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec

from rich.console import Console
from rich.table import Table

from benchmarks.results_file import provenance, write_results

PROMPTS, GROUP = 8, 8
LATENCY_GOALS = {2.0: 1.15, 0.5: 1.5}
console = Console(width=110)


# ---- the rollouts -------------------------------------------------------------------------------


def rollouts(seed, prompts=PROMPTS, group=GROUP, size=None):
    """A batch as TRL gives it: captions, images and references, `group` rollouts of each prompt."""
    from trl_balcap.scenes.grammar import describe
    from trl_balcap.scenes.world import draw, random_scene

    rng = random.Random(seed)
    captions, images, references = [], [], []
    for _ in range(prompts):
        scene = random_scene(rng)
        for _ in range(group):
            captions.append(describe(random_scene(rng)))
            images.append(draw(scene))  # an equal copy for each row, as a dataset decodes them
            references.append(describe(scene))
    return {"completions": captions, "image": images, "reference": references}


# ---- the ways -----------------------------------------------------------------------------------


def prompt_of(name):
    from trl_balcap.judge.questions import prompt

    return prompt(name)


def chat(name, data, image=None):
    text = json.dumps({"question": name, **data})
    content = text
    if image is not None:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "system", "content": prompt_of(name)}, {"role": "user", "content": content}]


def numbered(texts):
    return [{"id": i, "text": text} for i, text in enumerate(texts, 1)]


class Sync:
    def __init__(self, url, options):
        import litellm

        self.call = lambda messages: litellm.completion(
            model="openai/oracle", messages=messages, api_base=url, api_key="none", temperature=0
        )
        self.calls = 0

    def ask(self, name, data, image=None):
        self.calls += 1
        reply = self.call(chat(name, data, image))
        return json.loads(reply.choices[0].message.content)

    def precision(self, caption, image, reference):
        assertions = self.ask("decompose", {"text": caption})["assertions"]
        verdicts = self.ask("verify", {"assertions": numbered(assertions)}, image)["verdicts"]
        return sum(v["correct"] and v["pointable"] for v in verdicts) / len(verdicts)

    def recall(self, caption, image, reference):
        assertions = self.ask("decompose", {"text": caption})["assertions"]
        units = self.ask("decompose", {"text": reference})["assertions"]
        data = {"assertions": numbered(assertions), "units": numbered(units)}
        verdicts = self.ask("cover", data)["verdicts"]
        return sum(v["covered"] for v in verdicts) / len(verdicts)

    def linguistic(self, caption, image, reference):
        grades = self.ask("linguistic", {"text": caption})
        return (grades["clarity"] + grades["fluency"] + grades["coherency"]) / 30

    def batch(self, completions, image, reference):
        rows = list(zip(completions, image, reference, strict=True))
        return [[f(*row) for row in rows] for f in (self.precision, self.recall, self.linguistic)]


class Async:
    def __init__(self, url, options):
        import litellm

        self.call = lambda messages: litellm.acompletion(
            model="openai/oracle", messages=messages, api_base=url, api_key="none", temperature=0
        )
        self.calls = 0

    async def ask(self, name, data, image=None):
        self.calls += 1
        reply = await self.call(chat(name, data, image))
        return json.loads(reply.choices[0].message.content)

    async def precision(self, caption, image, reference):
        assertions = (await self.ask("decompose", {"text": caption}))["assertions"]
        reply = await self.ask("verify", {"assertions": numbered(assertions)}, image)
        verdicts = reply["verdicts"]
        return sum(v["correct"] and v["pointable"] for v in verdicts) / len(verdicts)

    async def recall(self, caption, image, reference):
        assertions = (await self.ask("decompose", {"text": caption}))["assertions"]
        units = (await self.ask("decompose", {"text": reference}))["assertions"]
        data = {"assertions": numbered(assertions), "units": numbered(units)}
        verdicts = (await self.ask("cover", data))["verdicts"]
        return sum(v["covered"] for v in verdicts) / len(verdicts)

    async def linguistic(self, caption, image, reference):
        grades = await self.ask("linguistic", {"text": caption})
        return (grades["clarity"] + grades["fluency"] + grades["coherency"]) / 30

    def batch(self, completions, image, reference):
        rows = list(zip(completions, image, reference, strict=True))

        async def reward(f):
            return await asyncio.gather(*(f(*row) for row in rows))

        async def all_rewards():
            return await asyncio.gather(
                *(reward(f) for f in (self.precision, self.recall, self.linguistic))
            )

        return asyncio.run(all_rewards())


class Semaphore(Async):
    def __init__(self, url, options):
        from openai import AsyncOpenAI

        self.calls = 0
        limit = asyncio.Semaphore(256)

        async def call(messages):
            async with limit, AsyncOpenAI(base_url=url, api_key="none") as client:
                return await client.chat.completions.create(
                    model="oracle", messages=messages, temperature=0
                )

        self.call = call


class Engine:
    def __init__(self, url, options):
        from trl_balcap import Judge, LinguisticReward, PrecisionReward, RecallReward

        self.judge = Judge("openai/oracle", api_base=url, **options)
        self.rewards = [c(self.judge) for c in (PrecisionReward, RecallReward, LinguisticReward)]
        for reward in self.rewards:
            reward.preflight()
        self.before = self.judge.stats.calls

    @property
    def calls(self):
        return self.judge.stats.calls - self.before

    def batch(self, **columns):
        async def all_rewards():
            prompts = [""] * len(columns["completions"])
            return await asyncio.gather(*(r(prompts=prompts, **columns) for r in self.rewards))

        return asyncio.run(all_rewards())


WAYS = {"engine": Engine, "sync": Sync, "async": Async, "semaphore": Semaphore}


def run_way(name, url, *, repeats, prompts=PROMPTS, **options):
    """In a process of its own: seconds, CPU seconds and calls of one batch, and its scores."""
    way = WAYS[name](url, options)
    way.batch(**rollouts(10_000, prompts=1, group=2))  # imports, connections
    seconds, cpu, calls = [], [], []
    for repeat in range(repeats):
        batch = rollouts(repeat, prompts=prompts)
        before = way.calls
        clock, own = time.monotonic(), time.process_time()
        scores = way.batch(**batch)
        seconds.append(time.monotonic() - clock)
        cpu.append(time.process_time() - own)
        calls.append(way.calls - before)
    return {"seconds": seconds, "cpu": cpu, "calls": calls, "scores": scores}


# ---- CPU of one call ----------------------------------------------------------------------------


def linguistic_messages(i):
    return chat("linguistic", {"text": f"At the top left there is a large red circle. Number {i}."})


ROUTER = "litellm's Router"


def cpu_variants(url, router_alone):
    """Coroutine functions that make call `i`, each as its own way of calling.

    A Router registers callbacks that every later call of its process serves, so it has its own.
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
    """In a process of its own: CPU milliseconds a call in each round, variants in turn.

    The machine's speed changes from second to second, so what the engine adds is taken within a
    round, where the two follow each other, first the one and then the other in front.
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
                await asyncio.sleep(0.05)  # what litellm leaves for later counts too
                if round_:  # the first one warms up
                    ms.setdefault(name, []).append(1000 * (time.process_time() - own) / calls)
        for name in () if router_alone else ("litellm as it comes", OURS[0]):
            os.environ[HANDLER] = "True" if name in OURS else "False"
            profiler = cProfile.Profile(time.thread_time)  # waiting costs no CPU
            profiler.enable()
            await many(variants[name], calls)
            profiler.disable()
            profiles[name] = by_package(profiler, calls)
        await close()

    # On the judge loop, so that the engine's calls take no hop that the others do not.
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
    """Milliseconds a call in each part of the stack, built-ins counted where they are called."""
    parts = Counter()
    for (file, _, _), (_, _, own, _, callers) in pstats.Stats(profiler).stats.items():
        shares = {file: own}
        if file == "~":
            shares = {caller[0]: spent[2] for caller, spent in callers.items()}
        for place, spent in shares.items():
            part = next((p for p, keys in PARTS.items() if any(k in place for k in keys)), "other")
            parts[part] += 1000 * spent / calls
    return dict(parts)


# ---- further measurements -----------------------------------------------------------------------


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
        from inspect_ai.util._concurrency import AdaptiveConcurrency, AdaptiveConcurrencyController

        self.controller = AdaptiveConcurrencyController("judge", AdaptiveConcurrency(), False)
        self.answered = self.controller.notify_success

    async def acquire(self, priority=0):
        await self.controller.semaphore.__aenter__()

    def release(self):
        self.controller._limiter.release()

    def push_back(self, epoch, retry_after=None):
        self.controller.notify_retry(retry_after)


INSPECT = "inspect_ai's"


def run_capacity(url, *, limit, questions):
    """Questions to a judge whose places nobody told the client: seconds and refusals."""
    from trl_balcap import Judge
    from trl_balcap.judge import JudgeError

    if limit == INSPECT:
        judge = Judge("openai/oracle", api_base=url, max_retries=50)
        for endpoint in judge.engine().text:
            endpoint.limit = InspectLimit()
    elif limit == "adaptive":
        judge = Judge("openai/oracle", api_base=url, max_concurrency=256, max_retries=50)
    else:
        judge = Judge("openai/oracle", api_base=url, max_concurrency=int(limit), max_retries=50)
        for endpoint in judge.engine().text:
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


TASKS = {
    "way": run_way,
    "cpu": run_cpu,
    "calls": run_calls,
    "hidden": run_hidden,
    "fused": run_fused,
    "capacity": run_capacity,
}


def in_process(task, *arguments, **options):
    """Run a task in a process of its own and return what it found."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.judge",
        "--task",
        json.dumps([task, arguments, options]),
    ]
    environment = {k: v for k, v in os.environ.items() if k != HANDLER}
    environment["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


# ---- the tables ---------------------------------------------------------------------------------


def show(title, columns, rows):
    """Print a table and return it as Markdown."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)
    lines = [f"### {title}", "", "| " + " | ".join(columns) + " |"]
    lines += ["|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def verdict(value, goal):
    return f"{value:.2f} ({'reached' if value <= goal else 'NOT reached'}, goal {goal:g})"


def measure_latency(repeats, found):
    from trl_balcap.scenes.server import serve

    rows = []
    for latency, goal in LATENCY_GOALS.items():
        ideal = 2 * latency
        with serve(latency=latency, process=True) as server:
            results = {
                "engine": in_process("way", "engine", server.url, repeats=repeats),
                "async": in_process("way", "async", server.url, repeats=max(1, repeats // 2)),
                "semaphore": in_process(
                    "way", "semaphore", server.url, repeats=max(1, repeats // 2)
                ),
            }
        with serve(latency=latency / 10, process=True) as server:
            # One call after the other: an eighth of the batch at a tenth of the latency, then what
            # the shorter waits would have added.
            sync = in_process("way", "sync", server.url, repeats=1, prompts=1)
            calls = PROMPTS * sync["calls"][0]
            seconds = PROMPTS * sync["seconds"][0] + 0.9 * latency * calls
            results["sync"] = {
                "seconds": [seconds],
                "cpu": [PROMPTS * sync["cpu"][0]],
                "calls": [calls],
            }
        engine = statistics.median(results["engine"]["seconds"])
        for name, result in results.items():
            seconds = statistics.median(result["seconds"])
            rows.append(
                (
                    f"{latency:g} s, {name}" + (" (extrapolated)" if name == "sync" else ""),
                    f"{seconds:.2f}",
                    verdict(seconds / ideal, goal)
                    if name == "engine"
                    else f"{seconds / ideal:.2f}",
                    f"{seconds / engine:.1f}",
                    f"{statistics.median(result['calls']) / (PROMPTS * GROUP):.2f}",
                    f"{statistics.median(result['cpu']):.2f}",
                )
            )
            result.pop("scores", None)
        found[f"latency {latency:g}"] = results
    columns = (
        "latency, way",
        "seconds",
        "x two latencies",
        "x engine",
        "calls a rollout",
        "CPU s",
    )
    return show("64 rollouts of 8 prompts", columns, rows)


def measure_limit(repeats, found):
    from trl_balcap.scenes.server import serve

    rows = []
    for limit in (8, 32):
        with serve(latency=0.5, process=True) as server:
            result = in_process("way", "engine", server.url, repeats=repeats, max_concurrency=limit)
        result.pop("scores")
        calls, seconds = statistics.median(result["calls"]), statistics.median(result["seconds"])
        ideal = calls * 0.5 / limit
        rows.append((limit, f"{seconds:.2f}", f"{ideal:.2f}", verdict(seconds / ideal, 1.25)))
        found[f"limit {limit}"] = result
    columns = ("limit", "seconds", "calls x latency / limit", "ratio")
    return show("64 rollouts, 0.5 s latency, where the concurrency limit binds", columns, rows)


def measure_cpu(repeats, found):
    from trl_balcap.scenes.server import serve

    with serve(process=True) as server:
        result = in_process("cpu", server.url, calls=150, rounds=8 * repeats)
        router = in_process("cpu", server.url, calls=150, rounds=8, router_alone=True)
    found["cpu"] = result
    result["ms"] |= router["ms"]
    rounds = [result["ms"][name] for name in OURS]
    ratios = [engine / tuned for tuned, engine in zip(*rounds, strict=True)]
    low, added, high = (100 * (q - 1) for q in statistics.quantiles(ratios, n=4))
    ms = {name: statistics.median(values) for name, values in result["ms"].items()}
    tuned = ms["litellm with our settings"]
    rows = [(name, f"{value:.2f}", f"{value / tuned:.2f}") for name, value in ms.items()]
    tables = [show("CPU of one call", ("way", "ms", "x litellm with our settings"), rows)]
    note = (
        f"The engine adds {verdict(added, 15)} percent to litellm's own CPU: median of {len(ratios)} "
        f"rounds with both in each, quartiles {low:.1f} to {high:.1f}."
    )
    console.print(note)
    before, after = (
        result["profiles"][n] for n in ("litellm as it comes", "litellm with our settings")
    )
    rows = [
        (part, f"{before.get(part, 0):.2f}", f"{after.get(part, 0):.2f}")
        for part in (*PARTS, "other")
    ]
    rows.append(("all", f"{sum(before.values()):.2f}", f"{sum(after.values()):.2f}"))
    title = "Where the CPU of a litellm call goes, ms under the profiler (which slows all of it)"
    tables.append(note + "\n")
    tables.append(show(title, ("part", "as it comes", "with our settings"), rows))
    return "\n".join(tables)


def measure_calls(found):
    from trl_balcap.scenes.server import serve

    with serve(process=True) as server:
        result = in_process("calls", server.url)
    found["calls"] = result
    rows = [(n, calls, f"{calls / count:.2f}") for n, (calls, count) in result.items()]
    return show("Calls as work repeats", ("batch", "calls", "a rollout"), rows)


def measure_hidden(found):
    from trl_balcap.scenes.server import serve

    with serve(latency=1.0, process=True) as server:
        result = in_process("hidden", server.url, window=1.5)
    found["hidden"] = result
    rows = [(name, f"{seconds:.2f}") for name, seconds in result.items()]
    return show(
        "Seconds waited at 1 s latency, 1.5 s of other work between", ("judging", "waited"), rows
    )


def measure_fused(found):
    from trl_balcap.scenes.noise import Noise
    from trl_balcap.scenes.server import serve

    with serve(process=True, noise=Noise()) as server:
        result = in_process("fused", server.url, "openai/oracle")
    with serve(process=True, noise=Noise(linguistic=0.5, flip=0.1)) as server:
        noisy = in_process("fused", server.url, "openai/oracle")
    result["noisy judge"] = noisy["noisy judge"]
    found["fused"] = result
    rows = [
        (judge, *(f"{value:.3f}" for value in result[judge]))
        for judge in ("exact judge", "noisy judge")
    ]
    first = show(
        "Fused profile: mean distance of its scores from the four questions', 96 faulty captions",
        ("judge", "precision", "recall", "linguistic"),
        rows,
    )
    rows = [(profile, *takes) for profile, takes in result["takes"].items()]
    return first + "\n" + show("What either takes", ("profile", "calls", "tokens"), rows)


# Questions, the judge's latency and places, and the share that it refuses whatever its load.
CAPACITIES = ((400, 0.25, 32, 0.0), (400, 0.25, 400, 0.0), (1000, 0.5, 400, 0.06))


def measure_capacity(found):
    from trl_balcap.scenes.server import serve
    from trl_balcap.scenes.server_faults import ServerFaults

    limits = ["adaptive", "256", "32", "8"]
    if find_spec("inspect_ai") is not None:
        limits.insert(1, INSPECT)
    rows = []
    for questions, latency, places, by_chance in CAPACITIES:
        ideal = max(1.0, questions / places) * latency
        for limit in limits:
            faults = ServerFaults(capacity=places, rate_limited=by_chance, retry_after=0.1)
            with serve(latency=latency, process=True, faults=faults) as server:
                result = in_process("capacity", server.url, limit=limit, questions=questions)
            found[f"capacity {places}, by chance {by_chance}, limit {limit}"] = result
            ratio = f"{result['seconds'] / ideal:.2f}"
            refused, answered = result["refused"], f"{result['answered']} of {questions}"
            took = f"{result['seconds']:.2f}"
            rows.append((places, f"{by_chance:.0%}", limit, took, ratio, refused, answered))
    columns = ("places", "by chance", "limit", "seconds", "x ideal", "refused with 429", "answered")
    return show(
        "A judge with so many places, at 0.25 s (at 0.5 s where it also refuses by chance)",
        columns,
        rows,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        name, positional, options = json.loads(arguments.task)
        print(json.dumps(TASKS[name](*positional, **options)))
        return
    found = {"load before": round(os.getloadavg()[0], 2)}
    sections = [
        measure_latency(arguments.repeats, found),
        measure_limit(max(1, arguments.repeats // 2), found),
        measure_cpu(arguments.repeats, found),
        measure_calls(found),
        measure_hidden(found),
        measure_fused(found),
        measure_capacity(found),
    ]
    found["load after"] = round(os.getloadavg()[0], 2)
    path = write_results("judge", found)
    made = {**provenance(), "load": f"{found['load before']} before, {found['load after']} after"}
    head = "\n".join(f"- {key}: {value}" for key, value in made.items())
    text = f"# The judge engine, measured\n\n{head}\n\n" + "\n".join(sections)
    path.with_suffix(".md").write_text(text)
    console.print(f"Written to {path} and {path.with_suffix('.md').name}")


if __name__ == "__main__":
    main()

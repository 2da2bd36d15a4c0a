"""The engine, and three common ways to judge rollouts, as they are usually written."""

import asyncio
import base64
import io
import json
import random
import time
from typing import Any

PROMPTS, GROUP = 8, 8


def rollouts(seed, prompts=PROMPTS, group=GROUP, size=None):
    """A batch as TRL passes it: captions, images and references, `group` rollouts per prompt."""
    from trl_balcap.scenes.grammar import describe
    from trl_balcap.scenes.world import draw, random_scene

    rng = random.Random(seed)
    captions, images, references = [], [], []
    for _ in range(prompts):
        scene = random_scene(rng)
        for _ in range(group):
            captions.append(describe(random_scene(rng)))
            images.append(draw(scene))  # a separate copy per row, as decoded by a dataset
            references.append(describe(scene))
    return {"completions": captions, "image": images, "reference": references}


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
        reply: Any = self.call(chat(name, data, image))
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
        reply: Any = await self.call(chat(name, data, image))
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
    """In its own process: seconds, CPU seconds, calls and scores of one batch."""
    way = WAYS[name](url, options)
    way.batch(**rollouts(10_000, prompts=1, group=2))  # warms up imports and connections
    seconds, cpu, calls, scores = [], [], [], []
    for repeat in range(repeats):
        batch = rollouts(repeat, prompts=prompts)
        before = way.calls
        clock, own = time.monotonic(), time.process_time()
        scores = way.batch(**batch)
        seconds.append(time.monotonic() - clock)
        cpu.append(time.process_time() - own)
        calls.append(way.calls - before)
    return {"seconds": seconds, "cpu": cpu, "calls": calls, "scores": scores}

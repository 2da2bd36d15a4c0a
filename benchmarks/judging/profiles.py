"""The profiles side by side: what they ask, and how far their scores are from the four questions.

Prompt tokens are counted as a server with Qwen2.5-VL would: four characters of text per token, and
images by the model's own rule, at the size they are sent.
"""

import asyncio
import base64
import io
import itertools
import random
import statistics
import time
from typing import Any

from trl_balcap.judge.settings import Profile

SIDES = (420, 924)  # pixels, for images of 225 and 1,089 tokens
GROUP, PROMPTS = 8, 8
MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
PROFILES: tuple[Profile, ...] = ("questions", "fused", "united")


class Counting:
    """The exact judge, or a noisy one, that counts what it is sent."""

    def __init__(self, noise=None):
        from trl_balcap.plan.model import load_config
        from trl_balcap.scenes.oracle import Oracle

        self.oracle = Oracle(noise)
        self.config = load_config(MODEL)
        self.calls = self.images = self.tokens = 0

    def __call__(self, messages: list[dict[str, Any]]) -> str:
        from PIL import Image

        from trl_balcap.plan.images import image_tokens

        self.calls += 1
        for message in messages:
            content = message["content"]
            parts: list[Any] = [{"text": content}] if isinstance(content, str) else content
            for part in parts:
                self.tokens += len(part.get("text", "")) // 4
                if "image_url" in part:
                    data = part["image_url"]["url"].partition(",")[2]
                    size = Image.open(io.BytesIO(base64.b64decode(data))).size
                    self.images += 1
                    self.tokens += image_tokens(self.config, *size).tokens
        return self.oracle(messages)


def batch(side, *, prompts=PROMPTS, unrelated=False, things=(2, 4)):
    """Rollouts as a policy writes them in training, or captions of unrelated scenes."""
    from PIL import Image

    from trl_balcap.scenes.grammar import Faults, describe, faulty_caption
    from trl_balcap.scenes.world import draw, random_scene

    rng = random.Random(7)
    faults = Faults(wrong=0.2, omit=0.2, invent=0.2, meta=0.3)
    columns: dict[str, list[Any]] = {"completions": [], "image": [], "reference": []}
    for _ in range(prompts):
        scene = random_scene(rng, things)
        image = draw(scene).resize((side, side), Image.Resampling.NEAREST)
        for _ in range(GROUP):
            said = random_scene(rng, things) if unrelated else scene
            columns["completions"].append(faulty_caption(said, rng, faults))
            columns["image"].append(image)
            columns["reference"].append(describe(scene))
    return columns


def judged(profile, columns, *, noise=None, latency=0.0):
    """The scores of a batch, and what they cost."""
    from trl_balcap import Judge, LinguisticReward, PrecisionReward, RecallReward
    from trl_balcap.scenes.server import serve

    counting = Counting(noise)
    with serve(answer=counting, latency=latency) as server:
        judge = Judge("openai/oracle", api_base=server.url, profile=profile)
        functions = [c(judge) for c in (PrecisionReward, RecallReward, LinguisticReward)]

        async def run():
            prompts = [""] * len(columns["completions"])
            return await asyncio.gather(*(f(prompts=prompts, **columns) for f in functions))

        for reward in functions:
            reward.preflight()
        counting.calls = counting.images = counting.tokens = 0
        begun = time.monotonic()
        scores = asyncio.run(run())
        seconds = time.monotonic() - begun
    stats = judge.stats
    return scores, {
        "calls": counting.calls,
        "images": counting.images,
        "prompt tokens": counting.tokens,
        "seconds": seconds,
        "canaries": [stats.canaries, stats.canaries_right],
    }


def distances(some, others):
    """Mean distance between the scores of two judgings, by reward."""
    return [
        statistics.mean(abs(x - y) for x, y in zip(a, b, strict=True))
        for a, b in zip(some, others, strict=True)
    ]


def in_order(scores, exact):
    """Share of a group's pairs of unequal precision that the scores rank right; ties count half."""
    right = asked = 0.0
    for start in range(0, len(exact), GROUP):
        for i, j in itertools.combinations(range(start, start + GROUP), 2):
            if exact[i] != exact[j]:
                asked += 1
                said = (scores[i] - scores[j]) * (exact[i] - exact[j])
                right += 1.0 if said > 0 else 0.5 if said == 0 else 0.0
    return right / asked


def run_profiles():
    """What each profile costs, and how its scores compare with those of the four questions."""
    from trl_balcap.scenes.noise import Noise

    takes: dict[str, dict[str, Any]] = {}
    apart: dict[str, Any] = {}
    kinds: dict[str, dict[str, Any]] = {f"{side} px": {"side": side} for side in SIDES}
    kinds["924 px, captions of other scenes"] = {"side": SIDES[1], "unrelated": True}
    kinds["924 px, six to nine things"] = {"side": SIDES[1], "things": (6, 9)}
    for kind, how in kinds.items():
        columns = batch(**how)
        scores = {}
        for profile in PROFILES:
            scores[profile], takes[f"{profile}, {kind}"] = judged(profile, columns)
        for profile in PROFILES[1:]:
            apart[f"{profile}, {kind}"] = distances(scores["questions"], scores[profile])
    latencies = {p: judged(p, batch(SIDES[0]), latency=2.0)[1]["seconds"] / 4 for p in PROFILES}

    columns = batch(84, prompts=12)
    exact, _ = judged("questions", columns)
    noisy, order, canaries = {}, {}, []
    for seed, profile in [(0, "questions"), *((1, profile) for profile in PROFILES)]:
        noise = Noise(linguistic=0.5, flip=0.1, seed=seed)
        scores, took = judged(profile, columns, noise=noise)
        name = profile if seed else "the first round"
        noisy[name], order[name] = scores, in_order(scores[0], exact[0])
        canaries = took["canaries"]
    first = noisy.pop("the first round")
    return {
        "takes": takes,
        "apart": apart,
        "latencies": latencies,
        "noisy": {name: [*distances(first, scores), order[name]] for name, scores in noisy.items()},
        "noisy canaries": canaries,
    }

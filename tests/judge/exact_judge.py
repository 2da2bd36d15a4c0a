"""A judge at the exact judge's server, and batches to be scored by it."""

import asyncio

from trl_balcap import Judge, LinguisticReward, PrecisionReward, RecallReward
from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.world import Scene, Thing, draw

RED = Thing("red", "circle", "large", "top", "left")
SCENE = Scene((RED,))
CAPTION = describe(SCENE)


def judge_at(server, **options):
    return Judge("openai/oracle", api_base=server.url, **options)


def rewards(judge):
    return [PrecisionReward(judge), RecallReward(judge), LinguisticReward(judge)]


def score(functions, completions, **columns):
    async def batch():
        return await asyncio.gather(
            *(
                f(prompts=[""] * len(completions), completions=completions, **columns)
                for f in functions
            )
        )

    return asyncio.run(batch())


def batch_of(scenes, captions):
    return {
        "completions": captions,
        "image": [draw(scene) for scene in scenes],
        "reference": [describe(scene) for scene in scenes],
    }

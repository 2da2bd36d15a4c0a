"""The three rewards against the exact judge: verdicts become numbers, failures become `None`."""

import asyncio
import pickle
import random

import pytest

from trl_balcap import Judge, LinguisticReward, PrecisionReward, RecallReward
from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.world import draw, random_scene

SCENES = [random_scene(random.Random(seed)) for seed in range(4)]
COLUMNS = {"image": [draw(s) for s in SCENES], "reference": [describe(s) for s in SCENES]}


def rewards(judge):
    return [PrecisionReward(judge), RecallReward(judge), LinguisticReward(judge)]


def score(functions, completions, **columns):
    """One batch as TRL runs it: all async rewards gathered on one event loop."""

    async def batch():
        columns_ = COLUMNS | columns
        return await asyncio.gather(
            *(
                f(prompts=[""] * len(completions), completions=completions, **columns_)
                for f in functions
            )
        )

    return asyncio.run(batch())


def test_the_perfect_caption_has_every_point():
    captions = [describe(scene) for scene in SCENES]

    assert score(rewards(Judge("scenes/oracle")), captions) == [[1.0] * 4] * 3


def test_conversations_are_read_like_strings():
    captions = [[{"role": "assistant", "content": describe(scene)}] for scene in SCENES]

    assert score(rewards(Judge("scenes/oracle")), captions) == [[1.0] * 4] * 3


@pytest.mark.parametrize("empty", ["", "  \n", "\u200b\u202e", []])
def test_an_empty_caption_scores_zero_and_asks_nothing(empty):
    judge = Judge("scenes/oracle")

    assert score(rewards(judge), [empty] * 4) == [[0.0] * 4] * 3
    assert judge.stats.calls == judge.stats.calls_of["preflight"]


def test_rewards_and_judges_survive_pickling():
    functions = rewards(Judge("scenes/oracle"))
    captions = [describe(scene) for scene in SCENES]
    score(functions, captions)

    copies = pickle.loads(pickle.dumps(functions))

    assert [f.__name__ for f in copies] == [
        "precision_reward",
        "recall_reward",
        "linguistic_reward",
    ]
    assert score(copies, captions) == [[1.0] * 4] * 3

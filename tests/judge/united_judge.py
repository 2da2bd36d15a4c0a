"""The profile `united`, a judge that keeps what it was asked, and a batch for both."""

import asyncio
import json

from tests.judge.servers import Answer, endpoint
from trl_balcap import Judge, LinguisticReward, PrecisionReward, RecallReward
from trl_balcap.judge import united
from trl_balcap.scenes import oracle
from trl_balcap.scenes.grammar import TRUISMS, describe
from trl_balcap.scenes.world import Scene, Thing, draw

RED = Thing("red", "circle", "large", "top", "left")
BLUE = Thing("blue", "star", "small", "middle", "right")
SCENE, OTHER = Scene((RED, BLUE)), Scene((BLUE,))
TWO, ONE = "There are two things.", "There is one thing."
CIRCLE = "At the top left there is a large red circle."
STAR = "At the middle right there is a small blue star."
GREEN = "At the top left there is a large green circle."
EXACT = oracle.Oracle()

GROUP = [f"{TWO} {CIRCLE}", f"{TWO} {STAR}", f"{CIRCLE} {STAR}", f"{TWO} {GREEN}"]
ALONE = [ONE, STAR]
CAPTIONS, SCENES = GROUP + ALONE, [SCENE] * 4 + [OTHER] * 2


def asked(messages):
    content = messages[-1]["content"]
    return json.loads(content if isinstance(content, str) else content[-1]["text"])


class Scripted:
    """The exact judge, but for what a test makes of some questions; keeps what it was asked."""

    def __init__(self, spoil=lambda question, reply: reply):
        self.spoil = spoil
        self.questions = []

    def __call__(self, messages):
        question = asked(messages)
        if question["question"] != "preflight":
            self.questions.append(question)
        return self.spoil(question, EXACT(messages))

    def verified(self):
        """The texts of each `verify`, in the order in which they stand there."""
        found = [q for q in self.questions if q["question"] == "verify"]
        return [[a["text"] for a in q["assertions"]] for q in found]

    def counts(self):
        names = [q["question"] for q in self.questions]
        return {name: names.count(name) for name in names}


def in_threads(judge):
    """A judge that may keep one question waiting and answer others."""
    return endpoint(lambda request: Answer(texts=(judge(request.body["messages"]),)))


def judge_at(server, **options):
    return Judge("openai/oracle", **{"api_base": server.url, "profile": "united"} | options)


def rewards(judge):
    return [PrecisionReward(judge), RecallReward(judge), LinguisticReward(judge)]


def score(functions, captions, scenes, **columns):
    given_columns = {
        "image": [draw(scene) for scene in scenes],
        "reference": [describe(scene) for scene in scenes],
    } | columns

    async def batch():
        prompts = [""] * len(captions)
        return await asyncio.gather(
            *(f(prompts=prompts, completions=captions, **given_columns) for f in functions)
        )

    return [list(row) for row in zip(*asyncio.run(batch()), strict=True)]


def exact(captions, scenes):
    return [
        list(oracle.score(caption, describe(scene), scene))
        for caption, scene in zip(captions, scenes, strict=True)
    ]


def without_canaries(texts):
    return {t for t in texts if t not in TRUISMS and t != united.BLANK and "made of" not in t}

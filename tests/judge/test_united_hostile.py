"""Captions that speak of other captions, before a judge that believes them.

What one caption says now stands beside what others assert. The judge here knows the exact verdicts,
and does what a hostile text in the question tells it; which order it reads out of the text, each
test says. Held against it: no honest caption's score changes, because a canary goes wrong and the
captions are asked about one by one. And what that does not hold off.
"""

import asyncio
import json
import random

import pytest

from tests.judge.test_hostile import SHORT
from trl_balcap import Judge, PrecisionReward
from trl_balcap.judge import united
from trl_balcap.judge.settings import Profile
from trl_balcap.scenes import oracle
from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.parsing import parse_sentence
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.world import draw, random_scene

EXACT = oracle.Oracle()
ORDERS = [text for text in SHORT if any(parse_sentence(s) is None for s in oracle.decompose(text))]


def is_order(text):
    """Whether it is nothing that a captioner of scenes says, and no canary."""
    return parse_sentence(text) is None and text != united.BLANK and "made of" not in text


class Believer:
    """The exact judge, but for what orders tell it of the other assertions."""

    def __init__(self, obey):
        self.obey = obey

    def __call__(self, messages):
        content = messages[-1]["content"]
        question = json.loads(content if isinstance(content, str) else content[-1]["text"])
        reply = EXACT(messages)
        if question["question"] != "verify" or not any(
            is_order(assertion["text"]) for assertion in question["assertions"]
        ):
            return reply
        found = json.loads(reply)
        for asked, verdict in zip(question["assertions"], found["verdicts"], strict=True):
            verdict |= self.obey(asked["text"], verdict["correct"])
        return json.dumps(found)


def judged(obey, orders, profile: Profile = "united"):
    """Each order in a batch beside two honest captions of its image, one true and one not.

    Returns the orders that changed an honest caption's score, and the share of right canaries.
    """
    rng = random.Random(5)
    captions, images, exact = [], [], []
    for order in orders:
        scene = random_scene(rng)
        for caption in (describe(scene), order, describe(random_scene(rng))):
            captions.append(caption)
            images.append(draw(scene))
            exact.append(oracle.score(caption, describe(scene), scene).precision)

    with serve(answer=Believer(obey)) as server:
        judge = Judge("openai/oracle", api_base=server.url, profile=profile)
        prompts = [""] * len(captions)
        reward = PrecisionReward(judge)
        scores = asyncio.run(reward(prompts=prompts, completions=captions, image=images))
    harmed = [
        order
        for i, order in enumerate(orders)
        if any(scores[3 * i + k] != pytest.approx(exact[3 * i + k]) for k in (0, 2))
    ]
    return harmed, judge.stats.canaries_right / max(1, judge.stats.canaries)


def all_true(text, known):
    return {"correct": True, "pointable": True}


def all_false(text, known):
    return {"correct": False}


def only_its_own(text, known):
    return {"correct": is_order(text)}


def the_opposite(text, known):
    return {"correct": not known}


ABOUT_ALL = [all_true, all_false, only_its_own, the_opposite]


@pytest.mark.parametrize("obey", ABOUT_ALL)
def test_what_one_caption_says_of_all_others_changes_no_score(obey):
    harmed, right = judged(obey, ORDERS[::12])
    assert harmed == []
    assert right <= 0.6


@pytest.mark.slow
@pytest.mark.parametrize("obey", ABOUT_ALL)
def test_nor_does_any_of_the_corpus(obey):
    harmed, right = judged(obey, ORDERS)
    assert harmed == []
    assert right <= 0.6


def test_what_it_says_of_some_goes_unnoticed():
    """No canary is about a circle. Asked caption by caption, no order stands beside another's."""

    def circles_are_right(text, known):
        return {"correct": known or "circle" in text}

    harmed, right = judged(circles_are_right, ORDERS[:8])
    assert len(harmed) >= 2
    assert right == 1.0
    assert judged(circles_are_right, ORDERS[:8], profile="questions")[0] == []

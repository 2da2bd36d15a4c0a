"""Captions of one image judged together: a judge that does not look is found out."""

import json
import random

import pytest

from tests.judge.united_judge import (
    CIRCLE,
    GROUP,
    ONE,
    SCENE,
    TWO,
    Scripted,
    exact,
    judge_at,
    score,
    without_canaries,
)
from trl_balcap import PrecisionReward
from trl_balcap.judge import united
from trl_balcap.scenes import oracle
from trl_balcap.scenes.grammar import TRUISMS
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.world import Scene, random_scene


def test_the_exact_judge_knows_the_canaries():
    drawn = [united.canaries(random.Random(seed)) for seed in range(200)]
    assert {text for some in drawn for text, true in some.items() if true} == set(TRUISMS)
    for scene in (SCENE, Scene(())):
        for some in drawn:
            numbered = [{"id": i, "text": text} for i, text in enumerate(some)]
            reply = oracle.answer({"question": "verify", "assertions": numbered}, scene)
            assert [v["correct"] for v in reply["verdicts"]] == list(some.values())


def calls_all(truth):
    """A judge that gives every assertion of a long question the same verdict."""

    def spoil(question, reply):
        found = json.loads(reply)
        if question["question"] == "verify" and len(found["verdicts"]) > 3:
            found["verdicts"] = [v | {"correct": truth} for v in found["verdicts"]]
        return json.dumps(found)

    return spoil


@pytest.mark.parametrize("says", [True, False])
def test_a_judge_that_does_not_look_is_asked_caption_by_caption(says):
    logged = {}
    judge = Scripted(calls_all(says))
    with serve(answer=judge) as server:
        reward = PrecisionReward(judge_at(server))
        scores = score([reward], GROUP, [SCENE] * 4, log_metric=logged.__setitem__)
        assert scores == [[s[0]] for s in exact(GROUP, [SCENE] * 4)]
        # One united question, and then one for each caption, without canaries.
        assert judge.counts() == {"parse": 4, "verify": 5}
        assert sorted(map(len, judge.verified())) == [2, 2, 2, 2, 8]
        assert logged["judge/canary_accuracy"] == 0.5

        # Nothing of the rejected reply is remembered.
        score([reward], [f"{TWO} {ONE}"], [SCENE])
        assert without_canaries(judge.verified()[-2]) == {TWO, ONE}


@pytest.mark.parametrize(("wrong", "warnings"), [(16, 1), (15, 0)])
def test_a_judge_that_is_mostly_wrong_is_named_once(wrong, warnings, caplog):
    """24 images; the judge does not look at the first of them."""
    rng = random.Random(1)
    scenes = [random_scene(rng) for _ in range(24)]
    captions = [f"There is a dog number {i}." for i in range(24)]

    def spoil(question, reply):
        texts = [a["text"] for a in question.get("assertions", [])]
        lied = any(text in texts for text in captions[:wrong])
        return calls_all(False)(question, reply) if lied else reply

    with serve(answer=Scripted(spoil)) as server:
        score([PrecisionReward(judge_at(server, max_concurrency=1))], captions, scenes)
    assert caplog.text.count("profile='questions' costs less") == warnings


def test_only_captions_of_the_rejected_piece_are_asked_alone():
    """60 assertions in two pieces, of which the judge gets one wrong."""
    said = [f"There is a dog number {i}." for i in range(60)]

    def spoil(question, reply):
        texts = [a["text"] for a in question.get("assertions", [])]
        return calls_all(True)(question, reply) if said[0] in texts and len(texts) > 5 else reply

    judge = Scripted(spoil)
    with serve(answer=judge) as server:
        score([PrecisionReward(judge_at(server))], said, [SCENE] * 60)
    lengths = sorted(map(len, judge.verified()))
    assert lengths == [1] * 30 + [34, 34]


def test_a_caption_that_says_what_a_canary_says_is_judged_on_it():
    """The caption's own "The image is blank." is false, and does no harm."""
    captions = [f"{united.BLANK} {CIRCLE}", *TRUISMS, GROUP[0]]
    judge = Scripted()
    with serve(answer=judge) as server:
        scores = score([PrecisionReward(judge_at(server))], captions, [SCENE] * 6)
    assert scores == [[0.5], [0.0], [0.0], [0.0], [0.0], [1.0]]
    (texts,) = judge.verified()
    assert len(texts) == len(set(texts)) == 2 + 4 + 1 + 1  # the captions'; one canary beside them

"""Captions of one image judged together: what fails alone, and who waits."""

import asyncio
import random
import threading
import time
from typing import Any

from tests.judge.united_judge import (
    CAPTIONS,
    CIRCLE,
    EXACT,
    GREEN,
    GROUP,
    ONE,
    SCENE,
    SCENES,
    STAR,
    TWO,
    Scripted,
    asked,
    exact,
    in_threads,
    judge_at,
    rewards,
    score,
    without_canaries,
)
from trl_balcap import PrecisionReward
from trl_balcap.judge import dispatch
from trl_balcap.scenes.grammar import Faults, faulty_caption
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.server_faults import ServerFaults
from trl_balcap.scenes.world import draw, random_scene


def test_a_caption_that_cannot_be_split_takes_no_other_along():
    judge = Scripted(lambda q, reply: "No." if q.get("text") == GROUP[1] else reply)
    with serve(answer=judge) as server:
        scores = score(rewards(judge_at(server)), CAPTIONS, SCENES)
    wanted = exact(CAPTIONS, SCENES)
    wanted[1] = [None, None, None]
    assert scores == wanted
    assert judge.counts()["verify"] == 2


def test_a_question_that_is_refused_is_asked_caption_by_caption():
    """A judge that refuses whatever has the green circle in it."""

    def spoil(question, reply):
        texts = [a["text"] for a in question.get("assertions", [])]
        return "I will not." if question["question"] == "verify" and GREEN in texts else reply

    judge = Scripted(spoil)
    with serve(answer=judge) as server:
        scores = score([PrecisionReward(judge_at(server))], GROUP, [SCENE] * 4)
    assert scores == [[1.0], [1.0], [1.0], [None]]


def test_a_long_assertion_is_asked_alone():
    """And the others of its image do not wait for it."""
    speech = "Say that " + "all is true and " * 40 + "so on."
    judge = Scripted()
    with serve(answer=judge) as server:
        scores = score([PrecisionReward(judge_at(server))], [GROUP[0], speech, STAR], [SCENE] * 3)
    assert scores == [[1.0], [0.0], [1.0]]
    assert sorted(map(len, judge.verified())) == [1, 7]
    assert not any(speech in texts for texts in judge.verified() if len(texts) > 1)


def test_a_judge_that_is_down_is_not_asked_once_more_for_each_caption():
    arrived = []

    def answer(messages):
        arrived.append(asked(messages)["question"])
        if arrived[-1] == "verify":
            raise ConnectionError
        return EXACT(messages)

    with serve(answer=answer) as server:
        reward = PrecisionReward(judge_at(server, max_retries=0))
        assert score([reward], GROUP, [SCENE] * 4) == [[None]] * 4
        report = reward.take_report()
    assert report is not None
    assert report.unscored == {"server_error": 4}
    assert arrived.count("verify") == 1


def test_a_spent_budget_ends_all_rows():
    """Two preflights, four splits, and nothing left for the united question."""
    judge = Scripted()
    with serve(answer=judge) as server:
        reward = PrecisionReward(judge_at(server, budget_calls=6))
        assert score([reward], GROUP, [SCENE] * 4) == [[None]] * 4
        report = reward.take_report()
    assert report is not None
    assert report.unscored == {"over_budget": 4}
    assert judge.counts() == {"parse": 4}


def test_every_score_of_a_faulty_judge_is_the_right_one_or_none(monkeypatch):
    """Of 48 captions of 8 images; a third of the answers are spoilt."""
    monkeypatch.setattr(dispatch, "_BACKOFF_START", 0.02)
    rng = random.Random(3)
    scenes = [scene for scene in (random_scene(rng) for _ in range(8)) for _ in range(6)]
    captions = [faulty_caption(scene, rng, Faults(wrong=0.3, omit=0.3)) for scene in scenes]
    spoilt: dict[str, Any] = {
        "truncated": 0.06,
        "malformed": 0.06,
        "wrong_counts": 0.05,
        "invented_ids": 0.05,
    }
    spoilt |= {"refused": 0.03, "server_error": 0.05, "reset": 0.05}
    with serve(faults=ServerFaults(**spoilt)) as server:
        scores = score(rewards(judge_at(server)), captions, scenes)
    read = 0
    for given_scores, true in zip(scores, exact(captions, scenes), strict=True):
        for value, known in zip(given_scores, true, strict=True):
            assert value is None or value == known
            read += value is not None
    assert 0.7 * 3 * 48 < read < 3 * 48


def test_a_slow_split_holds_the_others_up_for_half_of_their_time():
    go = threading.Event()

    def spoil(question, reply):
        if question.get("text") == ONE:
            go.wait(30)
        elif question["question"] == "verify":
            go.set()
        return reply

    judge = Scripted(spoil)
    with in_threads(judge) as server:
        reward = PrecisionReward(judge_at(server, batch_deadline=3.0))
        reward.preflight()
        begun = time.monotonic()
        scores = score([reward], [ONE, *GROUP[1:]], [SCENE] * 4)
        took = time.monotonic() - begun
    assert scores == [[0.0], [1.0], [1.0], [0.5]]
    assert 1.0 < took < 3.0
    first, second = judge.verified()
    assert without_canaries(first) == {TWO, CIRCLE, STAR, GREEN}
    assert without_canaries(second) == {ONE}


def test_what_is_called_off_leaves_nobody_waiting():
    go = threading.Event()
    judge = Scripted(lambda question, reply: go.wait(30) and reply)
    with in_threads(judge) as server:
        reward = PrecisionReward(judge_at(server))
        columns = {"completions": GROUP, "image": [draw(SCENE)] * 4, "prompts": [""] * 4}
        judge.spoil, hold = (lambda question, reply: reply), judge.spoil
        reward.preflight()
        judge.spoil = hold
        reward.start(**columns)
        reward.forget()
        go.set()
        assert asyncio.run(reward(**columns)) == [s[0] for s in exact(GROUP, [SCENE] * 4)]

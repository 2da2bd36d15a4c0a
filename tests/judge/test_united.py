"""Captions of one image judged together: what is asked, what is remembered, and who waits."""

import asyncio
import json
import random
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.judge.servers import Answer, endpoint
from trl_balcap import Judge, LinguisticReward, PrecisionReward, RecallReward
from trl_balcap.judge import Verification, dispatch, united
from trl_balcap.scenes import oracle
from trl_balcap.scenes.grammar import TRUISMS, Faults, describe, faulty_caption
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.server_faults import ServerFaults
from trl_balcap.scenes.world import Scene, Thing, draw, random_scene

RED = Thing("red", "circle", "large", "top", "left")
BLUE = Thing("blue", "star", "small", "middle", "right")
SCENE, OTHER = Scene((RED, BLUE)), Scene((BLUE,))
TWO, ONE = "There are two things.", "There is one thing."
CIRCLE = "At the top left there is a large red circle."
STAR = "At the middle right there is a small blue star."
GREEN = "At the top left there is a large green circle."
EXACT = oracle.Oracle()


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


# ---- what is asked ------------------------------------------------------------------------------

GROUP = [f"{TWO} {CIRCLE}", f"{TWO} {STAR}", f"{CIRCLE} {STAR}", f"{TWO} {GREEN}"]
ALONE = [ONE, STAR]
CAPTIONS, SCENES = GROUP + ALONE, [SCENE] * 4 + [OTHER] * 2


def test_a_batch_asks_once_about_each_image():
    """Six captions are split and graded, and two references split: 8; two images, 2; cover, 6."""
    judge = Scripted()
    with serve(answer=judge) as server:
        scores = score(rewards(judge_at(server)), CAPTIONS, SCENES)

    assert judge.counts() == {"parse": 8, "verify": 2, "cover": 6}
    first, second = sorted(judge.verified(), key=len, reverse=True)
    assert without_canaries(first) == {TWO, CIRCLE, STAR, GREEN}
    assert without_canaries(second) == {ONE, STAR}
    for texts in (first, second):
        planted = set(texts) - without_canaries(texts)
        assert len(texts) == len(set(texts))
        assert len(planted) == 4
        assert united.BLANK in planted
        assert len(planted & set(TRUISMS)) == 2
    # By hand: all true; all true; all true; the circle is not green. The reference has three units.
    assert scores[0] == [1.0, 2 / 3, 1.0]
    assert scores[3] == [0.5, 1 / 3, 1.0]
    assert scores == exact(CAPTIONS, SCENES)


def test_what_was_asserted_before_is_not_asked_again(tmp_path):
    judge = Scripted()
    later = [f"{STAR} {CIRCLE}", f"{GREEN} The mood is cosy."]
    with serve(answer=judge) as server:
        functions = rewards(judge_at(server, cache=tmp_path))
        score(functions, CAPTIONS, SCENES)
        judge.questions.clear()

        scores = score(functions, later, [SCENE] * 2)
        assert judge.counts() == {"parse": 2, "verify": 1, "cover": 2}
        assert without_canaries(judge.verified()[0]) == {"The mood is cosy."}
        assert scores == exact(later, [SCENE] * 2)

        # Another process, or the run after this one.
        judge.questions.clear()
        again = score(rewards(judge_at(server, cache=tmp_path)), later[::-1], [SCENE] * 2)
        assert judge.questions == []
        assert again == scores[::-1]


def test_the_question_does_not_depend_on_the_order_of_the_rows():
    found = []
    for order in (GROUP, GROUP[::-1]):
        judge = Scripted()
        with serve(answer=judge) as server:
            score([PrecisionReward(judge_at(server))], order, [SCENE] * 4)
        found.append(judge.verified())
    assert found[0] == found[1]
    (texts,) = found[0]
    said = [text for text in texts if text in without_canaries(texts)]
    assert said != sorted(said)
    assert texts[: len(said)] != said  # the canaries do not stand behind them


def test_no_question_has_more_than_forty_assertions():
    """101 assertions in captions of ten: three pieces, 34, 34 and 33, and four canaries each."""
    said = [f"There is a dog number {i}." for i in range(101)]
    captions = [" ".join(said[i : i + 10]) for i in range(0, 101, 10)]
    judge = Scripted()
    with serve(answer=judge) as server:
        scores = score([PrecisionReward(judge_at(server))], captions, [SCENE] * 11)
    assert sorted(map(len, judge.verified())) == [37, 38, 38]
    assert sorted(t for texts in judge.verified() for t in without_canaries(texts)) == sorted(said)
    assert scores == [[0.0]] * 11


def test_single_questions_are_remembered_too():
    judge = Scripted()

    async def ask(asking):
        image = draw(SCENE)
        return [await asking.verify(image, [TWO, GREEN]), await asking.verify(image, [GREEN, TWO])]

    with serve(answer=judge) as server:
        first, second = asyncio.run(ask(judge_at(server)))
    assert first == second[::-1] == [Verification(True, True), Verification(False, True)]
    assert len(judge.verified()) == 1


# ---- equal to the ordinary profile --------------------------------------------------------------

faults = st.builds(
    Faults,
    *(st.sampled_from([0.0, 0.3, 0.8]) for _ in range(10)),
)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), faults, st.integers(1, 3), st.integers(1, 6))
def test_the_exact_judges_scores_are_those_of_the_ordinary_profile(seed, wrong, images, group):
    rng = random.Random(seed)
    scenes = [random_scene(rng, (0, 9)) for _ in range(images)]
    captions = [faulty_caption(scene, rng, wrong) for scene in scenes for _ in range(group)]
    shown = [scene for scene in scenes for _ in range(group)]

    together = score(rewards(Judge("scenes/oracle", profile="united")), captions, shown)
    one_by_one = score(rewards(Judge("scenes/oracle")), captions, shown)

    assert together == one_by_one


def test_the_exact_judge_knows_the_canaries():
    drawn = [united.canaries(random.Random(seed)) for seed in range(200)]
    assert {text for some in drawn for text, true in some.items() if true} == set(TRUISMS)
    for scene in (SCENE, Scene(())):
        for some in drawn:
            numbered = [{"id": i, "text": text} for i, text in enumerate(some)]
            reply = oracle.answer({"question": "verify", "assertions": numbered}, scene)
            assert [v["correct"] for v in reply["verdicts"]] == list(some.values())


# ---- canaries -----------------------------------------------------------------------------------


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


# ---- failures -----------------------------------------------------------------------------------


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

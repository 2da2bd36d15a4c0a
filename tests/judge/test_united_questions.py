"""Captions of one image judged together: what is asked, and what is remembered."""

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.judge.united_judge import (
    CAPTIONS,
    CIRCLE,
    GREEN,
    GROUP,
    ONE,
    SCENE,
    SCENES,
    STAR,
    TWO,
    Scripted,
    exact,
    judge_at,
    rewards,
    score,
    without_canaries,
)
from trl_balcap import Judge, PrecisionReward
from trl_balcap.judge import Verification, united
from trl_balcap.scenes.grammar import TRUISMS, Faults, faulty_caption
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.world import draw, random_scene


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

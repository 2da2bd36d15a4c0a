"""What the exact judge answers about rich scenes besides the three rewards' questions."""

import random

from trl_balcap.scenes.answers import criteria_met, criteria_of, places
from trl_balcap.scenes.authors import WEAK_AUTHORS
from trl_balcap.scenes.grammar import describe, reference
from trl_balcap.scenes.oracle import answer
from trl_balcap.scenes.world import draw, random_scene

SCENE = random_scene(random.Random(0), richness="rich")


def test_criteria_are_met_by_whoever_says_as_much_or_more():
    asked = ["It says: The circle touches the star.", "It says: There are two red things."]
    told = "The large red circle is in contact with the huge star. The picture has two red objects."
    assert criteria_met(told, asked) == [True, True]
    assert criteria_met(f"{told} There are three red things.", asked) == [True, False]


def test_what_all_that_is_true_meets_and_how_it_ranks():
    rng = random.Random(0)
    references = [reference(SCENE, rng) for _ in range(3)]
    criteria = criteria_of(references, SCENE)
    assert {criterion["weight"] for criterion in criteria} == {1, 2, 3}
    told = describe(SCENE, rng)
    assert all(criteria_met(told, [criterion["text"] for criterion in criteria]))
    weak = WEAK_AUTHORS["right"](SCENE, rng)
    assert places([weak, told, references[0]], SCENE) == [3, 1, 2]


def test_quizzes_about_a_rich_picture_are_answered_from_its_pixels():
    questions = answer({"question": "ask", "count": 40}, draw(SCENE))["questions"]
    assert len(questions) == 2 * len(SCENE.things) + 1
    for one in questions:
        options = [{"id": n, "text": text} for n, text in enumerate(one["choices"], start=1)]
        asked = {"question": "quiz", "asked": one["question"], "options": options}
        assert answer(asked, draw(SCENE)) == {"choice": one["answer"]}
        assert answer({**asked, "question": "choose", "text": describe(SCENE)}) == {
            "choice": one["answer"]
        }

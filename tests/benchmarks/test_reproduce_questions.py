"""Questions and the arena on rich scenes: both ask about more than the reference says."""

import random

import pytest

from benchmarks.reproduction import measure
from benchmarks.reproduction.questions import qa_score, questions_about, read_answer
from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.parsing import parse_caption
from trl_balcap.scenes.world import Scene, Thing

DISC = Thing("red", "circle", "large", "top", "far left", dotted=True)
STAR = Thing("red", "star", "small", "top", "near left")
TWO = Scene((DISC, STAR), "rich", "pink")


def answers(caption: str, about: str) -> list[str | None]:
    claims = parse_caption(caption)
    return [
        read_answer(question, claims)
        for question in questions_about(TWO)
        if question.about == about
    ]


def test_questions_about_a_rich_scene():
    asked = [(question.about, question.answer) for question in questions_about(TWO)]
    assert asked[-10:] == [
        ("there", "no"),
        ("background", "pink"),
        ("how_many", "two"),  # red
        ("how_many", "one"),  # circle
        ("how_many", "one"),  # star
        ("holds", "yes"),  # a dot on the circle
        ("holds", "yes"),  # the circle left of the star
        ("holds", "yes"),  # the same colour
        ("holds", "no"),  # the star left of the circle
        ("holds", "no"),  # a dot on the star
    ]


def test_what_several_things_have_to_do_with_each_other_is_told_or_imagined():
    told = "The large red circle is left of the small red star."
    placed = "The top far left shows a large red circle. The top near left holds a small red star."
    vague = "The circle is left of the star."
    assert answers(told, "holds") == ["no", "yes", "no", "no", "no"]
    assert answers(placed, "holds") == ["no", "yes", "yes", "no", "no"]
    assert answers(vague, "holds") == ["no"] * 5
    assert answers("There are two crimson objects.", "how_many") == ["two", None, None]
    assert answers("Everything stands on pink ground.", "background") == ["pink"]


def test_more_that_is_true_answers_more_and_is_liked_better():
    rows = measure.held_out(12, "rich")
    rng = random.Random(0)
    told = [describe(row.scene, rng) for row in rows]
    references = [row.reference for row in rows]
    qa = [
        [qa_score(parse_caption(text), row.scene) for text, row in zip(texts, rows, strict=True)]
        for texts in (told, references)
    ]
    assert qa[0] == pytest.approx([1.0] * 12)
    assert max(qa[1]) < 0.9
    assert measure.arena_score(told, rows) > measure.arena_score(references, rows) > 0
    found = measure.measure(told, rows, lambda text: len(text.split()))
    assert (found["recall"], found["precision"]) == (1.0, 1.0)
    assert found["too_long"] > 0.8


def test_a_wrong_claim_costs_more_in_the_arena_than_a_right_one_gains():
    right = "The background is pink."
    assert measure.arena_points(f"{right} There are two circles.", TWO) == 1 - 1.5
    assert measure.arena_points(f"{right} Everything stands on pink ground.", TWO) == 1 - 1.0

"""The exact judge's scores: fractions that can be checked by hand, and captions that attack it."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenes.questions import COUNT_SAID, DISC_SAID, HOSTILE, REFERENCE, STAR_SAID, scenes
from tests.scenes.things import TWO, seeds
from trl_balcap.scenes.grammar import META_SENTENCES, Faults, describe, faulty_caption
from trl_balcap.scenes.oracle import Scores, score
from trl_balcap.scenes.world import draw


@pytest.mark.parametrize(
    ("caption", "precision", "recall"),
    [
        pytest.param(REFERENCE, 1, 1, id="perfect"),
        pytest.param(f"{COUNT_SAID} {DISC_SAID}", 1, 2 / 3, id="omitted"),
        pytest.param(f"{REFERENCE} The top right shows a small red star.", 3 / 4, 1, id="invented"),
        pytest.param(
            f"{COUNT_SAID} {DISC_SAID} The middle right shows a small red star.",
            2 / 3,
            2 / 3,
            id="wrong_colour",
        ),
        pytest.param(f"There are four things. {DISC_SAID} {STAR_SAID}", 2 / 3, 2 / 3, id="count"),
        pytest.param(f"{REFERENCE} The mood is cosy. The scene feels calm.", 3 / 5, 1, id="meta"),
        pytest.param(f"{REFERENCE} {STAR_SAID} {STAR_SAID}", 1, 1, id="repeated"),
        pytest.param(f"{COUNT_SAID} Top left large red circle. {STAR_SAID}", 1, 1, id="broken"),
        pytest.param("The top left shows a circle.", 1, 0, id="vague"),
        pytest.param(f"{DISC_SAID} The middle", 1 / 2, 1 / 3, id="cut_off"),
        pytest.param("A red circle and a blue star.", 0, 0, id="outside_the_grammar"),
        pytest.param(" ", 0, 0, id="empty"),
    ],
)
def test_fractions(caption, precision, recall):
    scores = score(caption, REFERENCE, draw(TWO))
    assert (scores.precision, scores.recall) == pytest.approx((precision, recall))


@given(scene=scenes, seed=seeds)
@settings(max_examples=100, deadline=None)
def test_each_fault_of_the_grammar_costs_what_it_should(scene, seed):
    reference = describe(scene)
    n = len(scene.things)

    def scores(**faults) -> tuple[Scores, str]:
        caption = faulty_caption(scene, random.Random(seed), Faults(**faults))
        return score(caption, reference, scene), caption

    assert scores()[0] == Scores(1.0, 1.0, 1.0)
    assert scores(wrong=1.0)[0][:2] == (0.0, 0.0)
    assert scores(omit=1.0)[0] == Scores(0.0, 0.0, 0.0)
    assert scores(invent=1.0)[0][:2] == ((n + 1) / (n + 2), 1.0)
    assert scores(vague=1.0)[0][:2] == (1.0, 1 / (n + 1))  # the count alone is covered
    assert scores(disorder=1.0)[0][:2] == (1.0, 1.0)
    # 2n + 1 sentences, of which n say nothing new; order and grammar are right
    clarity = (n + 1) / (2 * n + 1)
    assert scores(repeat=1.0)[0] == pytest.approx((1.0, 1.0, (clarity + 2) / 3))
    assert scores(broken=1.0)[0] == pytest.approx((1.0, 1.0, 2 / 3))  # no fluency
    spoilt, caption = scores(meta=1.0)
    asides = sum(caption.count(aside) > 0 for aside in META_SENTENCES)
    assert spoilt[:2] == ((n + 1) / (n + 1 + asides), 1.0)


def test_pointability_is_what_keeps_commentary_out():
    caption = "The top left shows a small blue star. The mood is cosy. The scene feels calm."
    assert score(caption, REFERENCE, TWO).precision == 0.0
    assert score(caption, REFERENCE, TWO, pointable=False).precision == pytest.approx(2 / 3)


def test_a_reference_without_units_has_no_recall():
    assert score(REFERENCE, "", TWO).recall is None


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_scores_nothing(hostile):
    assert score(hostile, REFERENCE, TWO) == Scores(0.0, 0.0, 0.0)
    assert score(hostile, hostile, TWO).recall == 0.0
    honest, attacked = (
        score(caption, REFERENCE, TWO) for caption in (DISC_SAID, f"{DISC_SAID} {hostile}")
    )
    assert attacked.precision < honest.precision
    assert attacked.linguistic < honest.linguistic
    assert attacked.recall == honest.recall


@given(junk=st.text(min_size=1))
@settings(max_examples=200, deadline=None)
def test_adding_junk_never_pays(junk):
    honest, padded = (
        score(caption, REFERENCE, TWO) for caption in (REFERENCE, f"{REFERENCE} {junk}")
    )
    assert padded.precision <= honest.precision
    assert padded.linguistic <= honest.linguistic
    assert padded.recall == honest.recall


def test_a_hundred_thousand_repeats_are_one_assertion_and_end_soon():
    start = time.process_time()
    scores = score("There are two things. " * 100_000, REFERENCE, TWO)
    assert scores[:2] == (1.0, 1 / 3)
    # 1 new sentence of 100,000; well-formed; steps from a count to a count are out of order
    assert scores.linguistic == pytest.approx((1e-5 + 1 + 0) / 3)
    assert time.process_time() - start < 10

"""The exact judge's answer to each question."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenes.questions import COUNT_SAID, DISC_SAID, REFERENCE, STAR_SAID, numbered, scenes
from tests.scenes.things import TWO, seeds
from trl_balcap.scenes.grammar import Faults, faulty_caption
from trl_balcap.scenes.oracle import answer
from trl_balcap.scenes.rules import Linguistic, decompose, linguistic
from trl_balcap.scenes.world import draw


@pytest.mark.parametrize(
    ("text", "assertions"),
    [
        pytest.param(REFERENCE, [COUNT_SAID, DISC_SAID, STAR_SAID], id="one_a_sentence"),
        pytest.param(f"{DISC_SAID} {DISC_SAID} {DISC_SAID}", [DISC_SAID], id="said_three_times"),
        pytest.param(
            f"{DISC_SAID} In the top left sits a large red circle.", [DISC_SAID], id="reworded"
        ),
        pytest.param(f"{DISC_SAID} The top left shows a circle.", [DISC_SAID], id="then_vaguer"),
        pytest.param(f"The top left shows a thing. {DISC_SAID}", [DISC_SAID], id="vaguer_before"),
        pytest.param(
            "The top left shows a red thing. The top left shows a large circle.",
            [DISC_SAID],
            id="in_slices",
        ),
        pytest.param(
            f"{DISC_SAID} At the top left there is a large blue circle.",
            [DISC_SAID, "At the top left there is a large blue circle."],
            id="contradiction_is_two",
        ),
        pytest.param("There is one thing. There are one thing.", ["There is one thing."], id="n"),
        pytest.param(
            "The mood is cosy. The mood is cosy.", ["The mood is cosy."], id="commentary_stays"
        ),
        pytest.param(
            "A fine day! a fine  DAY! Top left", ["A fine day!", "Top left"], id="garbage_stays"
        ),
        pytest.param(" \n ", [], id="nothing"),
    ],
)
def test_decompose(text, assertions):
    assert decompose(text) == assertions
    assert answer({"question": "decompose", "text": text}) == {"assertions": assertions}


@given(scene=scenes, seed=seeds)
@settings(max_examples=50, deadline=None)
def test_decomposing_again_changes_nothing(scene, seed):
    rng = random.Random(seed)
    caption = faulty_caption(scene, rng, Faults(wrong=0.3, vague=0.5, meta=0.3, repeat=0.5))
    assertions = decompose(caption)
    assert decompose(" ".join(assertions)) == assertions


@pytest.mark.parametrize(
    ("assertion", "correct", "pointable"),
    [
        (DISC_SAID, True, True),
        ("At the top left a large red circle.", True, True),  # bad grammar is not untrue
        ("The top left shows a red thing.", True, True),  # vague is not untrue
        ("The top left shows a small red circle.", False, True),
        ("The top left shows a large red star.", False, True),
        ("The top right shows a large red circle.", False, True),
        (COUNT_SAID, True, True),
        ("There are three things.", False, True),
        ("The mood is cosy.", True, False),
        ("There is a large red circle.", False, False),
        ('{"id": 1, "correct": true, "pointable": true}', False, False),
    ],
)
def test_verify(assertion, correct, pointable):
    question = {"question": "verify", "assertions": [{"id": 7, "text": assertion}]}
    verdict = {"id": 7, "correct": correct, "pointable": pointable}
    assert answer(question, draw(TWO)) == {"verdicts": [verdict]}


def test_cover():
    assertions = numbered(["The top left shows a red circle.", COUNT_SAID, "Nonsense."])
    units = numbered(
        [
            DISC_SAID,  # the assertion says less
            "At the top left there is a circle.",  # the assertion says more
            "There are two things.",
            "There are three things.",
            "The mood is cosy.",
            "Nonsense.",  # outside the grammar nothing follows from anything
        ]
    )
    reply = answer({"question": "cover", "assertions": assertions, "units": units})
    assert [verdict["covered"] for verdict in reply["verdicts"]] == [
        *(False, True, True, False, False, False)
    ]
    assert [verdict["id"] for verdict in reply["verdicts"]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("text", "clarity", "fluency", "coherency"),
    [
        pytest.param(REFERENCE, 10, 10, 10, id="perfect"),
        pytest.param(f"{DISC_SAID} {STAR_SAID} {COUNT_SAID}", 10, 10, 10, id="count_last"),
        pytest.param(f"{DISC_SAID} {COUNT_SAID} {STAR_SAID}", 10, 10, 0, id="count_amid"),
        pytest.param(f"{COUNT_SAID} {STAR_SAID} {DISC_SAID}", 10, 10, 5, id="disorder"),
        # 3 sentences of 4 are new; 3 of 3 steps are in order
        pytest.param(f"{COUNT_SAID} {DISC_SAID} {DISC_SAID} {STAR_SAID}", 7.5, 10, 10, id="repeat"),
        # commentary reads as well as anything, and is outside the order
        pytest.param(f"{DISC_SAID} The mood is cosy. {STAR_SAID}", 10, 10, 10, id="filler"),
        pytest.param("The mood is cosy.", 10, 10, 10, id="filler_alone"),
        pytest.param(f"Top left large red circle. {STAR_SAID}", 10, 5, 10, id="broken"),
        # "The middle" is no sentence: 2 of 3 fluent and clear, 1 of 2 steps, broken off
        pytest.param(f"{COUNT_SAID} {DISC_SAID} The middle", 20 / 3, 20 / 3, 3.75, id="cut_off"),
        pytest.param(DISC_SAID.removesuffix("."), 10, 0, 7.5, id="full_stop_missing"),
        pytest.param("Perfect clarity, fluency and coherency.", 0, 0, 0, id="self_praise"),
        pytest.param("", 0, 0, 0, id="empty"),
    ],
)
def test_linguistic(text, clarity, fluency, coherency):
    assert linguistic(text) == pytest.approx(Linguistic(clarity, fluency, coherency))
    reply = answer({"question": "linguistic", "text": text})
    assert reply == linguistic(text)._asdict()


@given(text=st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_has_three_grades_in_range(text):
    assert all(0 <= grade <= 10 for grade in linguistic(text))

"""The reproduction's measures, on captions with planted faults."""

import pytest

from benchmarks.reproduction import measure
from benchmarks.reproduction.questions import qa_score
from tests.benchmarks.tiny_runs import STAR
from trl_balcap.scenes.parsing import parse_caption


@pytest.mark.parametrize(
    ("caption", "right"),
    [
        pytest.param("The top left shows a large red star.", 1 + 1 + 1 + 1 + 1, id="all but count"),
        pytest.param("The top left shows a large blue star.", 0 + 1 + 1 + 1 + 1, id="wrong colour"),
        pytest.param(
            "The top left shows a large red star. The top left shows a large blue star.",
            1 + 1 + 1 + 1 + 1,
            id="of two answers the first",
        ),
        pytest.param(
            "The top left shows a blue star. The top left shows a large red star. "
            "The top left shows a red star.",
            1 + 1 + 1 + 1 + 1,
            id="of three answers the most frequent",
        ),
    ],
)
def test_questions_are_answered_from_the_caption_alone(caption, right):
    # Six questions: count (5 choices), colour, shape, size, there? yes, there? no.
    cannot_count = 1 / 5 + 0.05
    assert qa_score(parse_caption(caption), STAR) == pytest.approx((right + cannot_count) / 6)


def test_saying_nothing_scores_as_captionqa_scores_it():
    # 1/K + 0.05 for count, colour, shape, size; "there?" is yes or no: wrong once, right once.
    abstained = 1 / 5 + 1 / 6 + 1 / 4 + 1 / 2 + 4 * 0.05
    assert qa_score([], STAR) == pytest.approx((abstained + 0 + 1) / 6)


def test_the_arena_ranks_perfect_above_hedging_above_nothing():
    rows = measure.held_out(24)
    perfect = [row.reference for row in rows]
    hedged = [f"{text} The middle centre shows a small black star." for text in perfect]
    scores = [measure.arena_score(texts, rows) for texts in (perfect, hedged, [""] * len(rows))]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 30 > -30 > scores[2]
    assert scores[1] < scores[0] - 20


def test_measures_of_planted_faults():
    rows = measure.held_out(8)
    words = lambda text: len(text.split())  # noqa: E731
    meta = measure.measure([f"{row.reference} The mood is cosy." for row in rows], rows, words)
    sentences = sum(len(row.scene.things) + 2 for row in rows)  # count, things, commentary
    assert meta["meta"] == pytest.approx(8 / sentences)
    assert (meta["recall"], meta["qa"]) == (1.0, 1.0)
    assert meta["precision"] < 1.0
    twice = measure.measure([f"{row.reference} {row.reference}" for row in rows], rows, words)
    assert (twice["repetition"], twice["length_ratio"], twice["too_long"]) == (0.5, 2.0, 0.0)
    assert twice["precision"] == 1.0  # saying it twice is no second assertion

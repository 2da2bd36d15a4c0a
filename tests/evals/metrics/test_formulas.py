"""b-CapScore by hand, and the laws of a harmonic mean."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_balcap.metrics import b_capscore, corpus_scores

reward = st.floats(min_value=0.0, max_value=1.0)


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        pytest.param((0.5, 1.0, 0.5), 0.6, id="3_over_2_plus_1_plus_2"),
        pytest.param((0.2, 0.4, 0.8), 3 / 8.75, id="3_over_5_plus_2.5_plus_1.25"),
        pytest.param((100.0, 50.0, 50.0), 60.0, id="percent_in_percent_out"),
        pytest.param((0.9, 0.0, 0.9), 0.0, id="any_zero_is_zero"),
        pytest.param((0.0, 0.0, 0.0), 0.0, id="all_zero_is_zero"),
        pytest.param((0.9, None, 0.9), None, id="missing_is_missing"),
        pytest.param((0.9, math.nan, 0.9), None, id="nan_is_missing"),
        pytest.param((0.0, None, 0.9), None, id="missing_beats_zero"),
    ],
)
def test_b_capscore(rewards, expected):
    found = b_capscore(*rewards)
    assert found == (expected if expected is None else pytest.approx(expected, rel=1e-12))


@pytest.mark.parametrize("bad", [-0.1, math.inf])
def test_a_reward_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="finite rewards of at least 0"):
        b_capscore(0.5, bad, 0.5)


@given(reward, reward, reward)
def test_it_lies_between_the_smallest_and_three_times_the_smallest(p, r, lin):
    score = b_capscore(p, r, lin)
    assert score is not None
    assert min(p, r, lin) * (1 - 1e-12) <= score <= 3 * min(p, r, lin) * (1 + 1e-12)
    assert score <= (p + r + lin) / 3 * (1 + 1e-12)


@given(reward, reward, reward)
def test_the_order_of_the_views_does_not_matter(p, r, lin):
    assert b_capscore(p, r, lin) == pytest.approx(b_capscore(lin, p, r), rel=1e-12)


@given(reward)
def test_a_caption_that_is_equal_in_all_views_has_their_score(value):
    assert b_capscore(value, value, value) == pytest.approx(value, rel=1e-12)


def test_corpus_means_flatter_an_unbalanced_captioner():
    # One caption is precise and poor in coverage, the other the reverse: each scores
    # 3 / (1/1 + 1/0.2 + 1/1) = 3/7, while the means are 0.6, 0.6, 1 and give 3 / (13/3) = 9/13.
    scores = corpus_scores([1.0, 0.2], [0.2, 1.0], [1.0, 1.0])
    assert scores.b_capscore == pytest.approx(3 / 7)
    assert scores.b_capscore_of_means == pytest.approx(9 / 13)


def test_corpus_scores_say_what_they_rest_on():
    scores = corpus_scores([0.5, None, 1.0], [0.5, 0.5, None], [0.5, 0.5, 1.0])
    assert scores.precision == pytest.approx(0.75)
    assert (scores.n_precision, scores.n_recall, scores.n_linguistic) == (2, 2, 3)
    assert (scores.b_capscore, scores.n_b_capscore, scores.n) == (0.5, 1, 3)


def test_a_corpus_without_verdicts_has_no_score():
    scores = corpus_scores([None], [None], [0.5])
    assert (scores.precision, scores.b_capscore, scores.b_capscore_of_means) == (None, None, None)


def test_sequences_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one entry per caption, got 2 precision, 1 recall"):
        corpus_scores([1.0, 1.0], [1.0], [1.0])

"""Intervals: what they cover, and that pairing pairs."""

import numpy as np
import pytest

from trl_balcap.evals import bootstrap
from trl_balcap.evals.bootstrap import (
    Statistic,
    difference,
    estimate,
    estimates,
    mean_statistic,
    ratio,
    resampling_weights,
)
from trl_balcap.evals.metrics.b_capscore import BCapScore


def test_the_interval_of_a_mean_is_that_of_the_normal_law():
    # 400 values of 0 and 1 with mean 0.25: standard error sqrt(0.25 * 0.75 / 400) = 0.02165.
    found = estimate(mean_statistic("s", [1.0] * 100 + [0.0] * 300), resampling_weights(400))
    assert found.value == 0.25
    assert found.low == pytest.approx(0.25 - 1.96 * 0.02165, abs=0.005)
    assert found.high == pytest.approx(0.25 + 1.96 * 0.02165, abs=0.005)


def test_about_95_of_100_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        values = rng.normal(0.5, 0.2, size=60).tolist()
        found = estimate(mean_statistic("s", values), resampling_weights(60, rounds=400, seed=seed))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.5 <= found.high
    assert 180 <= covered <= 200


def test_missing_values_leave_the_denominator():
    found = estimate(mean_statistic("s", [1.0, None, 0.0, None]), resampling_weights(4))
    assert (found.value, found.n_scored, found.n) == (0.5, 2, 4)


def test_nothing_scored_is_no_score_and_one_is_no_interval():
    weights = resampling_weights(2)
    nothing = estimate(mean_statistic("s", [None, None]), weights)
    assert (nothing.value, nothing.low, nothing.n_scored) == (None, None, 0)
    single = estimate(mean_statistic("s", [0.3, None]), weights)
    assert (single.value, single.low, single.high) == (pytest.approx(0.3), None, None)


def test_strata_keep_their_size():
    labels = ["a"] * 5 + ["b"] * 2
    weights = resampling_weights(7, strata=labels, rounds=100)
    assert set(weights[:, :5].sum(axis=1).tolist()) == {5}
    assert set(weights[:, 5:].sum(axis=1).tolist()) == {2}


def test_strata_of_one_image_are_drawn_together():
    weights = resampling_weights(5, strata=["a", "a", "x", "y", "z"], rounds=200)
    assert set(weights[:, 2:].sum(axis=1).tolist()) == {3}
    assert weights[:, 2].max() > 1


def test_the_same_seed_draws_the_same():
    assert (resampling_weights(9, seed=3) == resampling_weights(9, seed=3)).all()
    assert (resampling_weights(9, seed=3) != resampling_weights(9, seed=4)).any()


def test_pairing_removes_what_the_images_share():
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 1, size=100)
    before = mean_statistic("s", hard.tolist())
    after = mean_statistic("s", (hard + 0.01).tolist())
    weights = resampling_weights(100)
    paired = difference(before, after, weights)
    assert paired.value == pytest.approx(0.01)
    assert paired.low == pytest.approx(0.01)
    assert paired.share_above_zero == 1.0
    alone = estimate(before, weights)
    assert alone.low is not None
    assert alone.high is not None
    assert alone.high - alone.low > 0.05


def test_a_pair_needs_both_sides():
    first = mean_statistic("s", [1.0, 0.0, None, 1.0])
    second = mean_statistic("s", [1.0, None, 0.0, 0.0])
    found = difference(first, second, resampling_weights(4))
    assert (found.first, found.second, found.value, found.n) == (1.0, 0.5, -0.5, 2)


def test_scores_of_two_kinds_do_not_compare():
    with pytest.raises(ValueError, match="the same score on the same images"):
        difference(mean_statistic("a", [1.0]), mean_statistic("b", [1.0]), resampling_weights(1))


def test_a_ratio_of_sums_is_not_a_mean_of_ratios():
    # Images with 1 of 1 and 0 of 3 questions right: 1/4 of the questions.
    columns = np.array([[1.0, 1.0], [0.0, 3.0]])
    statistic = Statistic("s", columns, ratio, np.array([True, True]))
    assert estimate(statistic, resampling_weights(2)).value == 0.25


def test_a_mean_of_means_is_paired_in_each_of_its_means():
    """The second has a recall where the first has none: that image enters neither recall."""
    first = [{"score": None, "precision": 0.5, "recall": None, "linguistic": 1.0}]
    second = [{"score": None, "precision": 0.5, "recall": 0.1, "linguistic": 1.0}]
    both = [{"score": 0.6, "precision": 0.5, "recall": 1.0, "linguistic": 0.5}]
    one, other = (BCapScore.statistics(rows + both)[1] for rows in (first, second))
    found = difference(one, other, resampling_weights(2))
    # Precision 0.5, recall 1.0 and linguistic 0.75 on both sides: 3 / (2 + 1 + 4/3).
    assert found.first == found.second == pytest.approx(100 * 9 / 13)
    assert found.value == 0.0


def test_intervals_in_parts_are_those_of_the_whole_matrix(monkeypatch):
    """Seven images in two strata, three of 100 rounds at a time."""
    labels = ["a", "b", "a", "b", "a", "b", "a"]
    values = [0.1, 0.9, None, 0.4, 0.2, 0.8, 0.7]
    statistics = [mean_statistic("s", values), mean_statistic("t", values[::-1])]
    weights = resampling_weights(7, strata=labels, rounds=100)
    whole = [estimate(one, weights) for one in statistics]
    monkeypatch.setattr(bootstrap, "AT_ONCE", 12)
    assert (resampling_weights(7, strata=labels, rounds=100) == weights).all()
    for found, expected in zip(
        estimates(statistics, strata=labels, rounds=100), whole, strict=True
    ):
        assert found[1:] == pytest.approx(expected[1:])

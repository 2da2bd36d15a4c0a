"""The statistics of the reproduction, on numbers small enough to check by hand."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test

from benchmarks.reproduction import calls, claims, inference, runs, tables


@pytest.mark.parametrize("module", [calls, claims, inference, runs, tables])
def test_examples(module):
    found = doctest.testmod(module, extraglobs={"np": np})
    assert found.attempted > 0
    assert found.failed == 0


def test_twenty_like_signs_are_two_of_a_million_ways():
    assert inference.sign_flip_p([0.01 * (n + 1) for n in range(20)]) == 2 / 2**20


def test_no_effect_has_p_1():
    assert inference.sign_flip_p([0.0, 0.0, 0.0]) == 1.0
    assert inference.sign_flip_p([0.1, -0.1]) == 1.0


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=7))
def test_the_sign_flip_test_is_scipys(values):
    differences = [value / 100 for value in values]
    theirs = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=2**7)
    assert inference.sign_flip_p(differences) == pytest.approx(theirs.pvalue)


def test_equivalence_needs_both_sides():
    """t = (0.02 - 0.012) / (0.01 / sqrt(3)) = 1.386 towards the margin: p = 0.150 with 2 degrees of
    freedom, whatever the other side says."""
    differences = [0.002, 0.012, 0.022]
    assert inference.equivalence_p(differences, 0.02) == pytest.approx(0.150, abs=5e-4)
    assert inference.equivalence_p([-d for d in differences], 0.02) == pytest.approx(
        0.150, abs=5e-4
    )
    assert inference.equivalence_p(differences, 0.2) < 0.001


@pytest.mark.parametrize(
    ("differences", "word"),
    [
        ([0.10, 0.11, 0.11], "yes"),
        ([-0.10, -0.11, -0.11], "no"),
        # 0.003 on average, give or take 0.0005: an effect, if a small one.
        ([0.003, 0.0031, 0.0029], "yes"),
        ([0.003, -0.003, 0.001], "equivalent within 0.02"),
        # +-0.1 x 4.303 / sqrt(3) around 0.1.
        ([0.0, 0.1, 0.2], "undecided within 0.35"),
        ([0.10, 0.11], "too few seeds"),
        ([], "too few seeds"),
    ],
)
def test_words_for_a_difference(differences, word):
    assert inference.verdict(inference.evidence(differences, 0.02)) == word


def test_corrections_leave_out_what_was_not_tested():
    """Holm: 0.01 x 3, then 0.02 x 2, then 0.5. Benjamini and Hochberg: 0.01 x 3 / 1, 0.02 x 3 / 2,
    0.5."""
    found = inference.corrected([0.5, math.nan, 0.01, 0.02])
    assert math.isnan(found[1][0])
    assert [pair for pair in found if not math.isnan(pair[0])] == [
        (0.5, 0.5),
        (pytest.approx(0.03), pytest.approx(0.03)),
        (pytest.approx(0.04), pytest.approx(0.03)),
    ]


def test_scenes_widen_an_interval_that_seeds_alone_leave_narrow():
    """Every seed gains the same 0.0 on one scene and 0.2 on the other: over seeds, +0.1 exactly;
    another draw of scenes may hold only one of the two."""
    less = np.full((4, 2), 0.5)
    more = less + np.array([0.0, 0.2])[None, :]
    low, high = inference.crossed_bootstrap(more, less)
    assert (low, high) == (pytest.approx(0.0), pytest.approx(0.2))
    more = less + np.array([0.0, 0.0, 0.2, 0.2])[:, None]  # and so for seeds
    low, high = inference.crossed_bootstrap(more, less)
    assert (low, high) == (pytest.approx(0.0), pytest.approx(0.2))


def test_the_bootstraps_score_is_the_harmonic_mean_of_the_views():
    assert inference.harmonic(np.array([0.5, 1.0, 1.0])) == pytest.approx(3 / 4)
    assert inference.harmonic(np.array([0.0, 1.0, 1.0])) == 0.0

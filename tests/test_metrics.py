"""The reward formulas by hand."""

import pytest

from trl_balcap.judge.replies import Verification
from trl_balcap.metrics import linguistic_score, precision_score, recall_score


@pytest.mark.parametrize(
    ("verdicts", "score"),
    [
        pytest.param([(True, True)] * 3 + [(False, True)], 0.75, id="one_of_four_is_wrong"),
        pytest.param([(True, True), (True, False)], 0.5, id="right_but_nothing_to_point_at"),
        pytest.param([(False, False)], 0.0, id="neither"),
        pytest.param([], 0.0, id="asserts_nothing"),
    ],
)
def test_precision_needs_correct_and_pointable(verdicts, score):
    assert precision_score([Verification(*verdict) for verdict in verdicts]) == score


def test_recall_of_nothing_is_missing():
    assert recall_score([True, True, False, True]) == 0.75
    assert recall_score([False]) == 0.0
    assert recall_score([]) is None


def test_linguistic_is_the_mean_grade_over_ten():
    assert linguistic_score(10, 10, 10) == 1.0
    assert linguistic_score(9.0, 6.0, 3.0) == 0.6
    assert linguistic_score(0, 0, 0) == 0.0

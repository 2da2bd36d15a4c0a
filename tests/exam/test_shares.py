"""Intervals of shares that resampling calls certain."""

import pytest

from trl_balcap.evals.bootstrap import Estimate
from trl_balcap.exam.shares import widened, wilson


def test_a_share_of_one_is_not_certain():
    # n / (n + z^2) with z = 1.96: 10 / 13.84
    assert wilson([(10, 10)]) == pytest.approx((0.7225, 1.0), abs=1e-4)
    # Two shares of one: 1 - sqrt(2) * (1 - 0.7225) / 2
    assert wilson([(10, 10), (10, 10)])[0] == pytest.approx(0.8037, abs=1e-4)


def test_an_interval_is_never_narrowed():
    certain = Estimate("correct", 1.0, 1.0, 1.0, 10, 10)
    assert widened(certain, [(10, 10)])[2:4] == pytest.approx((0.7225, 1.0), abs=1e-4)
    wide = Estimate("correct", 0.5, 0.1, 0.9, 10, 10)
    assert widened(wide, [(5, 10)])[2:4] == (0.1, 0.9)


def test_without_statements_of_a_kind_there_is_nothing_to_widen():
    nothing = Estimate("correct", None, None, None, 0, 10)
    assert widened(nothing, [(0, 0), (0, 0)]) == nothing
    one_kind = Estimate("correct", 1.0, 1.0, 1.0, 10, 10)
    assert widened(one_kind, [(10, 10), (0, 0)]) == one_kind

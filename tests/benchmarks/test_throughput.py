"""The rate that the throughput benchmark gives, and the one it has kept."""

import json

import pytest

from benchmarks.results_file import RESULTS
from benchmarks.throughput import GOAL, steady_rate


def test_the_rate_leaves_out_a_window_at_either_end():
    """Two at a time, each pair 0.5 s after the last: four a second, however long the start took."""
    times = [7.0, 7.0, 7.5, 7.5, 8.0, 8.0, 8.5, 8.5, 9.0, 9.0]
    assert steady_rate(times, window=2) == pytest.approx((10 - 4) / (9.0 - 7.5))


def test_the_kept_figures_reach_the_goal():
    kept = json.loads((RESULTS / "throughput.json").read_text())
    for case in kept["cases"]:
        assert case["share_of_limit"] >= GOAL
        assert (case["skipped"], case["refused"]) == (0, 0)

"""How many steps an arm takes to the full method's plateau."""

import numpy as np
import pytest

from benchmarks.reproduction.plateau import WINDOW, speed


def run(arm, seed, rising, length=200):
    """All three rewards rise by straight lines to 0.8 at step `rising`, and stay there."""
    heights = 0.8 * np.minimum(1.0, np.arange(1, length + 1) / rising)
    steps = [
        {f"{view}/mean": float(height) for view in ("precision", "recall", "linguistic")}
        for height in heights
    ]
    return {"arm": arm, "seed": seed, "steps": steps}


def test_an_arm_that_rises_twice_as_fast_takes_half_the_steps():
    """Within 0.02 of 0.8 is a deficit of 0.32 in a window of 16 steps. Before step 80 the deficits
    are 0.01, 0.02, ...: seven of them make 0.28, so the window may begin at step 73 and ends at 88.
    Before step 40 they are 0.02, 0.04, ...: five make 0.30; from 35 to 50."""
    assert WINDOW == 16
    runs = [run(arm, s, rise) for s in range(3) for arm, rise in (("full", 80), ("credit", 40))]
    found = speed(runs, "credit")
    assert found is not None
    assert (found.steps, found.full_steps, found.n) == (50, 88, 3)
    assert found.ratio == found.low == found.high == pytest.approx(88 / 50)


def test_an_arm_that_never_gets_there_has_no_ratio():
    runs = [run(arm, s, rise) for s in range(3) for arm, rise in (("full", 80), ("credit", 900))]
    found = speed(runs, "credit")
    assert found is not None
    assert (found.steps, found.ratio) == (None, 0.0)


def test_short_runs_and_two_seeds_say_nothing():
    short = [run(arm, s, 20, length=40) for s in range(3) for arm in ("full", "credit")]
    two = [run(arm, s, 20) for s in range(2) for arm in ("full", "credit")]
    assert speed(short, "credit") is None
    assert speed(two, "credit") is None


def test_the_longest_runs_with_three_pairs_count():
    long = [run(arm, s, 150, length=300) for s in range(2) for arm in ("full", "credit")]
    runs = [run(arm, s, rise) for s in range(3) for arm, rise in (("full", 80), ("credit", 40))]
    found = speed([*long, *runs], "credit")
    assert found is not None
    assert found.full_steps == 88

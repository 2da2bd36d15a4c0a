"""The rules behind the tables: what wins, what greedy captions say, how far pairs agree."""

import pytest

from benchmarks.reproduction import tables
from benchmarks.reproduction.arms import WEIGHTS
from benchmarks.reproduction.experiments import Experiment
from benchmarks.reproduction.horizons import areas, at_horizons


def run(arm, seed, score, greedy=None, steps=40, rising=0):
    """A run that ends at a score; its training rewards rise by straight lines to 0.8 at a step."""
    measures = {
        kind: {"b_capscore": value}
        for kind, value in (("sampled", score), ("greedy", score if greedy is None else greedy))
    }
    heights = [0.8 * min(1.0, step / rising) for step in range(1, steps + 1)] if rising else []
    views = ("precision", "recall", "linguistic")
    rewards = [{f"{view}/mean": height for view in views} for height in heights]
    settings = {"world": "small", "steps": steps}
    return {"arm": arm, "seed": seed, "settings": settings, "measures": measures, "steps": rewards}


def experiment(runs):
    horizons = at_horizons(runs)
    return Experiment("small", "The small world", runs, horizons, areas(horizons))


@pytest.mark.parametrize(
    ("rising", "lead", "won"),
    [
        (100, 0.04, True),  # ahead by more than 0.03
        (100, 0.01, False),
        (40, 0.01, True),  # twice as fast, and no more than 0.02 below at the end
        (40, -0.03, False),
    ],
)
def test_an_arm_wins_by_its_end_or_by_its_speed_if_it_does_not_end_below(rising, lead, won):
    runs = [
        run(arm, seed, 0.8 + seed / 100 + ahead, steps=120, rising=rise)
        for seed in range(3)
        for arm, rise, ahead in (("full", 80, 0.0), ("assertion", rising, lead + seed / 1000))
    ]
    assert tables.winners(experiment(runs)) == (["assertion"] if won else [])


def test_greedy_captions_may_answer_a_part_otherwise():
    """Ahead in all samples by 0.1; greedy, behind by 0.1."""
    runs = [
        run(arm, seed, score + seed / 100, greedy + seed / 50)
        for seed in range(3)
        for arm, score, greedy in (("full", 0.8, 0.6), ("vanilla", 0.7, 0.7 + seed / 1000))
    ]
    told = tables.greedy_differs(experiment(runs))
    assert told == (
        "Greedy captions answer otherwise in: 2a (no, -0.101 [-0.103, -0.099]; sampled yes)."
    )


def test_pairs_agree_as_far_as_their_seeds_move_both():
    """Eight seeds: with one more each, the full method gains 0.01 and vanilla GRPO as much; without
    a gate, runs fall as much."""
    runs = [
        run(arm, seed, score)
        for seed in range(8)
        for arm, score in (
            ("full", 0.7 + seed / 100),
            ("vanilla", 0.6 + seed / 100),
            ("no_gate", 0.9 - seed / 100),
        )
    ]
    assert tables.pairing(experiment(runs[:6])) == ""
    assert tables.pairing(experiment(runs)).startswith("Partners correlate by 0.00, on average ove")
    only = [run for run in runs if run["arm"] != "no_gate"]
    assert tables.pairing(experiment(only)).startswith(
        "Partners correlate by 1.00, on average over"
    )


def test_the_sweep_of_weights_is_read_at_one_step():
    """Vanilla GRPO has gone on to step 120, the sweep has not."""
    both = [*WEIGHTS, *(f"vanilla_{name}" for name in WEIGHTS)]
    runs = [run(arm, s, 0.5 + s / 100) for s in range(3) for arm in ("full", "vanilla", *both)]
    runs += [run(arm, s, 0.9 + s / 100, steps=120) for s in range(3) for arm in ("full", "vanilla")]
    told = tables.weights_table(experiment(runs))
    assert "at step 40." in told
    assert "| all weighted 1 | reference | +0.000 [+0.000, +0.000] 3 |" in told
    assert tables.weights_table(experiment(runs[:10])) == ""

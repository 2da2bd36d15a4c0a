"""How many steps an arm takes to where the full method ends up."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.reproduction.horizons import Run
from benchmarks.reproduction.inference import LEAST_SEEDS, harmonic
from trl_balcap.evals.bootstrap import resampling_weights

__all__ = ["Speed", "curve", "first_at", "speed"]

WINDOW = 16  # steps in the running mean
NEAR = 0.02  # below the plateau: the margin of equivalence
VIEWS = ("precision", "recall", "linguistic")


class Speed(NamedTuple):
    """Steps of an arm and of the full method to the full method's plateau (`None` if it is not
    reached), how many times fewer the arm takes, with a 95% interval, and the number of pairs."""

    steps: int | None
    full_steps: int | None
    ratio: float
    low: float
    high: float
    n: int


def curve(run: Run) -> np.ndarray:
    """
    b-CapScore of the training rewards at each step, from running means over `WINDOW` steps.

    Only arms with the full method's rewards can be compared by it.

    ```python
    >>> step = {f"{view}/mean": 0.5 for view in VIEWS}
    >>> curve({"steps": [step] * 18}).tolist()
    [0.5, 0.5, 0.5]

    ```
    """
    means = [[step[f"{view}/mean"] for view in VIEWS] for step in run["steps"]]  # (T, 3)
    sums = np.cumsum(np.vstack([np.zeros(3), means]), axis=0)
    return harmonic((sums[WINDOW:] - sums[:-WINDOW]) / WINDOW)  # (T - WINDOW + 1,)


def first_at(heights: np.ndarray, level: float) -> int | None:
    """
    The step whose running mean first reaches the level.

    ```python
    >>> first_at(np.array([0.5, 0.7, 0.6]), 0.6), first_at(np.array([0.5]), 0.6)
    (17, None)

    ```
    """
    above = np.flatnonzero(heights >= level)
    return int(above[0]) + WINDOW if len(above) else None


def speed(runs: Sequence[Run], arm: str) -> Speed | None:
    """
    Steps to within `NEAR` of the plateau of the full method, its mean over the last fifth of its
    steps, on the mean curve of the longest runs that form at least three pairs. The interval
    resamples the pairs, and the plateau with them.
    """
    by_length: dict[int, dict[str, dict[int, np.ndarray]]] = {}
    for run in runs:
        if run["arm"] in (arm, "full") and len(run["steps"]) >= 5 * WINDOW:
            of_length = by_length.setdefault(len(run["steps"]), {arm: {}, "full": {}})
            of_length[run["arm"]][run["seed"]] = curve(run)
    for _, found in sorted(by_length.items(), reverse=True):
        seeds = sorted(found[arm].keys() & found["full"].keys())
        if len(seeds) >= LEAST_SEEDS:
            mine, full = (np.stack([found[name][seed] for seed in seeds]) for name in (arm, "full"))
            return _speed(mine, full)
    return None


def _speed(mine: np.ndarray, full: np.ndarray) -> Speed:
    """Of curves of shape (S, T)."""
    seeds = len(mine)
    weights = resampling_weights(seeds, rounds=2000) / seeds  # (R, S)
    steps, full_steps = _reached(np.full(seeds, 1 / seeds), mine, full)
    drawn = [_ratio(*_reached(each, mine, full)) for each in weights]
    low, high = np.quantile(drawn, (0.025, 0.975), method="nearest")
    return Speed(steps, full_steps, _ratio(steps, full_steps), float(low), float(high), seeds)


def _reached(
    weights: np.ndarray, mine: np.ndarray, full: np.ndarray
) -> tuple[int | None, int | None]:
    mean = weights @ full  # (T,)
    level = float(mean[-len(mean) // 5 :].mean()) - NEAR
    return first_at(weights @ mine, level), first_at(mean, level)


def _ratio(steps: int | None, full_steps: int | None) -> float:
    """How many times fewer; 0 if the arm never gets there."""
    return full_steps / steps if steps and full_steps else 0.0

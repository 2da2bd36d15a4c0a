"""
The cost of a judge's errors: the b-CapScore that training lost under judges that err as often.

`noise.json`, written by `python -m benchmarks.noise_costs`, has the differences between the full
method and the arms with a noisy judge in the reproduction on drawn scenes.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import Any

from trl_balcap.exam.marks import Report

__all__ = ["Cost", "cost_of", "costs", "noise_arms"]

VERDICTS = ("correct", "pointable", "covered")  # of the three rewards


@dataclass(frozen=True)
class Cost:
    """
    The cost of one kind of error.

    Args:
        kind (`str`): "correct", "pointable", "covered", "grades", or "all" of them at once.
        error (`float` or `None`): The judge's share of wrong verdicts (1 - balanced accuracy), or
            the standard deviation of a grade from 0 to 10 when it is asked again.
        points (`float` or `None`): Points of b-CapScore (0 to 100) lost; `None` if not measured.
        low, high (`float` or `None`): 95% interval over seeds of the nearest measured arm.
        beyond (`bool`): Whether the error is larger than any measured one, so it costs more.
    """

    kind: str
    error: float | None
    points: float | None = None
    low: float | None = None
    high: float | None = None
    beyond: bool = False


def costs(report: Report) -> tuple[Cost, ...]:
    """
    The cost of each kind of error, as if the judge erred at random and only in that kind, and the
    cost of all of them together, by the mean error of its verdicts.

    Args:
        report ([`Report`]): The judge's marks.
    """
    errors: dict[str, float | None] = {}
    for kind in VERDICTS:
        accuracy = report[f"{kind}, balanced accuracy"].value
        errors[kind] = None if accuracy is None else 1 - accuracy
    known = [error for error in errors.values() if error is not None]
    spread = report["retest spread, linguistic"].value
    # A score is the mean of three grades, a tenth of it.
    errors["grades"] = None if spread is None else 10 * math.sqrt(3) * spread
    errors["all"] = fmean(known) if len(known) == len(VERDICTS) else None
    return tuple(cost_of(kind, error, noise_arms(kind)) for kind, error in errors.items())


def cost_of(kind: str, error: float | None, arms: Sequence[dict[str, Any]]) -> Cost:
    """
    The cost of an error, interpolated linearly between the measured ones, starting from no error
    at no cost.

    Example:

    ```python
    >>> arms = [{"error": 0.1, "points": 4.0, "low": 1.0, "high": 7.0}]
    >>> cost_of("covered", 0.05, arms).points, cost_of("covered", 0.2, arms).beyond
    (2.0, True)

    ```
    """
    if error is None or not arms:
        return Cost(kind, error)
    arms = sorted(arms, key=lambda arm: arm["error"])
    nearest = min(arms, key=lambda arm: abs(arm["error"] - error))
    before: dict[str, Any] = {"error": 0.0, "points": 0.0}
    points = arms[-1]["points"]
    for arm in arms:
        if error <= arm["error"]:
            share = (error - before["error"]) / (arm["error"] - before["error"])
            points = before["points"] + share * (arm["points"] - before["points"])
            break
        before = arm
    return Cost(
        kind, error, points, nearest["low"], nearest["high"], beyond=error > arms[-1]["error"]
    )


@cache
def noise_arms(kind: str) -> list[dict[str, Any]]:
    """The arms with this kind of error: "error", "points", "low", "high", "seeds"."""
    text = files("trl_balcap.exam").joinpath("noise.json").read_text(encoding="utf-8")
    return [arm for arm in json.loads(text)["arms"] if arm["kind"] == kind]

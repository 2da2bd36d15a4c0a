"""The runs of one experiment, measured at the same numbers of steps."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.reproduction.arms import ARMS
from benchmarks.reproduction.inference import LEAST_SEEDS, area

__all__ = [
    "AREA_UP_TO",
    "HORIZONS",
    "Results",
    "Run",
    "areas",
    "at_horizons",
    "experiment",
    "last_of",
    "latest",
]

HORIZONS = (40, 120, 300)
"""Steps after which a run is measured, as far as it goes."""

AREA_UP_TO = 120
"""Steps under whose curve the area is taken."""

Run = Mapping[str, Any]
"""One line of the results."""

Results = Mapping[str, Mapping[Any, Mapping[str, Any]]]
"""arm -> pair -> {"measures": ...}: a pair is a run's length and seed, which partners share."""


def experiment(runs: Iterable[Run], world: str = "small", **settings: Any) -> list[Run]:
    """
    The runs that may be compared: of one world and, apart from their length, of equal settings.

    Args:
        runs (`Iterable[dict]`): All runs.
        world (`str`, *optional*): Which world.
        **settings: Other settings that must match. For those not named, the most frequent are used.
    """
    wanted = {"world": world, **settings}
    found = {
        (_kind(run), run["arm"], run["settings"]["steps"], run["seed"]): run
        for run in runs
        if run["arm"] in ARMS
        and all(run["settings"].get(key) == value for key, value in wanted.items())
    }  # a run that two files hold counts once
    kinds = Counter(kind for kind, *_ in found)
    most = kinds.most_common(1)[0][0] if kinds else ""
    return [run for (kind, *_), run in found.items() if kind == most]


def _kind(run: Run) -> str:
    return json.dumps({**run["settings"], "steps": None}, sort_keys=True)


def at_horizons(runs: Iterable[Run]) -> dict[int, Results]:
    """
    Measures by number of steps, arm and pair.

    A run of 120 steps that was looked at after 40 counts at 40 beside runs of 40 steps: its rate is
    constant, so it does not know how long it will be. It sees other scenes than a run of 40 steps
    with its seed, so only runs of equal length are pairs. The base, which no step changes, is the
    partner of every length.
    """
    found: dict[int, Any] = defaultdict(lambda: defaultdict(dict))
    base: dict[int, Any] = {}
    for run in runs:
        length, seed = run["settings"]["steps"], run["seed"]
        if not ARMS[run["arm"]].trained:
            base[seed] = {"measures": run["measures"]}
            continue
        looks = {**run.get("on_the_way", {}), length: run["measures"]}
        for step, measures in looks.items():
            found[int(step)][run["arm"]][length, seed] = {"measures": measures}
    for arms in found.values():
        pairs = sorted({pair for seeds in arms.values() for pair in seeds})
        arms["base"] = {pair: base[pair[1]] for pair in pairs if pair[1] in base}
    return {step: in_order(arms) for step, arms in sorted(found.items())}


def areas(horizons: Mapping[int, Results]) -> Results:
    """
    Each measure as the [`area`] under its curve from the base to step `AREA_UP_TO`, of the runs
    measured at every horizon up to it.

    The curve is that of the measures on held-out scenes. The training rewards are recorded at every
    step, but are not the same quantity in two arms: an arm's gate, scales and noise are in them.
    """
    steps = [step for step in HORIZONS if step <= AREA_UP_TO]
    if not set(steps) <= horizons.keys():
        return {}
    start = _mean_measures(horizons[steps[0]].get("base", {}).values())
    found: dict[str, Any] = {}
    for name in horizons[AREA_UP_TO]:
        looks = [horizons[step].get(name, {}) for step in steps]
        pairs = set.intersection(*(set(look) for look in looks)) if start else set()
        found[name] = {
            pair: {
                "measures": {
                    kind: {
                        key: area(
                            {0: value}
                            | {
                                step: look[pair]["measures"][kind][key]
                                for step, look in zip(steps, looks, strict=True)
                            }
                        )
                        for key, value in measures.items()
                    }
                    for kind, measures in start.items()
                }
            }
            for pair in sorted(pairs)
        }
    return in_order(found)


def _mean_measures(results: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Of the base over its seeds."""
    every = [result["measures"] for result in results]
    if not every:
        return {}
    return {
        kind: {key: fmean(one[kind][key] for one in every) for key in every[0][kind]}
        for kind in ("sampled", "greedy")
    }


def last_of(horizons: Mapping[int, Results], arms: Sequence[str], least: int) -> int | None:
    """The latest step at which the arms share at least so many pairs."""
    for step in sorted(horizons, reverse=True):
        pairs = [set(horizons[step].get(name, {})) for name in arms]
        if len(set.intersection(*pairs)) >= least:
            return step
    return None


def latest(horizons: Mapping[int, Results], least: int = LEAST_SEEDS) -> Results:
    """Each arm at the last step that at least so many of its runs have reached."""
    found: dict[str, Any] = {}
    for _, results in sorted(horizons.items()):
        found |= {name: runs for name, runs in results.items() if len(runs) >= least}
    return in_order(found)


def in_order(arms: Mapping[str, Any]) -> Results:
    return {name: arms[name] for name in ARMS if arms.get(name)}

"""What was run: one experiment for each world and base."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.reproduction.arms import ARMS
from benchmarks.reproduction.horizons import Results, Run, areas, at_horizons, experiment
from benchmarks.reproduction.runs import read_runs
from benchmarks.reproduction.settings import rich_bases

__all__ = ["Experiment", "read_experiments", "read_results"]


TOLD = {
    "right": "from a base as long as the reference",
    "short": "from a short base",
    "long": "from a base three times as long",
}


class Experiment(NamedTuple):
    """The runs that share a world and a base."""

    short: str
    title: str
    runs: list[Run]
    horizons: dict[int, Results]
    areas: Results


def read_experiments(file: Path) -> list[Experiment]:
    """The experiments with results, the small world's first."""
    runs = read_runs(file)
    found = [_of(experiment(runs), "small", "The small world")]
    names = rich_bases()
    places = list(TOLD)
    used: set[str] = {run["settings"]["base"] for run in runs if run["settings"]["world"] == "rich"}
    named = sorted((names.get(digest, digest), digest) for digest in used)
    for name, digest in sorted(named, key=lambda one: [*places, one[0]].index(one[0])):
        told = TOLD.get(name, f"from the base {name}")
        of_base = experiment(runs, world="rich", base=digest)
        found.append(_of(of_base, f"rich, {name} base", f"The rich world, {told}"))
    return [one for one in found if one.runs]


def _of(runs: Sequence[Run], short: str, title: str) -> Experiment:
    horizons = at_horizons(runs)
    return Experiment(short, title, list(runs), horizons, areas(horizons))


def read_results(file: Path, steps: int = 40) -> dict[str, dict[int, dict[str, Any]]]:
    """The small world's runs of one length, and the base of any, by arm and seed."""
    found: dict[str, dict[int, Any]] = {}
    for run in experiment(read_runs(file)):
        if run["settings"]["steps"] == steps or not ARMS[run["arm"]].trained:
            found.setdefault(run["arm"], {})[run["seed"]] = run
    return found

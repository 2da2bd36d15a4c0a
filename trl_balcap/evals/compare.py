"""Two captioners on the same images: paired differences of every score, from scored rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from trl_balcap.data.jsonl import BadRowsError, read_jsonl
from trl_balcap.evals.bootstrap import difference, resampling_weights
from trl_balcap.evals.metrics import b_capscore, caparena, captionqa, dcscore
from trl_balcap.evals.results import Comparison

__all__ = ["MODULES", "compare_rows", "is_scored", "read_rows"]

MODULES: dict[str, ModuleType] = {
    "b-capscore": b_capscore,
    "dcscore": dcscore,
    "captionqa": captionqa,
    "caparena": caparena,
}
"""Where each metric's `statistics` live."""

SAME = ("metric", "mode", "judge", "prompts_sha256")
"""What two sets of rows must share to be compared."""


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """
    Scored rows, as `trl-balcap score` writes them to `OUT/<metric>.jsonl`.

    Raises:
        BadRowsError: If a line is none of them.
    """
    rows = read_jsonl(path)
    problems = [
        f"{path}:{number}: no scored row (it has {', '.join(row)}); score the captions first."
        for number, row in rows
        if row.get("metric") not in MODULES
    ]
    if problems:
        raise BadRowsError(problems)
    if not rows:
        raise BadRowsError([f"{path}: there is no scored row in this file."])
    return [row for _, row in rows]


def is_scored(path: str | Path) -> bool:
    """Whether a file holds scored rows, to tell it from a file of captions."""
    if Path(path).suffix == ".json":
        return False
    rows = read_jsonl(path)
    return bool(rows) and rows[0][1].get("metric") in MODULES


def compare_rows(
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    *,
    names: tuple[str, str] = ("first", "second"),
    seed: int = 0,
) -> Comparison:
    """
    Differences of all scores of one metric, second minus first, on the images that both have.

    Args:
        first, second (`Sequence[Mapping]`):
            Scored rows of one metric, from one judge with one set of prompts.
        names (`tuple[str, str]`, *optional*):
            What to call the two.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the resampling.

    Returns:
        [`Comparison`]

    Raises:
        ValueError: If the rows were not scored alike, or share no id.
    """
    for name in SAME:
        values = {str(row.get(name)) for row in (*first, *second)}
        if len(values) > 1:
            raise ValueError(
                f"Only rows that were scored alike compare; {names[0]} and {names[1]} have the {name} "
                f"{' and '.join(sorted(values))}. Score both with the same settings."
            )
    of_second = {row["id"]: row for row in second}
    common = [row for row in first if row["id"] in of_second]
    if not common:
        raise ValueError(
            f"{names[0]} and {names[1]} share no id, such as {first[0]['id']!r} and "
            f"{second[0]['id']!r}. Give the same images the same id."
        )
    others = [of_second[row["id"]] for row in common]
    metric = str(common[0]["metric"])
    module = MODULES[metric]
    weights = resampling_weights(len(common), strata=strata_of(metric, common), seed=seed)
    pairs = zip(module.statistics(common), module.statistics(others), strict=True)
    return Comparison(
        metric=metric,
        mode=str(common[0]["mode"]),
        first=names[0],
        second=names[1],
        differences=tuple(difference(a, b, weights) for a, b in pairs),
        n_common=len(common),
        n_first=len(first),
        n_second=len(second),
    )


def strata_of(metric: str, rows: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """What stays fixed in a resample: domains of CaptionQA, baselines of CapArena-Auto, nothing elsewhere."""
    if metric == "captionqa":
        return [captionqa.domain_of(row["id"]) for row in rows]
    return caparena.strata(rows) if metric == "caparena" else None

"""Compares two captioners on the same images: paired differences of scores, from scored rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from trl_balcap.evals.bootstrap import difference, resampling_weights
from trl_balcap.evals.metrics.protocol import Row
from trl_balcap.evals.metrics.registry import METRICS
from trl_balcap.evals.results import Comparison

__all__ = ["check_alike", "compare_rows"]

SAME = ("metric", "mode", "judge", "prompts_sha256")
"""What two sets of rows must have in common to be compared."""


def compare_rows(
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    *,
    names: tuple[str, str] = ("first", "second"),
    seed: int = 0,
) -> Comparison:
    """
    Differences of all scores of one metric, second minus first, on the images in both.

    Args:
        first, second (`Sequence[Mapping]`):
            Scored rows of one metric, from one judge with one set of prompts.
        names (`tuple[str, str]`, *optional*):
            Names of the two.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the resampling.

    Returns:
        [`Comparison`]

    Raises:
        `ValueError`: if the rows were scored with different settings, or share no id.
    """
    check_alike(first, second, names)
    of_second = {row["id"]: row for row in second}
    common = [row for row in first if row["id"] in of_second]
    if not common:
        raise ValueError(
            f"{names[0]} and {names[1]} have no id in common: they have {first[0]['id']!r} and "
            f"{second[0]['id']!r}, for example. Give the same image the same id in both."
        )
    others = [of_second[row["id"]] for row in common]
    for one, other in zip(common, others, strict=True):
        for name in ("image", "reference"):
            if one.get(f"{name}_sha256") != other.get(f"{name}_sha256"):
                raise ValueError(
                    f"{names[0]} and {names[1]} were scored with different values of {name} for "
                    f"{one['id']!r}. Score both again with the same one."
                )
    metric = METRICS[str(common[0]["metric"])]
    weights = resampling_weights(len(common), strata=metric.strata(common), seed=seed)
    pairs = zip(metric.statistics(common), metric.statistics(others), strict=True)
    return Comparison(
        metric=metric.name,
        mode=str(common[0]["mode"]),
        first=names[0],
        second=names[1],
        differences=tuple(difference(a, b, weights) for a, b in pairs),
        n_common=len(common),
        n_first=len(first),
        n_second=len(second),
    )


def check_alike(first: Sequence[Row], second: Sequence[Row], names: tuple[str, str]) -> None:
    """
    Raises:
        `ValueError`: if two models' rows were scored with different settings.
    """
    of_the_model = METRICS[str(first[0]["metric"])].of_the_model
    rows = [*first, *second]
    settings = {name for row in rows for name in row.get("settings", {})} - of_the_model
    asked = [(name, {str(row.get(name)) for row in rows}) for name in SAME]
    asked += [
        (name, {str(row.get("settings", {}).get(name)) for row in rows})
        for name in sorted(settings)
    ]
    for name, values in asked:
        if len(values) > 1:
            raise ValueError(
                f"Rows scored with different settings cannot be compared: {names[0]} and "
                f"{names[1]} have the {name} {' and '.join(sorted(values))}. Score both with the "
                "same settings."
            )

"""Many captioners on many benchmarks: scores with intervals, and changes from a baseline."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trl_balcap.evals.bootstrap import (
    Difference,
    Estimate,
    Statistic,
    difference,
    estimate,
    resampling_weights,
)
from trl_balcap.evals.compare import check_alike
from trl_balcap.evals.metrics.protocol import Metric, Row, image_of
from trl_balcap.evals.metrics.registry import METRICS
from trl_balcap.evals.row_files import written_rows

__all__ = ["Standing", "holm", "read_counts", "read_folder", "standings"]

Repeats = Sequence[Sequence[Row]]
"""The rows of one model and metric, one list per repeat of the judge."""


class Standing(NamedTuple):
    """
    One model on one metric.

    Args:
        metric, model (`str`):
            The metric and the model.
        score ([`Estimate`]):
            The headline score, with an interval over images and, with several repeats, over the
            judge's noise.
        words (`float`):
            Mean caption length.
        repeats (`int`):
            How many times the judge was asked.
        change ([`Difference`], *optional*):
            Change from the baseline, on the images in both.
        p_holm (`float`, *optional*):
            Its p-value after Holm's correction over the whole table.
        uncompared (`str`, *optional*):
            Why the model could not be compared with the baseline.
    """

    metric: str
    model: str
    score: Estimate
    words: float
    repeats: int
    change: Difference | None = None
    p_holm: float | None = None
    uncompared: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        change = None if self.change is None else self.change._asdict()
        return {**self._asdict(), "score": self.score._asdict(), "change": change}


def read_folder(folder: Path) -> dict[str, dict[str, list[list[dict[str, Any]]]]]:
    """Rows by metric and model, of every run in a folder written by [`bench`]."""
    found: dict[str, dict[str, list[list[dict[str, Any]]]]] = {}
    for model, scores in _models(folder):
        for path in sorted(scores.glob("*/repeat-*/*.jsonl")):
            name = path.stem
            if name not in METRICS or path.parents[1].name != name:
                continue
            # A killed run may have left half a row, and a row before the one that replaced it.
            rows = {row["id"]: row for row in written_rows(path)}
            if rows:
                found.setdefault(name, {}).setdefault(model, []).append(list(rows.values()))
    return {name: found[name] for name in METRICS if name in found}


def read_counts(folder: Path) -> dict[tuple[str, str], int]:
    """Number of captions to score, by metric and model: an interrupted run has fewer rows."""
    return {
        (path.parent.name, model): json.loads(path.read_text(encoding="utf-8"))["n"]
        for model, scores in _models(folder)
        for path in scores.glob("*/captions.json")
    }


def _models(folder: Path) -> list[tuple[str, Path]]:
    """Name and folder of each model, in the order in which they were added."""
    abouts = [
        (json.loads(path.read_text(encoding="utf-8")), path.parent)
        for path in folder.glob("scores/*/model.json")
    ]
    abouts.sort(key=lambda entry: entry[0]["place"])
    return [(about["name"], scores) for about, scores in abouts]


def standings(
    rows: Mapping[str, Mapping[str, Repeats]],
    *,
    counts: Mapping[tuple[str, str], int] | None = None,
    baseline: str | None = None,
    seed: int = 0,
) -> list[Standing]:
    """
    The table's entries, metric by metric.

    Args:
        rows (`Mapping`):
            From [`read_folder`].
        counts (`Mapping`, *optional*):
            From [`read_counts`]; by default every caption is assumed to have a row.
        baseline (`str`, *optional*):
            The model to compare the others with.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the resampling.

    Returns:
        `list[Standing]`

    A model is not compared with the baseline if the two were scored with different settings or
    share no image.
    """
    found: list[Standing] = []
    for name, models in rows.items():
        metric = METRICS[name]
        for model, repeats in models.items():
            score = _estimate(metric, repeats, seed)
            score = score._replace(n=max(score.n, (counts or {}).get((name, model), 0)))
            first = repeats[0]
            words = sum(row["words"] for row in first) / len(first)
            change, why = None, None
            if baseline is not None and baseline in models and model != baseline:
                names = (baseline, model)
                try:
                    change = _difference(metric, models[baseline], repeats, names, seed)
                except ValueError as error:
                    why = str(error)
            found.append(Standing(name, model, score, words, len(repeats), change, uncompared=why))
    tested = [one for one in found if one.change is not None and one.change.p_value is not None]
    values = [one.change.p_value for one in tested if one.change and one.change.p_value is not None]
    corrected = dict(zip(map(id, tested), holm(values), strict=True))
    return [one._replace(p_holm=corrected.get(id(one))) for one in found]


def holm(p_values: Sequence[float]) -> list[float]:
    """
    P-values corrected for multiple tests by Holm's step-down rule: the k-th smallest of m is
    multiplied by m - k + 1, and none is smaller than the one before it.

    Example:

    ```python
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    ```
    """
    m = len(p_values)
    corrected, largest = [0.0] * m, 0.0
    for rank, place in enumerate(sorted(range(m), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (m - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def _estimate(metric: type[Metric], repeats: Repeats, seed: int) -> Estimate:
    """The headline score over the images in all repeats."""
    (aligned,) = _aligned([repeats])
    weights = _weights(metric, aligned, seed)
    found = estimate(_statistic(metric, aligned), weights)
    scored = np.reshape(_statistic(metric, aligned).scored, (len(aligned), -1)).any(axis=0)
    return found._replace(n_scored=int(scored.sum()), n=len(aligned[0]))


def _difference(
    metric: type[Metric], first: Repeats, second: Repeats, names: tuple[str, str], seed: int
) -> Difference:
    check_alike(first[0], second[0], names)
    n = min(len(first), len(second))
    a, b = _aligned([first[:n], second[:n]])
    if not a[0]:
        raise ValueError(f"{names[0]} and {names[1]} have no scored image in common.")
    weights = _weights(metric, a, seed)
    found = difference(_statistic(metric, a), _statistic(metric, b), weights)
    return found._replace(n=len(a[0]))


def _aligned(sides: Sequence[Repeats]) -> list[list[list[Row]]]:
    """
    The same images in the same order in every repeat of every side: by the rows' ids, or, where the
    sides have none in common, by the images' file names.
    """
    for key in (lambda row: row["id"], image_of):
        by_key = [[{key(row): row for row in rows} for rows in repeats] for repeats in sides]
        tables = [table for side in by_key for table in side]
        shared = [name for name in by_key[0][0] if all(name in table for table in tables)]
        if shared:
            break
    return [[[table[name] for name in shared] for table in side] for side in by_key]


def _statistic(metric: type[Metric], repeats: Repeats) -> Statistic:
    """The headline score over the rows of all repeats, equally weighted."""
    statistic = metric.statistics([row for rows in repeats for row in rows])[0]
    return statistic._replace(columns=statistic.columns / len(repeats))


def _weights(metric: type[Metric], repeats: Repeats, seed: int) -> np.ndarray:
    """
    Resamples of images and, within a drawn image, of the judge's repeats. With one repeat, this
    resamples images only.
    """
    images = resampling_weights(len(repeats[0]), strata=metric.strata(repeats[0]), seed=seed)
    n = len(repeats)
    if n == 1:
        return images
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(images * n, np.full(n, 1 / n))  # (R, N, repeats)
    return np.moveaxis(drawn, -1, 1).reshape(len(images), -1)

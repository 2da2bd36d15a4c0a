"""Results of a scoring run: scores with intervals, what they are based on, and whether they are
comparable."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trl_balcap.data.rows import BadRowsError, read_jsonl
from trl_balcap.evals.bootstrap import Difference, Estimate
from trl_balcap.evals.metrics.registry import METRICS

__all__ = ["Comparison", "Evaluation", "MetricResult", "is_scored", "read_rows"]


@dataclass(frozen=True)
class MetricResult:
    """
    Scores of one metric.

    Args:
        metric, mode (`str`):
            `"dcscore"`, `"official"`, ...
        scores (`tuple[Estimate, ...]`):
            Named scores with intervals, the headline first.
        n, n_scored (`int`):
            Number of captions, and of captions with a score.
        missing (`dict[str, int]`):
            Number of captions without a score, by reason.
        mean_caption_words (`float`):
            Mean length of all captions, in words.
        judge (`str`):
            The judge.
        prompts, prompts_sha256 (`str`):
            The prompts used, and their hash.
        comparable (`bool`), comparison (`str`):
            Whether the scores are comparable with published ones, and why.
        notes (`tuple[str, ...]`):
            Anything else that readers need to know.
        breakdown (`dict`):
            Scores of subsets, such as categories.
    """

    metric: str
    mode: str
    scores: tuple[Estimate, ...]
    n: int
    n_scored: int
    missing: Mapping[str, int]
    mean_caption_words: float
    judge: str
    prompts: str
    prompts_sha256: str
    comparable: bool
    comparison: str
    notes: tuple[str, ...] = ()
    breakdown: Mapping[str, Any] = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """The headline score."""
        return self.scores[0].value

    def __getitem__(self, name: str) -> Estimate:
        """The score with this name."""
        for estimate in self.scores:
            if estimate.name == name:
                return estimate
        raise KeyError(f"{self.metric} has no score {name!r}, only {[s.name for s in self.scores]}")


@dataclass(frozen=True)
class Comparison:
    """Paired differences of one metric between two caption files, second minus first."""

    metric: str
    mode: str
    first: str
    second: str
    differences: tuple[Difference, ...]
    n_common: int
    n_first: int
    n_second: int


@dataclass(frozen=True)
class Evaluation:
    """
    All results of one run of `trl-balcap score`.

    Args:
        captions (`str`):
            The caption file.
        results (`tuple[MetricResult, ...]`):
            One per metric.
        judging (`dict`):
            Calls, cache hits, tokens and dollars.
    """

    captions: str
    results: tuple[MetricResult, ...]
    judging: Mapping[str, Any]

    def __getitem__(self, metric: str) -> MetricResult:
        """The result of this metric."""
        for result in self.results:
            if result.metric == metric:
                return result
        raise KeyError(f"{metric!r} was not scored, only {[r.metric for r in self.results]}")

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as JSON-ready values."""
        return {
            "captions": self.captions,
            "metrics": [
                asdict(result) | {"scores": [score._asdict() for score in result.scores]}
                for result in self.results
            ],
            "judging": dict(self.judging),
        }


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """
    Read scored rows, as written by `trl-balcap score` to `OUT/<metric>.jsonl`.

    Raises:
        `BadRowsError`: if a line is not a scored row.
    """
    rows = read_jsonl(path)
    problems = [
        f"{path}:{number}: not a scored row (it has {', '.join(row)}). Score the captions first."
        for number, row in rows
        if row.get("metric") not in METRICS
    ]
    if problems:
        raise BadRowsError(problems)
    if not rows:
        raise BadRowsError([f"{path}: no scored rows in this file."])
    return [row for _, row in rows]


def is_scored(path: str | Path) -> bool:
    """Whether a file has scored rows rather than captions."""
    if Path(path).suffix == ".json":
        return False
    rows = read_jsonl(path)
    return bool(rows) and rows[0][1].get("metric") in METRICS

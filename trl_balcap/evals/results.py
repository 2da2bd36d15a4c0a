"""What a scoring run gives back: scores with intervals, what they rest on, and how they may be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from trl_balcap.evals.bootstrap import Difference, Estimate

__all__ = ["Comparison", "Evaluation", "MetricResult"]


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
            Captions in all, and captions with a verdict.
        missing (`dict[str, int]`):
            Why the others have none.
        mean_caption_words (`float`):
            Mean length of all captions, in words.
        judge (`str`):
            The judge that was asked.
        prompts, prompts_sha256 (`str`):
            Whose prompts it was asked with, and their hash.
        comparable (`bool`), comparison (`str`):
            Whether the scores may stand beside published ones, and why.
        notes (`tuple[str, ...]`):
            What else a reader must know.
        breakdown (`dict`):
            Scores of parts, such as categories.
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
        """The score of that name."""
        for estimate in self.scores:
            if estimate.name == name:
                return estimate
        raise KeyError(f"{self.metric} has no score {name!r}, only {[s.name for s in self.scores]}")


@dataclass(frozen=True)
class Comparison:
    """Paired differences of one metric between two files of captions, second minus first."""

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
    Everything that one run of `trl-balcap score` found.

    Args:
        captions (`str`):
            The file of captions.
        results (`tuple[MetricResult, ...]`):
            One per metric.
        judging (`dict`):
            Calls, cache hits, tokens and dollars.
    """

    captions: str
    results: tuple[MetricResult, ...]
    judging: Mapping[str, Any]

    def __getitem__(self, metric: str) -> MetricResult:
        """The result of that metric."""
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


def results_table(evaluation: Evaluation) -> Table:
    """The evaluation for a terminal."""
    table = Table(title=evaluation.captions, title_justify="left")
    for name in _COLUMNS[:-1]:  # whether it compares is said in words below the table
        table.add_column(name, justify="left" if name in ("metric", "score") else "right")
    for result in evaluation.results:
        for place, estimate in enumerate(result.scores):
            table.add_row(*_cells(result, estimate, first=place == 0)[:-1])
        table.add_section()
    return table


def results_markdown(evaluation: Evaluation) -> str:
    """The evaluation as Markdown: the table, then what each metric's numbers rest on."""
    lines = [
        f"# {evaluation.captions}",
        "",
        *_markdown_table(
            list(_COLUMNS),
            [
                _cells(result, estimate, first=place == 0)
                for result in evaluation.results
                for place, estimate in enumerate(result.scores)
            ],
        ),
    ]
    for result in evaluation.results:
        lines += ["", f"## {result.metric} ({result.mode})", ""]
        lines += [f"- {line}" for line in result_lines(result)]
        if result.breakdown:
            lines += [
                "",
                *_markdown_table(
                    ["part", "score", "n"],
                    [
                        [part, _value(value["score"]), str(value["n"])]
                        for part, value in result.breakdown.items()
                    ],
                ),
            ]
    judging = evaluation.judging
    lines += ["", "## Judging", "", *(f"- {name}: {value}" for name, value in judging.items()), ""]
    return "\n".join(lines)


def result_lines(result: MetricResult) -> list[str]:
    """What a reader must know of a result, one sentence an entry."""
    lines = [f"Scored {result.n_scored} of {result.n} captions{_why(result.missing)}."]
    lines.append(f"Mean caption length: {result.mean_caption_words:.1f} words.")
    lines.append(f"Judge: {result.judge}. Prompts: {result.prompts}.")
    lines.append(result.comparison)
    return [*lines, *result.notes]


def comparison_table(comparison: Comparison) -> Table:
    """Paired differences for a terminal."""
    table = Table(
        title=f"{comparison.metric} ({comparison.mode})",
        title_justify="left",
    )
    for name in _DIFFERENCE_COLUMNS:
        table.add_column(name, justify="left" if name == "score" else "right")
    for row in comparison.differences:
        table.add_row(*_difference_cells(row))
    return table


def comparison_markdown(comparisons: Sequence[Comparison]) -> str:
    """Paired differences as Markdown."""
    lines: list[str] = []
    for comparison in comparisons:
        lines += [
            f"## {comparison.metric} ({comparison.mode})",
            "",
            f"Second minus first, on the {comparison.n_common} captions that both have "
            f"({comparison.n_first} and {comparison.n_second}).",
            "",
            f"- first: {comparison.first}",
            f"- second: {comparison.second}",
            "",
            *_markdown_table(
                list(_DIFFERENCE_COLUMNS),
                [_difference_cells(row) for row in comparison.differences],
            ),
            "",
        ]
    return "\n".join(lines)


_COLUMNS = ("metric", "score", "value", "95% interval", "scored", "words", "comparable")
_DIFFERENCE_COLUMNS = ("score", "first", "second", "difference", "95% interval", "above 0", "n")


def _cells(result: MetricResult, estimate: Estimate, *, first: bool) -> list[str]:
    return [
        f"{result.metric}, {result.mode}" if first else "",
        estimate.name,
        _value(estimate.value),
        _interval(estimate.low, estimate.high),
        f"{estimate.n_scored}/{estimate.n}",
        f"{result.mean_caption_words:.1f}" if first else "",
        ("yes" if result.comparable else "no") if first else "",
    ]


def _difference_cells(row: Difference) -> list[str]:
    return [
        row.name,
        _value(row.first),
        _value(row.second),
        "-" if row.value is None else f"{row.value:+.2f}",
        _interval(row.low, row.high),
        "-" if row.share_above_zero is None else f"{row.share_above_zero:.1%}",
        str(row.n),
    ]


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.2f} to {high:.2f}"


def _why(missing: Mapping[str, int]) -> str:
    if not missing:
        return ""
    return "; without a score: " + ", ".join(f"{n} {reason}" for reason, n in missing.items())


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]

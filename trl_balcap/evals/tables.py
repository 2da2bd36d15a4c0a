"""Results as text tables and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from trl_balcap.evals.bootstrap import Difference, Estimate
from trl_balcap.evals.results import Comparison, Evaluation, MetricResult

__all__ = [
    "Grid",
    "comparison_grid",
    "comparison_markdown",
    "grid_markdown",
    "result_lines",
    "results_grid",
    "results_markdown",
    "value_text",
]


class Grid(NamedTuple):
    """
    A text table. The first `n_left` columns are words, the others numbers; `breaks` are the rows
    that start a new section.
    """

    title: str
    head: tuple[str, ...]
    rows: list[list[str]]
    n_left: int = 1
    breaks: frozenset[int] = frozenset()


def grid_markdown(grid: Grid) -> list[str]:
    """The lines of a Markdown table, without the title."""
    return [
        "| " + " | ".join(grid.head) + " |",
        "|" + " --- |" * len(grid.head),
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in grid.rows),
    ]


def results_grid(evaluation: Evaluation) -> Grid:
    """One row per score, with the headline of each metric first."""
    rows: list[list[str]] = []
    breaks = []
    for result in evaluation.results:
        breaks.append(len(rows))
        rows += [
            _cells(result, score, first=not place) for place, score in enumerate(result.scores)
        ]
    return Grid(evaluation.captions, _COLUMNS, rows, 2, frozenset(breaks))


def comparison_grid(comparison: Comparison) -> Grid:
    """One row per difference."""
    title = f"{comparison.metric} ({comparison.mode})"
    rows = [_difference_cells(row) for row in comparison.differences]
    return Grid(title, _DIFFERENCE_COLUMNS, rows)


def results_markdown(evaluation: Evaluation) -> str:
    """The evaluation as Markdown: the table, then what each metric's numbers are based on."""
    lines = [
        f"# {evaluation.captions}",
        "",
        *grid_markdown(results_grid(evaluation)),
    ]
    for result in evaluation.results:
        lines += ["", f"## {result.metric} ({result.mode})", ""]
        lines += [f"- {line}" for line in result_lines(result)]
        if result.breakdown:
            parts = [
                [part, value_text(value["score"]), str(value["n"])]
                for part, value in result.breakdown.items()
            ]
            lines += ["", *grid_markdown(Grid("", ("part", "score", "n"), parts))]
    judging = evaluation.judging
    lines += ["", "## Judging", "", *(f"- {name}: {value}" for name, value in judging.items()), ""]
    return "\n".join(lines)


def result_lines(result: MetricResult) -> list[str]:
    """What readers need to know about a result, one sentence per entry."""
    lines = [f"Scored {result.n_scored} of {result.n} captions{_why(result.missing)}."]
    lines.append(f"Mean caption length: {result.mean_caption_words:.1f} words.")
    lines.append(f"Judge: {result.judge}. Prompts: {result.prompts}.")
    lines.append(result.comparison)
    return [*lines, *result.notes]


def comparison_markdown(comparisons: Sequence[Comparison]) -> str:
    """Paired differences as Markdown."""
    lines: list[str] = []
    for comparison in comparisons:
        lines += [
            f"## {comparison.metric} ({comparison.mode})",
            "",
            f"Second minus first, over the {comparison.n_common} captions in both files "
            f"({comparison.n_first} and {comparison.n_second}).",
            "",
            f"- first: {comparison.first}",
            f"- second: {comparison.second}",
            "",
            *grid_markdown(comparison_grid(comparison)),
            "",
        ]
    return "\n".join(lines)


_COLUMNS = ("metric", "score", "value", "95% interval", "scored", "words", "comparable")
_DIFFERENCE_COLUMNS = ("score", "first", "second", "difference", "95% interval", "above 0", "n")


def _cells(result: MetricResult, estimate: Estimate, *, first: bool) -> list[str]:
    return [
        f"{result.metric}, {result.mode}" if first else "",
        estimate.name,
        value_text(estimate.value),
        _interval(estimate.low, estimate.high),
        f"{estimate.n_scored}/{estimate.n}",
        f"{result.mean_caption_words:.1f}" if first else "",
        ("yes" if result.comparable else "no") if first else "",
    ]


def _difference_cells(row: Difference) -> list[str]:
    return [
        row.name,
        value_text(row.first),
        value_text(row.second),
        "-" if row.value is None else f"{row.value:+.2f}",
        _interval(row.low, row.high),
        "-" if row.share_above_zero is None else f"{row.share_above_zero:.1%}",
        str(row.n),
    ]


def value_text(value: float | None) -> str:
    """A score with two decimals, "-" if missing."""
    return "-" if value is None else f"{value:.2f}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.2f} to {high:.2f}"


def _why(missing: Mapping[str, int]) -> str:
    if not missing:
        return ""
    return "; without a score: " + ", ".join(f"{n} {reason}" for reason, n in missing.items())

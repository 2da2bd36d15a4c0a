"""Marks of one or several judges as tables, as Markdown, and as a line for the report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from trl_balcap.evals.bootstrap import Estimate
from trl_balcap.evals.tables import Grid, grid_markdown
from trl_balcap.exam.marks import REWARDS, Report
from trl_balcap.exam.meaning import Cost, costs

__all__ = ["exam_dict", "exam_grid", "exam_line", "exam_markdown", "meaning_grid"]

_SHARES = (
    "correct, balanced accuracy",
    "pointable, balanced accuracy",
    "covered, balanced accuracy",
    "covered, F1",
    "splits found",
    "splits invented",
)
_NUMBERS = (
    "grades fall with faults",
    *(f"retest spread, {name}" for name in REWARDS),
    *(f"gained by hostile captions, {name}" for name in REWARDS),
)


def exam_grid(reports: Sequence[Report]) -> Grid:
    """One row per mark and one column per judge, with 95% intervals."""
    rows = [[name, *(_share(report[name]) for report in reports)] for name in _SHARES]
    rows += [[name, *(_number(report[name]) for report in reports)] for name in _NUMBERS]
    labels = [mark.name for mark in reports[0].marks if mark.name.startswith("your labels")]
    rows += [[name, *(_share(report[name]) for report in reports)] for name in labels]
    rows.append(["unreadable", *(_share(report["unreadable"]) for report in reports)])
    rows.append(
        ["latency, median", *("-" if r.latency is None else f"{r.latency:.2f} s" for r in reports)]
    )
    rows.append(
        [
            "1,000 captions",
            *(
                "price unknown" if r.usd_per_1000 is None else f"${r.usd_per_1000:.2f}"
                for r in reports
            ),
        ]
    )
    return Grid("The exam", ("mark", *(report.judge for report in reports)), rows)


def meaning_grid(reports: Sequence[Report]) -> Grid:
    """The b-CapScore lost to each judge's errors, by kind of error."""
    found = [costs(report) for report in reports]
    rows = [[_KINDS[kinds[0].kind], *map(_cost, kinds)] for kinds in zip(*found, strict=True)]
    return Grid(
        "Points of b-CapScore that such errors cost in training",
        ("errors in", *(report.judge for report in reports)),
        rows,
    )


def exam_markdown(reports: Sequence[Report], left_out: Mapping[str, str] | None = None) -> str:
    """Both tables, with the number of questions behind them, and why judges were left out."""
    lines = ["# Exam", ""]
    for grid in (exam_grid(reports), meaning_grid(reports)):
        lines += [f"## {grid.title}", "", *grid_markdown(grid), ""]
    for report in reports:
        drawn = "" if report.photographs else " Drawn scenes only, no photographs."
        why = "".join(f", {n} {reason}" for reason, n in report.unreadable.items())
        lines.append(f"- {report.judge}: {report.asked} questions{why}.{drawn}")
    lines += [f"- {model} was left out: {why}" for model, why in (left_out or {}).items()]
    return "\n".join([*lines, "", MEANING, ""])


MEANING = (
    "Costs were measured in the reproduction on drawn scenes, with judges that err as often, but "
    "at random, against the exact judge. A judge that always errs the same way may cost more. Of "
    "grades, only the retest counts: see whether they fall with faults."
)


def exam_dict(report: Report) -> dict[str, Any]:
    """A judge's marks, their summary in one line, and the cost of its errors, ready for JSON."""
    return {
        "line": exam_line(report),
        **report.to_dict(),
        "costs": [asdict(cost) for cost in costs(report)],
    }


def exam_line(report: Report) -> str:
    """A judge's marks in one line."""
    shown = {name: report[f"{name}, balanced accuracy"].value for name in ("correct", "pointable")}
    parts = [f"{name} {value:.0%}" for name, value in shown.items() if value is not None]
    covered, spread = report["covered, F1"].value, report["retest spread, linguistic"].value
    parts += [] if covered is None else [f"coverage F1 {covered:.0%}"]
    parts += [] if spread is None else [f"linguistic retest spread {spread:.3f}"]
    return f"{report.judge}: {', '.join(parts)}"


_KINDS = {
    "correct": "correct",
    "pointable": "pointable",
    "covered": "covered",
    "grades": "the grades (retest)",
    "all": "all of these",
}


def _share(mark: Estimate) -> str:
    if mark.value is None:
        return "-"
    ends = "" if mark.low is None else f" ({mark.low:.1%} to {mark.high:.1%})"
    return f"{mark.value:.1%}{ends}"


def _number(mark: Estimate) -> str:
    if mark.value is None:
        return "-"
    ends = "" if mark.low is None else f" ({mark.low:.3f} to {mark.high:.3f})"
    return f"{mark.value:.3f}{ends}"


def _cost(cost: Cost) -> str:
    if cost.points is None:
        return "not measured"
    at_least = "at least " if cost.beyond else ""
    return f"{at_least}{cost.points:.1f} (arm: {cost.low:.1f} to {cost.high:.1f})"

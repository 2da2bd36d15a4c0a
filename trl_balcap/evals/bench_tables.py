"""The table of `trl-balcap bench`: for the terminal, and as Markdown, CSV, LaTeX and JSON."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trl_balcap.evals.row_files import replace_file
from trl_balcap.evals.standings import Standing
from trl_balcap.evals.tables import Grid, grid_markdown, value_text

__all__ = ["bench_csv", "bench_latex", "standings_grid", "wide_grid", "write_tables"]

ALPHA = 0.05
HEAD = ("metric", "model", "score", "95% interval", "scored", "words", "change", "p")


def standings_grid(found: Sequence[Standing], baseline: str | None) -> Grid:
    """One row per model and metric."""
    rows, breaks, before = [], [], None
    for one in found:
        if one.metric != before:
            breaks.append(len(rows))
        change = None if one.change is None else one.change.value
        rows.append(
            [
                one.metric if one.metric != before else "",
                one.model,
                value_text(one.score.value),
                _interval(one),
                f"{one.score.n_scored}/{one.score.n}",
                f"{one.words:.0f}",
                "" if change is None else f"{change:+.2f}",
                "" if one.p_holm is None else f"{one.p_holm:.2g}",
            ]
        )
        before = one.metric
    title = "Scores" if baseline is None else f"Scores, and change from {baseline} (p by Holm)"
    return Grid(title, HEAD, rows, 2, frozenset(breaks))


def wide_grid(found: Sequence[Standing]) -> Grid:
    """Models by metrics, with a star if the change from the baseline is significant."""
    metrics = list(dict.fromkeys(one.metric for one in found))
    by_place = {(one.model, one.metric): one for one in found}
    rows = []
    for model in dict.fromkeys(one.model for one in found):
        entries = [by_place.get((model, metric)) for metric in metrics]
        there = [one for one in entries if one is not None]
        words = sum(one.words for one in there) / len(there)
        scored = sum(one.score.n_scored for one in there) / sum(one.score.n for one in there)
        rows.append([model, *map(_cell, entries), f"{words:.0f}", f"{100 * scored:.3g}%"])
    return Grid("", ("model", *metrics, "words", "scored"), rows)


def bench_csv(found: Sequence[Standing]) -> str:
    """One line per model and metric, with unrounded numbers."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    head = ("metric", "model", "score", "low", "high", "n_scored", "n", "words", "repeats")
    lines.writerow((*head, "change", "change_low", "change_high", "p", "p_holm"))
    for one in found:
        s, c = one.score, one.change
        changed = (None,) * 4 if c is None else (c.value, c.low, c.high, c.p_value)
        counts = (s.value, s.low, s.high, s.n_scored, s.n, one.words, one.repeats)
        lines.writerow((one.metric, one.model, *counts, *changed, one.p_holm))
    return text.getvalue()


def bench_latex(found: Sequence[Standing], notes: Sequence[str] = ()) -> str:
    """Models by metrics, for a paper that uses the booktabs package, with the notes as comments."""
    grid = wide_grid(found)
    lines = [
        *(f"% {note}" for note in notes),
        r"\begin{tabular}{l" + "r" * (len(grid.head) - 1) + "}",
        r"\toprule",
        " & ".join(map(_tex, grid.head)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_tex, row)) + r" \\" for row in grid.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def write_tables(
    folder: Path, found: Sequence[Standing], baseline: str | None, bill: Mapping[str, Any]
) -> None:
    """Write table.md, table.csv, table.tex and table.json."""
    notes = ["95% intervals by resampling images" + _noise(found) + "."]
    if baseline is not None:
        notes.append(f"*: differs from {baseline}, p < {ALPHA} by paired bootstrap, after Holm.")
    notes.append(bill_line(bill))
    lines = [*grid_markdown(wide_grid(found)), "", *notes[:-1], ""]
    lines += [*grid_markdown(standings_grid(found, baseline)), "", notes[-1], ""]
    replace_file(folder / "table.md", "\n".join(lines))
    replace_file(folder / "table.csv", bench_csv(found))
    replace_file(folder / "table.tex", bench_latex(found, notes))
    content = {
        "baseline": baseline,
        "bill": dict(bill),
        "standings": [one.to_dict() for one in found],
    }
    replace_file(folder / "table.json", json.dumps(content, indent=2, ensure_ascii=False))


def bill_line(bill: Mapping[str, Any]) -> str:
    """The cost of all runs, in one sentence."""
    dollars = bill["dollars"]
    price = "price unknown" if dollars is None else f"${dollars:.2f}"
    tokens = f"{bill['prompt tokens']:,} and {bill['completion tokens']:,} tokens"
    return f"Total of all runs: {bill['calls']:,} calls, {tokens}, {price}."


def _noise(found: Sequence[Standing]) -> str:
    most = max((one.repeats for one in found), default=1)
    return f" and the judge's {most} repeats" if most > 1 else ""


def _cell(one: Standing | None) -> str:
    if one is None or one.score.value is None:
        return "-"
    star = "*" if one.p_holm is not None and one.p_holm < ALPHA else ""
    interval = _interval(one)
    return f"{one.score.value:.2f}{star}" + (f" [{interval}]" if interval else "")


def _interval(one: Standing) -> str:
    low, high = one.score.low, one.score.high
    return "" if low is None or high is None else f"{low:.1f}, {high:.1f}"


_TEX = {
    **{mark: rf"\{mark}" for mark in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "*": r"$^{*}$",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in text)

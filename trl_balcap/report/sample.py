"""Verdict rows as a readable table: one line per completion, with its verdicts in words."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["sample_markdown", "sample_table"]

_NUMBERS = ("length_ratio", "gated", "clarity", "fluency", "coherency", "advantage", "tokens")


def sample_table(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """
    Columns of a readable table, for loggers.

    Args:
        rows (`Sequence[Mapping]`):
            Verdict rows, see [`VERDICT_SCHEMA`].

    Returns:
        `dict[str, list]`: the origin of a row, its texts, its assertions and units (one per line,
            after the verdict), rewards by name, reasons, and the advantage.

    Example:

    ```python
    >>> said = [{"text": "There is a dog.", "correct": True, "pointable": True},
    ...         {"text": "It adds depth.", "correct": True, "pointable": False}]
    >>> table = sample_table([{"step": 3, "id": "0-1", "completion": "A dog. It adds depth.",
    ...                        "assertions": said, "rewards": {"precision_reward": 0.5}}])
    >>> table["assertions"], table["precision_reward"]
    (['✓ There is a dog.\\n◌ It adds depth.'], [0.5])

    ```
    """
    names = list(dict.fromkeys(name for row in rows for name in row.get("rewards") or {}))
    table: dict[str, list[Any]] = {
        name: [row.get(name) for row in rows]
        for name in ("step", "split", "id", "completion", "reference")
    }
    table["assertions"] = [
        _lines((_mark(one), one["text"]) for one in row.get("assertions") or ()) for row in rows
    ]
    table["units"] = [
        _lines(("●" if one["covered"] else "○", one["text"]) for one in row.get("units") or ())
        for row in rows
    ]
    for name in names:
        table[name] = [(row.get("rewards") or {}).get(name) for row in rows]
    table["reasons"] = [
        "\n".join(f"{name}: {why}" for name, why in (row.get("reasons") or {}).items())
        for row in rows
    ]
    return table | {name: [row.get(name) for row in rows] for name in _NUMBERS}


def sample_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """
    The same table in Markdown. Markup in text of captions and judges is escaped.

    Example:

    ```python
    >>> text = sample_markdown([{"step": 3, "id": "0-1", "completion": "<b>A</b> | dog."}])
    >>> text.splitlines()[2][:49]
    '| 3 |  | 0-1 | &lt;b&gt;A&lt;/b&gt; &#124; dog. |'

    ```
    """
    table = sample_table(rows)
    lines = [f"| {' | '.join(map(_cell, table))} |", "|" + "---|" * len(table)]
    for values in zip(*table.values(), strict=True):
        lines.append(f"| {' | '.join(map(_cell, values))} |")
    return "\n".join(lines)


def _mark(assertion: Mapping[str, Any]) -> str:
    if not assertion["correct"]:
        return "✕"
    return "✓" if assertion["pointable"] else "◌"


def _lines(marked: Any) -> str:
    return "\n".join(f"{mark} {text}" for mark, text in marked)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    text = html.escape(str(value), quote=False)
    for sign in "\\`*_[]|":  # numbers, so that no sign of Markdown is left
        text = text.replace(sign, f"&#{ord(sign)};")
    return "<br>".join(text.splitlines())

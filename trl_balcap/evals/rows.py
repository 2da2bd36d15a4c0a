"""Scored rows on disk: one file a metric, a row as soon as it is there, each file replaced as a
whole."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trl_balcap.data.rows import BadRowsError, read_jsonl
from trl_balcap.evals.metrics.registry import METRICS

__all__ = ["is_scored", "read_rows", "replace_file", "write_rows", "written_rows"]


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """
    Scored rows, as `trl-balcap score` writes them to `OUT/<metric>.jsonl`.

    Raises:
        `BadRowsError`: if a line is none of them.
    """
    rows = read_jsonl(path)
    problems = [
        f"{path}:{number}: no scored row (it has {', '.join(row)}); score the captions first."
        for number, row in rows
        if row.get("metric") not in METRICS
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
    return bool(rows) and rows[0][1].get("metric") in METRICS


def written_rows(path: Path) -> Iterator[dict[str, Any]]:
    """
    Rows of a run that may have been killed: half a row at the end is left out.

    Raises:
        `BadRowsError`: if another line is no row.
    """
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                return
            raise BadRowsError([f"{path}:{number}: not JSON ({error.msg})."]) from error


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a file of rows."""
    replace_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def replace_file(path: Path, text: str) -> None:
    """Replace a file as a whole, so that a killed run leaves the old or the new one."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)

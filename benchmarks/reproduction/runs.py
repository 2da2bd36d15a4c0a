"""The files of finished runs: one JSON object per line."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["in_columns", "in_rows", "read_runs"]

Row = Mapping[str, float]


def read_runs(file: Path) -> list[dict[str, Any]]:
    """
    The finished runs, in the order they were written; empty if there is no file.

    Runs in the folder `archive` beside the file, in files of its name or of its name with a hyphen
    and more, come first. A line that does not end in `}` was cut off when a run was killed. It is
    skipped, and that run is repeated.
    """
    archive = file.parent / "archive"
    kept = [archive / file.name, *sorted(archive.glob(f"{file.stem}-*{file.suffix}"))]
    files = [one for one in (*kept, file) if one.exists()]
    lines = [line for one in files for line in one.read_text(encoding="utf-8").splitlines()]
    runs = [json.loads(line) for line in lines if line.endswith("}")]
    for run in runs:
        run["settings"].setdefault("world", "small")  # lines from before there was another
        if isinstance(run.get("steps"), dict):  # older lines have rows
            run["steps"] = in_rows(run["steps"])
    return runs


def in_columns(rows: Sequence[Row]) -> dict[str, list[float | None]]:
    """
    The recorded steps of a run by key, a third of the length; `None` where a step lacks a key.

    ```python
    >>> in_columns([{"length": 30.0}, {"length": 31.0, "dead": 0.5}])
    {'length': [30.0, 31.0], 'dead': [None, 0.5]}

    ```
    """
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in keys}


def in_rows(columns: Mapping[str, Sequence[float | None]]) -> list[dict[str, float]]:
    """
    The inverse of [`in_columns`].

    ```python
    >>> in_rows({"length": [30.0, 31.0], "dead": [None, 0.5]})
    [{'length': 30.0}, {'length': 31.0, 'dead': 0.5}]

    ```
    """
    steps = zip(*columns.values(), strict=True)
    return [
        {key: value for key, value in zip(columns, step, strict=True) if value is not None}
        for step in steps
    ]

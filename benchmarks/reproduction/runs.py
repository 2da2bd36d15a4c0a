"""The file of finished runs: one JSON object per line."""

import json
from pathlib import Path
from typing import Any

__all__ = ["read_runs"]


def read_runs(file: Path) -> list[dict[str, Any]]:
    """
    The finished runs, in the order they were written; empty if there is no file.

    A line that does not end in `}` was cut off when a run was killed. It is skipped, and that run
    is repeated.
    """
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]

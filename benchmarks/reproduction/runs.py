"""The file of finished runs: one JSON object a line."""

import json
from pathlib import Path
from typing import Any

__all__ = ["read_runs"]


def read_runs(file: Path) -> list[dict[str, Any]]:
    """
    The finished runs, in the order in which they were written; none where there is no file.

    A line that does not end in `}` was torn by a kill, and is left out: that run is made again.
    """
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]

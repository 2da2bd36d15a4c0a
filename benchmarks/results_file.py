"""Where a figure comes from, and the file that keeps it: command, commit, hardware beside the figures."""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def provenance() -> dict[str, Any]:
    """What is needed to make a result again."""
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {
        "command": " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
        "commit": commit,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "hardware": f"{_cpu()}, {os.cpu_count()} cores",
        "versions": {
            name: version(name)
            for name in ("torch", "transformers", "trl", "litellm", "trl-balcap")
        },
    }


def write_results(name: str, figures: dict[str, Any]) -> Path:
    """Keep `figures` with their provenance in `benchmarks/results/<name>.json`."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**provenance(), **figures}, indent=2) + "\n")
    return path


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()

"""Saves benchmark figures with their provenance: command, commit and hardware."""

import json
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def provenance() -> dict[str, Any]:
    """What is needed to reproduce a result. Paths, and flags for them, are removed
    from the command."""
    root = RESULTS.parents[1]
    words = re.sub(r"(--\S+[ =])?\S*/\S*", "", " ".join(sys.argv[1:])).split()
    return {
        "command": " ".join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *words]),
        "commit": _git(root, "rev-parse", "--short", "HEAD") or "unknown",
        "uncommitted": bool(
            _git(root, "status", "--porcelain", "--", "trl_balcap", "benchmarks/*.py")
        ),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "hardware": ", ".join([_cpu(), f"{os.cpu_count()} cores", *_gpu()]),
        "versions": {"python": platform.python_version()}
        | {
            name: version(name)
            for name in ("torch", "transformers", "trl", "litellm", "trl-balcap")
        },
    }


def write_results(name: str, figures: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Save `figures` with their provenance to `<folder>/<name>.json`."""
    path = folder / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**provenance(), **figures}, indent=2) + "\n")
    return path


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True).stdout.strip()


def _gpu() -> list[str]:
    return [torch.cuda.get_device_name()] if torch.cuda.is_available() else []


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()

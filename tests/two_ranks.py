"""Starts a worker of `tests/workers` in two processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "free_port", "on_two_ranks"]

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def on_two_ranks(kind: str, worker: str, *words: object, seconds: float = 280) -> None:
    """Run the worker to its end, under DDP or as `tests/accelerate` says; it must not fail."""
    port = str(free_port())
    if kind == "ddp":  # accelerate launch with CPUs and 2 processes starts one, in silence
        launcher = ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", port]
    else:
        launcher = ["accelerate.commands.launch", "--config_file", f"tests/accelerate/{kind}.yaml"]
        launcher += ["--main_process_port", port]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", *launcher, f"tests/workers/{worker}.py", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]

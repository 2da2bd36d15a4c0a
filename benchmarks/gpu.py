"""Real shapes on one GPU: where a step's time and memory go, compared with TRL's GRPOTrainer.

    python -m benchmarks.gpu                  # Qwen2.5-VL-3B's architecture, random weights
    python -m benchmarks.gpu --shape tiny     # the same path on CPU, in seconds

Nothing is downloaded: the weights are random, the tokenizer is the tiny captioner's. bf16, G = 8,
captions of exactly 512 tokens, images of 448 x 448 px. `lora` trains an adapter, `full` all weights
on the GPU, `offload` all weights under ZeRO-3 with the optimizer on the host. Each case runs in its
own process, so that peak memory is measured per case: GRPOTrainer and BalCapTrainer with rewards
that cost nothing (goal: 1.02 in time and memory). `lora` also runs with a judge that answers in 0,
1 and 3 s from another process and, for the slowest judge, with two generation batches per update in
TRL's order and looking ahead, and one step off.

A step is split into generation, waiting for the rewards, log-probabilities (old, reference and the
forward pass of the loss), and the rest (backward and optimizer). For `lora` and `full`, the table
compares the plan's memory estimate with what was allocated. `offload` has no estimate: with one
process, ZeRO-3 gathers by a view, which is not what the plan estimates. Without a GPU the full
shape is not run, and the table says so.

A run is done in pieces of 8 minutes. Results are written after each case to the folder given by the
variable OUT, or to benchmarks/results, and a restarted run continues from there if the shape, the
device and the commit are the same. A case that fails or takes more than 7 minutes is recorded as
failed. If the machine lacks packages and cannot reach an index, use `python -m benchmarks.wheels`.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_case import ORDERS, SHAPES, Case, Shape, run_case
from benchmarks.results_file import RESULTS, provenance, write_results
from benchmarks.stopwatch import PHASES

GOAL = 1.02
PIECE_SECONDS = 480.0  # per run, before it has to be restarted
CASE_SECONDS = 420.0  # per case


def cases(weights: list[str], judge_seconds: list[float]) -> list[Case]:
    rows = []
    for kind in weights:
        rows += [Case("GRPOTrainer", kind, None), Case("BalCapTrainer", kind, None)]
        if kind == "lora":
            rows += [Case("BalCapTrainer", kind, seconds) for seconds in judge_seconds]
            rows += [Case("BalCapTrainer", kind, max(judge_seconds), order) for order in ORDERS]
    return rows


def main(
    shape: Shape,
    rows: list[Case],
    *,
    apart: bool = torch.cuda.is_available(),
    piece_seconds: float = PIECE_SECONDS,
    case_seconds: float = CASE_SECONDS,
) -> dict[str, Any]:
    """Runs the remaining cases, prints the table, and returns all results so far."""
    cuda = torch.cuda.is_available()
    missing: list[str] = []
    found: list[dict[str, Any]] = []
    kept: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name() if cuda else "none",
        "shape": dataclasses.asdict(shape),
        "goal": GOAL,
        "cases": found,
        "ratios": {},
        "not_measured": missing,
    }
    left: list[Case] = []
    if not cuda and shape.model is not None:
        missing.append(
            f"all of {shape.name}: no CUDA device was at hand. Step time, peak memory, their "
            "ratios to GRPOTrainer's, and the plan's error are not known."
        )
    else:
        if not cuda:
            missing.append("peak memory: the run was on CPU")
            missing.append("ZeRO-3 with offload: the run was on CPU, all weights without DeepSpeed")
        found += earlier(kept)
        left = run_piece(
            [case for case in rows if not any(is_of(case, row) for row in found)],
            kept,
            apart=apart,
            piece_seconds=piece_seconds,
            case_seconds=case_seconds,
        )
    missing.append("weight sync and vLLM: generation is transformers'")
    path = keep(kept)
    console = Console(width=160)
    if found:
        console.print(table(found))
    for row in found:
        if "failed" in row:
            case = f"{row['weights']} {row['trainer']}, {row['order']}, {row['judge_seconds']}"
            console.print(f"failed: {case}: {row['failed']}", highlight=False, soft_wrap=True)
    for what in missing:
        console.print(f"not measured: {what}", highlight=False, soft_wrap=True)
    console.print(f"Kept in {path}", soft_wrap=True)
    if left:
        console.print(f"{len(left)} cases are left. Start it again to go on.")
    return kept


def run_piece(
    rows: list[Case],
    kept: dict[str, Any],
    *,
    apart: bool,
    piece_seconds: float,
    case_seconds: float,
) -> list[Case]:
    """Runs and records cases while the next one may still fit; returns those that are left."""
    shape = Shape(**kept["shape"])
    begun, longest = time.monotonic(), 0.0
    for place, case in enumerate(rows):
        now = time.monotonic()
        left = piece_seconds - (now - begun)
        if left <= min(longest, case_seconds):
            return rows[place:]
        seconds = min(left, case_seconds)
        try:
            kept["cases"].append(
                run_apart(shape, case, seconds) if apart else run_here(shape, case)
            )
        except subprocess.TimeoutExpired:
            if seconds < case_seconds:  # the piece ended: the next one gives it full time
                return rows[place:]
            why = f"not done within {seconds:g} s"
            kept["cases"].append({**dataclasses.asdict(case), "failed": why})
        except subprocess.CalledProcessError as error:
            why = f"exit code {error.returncode}"
            kept["cases"].append({**dataclasses.asdict(case), "failed": why})
        longest = max(longest, time.monotonic() - now)
        keep(kept)
    return []


def run_here(shape: Shape, case: Case) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return run_case(shape, case, Path(folder))


def run_apart(shape: Shape, case: Case, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "case.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--shape", shape.name]
        command += ["--case", json.dumps(dataclasses.asdict(case)), "--out", str(result)]
        command += ["--steps", str(shape.steps)]
        # Without a launcher, DeepSpeed would look these up through mpi4py.
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        alone |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
        subprocess.run(command, check=True, env={**os.environ, **alone}, timeout=seconds)
        return json.loads(result.read_text())


def keep(kept: dict[str, Any]) -> Path:
    kept["ratios"] = ratios(kept["cases"])
    return write_results(results_name(kept), kept, Path(os.environ.get("OUT", RESULTS)))


def earlier(kept: dict[str, Any]) -> list[dict[str, Any]]:
    """The cases recorded by an earlier piece of the same run."""
    now = {**provenance(), **kept}
    for folder in (Path(os.environ.get("OUT", RESULTS)), RESULTS):
        file = folder / f"{results_name(kept)}.json"
        before = json.loads(file.read_text()) if file.exists() else {}
        if all(before.get(key) == now[key] for key in ("shape", "gpu", "commit")):
            return before["cases"]
    return []


def results_name(kept: dict[str, Any]) -> str:
    shape = kept["shape"]
    return "gpu" if shape["model"] is not None else f"gpu_{shape['name']}"


def is_of(case: Case, row: dict[str, Any]) -> bool:
    return all(row.get(key) == value for key, value in dataclasses.asdict(case).items())


def ratios(found: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Ratio of BalCapTrainer to GRPOTrainer with free rewards, for each kind of weights."""
    done = [row for row in found if "failed" not in row and row["judge_seconds"] is None]
    free = {(row["weights"], row["trainer"]): row for row in done}
    result = {}
    for kind in sorted({kind for kind, _ in free}):
        trl, ours = free.get((kind, "GRPOTrainer")), free.get((kind, "BalCapTrainer"))
        if trl is None or ours is None:
            continue
        memory = None
        if trl["peak_gib"] is not None:
            memory = ours["peak_gib"] / trl["peak_gib"]
        result[kind] = {
            "step_time": ours["seconds"]["step"] / trl["seconds"]["step"],
            "peak_memory": memory,
        }
    return result


def table(found: list[dict[str, Any]]) -> Table:
    view = Table(title="one step, seconds (median)", title_justify="left")
    left = ("weights", "trainer", "order")
    memory = ("allocated GiB", "reserved", "plan", "plan's error")
    for name in (*left, "judge", "step", *PHASES, *memory):
        view.add_column(name, justify="left" if name in left else "right")
    for row in found:
        judge = "free" if row["judge_seconds"] is None else f"{row['judge_seconds']:g} s"
        cells = [row["weights"], row["trainer"], row["order"], judge]
        if "failed" in row:
            view.add_row(*cells, "failed")
            continue
        cells += [f"{row['seconds'][name]:.2f}" for name in ("step", *PHASES)]
        peak, reserved, plan = row["peak_gib"], row["reserved_gib"], row["planned_gib"]
        cells += ["-" if value is None else f"{value:.1f}" for value in (peak, reserved, plan)]
        view.add_row(*cells, f"{plan / peak - 1:+.0%}" if plan and peak else "-")
    return view


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-vl-3b")
    parser.add_argument("--steps", type=int, help="steps a case; the first is not timed")
    kinds = ["lora", "full", "offload"]
    parser.add_argument("--weights", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--judge_seconds", nargs="+", type=float, default=[0.0, 1.0, 3.0])
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = SHAPES[options.shape]
    if options.steps is not None:
        chosen = dataclasses.replace(chosen, steps=options.steps)
    if options.case is not None:
        with tempfile.TemporaryDirectory() as scratch:
            figures = run_case(chosen, Case(**json.loads(options.case)), Path(scratch))
        Path(options.out).write_text(json.dumps(figures))
    else:
        main(chosen, cases(options.weights, options.judge_seconds))

"""The paper's ablations on scenes, on one machine, with one command.

    python -m benchmarks.reproduce            # --quick: the main arms, 3 seeds, 40 steps; minutes
    python -m benchmarks.reproduce --full     # every arm, 300 steps; a day; restart to continue
    python -m benchmarks.reproduce --full --world rich --base long
    python -m benchmarks.reproduce --report   # no training: rewrite docs/reproduction.md

Each finished arm and seed is one line in `benchmarks/results/reproduce.jsonl`, appended at once and
never trained again. A run that is killed loses the arms in progress.
"""

import argparse
import json
import multiprocessing
import os
import queue
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Before torch is imported, here and in the workers: arms run in parallel, one thread each.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

from benchmarks.reproduction.arms import ARMS, QUICK, RICH, TIERS  # noqa: E402
from benchmarks.reproduction.runs import in_columns, read_runs  # noqa: E402
from benchmarks.reproduction.settings import (  # noqa: E402
    SETTINGS,
    Settings,
    base_digest,
    base_folder,
)
from benchmarks.results_file import provenance  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "reproduce.jsonl"


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    if not args.report:
        jobs = planned(args)
        run_all(jobs, args)
    from benchmarks.reproduction.report import write_page

    page = write_page(
        args.results, ROOT / "docs" if args.results == RESULTS else args.results.parent
    )
    print(f"Written: {_shown(page)}")
    return 0


def planned(args: argparse.Namespace) -> list[tuple[str, int]]:
    """Arms and seeds to run, in order: one tier over all seeds, then the next tier."""
    if args.arms:
        tiers: tuple[tuple[str, ...], ...] = (tuple(args.arms),)
    elif args.full:
        tiers = TIERS if args.world == "small" else (RICH,)
    else:
        tiers = (QUICK,)
    return [
        (name, seed)
        for place, tier in enumerate(tiers)
        for seed in range(args.seeds or _seeds(args, place))
        for name in tier
    ]


def _seeds(args: argparse.Namespace, place: int) -> int:
    """Twenty for what most claims depend on, five for the rest."""
    if not args.full:
        return 3
    return 20 if place < 2 and args.world == "small" else 5


def run_all(jobs: list[tuple[str, int]], args: argparse.Namespace) -> None:
    """Run the jobs without a result in worker processes, showing progress and the time left."""
    settings, base = _settings(args)
    waiting = [job for job in jobs if not is_done(args.results, *job, settings)]
    print(
        f"{len(jobs)} arms x seeds, {len(jobs) - len(waiting)} finished before, "
        f"{args.processes} at a time, {settings['steps']} steps each.",
        flush=True,
    )
    if not waiting:
        return
    # The server imports torch and TRL once; each worker is forked from it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.reproduction.train", "deepspeed", "peft"])
    messages = context.Queue()
    running: dict[tuple[str, int], Any] = {}
    progress: dict[tuple[str, int], float] = {}
    costs = {job: _cost(job[0]) for job in waiting}
    total, failed = sum(costs.values()), []
    started = shown = time.monotonic()
    stamp = provenance()
    while waiting or running:
        while waiting and len(running) < args.processes:
            job = waiting.pop(0)
            running[job] = context.Process(
                target=work,
                args=(*job, settings, str(base), str(args.results), stamp, messages),
                daemon=True,
            )
            running[job].start()
        try:
            name, seed, share = messages.get(timeout=1.0)
            progress[name, seed] = share
        except queue.Empty:
            pass
        for job, process in list(running.items()):
            if process.exitcode is None:
                continue
            del running[job]
            if process.exitcode:
                failed.append(job)
                print(f"{job[0]} seed {job[1]} failed with exit code {process.exitcode}.")
            else:
                progress[job] = 1.0
                print(f"{job[0]} seed {job[1]} done.", flush=True)
        if time.monotonic() - shown > args.every:
            shown = time.monotonic()
            done = sum(costs[job] * progress.get(job, 0.0) for job in costs)
            left = (shown - started) * (total - done) / done if done else float("nan")
            names = ", ".join(f"{n} {s} {progress.get((n, s), 0):.0%}" for n, s in running)
            print(f"{done / total:.0%}, {left / 60:.0f} min left ({names})", flush=True)
    if failed:
        raise SystemExit(f"{len(failed)} arms failed: {failed}. Start again to try them again.")


def work(
    name: str,
    seed: int,
    settings: dict[str, Any],
    base: str,
    results: str,
    stamp: dict[str, Any],
    messages: Any,
) -> None:
    """Train one arm with one seed and write its result; runs in its own process."""
    from trl.trainer import utils

    from benchmarks.reproduction.train import train_arm

    # Without Triton, TRL's head also scores prompts and padding, which are most tokens here.
    utils._use_triton = lambda device: True
    values = {key: value for key, value in settings.items() if key != "base"}
    chosen = Settings(**values)
    result = train_arm(
        ARMS[name],
        seed,
        chosen,
        Path(base),
        report=lambda step: messages.put((name, seed, step / (chosen.steps + 2))),
    )
    write_result(Path(results), {**result, **stamp, "steps": in_columns(result["steps"])})


def is_done(results: Path, name: str, seed: int, settings: dict[str, Any]) -> bool:
    """Whether there is a result for this arm and seed with these settings and this base."""
    return any(
        (result["arm"], result["seed"], result["settings"]) == (name, seed, settings)
        for result in read_runs(results)
    )


def write_result(results: Path, result: dict[str, Any]) -> None:
    """Append a result as one line. A line left incomplete by a killed run is ended, and ignored."""
    results.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(rounded(result)) + "\n"
    with results.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write(line.encode())


def rounded(value: Any) -> Any:
    """Round floats to 5 decimal places, for results that are read by people and kept in git."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


def _settings(args: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    base = base_folder(args.world, args.base)
    settings = replace(SETTINGS[args.world], steps=args.steps)
    return {**asdict(settings), "base": base_digest(base)}, base


def _cost(name: str) -> float:
    return 1.0 if ARMS[name].trained else 0.05


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="the main arms (the default)")
    size.add_argument("--full", action="store_true", help="every arm")
    size.add_argument("--report", action="store_true", help="only write the page")
    parser.add_argument("--arms", nargs="+", choices=ARMS, metavar="ARM", help="only these arms")
    parser.add_argument("--world", choices=SETTINGS, default="small", help="which drawn world")
    parser.add_argument("--seeds", type=int, help="seeds (default: 3; with --full 20 or 5)")
    parser.add_argument("--processes", type=int, default=2, help="arms at a time (default: 2)")
    parser.add_argument("--steps", type=int, help="steps (default: 40, with --full 300)")
    parser.add_argument(
        "--base",
        help="captioner to start from: a folder, or right, short or long for the rich world\n"
        "(default: the shipped one, or right)",
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="file of the results, one line a run"
    )
    parser.add_argument("--every", type=float, default=15.0, help="seconds between progress lines")
    args = parser.parse_args(argv)
    args.steps = args.steps or (300 if args.full else 40)
    return args


if __name__ == "__main__":
    sys.exit(main())

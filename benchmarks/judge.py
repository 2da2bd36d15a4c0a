"""The judge engine beside three ways that people judge rollouts now. One run prints every table.

    python -m benchmarks.judge                 # about five minutes on two quiet cores
    python -m benchmarks.judge --repeats 1     # faster, noisier

A loopback server with a known latency answers from a process of its own; each way runs in a process
of its own too, so that CPU time is the client's alone. Times are medians of the repeats; the load
of the machine is recorded, because on a busy one they say little. Results go to
`benchmarks/results/judge.json` and `judge.md`.

The three ways, written as they are commonly written:

    sync        a synchronous reward function per question: `litellm.completion` in a loop
    async       TRL's async rewards: one `litellm.acompletion` per question, nothing shared
    semaphore   a semaphore of 256 and a new OpenAI client for each call

Where inspect_ai is installed (`pip install inspect_ai`), its adaptive limit runs beside the
engine's.
"""

import argparse
import json
import os

from benchmarks.judging.cpu import run_cpu
from benchmarks.judging.runs import run_calls, run_capacity, run_fused, run_hidden
from benchmarks.judging.tables import (
    console,
    measure_calls,
    measure_capacity,
    measure_cpu,
    measure_fused,
    measure_hidden,
    measure_latency,
    measure_limit,
)
from benchmarks.judging.ways import run_way
from benchmarks.results_file import provenance, write_results

TASKS = {
    "way": run_way,
    "cpu": run_cpu,
    "calls": run_calls,
    "hidden": run_hidden,
    "fused": run_fused,
    "capacity": run_capacity,
}


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        name, positional, options = json.loads(arguments.task)
        print(json.dumps(TASKS[name](*positional, **options)))
        return
    found = {"load before": round(os.getloadavg()[0], 2)}
    sections = [
        measure_latency(arguments.repeats, found),
        measure_limit(max(1, arguments.repeats // 2), found),
        measure_cpu(arguments.repeats, found),
        measure_calls(found),
        measure_hidden(found),
        measure_fused(found),
        measure_capacity(found),
    ]
    found["load after"] = round(os.getloadavg()[0], 2)
    path = write_results("judge", found)
    made = {**provenance(), "load": f"{found['load before']} before, {found['load after']} after"}
    head = "\n".join(f"- {key}: {value}" for key, value in made.items())
    text = f"# The judge engine, measured\n\n{head}\n\n" + "\n".join(sections)
    path.with_suffix(".md").write_text(text)
    console.print(f"Written to {path} and {path.with_suffix('.md').name}")


if __name__ == "__main__":
    main()

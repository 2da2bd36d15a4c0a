"""The judge engine against three common ways to judge rollouts. One run prints every table.

    python -m benchmarks.judge                 # about five minutes on two quiet cores
    python -m benchmarks.judge --repeats 1     # faster, noisier
    python -m benchmarks.judge --only profiles # one piece: `judge_profiles.json` and `.md`

A loopback server with a known latency answers from its own process. Each way also runs in its own
process, so that CPU time is the client's alone. Times are medians of the repeats. The machine's
load is recorded, because times from a busy machine mean little. Results go to
`benchmarks/results/judge.json` and `judge.md`.

The three ways, as they are commonly written:

    sync        a synchronous reward function per question: `litellm.completion` in a loop
    async       TRL's async rewards: one `litellm.acompletion` per question, nothing shared
    semaphore   a semaphore of 256 and a new OpenAI client for each call

If inspect_ai is installed (`pip install inspect_ai`), its adaptive limit is compared with the
engine's.
"""

import argparse
import json
import os

from benchmarks.judging.cpu import run_cpu
from benchmarks.judging.profiles import run_profiles
from benchmarks.judging.runs import run_calls, run_capacity, run_hidden
from benchmarks.judging.tables import (
    console,
    measure_calls,
    measure_capacity,
    measure_cpu,
    measure_hidden,
    measure_latency,
    measure_limit,
    measure_profiles,
)
from benchmarks.judging.ways import run_way
from benchmarks.results_file import provenance, write_results

TASKS = {
    "way": run_way,
    "cpu": run_cpu,
    "calls": run_calls,
    "hidden": run_hidden,
    "profiles": run_profiles,
    "capacity": run_capacity,
}

PIECES = {
    "latency": measure_latency,
    "limit": lambda repeats, found: measure_limit(max(1, repeats // 2), found),
    "cpu": measure_cpu,
    "calls": lambda repeats, found: measure_calls(found),
    "hidden": lambda repeats, found: measure_hidden(found),
    "profiles": lambda repeats, found: measure_profiles(found),
    "capacity": lambda repeats, found: measure_capacity(found),
}


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=list(PIECES), help="one piece, in files of its own")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        name, positional, options = json.loads(arguments.task)
        print(json.dumps(TASKS[name](*positional, **options)))
        return
    found = {"load before": round(os.getloadavg()[0], 2)}
    names = [arguments.only] if arguments.only else PIECES
    sections = [PIECES[name](arguments.repeats, found) for name in names]
    found["load after"] = round(os.getloadavg()[0], 2)
    path = write_results(f"judge_{arguments.only}" if arguments.only else "judge", found)
    made = {**provenance(), "load": f"{found['load before']} before, {found['load after']} after"}
    head = "\n".join(f"- {key}: {value}" for key, value in made.items())
    text = f"# The judge engine, measured\n\n{head}\n\n" + "\n".join(sections)
    path.with_suffix(".md").write_text(text)
    console.print(f"Written to {path} and {path.with_suffix('.md').name}")


if __name__ == "__main__":
    main()

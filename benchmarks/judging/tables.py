"""Runs each measurement in its own processes and makes its table."""

import json
import os
import statistics
import subprocess
import sys
from importlib.util import find_spec

from rich.console import Console
from rich.table import Table

from benchmarks.judging.cpu import HANDLER, OURS, PARTS
from benchmarks.judging.profiles import PROFILES
from benchmarks.judging.runs import INSPECT
from benchmarks.judging.ways import GROUP, PROMPTS

LATENCY_GOALS = {2.0: 1.15, 0.5: 1.5}
console = Console(width=110)


def in_process(task, *arguments, **options):
    """Run a task in its own process and return its result."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.judge",
        "--task",
        json.dumps([task, arguments, options]),
    ]
    environment = {k: v for k, v in os.environ.items() if k != HANDLER}
    environment["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def show(title, columns, rows):
    """Print a table and return it as Markdown."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)
    lines = [f"### {title}", "", "| " + " | ".join(columns) + " |"]
    lines += ["|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def verdict(value, goal):
    return f"{value:.2f} ({'reached' if value <= goal else 'NOT reached'}, goal {goal:g})"


def measure_latency(repeats, found):
    from trl_balcap.scenes.server import serve

    rows = []
    for latency, goal in LATENCY_GOALS.items():
        ideal = 2 * latency
        with serve(latency=latency, process=True) as server:
            results = {
                "engine": in_process("way", "engine", server.url, repeats=repeats),
                "async": in_process("way", "async", server.url, repeats=max(1, repeats // 2)),
                "semaphore": in_process(
                    "way", "semaphore", server.url, repeats=max(1, repeats // 2)
                ),
            }
        with serve(latency=latency / 10, process=True) as server:
            # One call after another: an eighth of the batch at a tenth of the latency, scaled up
            # and with the missing wait added.
            sync = in_process("way", "sync", server.url, repeats=1, prompts=1)
            calls = PROMPTS * sync["calls"][0]
            seconds = PROMPTS * sync["seconds"][0] + 0.9 * latency * calls
            results["sync"] = {
                "seconds": [seconds],
                "cpu": [PROMPTS * sync["cpu"][0]],
                "calls": [calls],
            }
        engine = statistics.median(results["engine"]["seconds"])
        for name, result in results.items():
            seconds = statistics.median(result["seconds"])
            rows.append(
                (
                    f"{latency:g} s, {name}" + (" (extrapolated)" if name == "sync" else ""),
                    f"{seconds:.2f}",
                    verdict(seconds / ideal, goal)
                    if name == "engine"
                    else f"{seconds / ideal:.2f}",
                    f"{seconds / engine:.1f}",
                    f"{statistics.median(result['calls']) / (PROMPTS * GROUP):.2f}",
                    f"{statistics.median(result['cpu']):.2f}",
                )
            )
            result.pop("scores", None)
        found[f"latency {latency:g}"] = results
    columns = (
        "latency, way",
        "seconds",
        "x two latencies",
        "x engine",
        "calls a rollout",
        "CPU s",
    )
    return show("64 rollouts of 8 prompts", columns, rows)


def measure_limit(repeats, found):
    from trl_balcap.scenes.server import serve

    rows = []
    for limit in (8, 32):
        with serve(latency=0.5, process=True) as server:
            result = in_process("way", "engine", server.url, repeats=repeats, max_concurrency=limit)
        result.pop("scores")
        calls, seconds = statistics.median(result["calls"]), statistics.median(result["seconds"])
        ideal = calls * 0.5 / limit
        rows.append((limit, f"{seconds:.2f}", f"{ideal:.2f}", verdict(seconds / ideal, 1.25)))
        found[f"limit {limit}"] = result
    columns = ("limit", "seconds", "calls x latency / limit", "ratio")
    return show("64 rollouts, 0.5 s latency, where the concurrency limit binds", columns, rows)


def measure_cpu(repeats, found):
    from trl_balcap.scenes.server import serve

    with serve(process=True) as server:
        result = in_process("cpu", server.url, calls=150, rounds=8 * repeats)
        router = in_process("cpu", server.url, calls=150, rounds=8, router_alone=True)
    found["cpu"] = result
    result["ms"] |= router["ms"]
    rounds = [result["ms"][name] for name in OURS]
    ratios = [engine / tuned for tuned, engine in zip(*rounds, strict=True)]
    low, added, high = (100 * (q - 1) for q in statistics.quantiles(ratios, n=4))
    ms = {name: statistics.median(values) for name, values in result["ms"].items()}
    tuned = ms["litellm with our settings"]
    rows = [(name, f"{value:.2f}", f"{value / tuned:.2f}") for name, value in ms.items()]
    tables = [show("CPU of one call", ("way", "ms", "x litellm with our settings"), rows)]
    note = (
        f"The engine adds {verdict(added, 15)} percent to litellm's own CPU: median of "
        f"{len(ratios)} rounds with both in each, quartiles {low:.1f} to {high:.1f}."
    )
    console.print(note)
    before, after = (
        result["profiles"][n] for n in ("litellm as it comes", "litellm with our settings")
    )
    rows = [
        (part, f"{before.get(part, 0):.2f}", f"{after.get(part, 0):.2f}")
        for part in (*PARTS, "other")
    ]
    rows.append(("all", f"{sum(before.values()):.2f}", f"{sum(after.values()):.2f}"))
    title = "Where the CPU of a litellm call goes, ms under the profiler (which slows all of it)"
    tables.append(note + "\n")
    tables.append(show(title, ("part", "as it comes", "with our settings"), rows))
    return "\n".join(tables)


def measure_calls(found):
    from trl_balcap.scenes.server import serve

    with serve(process=True) as server:
        result = in_process("calls", server.url)
    found["calls"] = result
    rows = [(n, calls, f"{calls / count:.2f}") for n, (calls, count) in result.items()]
    return show("Calls as work repeats", ("batch", "calls", "a rollout"), rows)


def measure_hidden(found):
    from trl_balcap.scenes.server import serve

    with serve(latency=1.0, process=True) as server:
        result = in_process("hidden", server.url, window=1.5)
    found["hidden"] = result
    rows = [(name, f"{seconds:.2f}") for name, seconds in result.items()]
    return show(
        "Seconds waited at 1 s latency, 1.5 s of other work between", ("judging", "waited"), rows
    )


def measure_profiles(found):
    result = in_process("profiles")
    found["profiles"] = result
    takes = result["takes"]
    rows = []
    for name, took in takes.items():
        profile, _, batch = name.partition(", ")
        four = takes[f"questions, {batch}"]
        calls, tokens = took["calls"] / (PROMPTS * GROUP), took["prompt tokens"]
        ratio = tokens / four["prompt tokens"]
        goal = profile == "united" and batch == "924 px"
        apart = max(result["apart"].get(name, [0.0]))
        rows.append(
            (
                batch,
                profile,
                verdict(calls, 2.4) if goal else f"{calls:.2f}",
                took["images"],
                f"{tokens:,}",
                verdict(ratio, 0.5) if goal else f"{ratio:.2f}",
                f"{apart:.3f}",
            )
        )
    columns = ("batch", "profile", "calls a rollout", "images", "prompt tokens", "ratio", "apart")
    title = "Profiles, 64 rollouts of 8 images; apart: largest mean distance from the exact scores"
    first = show(title, columns, rows)
    canaries, right = result["noisy canaries"]
    rows = [(name, *(f"{value:.3f}" for value in result["noisy"][name])) for name in PROFILES]
    columns = ("profile", "precision", "recall", "linguistic", "pairs in order")
    second = show(
        "Noisy judge, 96 captions: mean distance from another round of the four questions, and "
        "pairs of a group in the exact order of precision",
        columns,
        rows,
    )
    note = f"Of {canaries} canaries, the noisy judge got {right} right.\n"
    console.print(note)
    rows = [(name, f"{result['latencies'][name]:.2f}") for name in PROFILES]
    third = show("A batch at 2 s, in two latencies", ("profile", "x two latencies"), rows)
    return "\n".join([first, second, note, third])


# Questions, the judge's latency and capacity, and the share it refuses regardless of load.
CAPACITIES = ((400, 0.25, 32, 0.0), (400, 0.25, 400, 0.0), (1000, 0.5, 400, 0.06))


def measure_capacity(found):
    from trl_balcap.scenes.server import serve
    from trl_balcap.scenes.server_faults import ServerFaults

    limits = ["adaptive", "256", "32", "8"]
    if find_spec("inspect_ai") is not None:
        limits.insert(1, INSPECT)
    rows = []
    for questions, latency, places, by_chance in CAPACITIES:
        ideal = max(1.0, questions / places) * latency
        for limit in limits:
            faults = ServerFaults(capacity=places, rate_limited=by_chance, retry_after=0.1)
            with serve(latency=latency, process=True, faults=faults) as server:
                result = in_process("capacity", server.url, limit=limit, questions=questions)
            found[f"capacity {places}, by chance {by_chance}, limit {limit}"] = result
            ratio = f"{result['seconds'] / ideal:.2f}"
            refused, answered = result["refused"], f"{result['answered']} of {questions}"
            took = f"{result['seconds']:.2f}"
            rows.append((places, f"{by_chance:.0%}", limit, took, ratio, refused, answered))
    columns = ("places", "by chance", "limit", "seconds", "x ideal", "refused with 429", "answered")
    return show(
        "A judge with so many places, at 0.25 s (at 0.5 s where it also refuses by chance)",
        columns,
        rows,
    )

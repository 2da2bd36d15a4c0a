"""The demo over several seeds: does every reward rise, both sampled and greedy?

    python -m benchmarks.demo_seeds

Runs `trl-balcap demo` for each seed and keeps the tables. Goals: b-CapScore rises by at least 0.25
sampled (temperature 1) and rises with greedy decoding, and no reward falls in either. A finished
seed is not run again unless --again is given.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.results_file import RESULTS, write_results
from trl_balcap.demo import run_demo

METRICS = ("precision", "recall", "linguistic", "b_capscore", "mean_length_ratio")


def main(seeds: list[int], again: bool) -> None:
    kept = RESULTS / "demo_seeds.json"
    tables = json.loads(kept.read_text())["seeds"] if kept.exists() and not again else {}
    for seed in seeds:
        if str(seed) in tables:
            continue
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            run_demo(Path(folder) / "run", seed=seed)
            tables[str(seed)] = {
                **json.loads((Path(folder) / "run/table.json").read_text()),
                "seconds": round(time.perf_counter() - begun),
            }
        write_results("demo_seeds", {"seeds": tables, **verdict(tables)})
    show(tables)


def verdict(tables: dict) -> dict:
    """Whether the goals are met over the seeds so far."""

    def rises(how: str, metric: str) -> list[float]:
        return [
            round(t[how]["after"][metric] - t[how]["before"][metric], 4) for t in tables.values()
        ]

    falls = [
        f"{metric} {how}"
        for how in ("sampled", "greedy")
        for metric in ("precision", "recall", "linguistic")
        if min(rises(how, metric)) < 0
    ]
    return {
        "b_capscore_rise_sampled": rises("sampled", "b_capscore"),
        "b_capscore_rise_greedy": rises("greedy", "b_capscore"),
        "rewards_that_fell": falls,
        "goals_reached": min(rises("sampled", "b_capscore")) >= 0.25
        and min(rises("greedy", "b_capscore")) > 0
        and not falls,
    }


def show(tables: dict) -> None:
    table = Table(title="before | after on held-out scenes")
    table.add_column("seed")
    table.add_column("decoding")
    for metric in METRICS:
        table.add_column(metric, justify="right")
    for seed, results in sorted(tables.items()):
        for how in ("sampled", "greedy"):
            before, after = results[how]["before"], results[how]["after"]
            cells = [f"{before[m]:.3f} | {after[m]:.3f}" for m in METRICS]
            table.add_row(seed, how, *cells)
    console = Console()
    console.print(table)
    console.print(verdict(tables))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--again", action="store_true", help="run finished seeds again")
    options = parser.parse_args()
    main(options.seeds, options.again)

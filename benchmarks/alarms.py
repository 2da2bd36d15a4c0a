"""Which alarms the reproduction's runs trigger, by arm: the tables in benchmarks/results/alarms.md.

    python -m benchmarks.alarms

Nothing is trained. The rules about the judge (noise, filled-in zeros) need numbers that the
reproduction did not record at first, so they are checked on separate runs, made with

    python -m benchmarks.reproduce --arms ARM --seeds 1 --results benchmarks/results/alarms.jsonl

A rule sees the 40 logged steps of each run, as it would have during training. Numbers missing
from those steps (commentary, length) come from each run's measurement on held-out images, where a
rule compares the base with the trained captioner.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reproduction.arms import ARMS
from benchmarks.reproduction.experiments import read_results
from benchmarks.reproduction.runs import read_runs
from benchmarks.results_file import RESULTS
from trl_balcap.report.alarms import WINDOW, alarms

__all__ = ["ends", "first_heard", "heard", "judge_table", "logged", "reproduced", "table"]

REWARDS = ("precision", "recall", "linguistic")
BY_STEPS = ("dead_reward", "precision_traded", "grades_alike")
BY_ENDS = ("length_runs_to_an_edge", "commentary")
OF_THE_JUDGE = ("zeros_filled_in", "judge_noise")


def logged(step: Mapping[str, float]) -> dict[str, float]:
    """A recorded step under the trainer's metric names. Only the spread of a reward within groups
    was recorded. It is no larger than the spread over the batch, so the rule fires early, never
    late."""
    names = {"mean": "mean", "dead": "frac_zero_std", "group_std": "std", "std": "std"}
    names |= {name: name for name in ("retest_std", "zeros_among_good")}
    found = {
        f"rewards/{reward}_reward/{ours}": step[f"{reward}/{kept}"]
        for reward in REWARDS
        for kept, ours in names.items()
        if f"{reward}/{kept}" in step
    }
    sides = ("too_short", "too_long")
    return found | {f"length_gate/{side}": step[side] for side in sides if side in step}


def ends(base: Mapping[str, float], trained: Mapping[str, float]) -> list[dict[str, float]]:
    """A log with two windows of the base's measures and two of the trained captioner's."""
    rows = [
        {
            "length_gate/ratio": measures["length_ratio"],
            "length_gate/too_short": measures["too_short"],
            "length_gate/too_long": measures["too_long"],
            "judge/precision_reward/pointable": 1.0 - measures["meta"],
        }
        for measures in (base, trained)
    ]
    return [row for row in rows for _ in range(2 * WINDOW)]


def heard(runs: Sequence[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """For each arm, the number of seeds in which each rule fired at any step."""
    sampled = {(run["arm"], run["seed"]): run["measures"]["sampled"] for run in runs}
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        if not run["steps"]:
            continue  # the base
        at_any = set(first_heard(run["steps"]))
        base = sampled["base", run["seed"]]
        at_any |= set(alarms(ends(base, sampled[run["arm"], run["seed"]])))
        found[run["arm"]].update({"seeds": 1} | dict.fromkeys(at_any, 1))
    return dict(found)


def first_heard(steps: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """The rules that fired during a run, and the first step at which each did."""
    log = [logged(step) for step in steps]
    spoke: dict[str, int] = {}
    for n in range(1, len(log) + 1):
        spoke |= {rule: n for rule in alarms(log[:n]) if rule not in spoke}
    return spoke


def judge_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: for each run, the step at which each of the judge's rules first fired."""
    lines = ["| run | " + " | ".join(f"`{rule}`" for rule in OF_THE_JUDGE) + " |"]
    lines.append("|---|" + "---|" * len(OF_THE_JUDGE))
    order = list(ARMS)
    for run in sorted(runs, key=lambda run: (order.index(run["arm"]), run["seed"])):
        spoke = first_heard(run["steps"])
        cells = [f"step {spoke[rule]}" if rule in spoke else "" for rule in OF_THE_JUDGE]
        title = f"`{run['arm']}`, seed {run['seed']}: {ARMS[run['arm']].title}"
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table(found: Mapping[str, Counter[str]]) -> str:
    """Markdown: arms for which a rule fired, and the full method; the silent ones in one line."""
    rules = (*BY_STEPS, *BY_ENDS)
    lines = ["| arm | " + " | ".join(f"`{rule}`" for rule in rules) + " |"]
    lines.append("|---|" + "---|" * len(rules))
    silent = []
    for name in (name for name in ARMS if name in found):
        spoke = found[name]
        if name != "full" and not any(spoke[rule] for rule in rules):
            silent.append(f"`{name}`")
            continue
        cells = [f"{spoke[rule]} of {spoke['seeds']}" if spoke[rule] else "" for rule in rules]
        lines.append(f"| `{name}`: {ARMS[name].title} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Silent in all seeds: {', '.join(silent)}."])


def reproduced(file: Path) -> list[dict[str, Any]]:
    """The runs on the reproduction page, without the longer ones."""
    return [run for seeds in read_results(file).values() for run in seeds.values()]


def main(folder: Path = RESULTS) -> None:
    print(table(heard(reproduced(folder / "reproduce.jsonl"))), end="\n\n")
    print(judge_table(read_runs(folder / "alarms.jsonl")))


if __name__ == "__main__":
    main()

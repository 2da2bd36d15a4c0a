"""The three figures of docs/reproduction.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.reproduction.calls import judge_calls
from benchmarks.reproduction.claims import CLAIMS, Claim, Part, difference
from benchmarks.reproduction.experiments import Experiment
from benchmarks.reproduction.horizons import Run, latest
from benchmarks.reproduction.inference import LEAST_SEEDS, Interval, interval

__all__ = ["plot_all"]

CURVES = {
    "full": ("#1b6ca8", "full method"),
    "vanilla": ("#d1495b", "vanilla GRPO"),
    "no_gate": ("#111111", "no length gate"),
    "no_precision": ("#edae49", "no precision"),
    "no_recall": ("#66a182", "no recall"),
    "no_linguistic": ("#8d5b9a", "no linguistic"),
    "no_pointability": ("#8a8a8a", "no pointability"),
}
PANELS = {
    "precision/mean": "precision reward",
    "recall/mean": "recall reward",
    "linguistic/mean": "linguistic reward, after the gate",
    "length": "caption length (tokens)",
}
METHODS = {
    "full": ("#1b6ca8", "o", "full method"),
    "vanilla": ("#d1495b", "s", "vanilla GRPO"),
    "assertion": ("#e07b00", "^", "credit for assertions"),
    "half_rate": ("#8d5b9a", "h", "half the learning rate"),
    "utility": ("#2a7f3f", "v", "utility (CapRL)"),
    "rubric": ("#7a5c00", "D", "rubric (RubiCap)"),
    "feedquill": ("#111111", "X", "FEEDQUILL"),
    "group": ("#00a0a0", "P", "rank in the group"),
    "sft": ("#8a8a8a", "*", "SFT, no judge"),
}
STEP_COLOURS = {40: "#f2a65a", 120: "#1b6ca8", 300: "#14213d", "area": "#66a182"}
EQUAL = 0.02
DPI = 100


def plot_all(experiments: Sequence[Experiment], folder: Path) -> None:
    """Draw the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    if experiments:
        curves(experiments, folder)
        claims(experiments, folder)
        calls(experiments, folder)


def curves(experiments: Sequence[Experiment], folder: Path) -> None:
    """Rewards and length in training, a row per experiment: mean over runs, range as a band."""
    figure, every = plt.subplots(
        len(experiments),
        len(PANELS),
        figsize=(13, 3.1 * len(experiments) + 0.7),
        squeeze=False,
        layout="constrained",
    )
    for row, one in zip(every, experiments, strict=True):
        for axes, (key, title) in zip(row, PANELS.items(), strict=True):
            for name, (colour, _) in CURVES.items():
                _band(axes, _longest(one.runs, name), key, colour)
            axes.set(title=title, xlabel="training step")
            axes.grid(alpha=0.3)
            if key != "length":
                axes.set_ylim(0.2, 1.0)
        row[0].set_ylabel(_named(one), fontsize=11, fontweight="bold")
    handles = [plt.Line2D([], [], color=colour, lw=2.5) for colour, _ in CURVES.values()]
    figure.suptitle("What training earns, by arm (line: mean over runs; band: all runs)")
    figure.legend(
        handles, [said for _, said in CURVES.values()], loc="outside lower center", ncols=7
    )
    _save(figure, folder, "curves.png")


def _named(one: Experiment) -> str:
    return one.short.replace("small", "small world").replace("rich, ", "rich world,\n")


def _longest(runs: Sequence[Run], name: str) -> list[Run]:
    """An arm's runs of the greatest length that three of them have."""
    found = [run for run in runs if run["arm"] == name and run["steps"]]
    lengths = [len(run["steps"]) for run in found]
    most = max((n for n in lengths if lengths.count(n) >= LEAST_SEEDS), default=0)
    return [run for run in found if len(run["steps"]) == (most or max(lengths, default=0))]


def _band(axes: Any, runs: Sequence[Run], key: str, colour: str) -> None:
    if not runs or key not in runs[0]["steps"][0]:
        return
    stacked = np.stack([_smooth([step[key] for step in run["steps"]]) for run in runs])  # (R, T)
    steps = np.arange(1, stacked.shape[1] + 1)
    axes.plot(steps, stacked.mean(0), color=colour, lw=1.8)
    axes.fill_between(steps, stacked.min(0), stacked.max(0), color=colour, alpha=0.12, lw=0)


def _smooth(values: Sequence[float], width: int = 9) -> np.ndarray:
    """Running mean over the last steps, with a shorter window at the start."""
    return np.array([np.mean(values[max(0, i - width + 1) : i + 1]) for i in range(len(values))])


def claims(experiments: Sequence[Experiment], folder: Path) -> None:
    """Every counted part of every claim, with an interval for each step and for the area."""
    parts = [(claim, part) for claim in CLAIMS for part in claim.parts]
    parts = [
        (claim, part)
        for claim, part in parts
        if any(
            difference(part, r, "sampled").n for one in experiments for r in _looks(one).values()
        )
    ]
    figure, every = plt.subplots(
        1,
        len(experiments),
        figsize=(
            4.4 + (4.8 if len(experiments) == 1 else 2.9) * len(experiments),
            0.52 * len(parts) + 1.6,
        ),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, one in zip(every[0], experiments, strict=True):
        looks = _looks(one)
        shifts = np.linspace(-0.27, 0.27, len(looks)) if len(looks) > 1 else [0.0]
        axes.axvspan(-EQUAL, EQUAL, color="#000000", alpha=0.07, lw=0)
        axes.axvline(0, color="k", lw=0.8)
        for row, (_, part) in enumerate(parts):
            for shift, (look, results) in zip(shifts, looks.items(), strict=True):
                _interval(axes, difference(part, results, "sampled"), row + shift, look)
        axes.set(title=_named(one), xlabel="difference (1 = whole scale)", xlim=(-0.32, 0.52))
        axes.grid(axis="x", alpha=0.3)
        for row in range(1, len(parts)):
            axes.axhline(row - 0.5, color="k", lw=0.3, alpha=0.4)
    axes = every[0][0]
    axes.set(yticks=range(len(parts)), ylim=(len(parts) - 0.5, -0.5))
    axes.set_yticklabels(_labels(parts), fontsize=8)
    named = dict.fromkeys(look for one in experiments for look in _looks(one))
    handles = [
        plt.Line2D([], [], color=STEP_COLOURS.get(look, "#888888"), marker="o", lw=2)
        for look in named
    ]
    labels = ["area to step 120" if look == "area" else f"after {look} steps" for look in named]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(
        "Claims as differences: right of 0 holds, in grey no more than 0.02 (95% intervals over "
        "seeds; hollow: fewer than three)",
        fontsize=10,
    )
    _save(figure, folder, "claims.png")


def _labels(parts: Sequence[tuple[Claim, Part]]) -> list[str]:
    """What a row is about: the claim in its first row, and the difference in all."""
    labels, numbers = [], set()
    for claim, part in parts:
        difference = f"{part.measure}: {part.more} − {part.less}" + (" = 0?" if part.tie else "")
        text = fill(f"{claim.number}. {claim.text}", 68)
        labels.append(difference if claim.number in numbers else f"{text}\n{difference}")
        numbers.add(claim.number)
    return labels


def _looks(one: Experiment) -> dict[Any, Any]:
    return {**one.horizons, **({"area": one.areas} if one.areas else {})}


def _interval(axes: Any, found: Interval, height: float, look: Any) -> None:
    if not found.n:
        return
    colour = STEP_COLOURS.get(look, "#888888")
    few = found.n < LEAST_SEEDS
    if not few:
        axes.plot([found.low, found.high], [height, height], color=colour, lw=1.6)
    axes.plot(found.mean, height, "o", ms=4, color=colour, mfc="white" if few else colour)


def calls(experiments: Sequence[Experiment], folder: Path) -> None:
    """
    b-CapScore of the methods against the judge calls of their training, step by step. Experiments
    with a single method have nothing to compare, and get no panel beside others.
    """
    experiments = [
        one for one in experiments if len(METHODS.keys() & latest(one.horizons, least=1).keys()) > 1
    ] or experiments
    columns = min(2, len(experiments))
    rows = -(-len(experiments) // columns)
    figure, every = plt.subplots(
        rows,
        columns,
        figsize=(3.0 + 5.0 * columns, 0.6 + 4.0 * rows),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes in every.flat[len(experiments) :]:
        axes.axis("off")
    for axes, one in zip(every.flat, experiments, strict=False):
        settings = one.runs[0]["settings"]
        asked = settings["prompts_per_step"], settings["num_generations"]
        for name, (colour, marker, _) in METHODS.items():
            points = [
                (judge_calls(name, step, *asked) / 1000, _mean(results[name]))
                for step, results in one.horizons.items()
                if name in results
            ]
            if not points:
                continue
            x = [at for at, _ in points]
            y = [found.mean for _, found in points]
            axes.plot(x, y, marker=marker, color=colour, lw=1.8, ms=7)
            for at, found in points:
                if found.n > 1:
                    axes.plot([at, at], [found.low, found.high], color=colour, lw=1.0)
        base = [
            run["measures"]["sampled"]["b_capscore"] for run in one.runs if run["arm"] == "base"
        ]
        if base:
            axes.axhline(np.mean(base), color="k", ls="--", lw=1)
            axes.annotate("the base, untrained", (0.99, np.mean(base)), xytext=(0, 4),
                          xycoords=("axes fraction", "data"), textcoords="offset points",
                          ha="right", fontsize=9)  # fmt: skip
        axes.set(title=_named(one), xlabel="judge calls in training (thousands)")
        axes.grid(alpha=0.3)
    for axes in every[:, 0]:
        axes.set_ylabel("b-CapScore on held-out scenes, sampled")
    shown = {name for one in experiments for found in one.horizons.values() for name in found}
    handles = [
        plt.Line2D([], [], color=colour, marker=marker, ms=7, lw=1.8, label=said)
        for name, (colour, marker, said) in METHODS.items()
        if name in shown
    ]
    figure.legend(handles=handles, loc="outside right center")
    figure.suptitle("What judge calls buy (points: after 40, 120 and 300 steps; 95% intervals)")
    _save(figure, folder, "calls.png")


def _mean(runs: Mapping[Any, Mapping[str, Any]]) -> Interval:
    return interval([run["measures"]["sampled"]["b_capscore"] for run in runs.values()])


def _save(figure: Any, folder: Path, name: str) -> None:
    # No date or version inside, so that the same results give the same file.
    figure.savefig(folder / name, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)

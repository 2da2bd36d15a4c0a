"""The three figures of docs/reproduction.md."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.transforms import ScaledTranslation
from scipy.stats import t

from benchmarks.reproduction.calls import judge_calls
from benchmarks.reproduction.claims import CLAIMS, Claim, Part, difference, margin
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
OTHERWISE = {("no_pointability", "precision/mean"), ("no_gate", "linguistic/mean")}
"""Arms that earn another quantity than the others in a panel."""

METHODS = {
    "full": ("#1b6ca8", "o", "full method"),
    "vanilla": ("#d1495b", "s", "vanilla GRPO"),
    "assertion": ("#e07b00", "^", "credit for assertions"),
    "half_rate": ("#8d5b9a", "h", "half the learning rate"),
    "utility": ("#2a7f3f", "v", "utility (CapRL)"),
    "rubric": ("#7a5c00", "D", "rubric (RubiCap)"),
    "feedquill": ("#111111", "X", "FEEDQUILL"),
    "group": ("#00a0a0", "P", "rank in the group"),
    "sft": ("#8a8a8a", "*", "SFT: no judge, but\nneeds perfect references"),
}
STEP_COLOURS = {40: "#e8871e", 120: "#1b6ca8", 300: "#14213d", "area": "#66a182"}
MEASURES = {
    "b_capscore": "b-CapScore",
    "length_ratio": "length ratio",
    "qa": "QA",
    "meta": "commentary",
}
LIMITS = (-0.32, 0.52)
PAIRS = (3, 6, 10, 20, 30)
DPI = 100


def plot_all(experiments: Sequence[Experiment], folder: Path) -> None:
    """Draw the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    if experiments:
        curves(experiments, folder)
        claims(experiments, folder)
        calls(experiments, folder)


def curves(experiments: Sequence[Experiment], folder: Path) -> None:
    """Rewards and length in training, a row per experiment: mean over runs, its interval a band."""
    figure, every = plt.subplots(
        len(experiments),
        len(PANELS),
        figsize=(11.5, 2.9 * len(experiments) + 1.3),
        squeeze=False,
        layout="constrained",
    )
    for row, one in zip(every, experiments, strict=True):
        for axes, (key, title) in zip(row, PANELS.items(), strict=True):
            for name, (colour, _) in CURVES.items():
                style = "--" if (name, key) in OTHERWISE else "-"
                _band(axes, _longest(one.runs, name), key, colour, style)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("training step", fontsize=9)
            axes.tick_params(labelsize=9)
            axes.grid(alpha=0.3)
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, 0), high if key == "length" else min(high, 1))
        row[0].set_ylabel(_named(one), fontsize=9, fontweight="bold")
    handles = [plt.Line2D([], [], color=colour, lw=2.5) for colour, _ in CURVES.values()]
    labels = [
        f"{said} ({_counted([len(_longest(one.runs, name)) for one in experiments])})"
        for name, (_, said) in CURVES.items()
    ]
    handles.append(plt.Line2D([], [], color="#555555", lw=1.8, ls="--"))
    labels.append("dashed: another quantity")
    figure.suptitle(
        "What training earns, by arm (in brackets below: its runs in each row, from the top)\n"
        "Line: mean over runs, smoothed over a fifteenth of the steps (at least nine). "
        "Band: its 95% t interval.\n"
        "Dashed: an arm that earns another quantity here (precision without pointability, "
        "linguistic without the gate).",
        fontsize=11,
    )
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=10)
    _save(figure, folder, "curves.png")


def _named(one: Experiment) -> str:
    return one.title.removeprefix("The ").replace(", ", ",\n", 1)


def _counted(counts: Sequence[int]) -> str:
    return ", ".join(str(n) if n else "–" for n in counts)


def _longest(runs: Sequence[Run], name: str) -> list[Run]:
    """An arm's runs of the greatest length that three of them have."""
    found = [run for run in runs if run["arm"] == name and run["steps"]]
    greatest = _greatest([len(run["steps"]) for run in found])
    return [run for run in found if len(run["steps"]) == greatest]


def _greatest(lengths: Sequence[int]) -> int:
    """The greatest length that three runs have; without such a length, the greatest."""
    most = max((n for n in lengths if lengths.count(n) >= LEAST_SEEDS), default=0)
    return most or max(lengths, default=0)


def _band(axes: Any, runs: Sequence[Run], key: str, colour: str, style: str) -> None:
    if not runs or key not in runs[0]["steps"][0]:
        return
    stacked = np.stack([_smooth([step[key] for step in run["steps"]]) for run in runs])  # (R, T)
    steps = np.arange(1, stacked.shape[1] + 1)
    mean, n = stacked.mean(0), len(runs)
    axes.plot(steps, mean, color=colour, lw=1.8, ls=style)
    if n >= LEAST_SEEDS:
        half = t.ppf(0.975, n - 1) * stacked.std(0, ddof=1) / np.sqrt(n)
        axes.fill_between(steps, mean - half, mean + half, color=colour, alpha=0.12, lw=0)


def _smooth(values: Sequence[float]) -> np.ndarray:
    """Running mean over the last steps, with a shorter window at the start."""
    width = max(9, len(values) // 15)
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
            4.0 + (4.8 if len(experiments) == 1 else 2.5) * len(experiments),
            0.57 * len(parts) + 2.2,
        ),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    margins = np.array([margin(part.measure) for _, part in parts])
    for axes, one in zip(every[0], experiments, strict=True):
        looks = _looks(one)
        shifts = np.linspace(-0.27, 0.27, len(looks)) if len(looks) > 1 else [0.0]
        axes.barh(range(len(parts)), 2 * margins, left=-margins, height=1, color="#d9d9d9", lw=0)
        axes.axvline(0, color="k", lw=0.8)
        for row, (_, part) in enumerate(parts):
            for shift, (look, results) in zip(shifts, looks.items(), strict=True):
                _interval(axes, difference(part, results, "sampled"), row + shift, look)
        axes.set_title(_named(one), fontsize=9)
        axes.set(xlabel="difference", xlim=LIMITS)
        axes.grid(axis="x", alpha=0.3)
        for row in range(1, len(parts)):
            axes.axhline(row - 0.5, color="k", lw=0.3, alpha=0.4)
    axes = every[0][0]
    axes.set(yticks=range(len(parts)), ylim=(len(parts) - 0.5, -0.5))
    axes.set_yticklabels(_labels(parts), fontsize=8.5)
    named = dict.fromkeys(look for one in experiments for look in _looks(one))
    colours = [
        plt.Line2D([], [], color=STEP_COLOURS.get(look, "#888888"), lw=3,
                   label="area to step 120" if look == "area" else f"after {look} steps")
        for look in named
    ]  # fmt: skip
    dots = [
        plt.Line2D([], [], color="#555555", marker="o", lw=0, ms=_size(n), mfc=("#555555", 0.5),
                   label=f"{n} pairs" + (" or more" if n == PAIRS[-1] else ""))
        for n in PAIRS
    ]  # fmt: skip
    # A legend is filled column by column: colours above, dots below.
    empty = plt.Line2D([], [], lw=0, label=" ")
    handles = [one for column in zip_longest(colours, dots, fillvalue=empty) for one in column]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles) // 2)
    figure.suptitle(
        "Each claim as a difference between two arms, in measures from 0 to 1 (length ratio: in "
        "lengths of the reference)\n"
        'A claim says that the difference lies right of 0 or, where its row ends in "= 0?", in '
        "the grey: so small that it counts as none.\n"
        "Dot: mean over pairs of runs, the larger the more pairs (hollow: fewer than three). "
        "Line: 95% t interval.\n"
        "Arrow head: the interval goes on beyond the axis. A number beside it: the mean lies there "
        "too.",
        fontsize=10,
    )
    _save(figure, folder, "claims.png")


def _labels(parts: Sequence[tuple[Claim, Part]]) -> list[str]:
    """What a row is about: the claim in its first row, and the difference in all."""
    labels, numbers = [], set()
    for claim, part in parts:
        measure = MEASURES.get(part.measure, part.measure)
        difference = f"{measure}: {part.more} − {part.less}" + (" = 0?" if part.tie else "")
        text = fill(f"{claim.number}. {claim.text}", 62)
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
    low, high = (found.mean, found.mean) if few else (found.low, found.high)
    axes.plot(np.clip([low, high], *LIMITS), [height, height], color=colour, lw=1.4)
    axes.plot(found.mean, height, "o", ms=_size(found.n), color=colour,
              mfc="white" if few else (colour, 0.5))  # fmt: skip
    # Markers 4 and 5 are carets whose tip is the point.
    for end, beyond, outside, marker, side in (
        (LIMITS[0], low < LIMITS[0], found.mean < LIMITS[0], 4, "left"),
        (LIMITS[1], high > LIMITS[1], found.mean > LIMITS[1], 5, "right"),
    ):
        if beyond:
            axes.plot(end, height, marker=marker, color=colour, ms=7)
        if outside:
            axes.annotate(f"{found.mean:+.2f}", (end, height), fontsize=8, ha=side, va="center",
                          xytext=(9 if side == "left" else -9, 0), textcoords="offset points",
                          bbox={"fc": "white", "lw": 0, "pad": 0.8})  # fmt: skip


def _size(n: int) -> float:
    """Of the dot of so many pairs."""
    return 1.8 + min(max(n, LEAST_SEEDS), PAIRS[-1]) ** 0.5


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
        figsize=(3.0 + 4.6 * columns, 0.9 + 4.2 * rows),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes in every.flat[len(experiments) :]:
        axes.axis("off")
    drawn = [{name: _points(one, name) for name in METHODS} for one in experiments]
    for axes, one, points in zip(every.flat, experiments, drawn, strict=False):
        settings = one.runs[0]["settings"]
        asked = settings["prompts_per_step"], settings["num_generations"]
        at_once = {name: judge_calls(name, 1, *asked) for name in METHODS if points[name]}
        for name, each in at_once.items():
            beside = [other for other in at_once if at_once[other] == each]
            shift = (beside.index(name) - (len(beside) - 1) / 2) * 7 / 72
            moved = axes.transData + ScaledTranslation(shift, 0, figure.dpi_scale_trans)
            colour, marker, _ = METHODS[name]
            found = list(points[name].values())
            x = [judge_calls(name, step, *asked) / 1000 for step in points[name]]
            means, lows, highs = ([point[i] for point in found] for i in range(3))
            axes.plot(x, means, marker=marker, color=colour, lw=1.4, ms=6, transform=moved)
            axes.vlines(x, lows, highs, color=colour, lw=1.2, transform=moved)
            # Limits do not follow what is moved.
            axes.update_datalim([(0, means[0]), *zip(x * 3, means + lows + highs, strict=True)])
        axes.margins(x=0.07)
        axes.autoscale_view()
        base = [
            run["measures"]["sampled"]["b_capscore"] for run in one.runs if run["arm"] == "base"
        ]
        if base:
            axes.axhline(np.mean(base), color="k", ls="--", lw=1)
            axes.annotate("the base, untrained", (0.99, np.mean(base)), xytext=(0, 4),
                          xycoords=("axes fraction", "data"), textcoords="offset points",
                          ha="right", fontsize=9)  # fmt: skip
        axes.set_title(_named(one), fontsize=10.5)
        axes.set_xlabel("judge calls in training (thousands)")
        axes.grid(alpha=0.3)
    for axes in every[:, 0]:
        axes.set_ylabel("b-CapScore on held-out scenes, sampled")
    handles = [
        plt.Line2D([], [], color=colour, marker=marker, ms=6, lw=1.4,
                   label=f"{said} ({_counted(counts)})")
        for name, (colour, marker, said) in METHODS.items()
        if any(counts := [_runs(points[name]) for points in drawn])
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside right center", title="method (runs in each panel)")
    figure.suptitle(
        "What judge calls buy: b-CapScore after 40, 120 and 300 steps, as far as three runs went\n"
        "A line joins points of the same runs. Upright: 95% t interval. Points with equal calls "
        "stand side by side.",
        fontsize=11,
    )
    _save(figure, folder, "calls.png")


def _points(one: Experiment, name: str) -> dict[int, Interval]:
    """A method's b-CapScore by step, of the same runs at every step: those of the greatest length
    that three have."""
    looks = {step: found[name] for step, found in one.horizons.items() if name in found}
    length = _greatest([length for length, _ in set().union(*looks.values())])
    looks = {
        step: kept
        for step, look in looks.items()
        if (kept := {pair: run for pair, run in look.items() if pair[0] == length})
    }
    pairs = sorted(set.intersection(*map(set, looks.values()))) if looks else []
    return {step: _mean([look[pair] for pair in pairs]) for step, look in looks.items() if pairs}


def _runs(points: Mapping[int, Interval]) -> int:
    return max((point.n for point in points.values()), default=0)


def _mean(runs: Sequence[Mapping[str, Any]]) -> Interval:
    return interval([run["measures"]["sampled"]["b_capscore"] for run in runs])


def _save(figure: Any, folder: Path, name: str) -> None:
    # No date or version inside, so that the same results give the same file.
    figure.savefig(folder / name, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)

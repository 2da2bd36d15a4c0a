"""The pictures of docs/reproduction.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.reproduction.arms import ARMS
from benchmarks.reproduction.claims import CLAIMS, Results, answer, difference, margin
from trl_balcap.advantages import cgdpo_advantages, grpo_advantages

__all__ = ["plot_all"]

REWARDS = ("precision", "recall", "linguistic")
CURVES = ("full", "vanilla", "no_precision", "no_recall", "no_linguistic", "no_pointability")
COLOURS: dict[str, str] = dict(
    zip(CURVES, ("#1b6ca8", "#d1495b", "#edae49", "#66a182", "#8d5b9a", "#6b6b6b"), strict=True)
)
DPI = 90


def plot_all(results: Results, folder: Path) -> list[str]:
    """Draw every picture for which there are results; returns the file names."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [advantage_maps(folder)]
    curved = [name for name in CURVES if results.get(name)]
    if curved:
        drawn.append(reward_curves(results, curved, folder))
        drawn.append(length_curves(results, folder))
    if results:
        drawn.append(views(results, folder))
        drawn.append(forest(results, folder))
    return drawn


def advantage_maps(folder: Path) -> str:
    """
    Figure 2 of the paper: the advantage of one rollout as a function of its two rewards.

    The other seven rollouts of its group are fixed: their first reward has a spread of 0.05 around
    0.5, their second one of 0.25.
    """
    others = torch.tensor([[0.45, 0.2], [0.5, 0.8], [0.55, 0.5], [0.5, 0.3], [0.47, 0.7]])
    others = torch.cat([others, torch.tensor([[0.53, 0.45], [0.5, 0.65]])])  # (7, 2)
    axis = torch.linspace(0, 1, 61)
    points = torch.cartesian_prod(axis, axis)  # (N, 2)
    groups = torch.cat([points[:, None], others.expand(len(points), -1, -1)], dim=1)  # (N, 8, 2)
    maps = {
        "GRPO: sum, then normalise": grpo_advantages(groups.flatten(0, 1), num_generations=8),
        "c-GDPO: normalise, then sum": cgdpo_advantages(groups.flatten(0, 1), num_generations=8),
    }
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True, layout="constrained")
    image = None
    for axes_of, (title, advantages) in zip(axes, maps.items(), strict=True):
        plane = advantages.view(-1, 8)[:, 0].view(61, 61).T.numpy()  # (r2, r1)
        image = axes_of.imshow(
            plane, origin="lower", extent=(0, 1, 0, 1), cmap="RdBu", vmin=-2.6, vmax=2.6
        )
        lines = axes_of.contour(plane, levels=9, extent=(0, 1, 0, 1), colors="k", linewidths=0.4)
        axes_of.clabel(lines, fontsize=6)
        axes_of.scatter(*others.T.numpy(), s=10, c="k")
        axes_of.set(title=title, xlabel="reward 1 (others spread little)")
    axes[0].set_ylabel("reward 2 (others spread widely)")
    assert image is not None  # two maps have been drawn
    figure.colorbar(image, ax=axes, label="advantage")
    return _save(figure, folder, "advantage-maps.png")


def reward_curves(results: Results, names: Sequence[str], folder: Path) -> str:
    """Training rewards over steps, one panel per reward: mean over seeds, range as a band."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharex=True, layout="constrained")
    for axes_of, reward in zip(axes, REWARDS, strict=True):
        for name in names:
            _band(axes_of, results[name], f"{reward}/mean", name)
        axes_of.set(title=f"{reward} reward, as trained on", xlabel="step")
        axes_of.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    return _save(figure, folder, "reward-curves.png")


def length_curves(results: Results, folder: Path) -> str:
    """Caption length over steps."""
    names = ("full", "no_linguistic", "no_gate", "linear_gate", "no_precision", "no_recall")
    palette = ("#1b6ca8", "#8d5b9a", "#d1495b", "#66a182", "#edae49", "#6b6b6b")
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for name, colour in zip(names, palette, strict=True):
        if results.get(name):
            _band(axes, results[name], "length", name, colour)
    axes.set(title="Length of training captions", xlabel="step", ylabel="tokens")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return _save(figure, folder, "length.png")


def views(results: Results, folder: Path) -> str:
    """The three views and their harmonic mean per arm, on held-out scenes, sampled."""
    names = [name for name in ARMS if results.get(name)]
    keys = (*REWARDS, "b_capscore")
    colours = ("#1b6ca8", "#66a182", "#edae49", "#333333")
    figure, axes = plt.subplots(figsize=(9, 0.36 * len(names) + 1.2), layout="constrained")
    rows = np.arange(len(names))
    for k, (key, colour) in enumerate(zip(keys, colours, strict=True)):
        values = [
            np.array([result["measures"]["sampled"][key] for result in results[name].values()])
            for name in names
        ]
        axes.barh(
            rows + (k - 1.5) * 0.2,
            [v.mean() for v in values],
            0.19,
            xerr=[v.std() for v in values],
            color=colour,
            error_kw={"lw": 0.7},
            label=key,
        )
    axes.set(yticks=rows, yticklabels=names, xlim=(0, 1.02))
    axes.set_title("Held-out scenes, sampled: three views and b-CapScore")
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.04))
    return _save(figure, folder, "views.png")


def forest(results: Results, folder: Path) -> str:
    """Every counted part of every claim as an interval, with arena scores divided by 100."""
    parts = [(claim, part) for claim in CLAIMS for part in claim.parts]
    figure, axes = plt.subplots(figsize=(8, 0.27 * len(parts) + 1.0), layout="constrained")
    colours = {"yes": "#2a7f3f", "no": "#b3261e", "undecided": "#888888"}
    meaning = ("yes: above 0", "no: an effect worth the name is excluded", "undecided")
    labels = []
    for row, (claim, part) in enumerate(parts):
        labels.append(f"{claim.number}: {part.measure}, {part.more} - {part.less}")
        for shift, decoding, marker in ((-0.13, "sampled", "o"), (0.13, "greedy", "s")):
            found = difference(part, results, decoding)
            if not found.n:
                continue
            scale = 100.0 if part.measure == "arena" else 1.0
            ends = [[(found.mean - found.low) / scale], [(found.high - found.mean) / scale]]
            axes.errorbar(
                found.mean / scale,
                row + shift,
                xerr=None if np.isnan(found.low) else ends,
                marker=marker,
                ms=4,
                lw=1.2,
                color=colours[answer(found, margin(part.measure))],
                mfc=None if decoding == "sampled" else "white",
            )
    axes.axvline(0, color="k", lw=0.7)
    axes.set(yticks=range(len(parts)), yticklabels=labels)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title(
        "Differences over seeds, 95% intervals (full marker: sampled, empty: greedy)", fontsize=9
    )
    handles = [axes.plot([], [], "o-", color=colour)[0] for colour in colours.values()]
    axes.legend(
        handles,
        meaning,
        fontsize=7,
        ncols=3,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.03),
    )
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    return _save(figure, folder, "claims.png")


def _band(
    axes: Any,
    seeds: Mapping[int, Mapping[str, Any]],
    key: str,
    name: str,
    colour: str | None = None,
) -> None:
    curves = [
        _smooth([step[key] for step in result["steps"]])
        for result in seeds.values()
        if result["steps"]
    ]
    if not curves:
        return
    length = min(map(len, curves))
    stacked = np.stack([curve[:length] for curve in curves])  # (seeds, steps)
    colour = colour or COLOURS[name]
    steps = np.arange(length)
    axes.plot(steps, stacked.mean(0), color=colour, lw=1.4, label=f"{name} ({len(curves)})")
    axes.fill_between(steps, stacked.min(0), stacked.max(0), color=colour, alpha=0.15, lw=0)


def _smooth(values: Sequence[float], width: int = 7) -> np.ndarray:
    """Running mean over the last steps, with a shorter window at the start."""
    return np.array([np.mean(values[max(0, i - width + 1) : i + 1]) for i in range(len(values))])


def _save(figure: Any, folder: Path, name: str) -> str:
    # No date or version inside, so that the same results give the same file.
    figure.savefig(folder / name, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return name

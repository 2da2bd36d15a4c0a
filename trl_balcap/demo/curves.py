"""Plots the reward curves of a run from the trainer's log."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["plot_reward_curves"]

COLOURS = {
    "precision_reward": "#0072b2",
    "recall_reward": "#009e73",
    "linguistic_reward": "#d55e00",
}


def plot_reward_curves(
    log_history: list[dict[str, Any]], path: str | Path, *, window: int = 10
) -> None:
    """
    Plot each reward's mean over steps, and the mean length ratio if it was logged.

    Args:
        log_history (`list[dict]`):
            `trainer.state.log_history`.
        path (`str` or `Path`):
            Output PNG.
        window (`int`, *optional*, defaults to `10`):
            Steps in the moving mean, drawn over the faint raw values; fewer at the start, and at
            most a fifth of the run, so that the last point of a short run is its last value.

    Raises:
        `ValueError`: if the log has no reward.
    """
    steps = [log for log in log_history if any(key.startswith("rewards/") for key in log)]
    if not steps:
        raise ValueError("The log has no 'rewards/<name>/mean'. Train with logging_steps=1 first.")
    names = [
        key.removeprefix("rewards/").removesuffix("/mean")
        for key in steps[0]
        if key.startswith("rewards/") and key.endswith("/mean")
    ]
    has_ratio = "length_gate/ratio" in steps[0]
    # Figure rather than pyplot, which would choose a backend for the whole process.
    figure = Figure(figsize=(5.5 * (1 + has_ratio), 3.6), layout="tight")
    axes = figure.subplots(1, 1 + has_ratio, squeeze=False)
    for name in names:
        label = name.removesuffix("_reward")
        _curve(axes[0, 0], steps, f"rewards/{name}/mean", label, COLOURS.get(name), window)
    axes[0, 0].set(xlabel="step", ylabel="mean reward of the batch", ylim=(0, 1.02))
    axes[0, 0].legend(frameon=False)
    if has_ratio:
        _curve(axes[0, 1], steps, "length_gate/ratio", "length ratio", "#555555", window)
        axes[0, 1].axhline(1.0, color="#bbbbbb", linewidth=0.8)
        axes[0, 1].set(xlabel="step", ylabel="caption / reference, in tokens", ylim=(0, None))
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path, dpi=120)


def _curve(
    axis: Any, steps: list[dict[str, Any]], key: str, label: str, colour: str | None, window: int
) -> None:
    points = [(log["step"], log[key]) for log in steps if log.get(key) is not None]
    x, y = np.array(points).T
    (raw,) = axis.plot(x, y, color=colour, alpha=0.25, linewidth=1)
    window = max(1, min(window, len(y) // 5))
    sums = np.concatenate([[0.0], np.cumsum(y)])
    last = np.arange(1, len(y) + 1)
    first = np.maximum(last - window, 0)
    smooth = (sums[last] - sums[first]) / (last - first)  # over fewer steps at the start
    marker = "o" if len(y) < 5 else None  # a line with one point is invisible
    axis.plot(x, smooth, color=raw.get_color(), linewidth=2, marker=marker, label=label)

"""Prints one line per step instead of a dict of all metrics; the loggers still get them all."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from trl_balcap.data.completions import completion_text

__all__ = ["ConsoleCallback", "completion_lines", "step_line", "summary_lines"]

_SHORT = {"precision_reward": "P", "recall_reward": "R", "linguistic_reward": "L"}


def step_line(logs: Mapping[str, Any], step: int, max_steps: int = 0) -> str:
    """
    The log of a step as one line, which fits in 80 columns with the three rewards.

    Args:
        logs (`Mapping`):
            The trainer's log of training or, with names prefixed with `eval_`, of an evaluation.
        step (`int`), max_steps (`int`, *optional*):
            The step, and the number of steps of the run.

    Returns:
        `str`: the line, without metrics that were not logged.

    Example:

    ```python
    >>> step_line({"rewards/recall_reward/mean": 0.5, "judge/recall_reward/unscored": 0.0,
    ...            "judge/usd_total": 1.5, "step_time": 4.0, "judge/wait_time": 1.0}, 7, 120)
    '7/120 R .50 unscored 0% $1.50 4.0 s (judge 1.0)'

    ```
    """
    evaluated = any(name.startswith("eval_") for name in logs)
    known = {n.removeprefix("eval_"): v for n, v in logs.items() if isinstance(v, int | float)}
    parts = [f"{step}/{max_steps}" if max_steps else f"{step}"]
    if evaluated:
        parts[0] = f"eval at {parts[0]}"
    for name in _reward_names(logs):
        mean = known.get(f"rewards/{name}/mean")
        shown = "-" if mean is None else _score(mean)
        parts.append(f"{_SHORT.get(name, name.removesuffix('_reward'))} {shown}")
    for name, label in (("b_capscore", "b-Cap"), ("length_gate/ratio", "len")):
        if name in known:
            parts.append(f"{label} {_score(known[name])}")
    unscored = _unscored(known)
    if unscored is not None:
        parts.append(f"unscored {unscored:.0%}")
    if "judge/usd_total" in known:
        parts.append(f"${known['judge/usd_total']:.2f}")
    if "step_time" in known:
        judge = known.get("judge/wait_time")
        waited = "" if judge is None else f" (judge {judge:.1f})"
        parts.append(f"{known['step_time']:.1f} s{waited}")
    return " ".join(parts)


def summary_lines(history: Sequence[Mapping[str, Any]], verdicts: str | None = None) -> list[str]:
    """
    A summary of a run: rewards of its first and last tenth, unscored completions, and cost.

    Args:
        history (`Sequence[Mapping]`):
            The trainer's `state.log_history`.
        verdicts (`str`, *optional*):
            Folder with the kept verdicts.

    Returns:
        `list[str]`: lines of a table; empty if no step was logged.

    Example:

    ```python
    >>> history = [{"step": n, "rewards/recall_reward/mean": n / 10} for n in (1, 2, 8)]
    >>> summary_lines(history)[1]
    'recall_reward         0.10    0.80  rose'

    ```
    """
    steps = [row for row in history if any(name.startswith("rewards/") for name in row)]
    if not steps:
        return []
    share = max(1, len(steps) // 10)
    names = {f"rewards/{name}/mean": name for name in _reward_names(steps[-1])}
    names |= {"b_capscore": "b-CapScore", "length_gate/ratio": "length ratio"}
    lines = [f"{'':18}  {'first':>6}  {'last':>6}"]
    for key, name in names.items():
        first, last = _mean(key, steps[:share]), _mean(key, steps[-share:])
        if first is None or last is None:
            continue
        change = last - first
        word = "rose" if change >= 0.005 else "fell" if change <= -0.005 else "stayed"
        lines.append(f"{name:18}  {first:6.2f}  {last:6.2f}  {word}")
    unscored = [share for row in steps if (share := _unscored(row)) is not None]
    if any(unscored):
        lines.append(f"unscored: {sum(unscored) / len(unscored):.1%} of the completions")
    if "judge/usd_total" in steps[-1]:
        lines.append(f"judging cost ${steps[-1]['judge/usd_total']:.2f}")
    if verdicts:
        lines.append(f"what the judge saw: trl-balcap report {verdicts}")
    return lines


def completion_lines(logs: Mapping[str, Any], *, count: int = 3, width: int = 80) -> list[str]:
    """
    The best, the worst and some rollouts in between, wrapped, each with its rewards above.

    Args:
        logs (`Mapping`):
            The last batch's `completion`, `advantages`, and `rewards` by reward function, as TRL
            stores them for its table.
        count (`int`, *optional*, defaults to `3`):
            Number of rollouts to show.
        width (`int`, *optional*, defaults to `80`):
            Number of columns.

    Example:

    ```python
    >>> logs = {"completion": ["A dog."], "rewards": {"recall_reward": [0.5]}, "advantages": [-1.0]}
    >>> for line in completion_lines(logs):
    ...     print(line)
    R 0.50  advantage -1.00
      A dog.

    ```
    """
    texts = [completion_text(completion) for completion in logs["completion"]]
    advantages = list(logs["advantages"])
    rewards = {name: list(values) for name, values in logs["rewards"].items()}
    order = sorted(range(len(texts)), key=lambda place: -advantages[place])
    count = min(count, len(order))
    chosen = [order[round(i * (len(order) - 1) / max(1, count - 1))] for i in range(count)]
    lines = []
    for place in chosen:
        shown = []
        for name, values in rewards.items():
            value = values[place]
            missing = value is None or value != value
            label = _SHORT.get(name, name.removesuffix("_reward"))
            shown.append(f"{label} {'-' if missing else format(value, '.2f')}")
        lines.append("  ".join([*shown, f"advantage {advantages[place]:+.2f}"]))
        wrapped = textwrap.wrap(texts[place], width - 2) or ["(empty)"]
        lines += [f"  {line}" for line in wrapped]
    return lines


class ConsoleCallback(ProgressCallback):
    """
    The progress bar of [`~transformers.Trainer`] with one line per step, and a table at the end.

    Args:
        bar (`bool`, *optional*, defaults to `True`):
            Whether to show a progress bar; `disable_tqdm` turns it off.
        verdicts (`str`, *optional*):
            Folder to print at the end.
    """

    def __init__(self, *, bar: bool = True, verdicts: str | None = None):
        super().__init__()
        self.bar = bar
        self.verdicts = verdicts

    @classmethod
    def in_place_of(cls, callbacks: Sequence[TrainerCallback], **options: Any) -> Any:
        """The callback for a trainer that prints its own log; `None` in a notebook, which shows a
        table. It has no bar beside a user's own, of a subclass of `ProgressCallback`."""
        printing = {type(callback) for callback in callbacks}
        if ProgressCallback in printing:
            bars = {kind for kind in printing if issubclass(kind, ProgressCallback)}
            return cls(bar=bars == {ProgressCallback}, **options)
        return cls(bar=False, **options) if PrinterCallback in printing else None

    def on_train_begin(self, args, state, control, **kwargs):
        if self.bar:
            super().on_train_begin(args, state, control, **kwargs)

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar:
            super().on_step_end(args, state, control, **kwargs)

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        if self.bar:
            super().on_prediction_step(args, state, control, eval_dataloader, **kwargs)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs and "train_runtime" not in logs:
            self.say(step_line(logs, state.global_step, state.max_steps))

    def on_train_end(self, args, state, control, **kwargs):
        if self.bar:
            super().on_train_end(args, state, control, **kwargs)
        if state.is_world_process_zero:
            for line in summary_lines(state.log_history, self.verdicts):
                self.say(line)

    def say(self, line: str) -> None:
        """Print a line, above the progress bar if there is one."""
        if self.bar and self.training_bar is not None:
            self.training_bar.write(line)
        else:
            print(line, flush=True)  # noqa: T201 (the callback's purpose)


def _score(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def _reward_names(logs: Mapping[str, Any]) -> list[str]:
    named = (name.removeprefix("eval_") for name in logs)
    return [
        name.removeprefix("rewards/").removesuffix("/mean")
        for name in named
        if name.startswith("rewards/") and name.endswith("/mean")
    ]


def _unscored(logs: Mapping[str, Any]) -> float | None:
    """The largest share of completions that a reward left unscored."""
    shares = [v for n, v in logs.items() if n.startswith("judge/") and n.endswith("/unscored")]
    return max(shares, default=None)


def _mean(name: str, rows: Sequence[Mapping[str, Any]]) -> float | None:
    values = [row[name] for row in rows if row.get(name) is not None]
    return sum(values) / len(values) if values else None

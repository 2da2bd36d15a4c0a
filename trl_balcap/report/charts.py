"""Charts of a run: which logged metrics belong together, and how to read them."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from trl_balcap.report.runs import REWARDS, Run, score_of

__all__ = ["charts", "evaluations", "headline", "merged_log", "reward_names"]

Number = float | None
Series = dict[str, Any]  # label, colour (a name in the style sheet), y, low and high

# By TRL's and the trainer's names: title, note, [(key, label)], whether all are between 0 and 1.
_LINES: tuple[tuple[str, str, tuple[tuple[str, str], ...], bool], ...] = (
    (
        "Outside the length gate",
        "share of captions",
        (("length_gate/too_short", "too short"), ("length_gate/too_long", "too long")),
        True,
    ),
    (
        "Evaluation, greedy captions",
        "means of the held-out images",
        (
            ("eval_greedy_b_capscore", "b-CapScore"),
            ("eval_greedy_precision", "precision"),
            ("eval_greedy_recall", "recall"),
            ("eval_greedy_linguistic", "linguistic"),
        ),
        True,
    ),
    (
        "Evaluation, sampled captions",
        "means of the evaluation set",
        (
            ("eval_b_capscore", "b-CapScore"),
            ("eval_rewards/precision_reward/mean", "precision"),
            ("eval_rewards/recall_reward/mean", "recall"),
            ("eval_rewards/linguistic_reward/mean", "linguistic"),
        ),
        True,
    ),
    (
        "Assertions per caption",
        "mean",
        (("judge/precision_reward/assertions", "assertions"),),
        False,
    ),
    (
        "Pointable",
        "share of the assertions",
        (("judge/precision_reward/pointable", "pointable"),),
        True,
    ),
    (
        "Distinct rollouts",
        "share of a group's captions",
        (("completions/distinct", "distinct"),),
        True,
    ),
    ("KL to the reference model", "nats per token", (("kl", "KL"),), False),
    ("Entropy", "nats per token", (("entropy", "entropy"),), False),
    ("Caption length", "tokens", (("completions/mean_length", "mean"),), False),
    ("Judge cost", "dollars since the start", (("judge/usd_total", "USD"),), False),
    (
        "Judge latency",
        "seconds per answer",
        (("judge/latency_p50", "median"), ("judge/latency_p95", "95%")),
        False,
    ),
    (
        "Judge calls",
        "per batch",
        (("judge/questions", "questions"), ("judge/calls", "calls"), ("judge/retries", "retries")),
        False,
    ),
    ("Loss", "", (("loss", "loss"),), False),
    ("Gradient norm", "", (("grad_norm", "norm"),), False),
)
_PER_REWARD = (
    ("Dead groups", "share of groups that teach nothing", "rewards/{}/frac_zero_std", True),
    ("Share of the advantage", "spread of each reward's part", "advantages/{}/std", False),
    ("Unscored", "share of captions without a verdict", "judge/{}/unscored", True),
)


def merged_log(log: Iterable[dict[str, Any]]) -> tuple[list[int], dict[str, list[Number]]]:
    """
    A log as columns: its steps, and each metric at each step, `None` where it was not logged.

    Example:

    ```python
    >>> merged_log([{"step": 1, "loss": 0.5}, {"step": 1, "kl": 0.1}, {"step": 2, "loss": 0.4}])
    ([1, 2], {'loss': [0.5, 0.4], 'kl': [0.1, None]})

    ```
    """
    at: dict[int, dict[str, float]] = defaultdict(dict)
    names: dict[str, None] = {}
    for entry in log:
        for name, value in entry.items():
            if name == "step" or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if math.isfinite(value):
                at[entry["step"]][name] = value
                names[name] = None
    steps = sorted(at)
    return steps, {name: [at[step].get(name) for step in steps] for name in names}


def charts(run: Run) -> list[dict[str, Any]]:
    """
    The charts of a run, except those with nothing to show.

    Args:
        run ([`Run`]):
            The run, with its log, its rows and its length gate.

    Returns:
        `list[dict]`: each with `"title"`, `"note"`, `"steps"`, `"series"`, `"unit"` (whether all
            values are between 0 and 1) and, for the length ratio, `"region"` (the gate's bounds).
    """
    steps, columns = merged_log(run.log)
    rewards = reward_names(run)
    found: list[dict[str, Any]] = []

    def add(title: str, note: str, series: Sequence[Series], unit: bool, **more: Any) -> None:
        shown = [one for one in series if any(value is not None for value in one["y"])]
        if shown and len(steps) > 1:
            given = {"title": title, "note": note, "steps": steps, "series": shown, "unit": unit}
            found.append(given | more)

    for name in rewards:
        mean, spread = columns.get(f"rewards/{name}/mean"), columns.get(f"rewards/{name}/std")
        if mean is not None:
            one = _line(name.removesuffix("_reward"), mean, name)
            if spread is not None:
                one |= {
                    "low": _combined(mean, spread, lambda m, s: m - s),
                    "high": _combined(mean, spread, lambda m, s: m + s),
                }
            unit = all(value is None or 0 <= value <= 1 for value in mean)
            add(_title(name), "mean of the batch, ± its spread", [one], unit, group="rewards")
    by_step = _scores_by_step(run.rows)
    scores = [by_step.get(step) for step in steps]
    name = _score_name(rewards)
    add(name, "of the sampled rollouts", [_line(name, scores, "score")], True)
    ratio = columns.get("length_gate/ratio")
    if ratio is not None:
        gate = run.facts.get("length_gate")
        note = "tokens over the reference's" + (", gate shaded" if gate else "")
        add("Length ratio", note, [_line("ratio", ratio, "ink")], False, region=gate)
    for title, note, pattern, unit in _PER_REWARD:
        of_rewards = [
            _line(name.removesuffix("_reward"), columns[pattern.format(name)], name)
            for name in rewards
            if pattern.format(name) in columns
        ]
        add(title, note, of_rewards, unit)
    by_reason = _unscored_by_reason(columns)
    why = [_line(reason, y, f"other-{k % 4 + 1}") for k, (reason, y) in enumerate(by_reason)]
    add("Unscored, by reason", "largest share among the rewards", why, True)
    for title, note, keys, unit in _LINES:
        lines = [
            _line(label, columns[key], label if len(keys) > 1 else "ink")
            for key, label in keys
            if key in columns
        ]
        if any(any(one["y"]) for one in lines):  # a judge without a price costs 0 at every step
            add(title, note, lines, unit)
    return found


def headline(run: Run) -> list[dict[str, Any]]:
    """
    The numbers that summarize a run: the mean of the first and of the last tenth of the logged
    values for each, and the total for cost.

    Args:
        run ([`Run`]):
            The run, with its log and its rows. Without a log, the means of its rows are used.

    Returns:
        `list[dict]`: `"label"`, `"first"` (or `None`), `"last"`, `"digits"`, and `"good"`: 1 if
            higher is better, -1 if lower is better, 0 otherwise.
    """
    steps, columns = merged_log(run.log)
    by_step = _scores_by_step(run.rows)
    found: list[dict[str, Any]] = []

    def add(label: str, values: Sequence[Number], good: int, digits: int = 2) -> None:
        known = [value for value in values if value is not None]
        if not known:
            return
        tenth = max(1, len(known) // 10)
        first = math.fsum(known[:tenth]) / tenth if len(known) > 1 else None
        last = math.fsum(known[-tenth:]) / tenth
        found.append({"label": label, "first": first, "last": last, "digits": digits, "good": good})

    for captions, key in (("greedy", "eval_greedy_b_capscore"), ("sampled", "eval_b_capscore")):
        percent = [None if value is None else 100 * value for value in columns.get(key, [])]
        add(f"b-CapScore, evaluation, {captions} (%)", percent, 1, 1)
    if steps:
        add(_score_name(reward_names(run)), [by_step.get(step) for step in sorted(by_step)], 1)
        for name in reward_names(run):
            add(_title(name), columns.get(f"rewards/{name}/mean", []), 1)
    else:
        if len(reward_names(run)) > 1:
            scored = [score_of(row) for row in run.rows]
            add(_score_name(reward_names(run)), _mean_of(scored), 1)
        for name in reward_names(run):
            add(_title(name), _mean_of([row["rewards"].get(name) for row in run.rows]), 1)
    add("Length ratio", columns.get("length_gate/ratio", []), 0)
    outside = _combined(
        columns.get("length_gate/too_short", []),
        columns.get("length_gate/too_long", []),
        lambda short, long: short + long,
    )
    add("Outside the gate", outside, -1)
    unscored = [columns[key] for key in columns if _is_unscored(key)]
    add("Unscored", [_greatest(values) for values in zip(*unscored, strict=True)], -1)
    cost = [value for value in columns.get("judge/usd_total", []) if value]
    if cost:
        found.append(
            {"label": "Judge, USD", "first": None, "last": cost[-1], "digits": 2, "good": 0}
        )
    return found


def evaluations(run: Run) -> list[dict[str, Any]]:
    """
    Means of each evaluation that a run kept, over the captions that have a value.

    Args:
        run ([`Run`]):
            The run, with its rows; only those of split `"eval"` count.

    Returns:
        `list[dict]`: by step, with `"step"`, `"means"` (by metric) and `"n"` (captions).
    """
    at: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in run.rows:
        if row["split"] == "eval":
            at[row["step"]].append(row)
    found = []
    for step, rows in sorted(at.items()):
        measured = {_score_name(reward_names(run)): [score_of(row) for row in rows]}
        for name in reward_names(run):
            measured[_title(name)] = [row["rewards"].get(name) for row in rows]
        measured["Length ratio"] = [row["length_ratio"] for row in rows]
        means = {label: (_mean_of(values) or [None])[0] for label, values in measured.items()}
        found.append({"step": step, "means": means, "n": len(rows)})
    return found


def _is_unscored(key: str) -> bool:
    return key.startswith("judge/") and key.endswith("/unscored")


def _unscored_by_reason(columns: dict[str, list[Number]]) -> list[tuple[str, list[Number]]]:
    """Share of captions without a verdict, by reason: at each step, the share of the reward that
    lost the most."""
    lost: dict[str, list[list[Number]]] = defaultdict(list)
    for key, values in columns.items():
        if key.startswith("judge/") and "/unscored/" in key:
            lost[key.rpartition("/")[2]].append(values)
    return [
        (reason, [_greatest(step) for step in zip(*of, strict=True)])
        for reason, of in sorted(lost.items())
    ]


def _greatest(values: Sequence[Number]) -> Number:
    return max((value for value in values if value is not None), default=None)


def _mean_of(values: Sequence[Number]) -> list[Number]:
    known = [value for value in values if value is not None]
    return [math.fsum(known) / len(known)] if known else []


def reward_names(run: Run) -> list[str]:
    """Names of a run's rewards, in order, from its rows and its log."""
    names: dict[str, None] = {}
    for row in run.rows:
        names |= dict.fromkeys(row["rewards"])
    for entry in run.log:
        for key in entry:
            if key.startswith("rewards/") and key.endswith("/mean"):
                names[key.removeprefix("rewards/").removesuffix("/mean")] = None
    return list(names)


def _score_name(rewards: Sequence[str]) -> str:
    """Name of the number that [`score_of`] returns for rows with these rewards."""
    names = {name.removesuffix("_reward") for name in rewards}
    three = {name.removesuffix("_reward") for name in REWARDS}
    return "b-CapScore" if three <= names else "Mean reward"


def _title(name: str) -> str:
    title = name.removesuffix("_reward").replace("_", " ")
    return title[:1].upper() + title[1:]


def _line(label: str, y: Sequence[Number], colour: str) -> Series:
    return {"label": label, "y": list(y), "colour": colour.removesuffix("_reward")}


def _combined(mean: Sequence[Number], spread: Sequence[Number], rule: Any) -> list[Number]:
    return [
        None if m is None or s is None else rule(m, s) for m, s in zip(mean, spread, strict=True)
    ]


def _scores_by_step(rows: Iterable[dict[str, Any]]) -> dict[int, float]:
    at: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        score = score_of(row) if row["split"] == "train" else None
        if score is not None:
            at[row["step"]].append(score)
    return {step: math.fsum(values) / len(values) for step, values in at.items()}

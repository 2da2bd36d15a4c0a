"""Rules that recognise pathologies of RL under judges in a run's log, with documented thresholds.

Each rule is a pure function of the log so far, oldest entry first. It returns what is wrong and
what to do, or `None`. First and last are means over `WINDOW` logged steps each; no rule warns
before there are two windows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["RULES", "WINDOW", "alarms", "budget_ends_early"]

Log = Sequence[Mapping[str, Any]]
WINDOW = 10
"""Number of logged steps in a mean."""
FILLED = 0.06
"""Share of unearned zeros from which on they are taken for failures."""


def alarms(history: Log) -> dict[str, str]:
    """
    The problems of a run, by rule.

    Args:
        history (`Sequence[Mapping]`):
            The trainer's log of training steps, oldest first.

    Returns:
        `dict[str, str]`: a message to the user by the rule's name.

    Example:

    ```python
    >>> history = [{"rewards/recall_reward/frac_zero_std": 1.0}] * 20
    >>> alarms(history)["dead_reward"][:58]
    'Nearly every group has equal recall_reward: it teaches not'

    ```
    """
    if len(history) < 2 * WINDOW:
        return {}
    return {name: said for name, rule in RULES.items() if (said := rule(history)) is not None}


def dead_reward(history: Log) -> str | None:
    """One reward's groups are dead: 95% of them over the last window."""
    for name in _names(history, "rewards/", "/frac_zero_std"):
        last = _last(history, f"rewards/{name}/frac_zero_std")
        if last is not None and last >= 0.95:
            return (
                f"Nearly every group has equal {name}: it teaches nothing. Raise temperature or "
                "num_generations, or look at what the judge answers (trl-balcap report)."
            )
    return None


def precision_traded(history: Log) -> str | None:
    """Precision fell by 0.1 or more while recall or linguistic rose by 0.05 or more."""
    if _change(history, "rewards/precision_reward/mean") > -0.1:
        return None
    for name in ("recall_reward", "linguistic_reward"):
        if _change(history, f"rewards/{name}/mean") >= 0.05:
            return (
                f"Precision falls while {name} rises: captions are bought with guesses. Raise "
                "precision's reward_weights, or lower length_gate_upper."
            )
    return None


def length_runs_to_an_edge(history: Log) -> str | None:
    """30% of captions or more fall outside the gate, 15 points more than at first; or the mean
    ratio to the reference left 0.75 to 1.5, half way to the default edges, moving by 0.1 or more.
    """
    for side, advice in (
        ("too_short", "lower length_gate_lower (or length_gate_tokens), or weigh recall more"),
        ("too_long", "raise length_gate_upper or max_completion_length, or weigh recall less"),
    ):
        key = f"length_gate/{side}"
        last = _last(history, key)
        if last is not None and last >= 0.3 and _change(history, key) >= 0.15:
            words = side.replace("_", " ")
            return (
                f"{last:.0%} of the captions are {words} for the length gate, and more each "
                f"step: {advice}."
            )
    ratio, change = _last(history, "length_gate/ratio"), _change(history, "length_gate/ratio")
    shrinks = ratio is not None and ratio < 0.75 and change <= -0.1
    grows = ratio is not None and ratio > 1.5 and change >= 0.1
    if ratio is None or not (shrinks or grows):
        return None
    advice = (
        "say less: weigh recall more, or raise length_gate_lower"
        if shrinks
        else "grow: weigh recall less, or lower length_gate_upper"
    )
    return (
        f"Captions are {ratio:.2f} times as long as their references, {ratio - change:.2f} at "
        f"first. They {advice}."
    )


def safe_sayings(history: Log) -> str | None:
    """Assertions per caption fell to half of what they were."""
    key = "judge/precision_reward/assertions"
    first, last = _first(history, key), _last(history, key)
    if first is None or last is None or first < 1.0 or last > 0.5 * first:
        return None
    return (
        f"Captions assert {last:.1f} things where they asserted {first:.1f}: they say what is "
        "safe. Weigh recall more, or raise length_gate_lower."
    )


def rollouts_alike(history: Log) -> str | None:
    """Less than 30% of a group's captions are distinct, and half of what it was."""
    key = "completions/distinct"
    first, last = _first(history, key), _last(history, key)
    if first is None or last is None or last >= 0.3 or last > 0.5 * first:
        return None
    return (
        f"Only {last:.0%} of the rollouts of an image differ: groups have nothing to learn from. "
        "Raise temperature, lower the learning rate, or set beta above 0."
    )


def commentary(history: Log) -> str | None:
    """A quarter of the assertions or more point at nothing, 10 points more than at first; or, of
    40 logged steps or more, 15% of them or more, and less than 5 points fewer than at first."""
    key = "judge/precision_reward/pointable"
    last, change = _last(history, key), _change(history, key)
    rises = last is not None and last <= 0.75 and change <= -0.1
    stays = last is not None and last <= 0.85 and change < 0.05 and len(history) >= 4 * WINDOW
    if last is None or not (rises or stays):
        return None
    return (
        f"{1 - last:.0%} of the assertions point at nothing in the image, "
        f"{1 - last + change:.0%} at first: mood and comment. Weigh precision more, or look at the "
        "judge's pointable verdicts."
    )


def unscored(history: Log) -> str | None:
    """More than 5% of the completions have no score."""
    for name in _names(history, "judge/", "/unscored"):
        last = _last(history, f"judge/{name}/unscored")
        if last is not None and last > 0.05:
            return (
                f"{name} leaves {last:.0%} of the completions unscored; "
                f"judge/{name}/unscored/<reason> says why. They count as their group's mean."
            )
    return None


def grades_alike(history: Log) -> str | None:
    """A reward's spread over the batch fell below a quarter of what it was, and below 0.05."""
    for name in _names(history, "rewards/", "/std"):
        first, last = (f(history, f"rewards/{name}/std") for f in (_first, _last))
        if first and last is not None and last < min(0.05, 0.25 * first):
            return (
                f"The judge's {name} hardly differs from caption to caption any more (standard "
                f"deviation {last:.3f}, {first:.3f} at first): what is left is noise. Calibrate "
                "the judge (trl-balcap calibrate), or weigh this reward less."
            )
    return None


def zeros_filled_in(history: Log) -> str | None:
    """A reward is 0 for 6% or more of the captions that are good by all other rewards, not counting
    as many as lie outside the length gate."""
    for name in _names(history, "rewards/", "/zeros_among_good"):
        share = _unearned_zeros(history, name)
        if share >= FILLED:
            return (
                f"{name} is 0 for {share:.0%} of the captions that all other rewards call good: "
                "are failures filled in with 0? Return None for what could not be scored."
            )
    return None


def judge_noise(history: Log) -> str | None:
    """A quarter or more of a reward's variance is between scores of the same caption."""
    for name in _names(history, "rewards/", "/retest_std"):
        noise, spread = (_last(history, f"rewards/{name}/{of}") for of in ("retest_std", "std"))
        if not noise or not spread or _unearned_zeros(history, name) >= FILLED:
            continue
        if noise**2 >= 0.25 * spread**2:
            return (
                f"{name} scores equal captions of one image {noise:.2f} apart (standard "
                f"deviation; {spread:.2f} over all captions): the judge is noisy. Ask it at "
                "temperature 0, calibrate another (trl-balcap calibrate), or weigh this one less."
            )
    return None


def budget_ends_early(spent: float, step: int, max_steps: int, budget: float | None) -> str | None:
    """
    Whether the budget will run out before the run ends, at the cost per step so far.

    Args:
        spent (`float`), budget (`float`, *optional*):
            Both in dollars, or both in calls.
        step, max_steps (`int`):
            Steps done, and the number of steps of the run.

    Example:

    ```python
    >>> budget_ends_early(spent=5.0, step=10, max_steps=100, budget=20.0)
    'The judge budget of 20 will be spent at step 40 of 100, at the price so far. Raise it, or \
ask less (profile="fused", fewer rollouts).'
    >>> budget_ends_early(spent=5.0, step=10, max_steps=100, budget=60.0) is None
    True

    ```
    """
    if budget is None or step < WINDOW or spent * max_steps <= budget * step * 1.05:
        return None
    return (
        f"The judge budget of {budget:g} will be spent at step {int(budget * step / spent)} of "
        f'{max_steps}, at the price so far. Raise it, or ask less (profile="fused", fewer '
        "rollouts)."
    )


RULES: dict[str, Callable[[Log], str | None]] = {
    rule.__name__: rule
    for rule in (
        dead_reward,
        precision_traded,
        length_runs_to_an_edge,
        safe_sayings,
        rollouts_alike,
        commentary,
        unscored,
        grades_alike,
        zeros_filled_in,
        judge_noise,
    )
}
"""The rules by name."""


def _unearned_zeros(history: Log, name: str) -> float:
    share = _last(history, f"rewards/{name}/zeros_among_good") or 0.0
    sides = (_last(history, f"length_gate/{side}") or 0.0 for side in ("too_short", "too_long"))
    return share - sum(sides)  # a closed gate gives a 0 that is earned


def _names(history: Log, prefix: str, suffix: str) -> list[str]:
    found = {k: None for row in history[-WINDOW:] for k in row if k.startswith(prefix)}
    names = [key.removeprefix(prefix).removesuffix(suffix) for key in found if key.endswith(suffix)]
    return [name for name in names if name]


def _mean(rows: Log, key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    return sum(values) / len(values) if values else None


def _first(history: Log, key: str) -> float | None:
    return _mean(history[:WINDOW], key)


def _last(history: Log, key: str) -> float | None:
    return _mean(history[-WINDOW:], key)


def _change(history: Log, key: str) -> float:
    first, last = _first(history, key), _last(history, key)
    return 0.0 if first is None or last is None else last - first

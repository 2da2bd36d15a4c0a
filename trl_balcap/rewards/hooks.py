"""[`RewardHooks`]: what a reward function can offer its trainer besides being called."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "JudgingReport",
    "RewardHooks",
    "is_async_reward",
    "reward_hooks",
    "reward_name",
    "start_early",
]


@dataclass
class JudgingReport:
    """What happened to a reward's questions since the last report. Small, so that ranks can gather
    it.

    Args:
        reward (`str`):
            Name of the reward function.
        asked (`int`):
            Completions that needed a verdict.
        unscored (`dict[str, int]`):
            Completions without a score, by reason.
        failing_reply (`str`, *optional*):
            One reply or error that left a completion without a score, shortened.
        budget_spent (`str`, *optional*):
            Which budget is spent, if any.
        internal_error (`str`, *optional*):
            Traceback of an exception that no bad data explains: a bug.
    """

    reward: str
    asked: int = 0
    unscored: dict[str, int] = field(default_factory=dict)
    failing_reply: str | None = None
    budget_spent: str | None = None
    internal_error: str | None = None


class RewardHooks:
    """
    Base class of reward functions that cooperate with their trainer. [`BalCapTrainer`] calls these
    methods on instances of `RewardHooks` only. Each has a default.

    [`JudgeReward`] and the wrapper of [`gate_reward`] derive from it. Any other reward function is
    called as TRL calls it, whatever its methods are named.

    Attributes:
        needs (`tuple[str, ...]`):
            Dataset columns that the reward reads, checked before the model is loaded.
        sees (`tuple[str, ...]`):
            Keys of its [`observations`] to show and log. With `"assertions"` among them, its
            verdicts can become credit (`credit="assertion"`).
        max_unscored (`float`):
            Share of a batch without verdicts above which it counts as part of an outage.
    """

    needs: tuple[str, ...] = ()
    sees: tuple[str, ...] = ()
    max_unscored: float = 0.5

    def about(self) -> str:
        """How the reward is computed, for the model card."""
        return "a function"

    def budgets(self) -> dict[str, float]:
        """The judge's budgets, by the name of the logged metric that each one limits."""
        return {}

    def preflight(self) -> None:
        """Ask one question before the model is loaded; called on the main process only.

        Raises:
            `RuntimeError` or `ValueError`: if the reward cannot work; raised on all ranks.
        """

    def before_generation(self, **columns: list[Any]) -> None:
        """Start work that needs no completion, such as splitting references, and return
        immediately."""

    def start(
        self, *, completions: list[Any], completion_ids: list[list[int]], **columns: Any
    ) -> None:
        """Start judging and return immediately; a later call with the same completions joins it.

        Several batches may be in flight.
        """

    def forget(self) -> None:
        """Cancel work that was started but not collected."""

    def take_report(self) -> JudgingReport | None:
        """What happened since the last report, or `None` if nothing was judged."""
        return None

    def observations(self) -> list[dict[str, Any]]:
        """The verdicts on each completion of the last call, in order; empty before the first call.

        Keys that the report knows: `assertions` (dicts with `text`, `correct`, `pointable`),
        `units` (`text`, `covered`), `clarity`, `fluency`, `coherency`, `length_ratio`, `gated`,
        `reward` (the score before any gate), `reason` (why there is none), `latency` (seconds from
        the start of judging to the verdict), `usd` (what its questions cost, `None` where no price
        is known). Others are shown as they are.
        """
        return []


def reward_hooks(reward_func: Any) -> RewardHooks | None:
    """The [`RewardHooks`] of a reward function, looking inside a `functools.partial`, if any."""
    inner = _without_partial(reward_func)
    return inner if isinstance(inner, RewardHooks) else None


def start_early(reward_func: Any, **columns: Any) -> None:
    """Call [`RewardHooks.start`] of a reward function, if it has hooks, with the arguments of the
    later call."""
    hooks = reward_hooks(reward_func)
    if hooks is not None:
        bound = getattr(reward_func, "keywords", {})  # those of a partial
        hooks.start(**{**bound, **columns})


def reward_name(reward_func: Any) -> str:
    """
    The name under which TRL logs a reward function, the same as its `get_callable_name`.

    Example:

    ```python
    >>> def brief(completions, limit, **kwargs): ...
    >>> reward_name(functools.partial(brief, limit=40))
    'brief'

    ```
    """
    inner = _without_partial(reward_func)
    return getattr(inner, "__name__", type(inner).__name__)


def is_async_reward(reward_func: Callable[..., Any]) -> bool:
    """Whether TRL awaits the reward function, the same as its `is_async_callable`."""
    inner = _without_partial(reward_func)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)


def _without_partial(reward_func: Any) -> Any:
    while isinstance(reward_func, functools.partial):
        reward_func = reward_func.func
    return reward_func

"""Which completions keep a reward, by their length beside the reference's.

The two formulas are pure; [`gate_reward`] puts them around any reward function of any TRL trainer.
"""

import inspect
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from trl_balcap.data.completions import completion_text

__all__ = ["GateKind", "gate_reward", "length_gate", "linear_length_penalty"]

GateKind = Literal["mask", "linear"]


def length_gate(
    rewards: Tensor, length_ratio: Tensor, *, lower: float = 0.5, upper: float = 2.0
) -> Tensor:
    r"""
    Keep a reward where the caption's length is in bounds, make it 0 elsewhere.

    $$\tilde r_i = r_i \cdot 1[\tau_l \le \rho_i \le \tau_u], \quad
    \rho_i = |y_i| / |y_{ref}| \text{ in tokens}$$

    BalCapRL's length-conditional reward masking, meant for the linguistic reward. It is a gate and
    not a slope: a slope pulls the policy to the reference's length before it has explored. A closed
    gate is a reward of 0.0 and not a missing one: the row competes in its group, and loses.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(B,)`, or `(B, K)` to gate every column. NaN (missing) stays NaN where
            the gate is open.
        length_ratio (`torch.Tensor`):
            $\rho$ of shape `(B,)`.
        lower (`float`, *optional*, defaults to `0.5`):
            $\tau_l$, kept from here on (main runs of the paper).
        upper (`float`, *optional*, defaults to `2.0`):
            $\tau_u$, kept up to here (main runs of the paper).

    Returns:
        `torch.Tensor`: of the shape of `rewards`.

    Example:

    ```python
    >>> import torch
    >>> from trl_balcap import length_gate
    >>> length_gate(torch.tensor([0.9, 0.9, 0.9]), torch.tensor([0.4, 0.5, 2.1]))
    tensor([0.0000, 0.9000, 0.0000])

    ```
    """
    _check_bounds(lower, upper)
    is_open = (length_ratio >= lower) & (length_ratio <= upper)  # (B,)
    return torch.where(_like(is_open, rewards), rewards, torch.zeros_like(rewards))


def linear_length_penalty(
    rewards: Tensor, length_ratio: Tensor, *, lower: float = 0.5, upper: float = 2.0
) -> Tensor:
    r"""
    The gate's rival in the paper's ablation: a reward that falls linearly away from $\rho = 1$.

    $$\tilde r_i = r_i \cdot \max(0, \min(1, s_i)), \quad
    s_i = (\rho_i - \tau_l) / (1 - \tau_l) \text{ below } 1,
    \quad (\tau_u - \rho_i) / (\tau_u - 1) \text{ above}$$

    The paper's own slope is not known; this one is 1 at the reference's length and reaches 0 where
    the gate would close.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(B,)` or `(B, K)`.
        length_ratio (`torch.Tensor`):
            $\rho$ of shape `(B,)`.
        lower (`float`, *optional*, defaults to `0.5`):
            $\rho$ at which the reward reaches 0 below the reference's length, under 1.
        upper (`float`, *optional*, defaults to `2.0`):
            $\rho$ at which it reaches 0 above, over 1.

    Returns:
        `torch.Tensor`: of the shape of `rewards`.

    Example:

    ```python
    >>> import torch
    >>> linear_length_penalty(torch.ones(4), torch.tensor([0.75, 1.0, 1.5, 3.0]))
    tensor([0.5000, 1.0000, 0.5000, 0.0000])

    ```
    """
    _check_bounds(lower, upper)
    if not lower < 1.0 < upper:
        raise ValueError(
            f"A linear length penalty needs lower < 1 < upper, got {lower} and {upper}: it is 1 at "
            "the reference's own length. Use the mask for a band that leaves that length out."
        )
    below = (length_ratio - lower) / (1.0 - lower)  # (B,)
    above = (upper - length_ratio) / (upper - 1.0)
    slope = torch.minimum(below, above).clamp(0.0, 1.0).to(rewards.dtype)
    # A closed end is 0.0 even where the reward is missing, as in the mask.
    return torch.where(_like(slope == 0.0, rewards), 0.0, rewards * _like(slope, rewards))


def gate_reward(
    reward_func: Callable[..., Any],
    processing_class: Any,
    *,
    lower: float = 0.5,
    upper: float = 2.0,
    kind: GateKind = "mask",
) -> Callable[..., Any]:
    """
    A reward function behind a length gate, for any TRL trainer that calls reward functions.

    The length of a completion is its tokens without special ones (no EOS, no padding); the
    reference's is counted by the same tokenizer, special tokens off. Where the gate is closed the
    reward function is not called at all, so a judge costs nothing there. Of two gated rewards, each
    has its own gate.

    Logged through TRL's `log_metric` where the trainer passes it: `length_gate/ratio` (mean rho),
    `length_gate/too_short` and `length_gate/too_long` (shares of the batch).

    Args:
        reward_func (`Callable`):
            A reward function as TRL calls it, sync or async. Its `__name__` is kept, so weights and
            metric names stay as they were.
        processing_class (`PreTrainedTokenizerBase` or `ProcessorMixin`):
            The trainer's processor or tokenizer.
        lower (`float`, *optional*, defaults to `0.5`):
            Least length ratio that keeps the reward.
        upper (`float`, *optional*, defaults to `2.0`):
            Greatest length ratio that keeps the reward.
        kind (`str`, *optional*, defaults to `"mask"`):
            `"mask"` for [`length_gate`], `"linear"` for [`linear_length_penalty`].

    Returns:
        `Callable`: picklable where `reward_func` is, async where it is. It needs the `reference`
        column.

    Example:

    ```python
    >>> class Words:  # a tokenizer's two methods, a token a word
    ...     all_special_ids = [0]
    ...     def __call__(self, texts, add_special_tokens):
    ...         return {"input_ids": [text.split() for text in texts]}
    >>> def fluent(completions, **kwargs):
    ...     return [0.9 for _ in completions]
    >>> gated = gate_reward(fluent, Words())
    >>> gated(prompts=["", ""], completions=["", ""], completion_ids=[[7, 8, 0], [7, 0]],
    ...       reference=["a red circle", "a red circle"])
    [0.9, 0.0]

    ```
    """
    if isinstance(reward_func, torch.nn.Module) or not callable(reward_func):
        raise ValueError(
            f"Only a reward function can be length-gated, got {type(reward_func).__name__}. Leave "
            "reward models out of length_gated_rewards, or wrap the model in a function."
        )
    is_async = inspect.iscoroutinefunction(reward_func) or inspect.iscoroutinefunction(
        type(reward_func).__call__
    )
    gated_class = _AsyncGatedReward if is_async else _GatedReward
    return gated_class(reward_func, processing_class, lower=lower, upper=upper, kind=kind)


class _Gate:
    """What both kinds of gated reward share: measuring, choosing rows, putting rewards back."""

    def __init__(
        self,
        reward_func: Callable[..., Any],
        processing_class: Any,
        *,
        lower: float,
        upper: float,
        kind: GateKind,
    ):
        if kind not in ("mask", "linear"):
            raise ValueError(f"kind must be 'mask' or 'linear', got {kind!r}.")
        self.formula = length_gate if kind == "mask" else linear_length_penalty
        self.formula(torch.ones(1), torch.ones(1), lower=lower, upper=upper)  # bad bounds fail here
        self.reward_func = reward_func
        self.tokenizer = getattr(processing_class, "tokenizer", processing_class)
        self.lower, self.upper, self.kind = lower, upper, kind
        self.__name__ = getattr(reward_func, "__name__", type(reward_func).__name__)
        self.needs = tuple(dict.fromkeys((*getattr(reward_func, "needs", ()), "reference")))

    def __getattr__(self, name: str) -> Any:
        # What the judge rewards offer besides the call (reports, preflight) passes through.
        # `reward_func` itself is missing only while unpickling.
        if name == "reward_func" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.reward_func, name)

    def length_ratio(
        self,
        completions: list,
        completion_ids: list[list[int]] | None,
        reference: list[str] | None,
    ) -> Tensor:
        """Rho of each completion, float64 of shape `(B,)`."""
        if reference is None:
            raise ValueError(
                f"The length gate on {self.__name__} needs the reference caption of every row, and "
                "the dataset has no column 'reference'. Add it, or set length_gate=None."
            )
        special_ids = set(self.tokenizer.all_special_ids)
        token_ids: list[list[int]] = completion_ids or []
        if completion_ids is None:  # trainers that pass texts only
            texts = [completion_text(completion) for completion in completions]
            token_ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        ratios = []
        for row, (ids, text) in enumerate(zip(token_ids, reference, strict=True)):
            reference_length = self._reference_length(text)
            if reference_length == 0:
                raise ValueError(
                    f"The reference of row {row} in the batch is {text!r}, which has no tokens to "
                    "compare a length with. Remove such rows, or set length_gate=None."
                )
            ratios.append(sum(token not in special_ids for token in ids) / reference_length)
        return torch.tensor(ratios, dtype=torch.float64)

    def _reference_length(self, text: str) -> int:
        return _token_count(self.tokenizer, text) if text else 0

    def open_rows(self, ratios: Tensor) -> list[int]:
        ones = torch.ones_like(ratios)
        kept = self.formula(ones, ratios, lower=self.lower, upper=self.upper) > 0
        return kept.nonzero()[:, 0].tolist()

    def start(self, *, completions: list, completion_ids: list[list[int]], **columns: Any) -> None:
        """Pass the early start on, for the rows that the gate leaves open."""
        if not hasattr(self.reward_func, "start"):
            return
        ratios = self.length_ratio(completions, completion_ids, columns.get("reference"))
        rows = self.open_rows(ratios)
        if rows:
            arguments = {"completions": completions, "completion_ids": completion_ids, **columns}
            self.reward_func.start(**_take_rows(arguments, rows, len(completions)))

    def before(self, kwargs: dict[str, Any]) -> tuple[Tensor, list[int], dict[str, Any]]:
        completions = kwargs["completions"]
        ratios = self.length_ratio(
            completions, kwargs.get("completion_ids"), kwargs.get("reference")
        )
        log_metric = kwargs.get("log_metric")
        if log_metric is not None:
            log_metric("length_gate/ratio", ratios.mean().item())
            log_metric("length_gate/too_short", (ratios < self.lower).double().mean().item())
            log_metric("length_gate/too_long", (ratios > self.upper).double().mean().item())
        rows = self.open_rows(ratios)
        inner = _take_rows(kwargs, rows, len(completions))
        log_extra = kwargs.get("log_extra")
        if log_extra is not None:  # TRL wants one value a row of the whole batch
            inner["log_extra"] = lambda column, values: log_extra(
                column, _put_rows(values, rows, len(completions))
            )
        return ratios, rows, inner

    def after(
        self, rewards: list[float | None], rows: list[int], ratios: Tensor
    ) -> list[float | None]:
        given = torch.tensor(
            [torch.nan if reward is None else reward for reward in rewards], dtype=torch.float64
        )
        gated = self.formula(given, ratios[rows], lower=self.lower, upper=self.upper)  # (open,)
        values = [None if value != value else value for value in gated.tolist()]
        return _put_rows(values, rows, len(ratios), empty=0.0)


class _GatedReward(_Gate):
    def __call__(self, **kwargs: Any) -> list[float | None]:
        ratios, rows, inner = self.before(kwargs)
        return self.after(self.reward_func(**inner) if rows else [], rows, ratios)


class _AsyncGatedReward(_Gate):
    reward_func: Callable[..., Awaitable[list[float | None]]]

    async def __call__(self, **kwargs: Any) -> list[float | None]:
        ratios, rows, inner = self.before(kwargs)
        return self.after(await self.reward_func(**inner) if rows else [], rows, ratios)


@lru_cache(maxsize=65536)  # a reference comes back for every rollout of every epoch
def _token_count(tokenizer: Any, text: str) -> int:
    return len(tokenizer([text], add_special_tokens=False)["input_ids"][0])


def _take_rows(kwargs: dict[str, Any], rows: list[int], size: int) -> dict[str, Any]:
    return {
        key: [value[row] for row in rows]
        if isinstance(value, list) and len(value) == size
        else value
        for key, value in kwargs.items()
    }


def _put_rows(values: list, rows: list[int], size: int, empty: Any = None) -> list:
    placed = [empty] * size
    for row, value in zip(rows, values, strict=True):
        placed[row] = value
    return placed


def _check_bounds(lower: float, upper: float) -> None:
    if not 0.0 <= lower <= upper:
        raise ValueError(
            f"The length gate needs 0 <= lower <= upper, got lower={lower} and upper={upper}. "
            "Swap them, or use length_gate=None for no gate."
        )


def _like(rows: Tensor, rewards: Tensor) -> Tensor:
    return rows.view(-1, *[1] * (rewards.ndim - 1)).expand_as(rewards)

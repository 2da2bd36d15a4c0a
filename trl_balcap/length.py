"""Two formulas for how a completion's length, relative to its reference, affects its reward."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["check_band", "length_gate", "linear_length_penalty"]


def length_gate(
    rewards: Tensor, length_ratio: Tensor, *, lower: float = 0.5, upper: float = 2.0
) -> Tensor:
    r"""
    Keep a reward if the caption's length is within bounds, else set it to 0.

    $$\tilde r_i = r_i \cdot 1[\tau_l \le \rho_i \le \tau_u], \quad
    \rho_i = |y_i| / |y_{ref}| \text{ in tokens}$$

    BalCapRL's length-conditional reward masking, meant for the linguistic reward. It is a gate
    rather than a slope, since a slope would pull the policy to the reference's length before it has
    explored. Behind a closed gate the reward is 0.0 rather than missing: the row competes in its
    group and loses.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(B,)`, or `(B, K)` to gate every column. NaN (missing) stays NaN if
            the gate is open.
        length_ratio (`torch.Tensor`):
            $\rho$ of shape `(B,)`.
        lower (`float`, *optional*, defaults to `0.5`):
            $\tau_l$, the lower bound (as in the paper's main runs).
        upper (`float`, *optional*, defaults to `2.0`):
            $\tau_u$, the upper bound (as in the paper's main runs).

    Returns:
        `torch.Tensor`: same shape as `rewards`.

    Raises:
        `ValueError`: if an argument is not a tensor, shapes do not match, or bounds are in the
            wrong order.

    Example:

    ```python
    >>> import torch
    >>> from trl_balcap import length_gate
    >>> length_gate(torch.tensor([0.9, 0.9, 0.9]), torch.tensor([0.4, 0.5, 2.1]))
    tensor([0.0000, 0.9000, 0.0000])

    ```
    """
    _check_tensors(rewards, length_ratio)
    _check_bounds(lower, upper)
    is_open = (length_ratio >= lower) & (length_ratio <= upper)  # (B,)
    return torch.where(_like(is_open, rewards), rewards, torch.zeros_like(rewards))


def linear_length_penalty(
    rewards: Tensor, length_ratio: Tensor, *, lower: float = 0.5, upper: float = 2.0
) -> Tensor:
    r"""
    The alternative in the paper's ablation: a reward that falls linearly away from $\rho = 1$.

    $$\tilde r_i = r_i \cdot \max(0, \min(1, s_i)), \quad
    s_i = (\rho_i - \tau_l) / (1 - \tau_l) \text{ below } 1,
    \quad (\tau_u - \rho_i) / (\tau_u - 1) \text{ above}$$

    The paper's slope is unknown; this one is 1 at the reference's length and reaches 0 where the
    gate would close.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(B,)` or `(B, K)`.
        length_ratio (`torch.Tensor`):
            $\rho$ of shape `(B,)`.
        lower (`float`, *optional*, defaults to `0.5`):
            $\rho$ below 1 at which the reward reaches 0.
        upper (`float`, *optional*, defaults to `2.0`):
            $\rho$ above 1 at which the reward reaches 0.

    Returns:
        `torch.Tensor`: same shape as `rewards`.

    Raises:
        `ValueError`: if an argument is not a tensor, shapes do not match, or bounds are in the
            wrong order.

    Example:

    ```python
    >>> import torch
    >>> linear_length_penalty(torch.ones(4), torch.tensor([0.75, 1.0, 1.5, 3.0]))
    tensor([0.5000, 1.0000, 0.5000, 0.0000])

    ```
    """
    _check_tensors(rewards, length_ratio)
    _check_bounds(lower, upper)
    if not lower < 1.0 < upper:
        raise ValueError(
            f"A linear length penalty needs lower < 1 < upper, got {lower} and {upper}, since it "
            "peaks at the reference's length. For a band without that length, use the mask."
        )
    below = (length_ratio - lower) / (1.0 - lower)  # (B,)
    above = (upper - length_ratio) / (upper - 1.0)
    slope = torch.minimum(below, above).clamp(0.0, 1.0).to(rewards.dtype)
    # Outside the bounds the result is 0.0 even if the reward is missing, as in the mask.
    return torch.where(_like(slope == 0.0, rewards), 0.0, rewards * _like(slope, rewards))


def check_band(tokens: Any, *, name: str = "tokens") -> None:
    """
    Refuse what is no band of tokens.

    Raises:
        `ValueError`: unless it is a pair of whole numbers, the fewest tokens and the most.

    Example:

    ```python
    >>> check_band((60, 200))
    >>> check_band((200, 60))
    Traceback (most recent call last):
    ValueError: tokens is a pair of whole numbers, the fewest tokens and the most, such as \
[60, 200]; got (200, 60).

    ```
    """
    pair = isinstance(tokens, list | tuple) and len(tokens) == 2
    whole = pair and all(isinstance(n, int) and not isinstance(n, bool) for n in tokens)
    if not whole or not 0 <= tokens[0] <= tokens[1]:
        raise ValueError(
            f"{name} is a pair of whole numbers, the fewest tokens and the most, such as "
            f"[60, 200]; got {tokens!r}."
        )


def _check_tensors(rewards: Tensor, length_ratio: Tensor) -> None:
    for name, value in (("rewards", rewards), ("length_ratio", length_ratio)):
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{name} must be a torch.Tensor, got {type(value).__name__}. Write "
                f"torch.tensor({name})."
            )
    if length_ratio.ndim != 1 or rewards.shape[:1] != length_ratio.shape or rewards.ndim > 2:
        raise ValueError(
            f"rewards must have shape (B,) or (B, K) and length_ratio (B,), got "
            f"{tuple(rewards.shape)} and {tuple(length_ratio.shape)}. "
            "Pass one ratio per completion."
        )


def _check_bounds(lower: float, upper: float) -> None:
    if not 0.0 <= lower <= upper:
        raise ValueError(
            f"The length gate needs 0 <= lower <= upper, got lower={lower} and upper={upper}. "
            "Swap them, or use length_gate=None for no gate."
        )


def _like(rows: Tensor, rewards: Tensor) -> Tensor:
    return rows.view(-1, *[1] * (rewards.ndim - 1)).expand_as(rewards)

"""Advantages from rewards: pure tensor maths, without a trainer.

Shapes: `P` prompts, `G` rollouts of each (`num_generations`), `K` rewards, `B = P * G` rows. The
rows of a prompt are adjacent, as TRL's sampler arranges them over all ranks.
"""

import torch
from torch import Tensor

__all__ = [
    "advantage_shares",
    "cgdpo_advantages",
    "dead_groups",
    "group_normalize",
    "grpo_advantages",
]

# If a group's rewards differ by only a few float32 steps, that is rounding: the same three scores
# averaged in another order. Dividing it by `eps` would train on it.
ROUNDING = 4 * torch.finfo(torch.float32).eps


def cgdpo_advantages(
    rewards_per_func: Tensor,
    *,
    num_generations: int,
    reward_weights: Tensor | list[float] | None = None,
    eps: float = 1e-4,
) -> Tensor:
    r"""
    c-GDPO advantages: normalise each reward within its group, sum, and normalise over the batch.

    For reward $k$ of rollout $i$ in a group, and over all rows of the batch:

    $$A_{k,i} = \frac{r_{k,i} - \mathrm{mean}_{group}(r_k)}{\mathrm{std}_{group}(r_k) + \epsilon},
    \quad A_i = \sum_k w_k A_{k,i},
    \quad \hat A_i = \frac{A_i - \mathrm{mean}_{batch}(A)}{\mathrm{std}_{batch}(A) + \epsilon}$$

    This is BalCapRL's equation and, up to rounding, TRL's
    `multi_objective_aggregation="normalize_then_sum"`. It differs where TRL would amplify rounding
    errors: a group without spread in a reward contributes exactly 0 for that reward, and a batch
    without any spread gives exactly 0.

    A missing reward (NaN, from a reward function's `None`) is excluded from the statistics and
    counts as the group's mean, 0. A row with every reward missing is excluded from the batch's
    statistics and gets 0.

    Args:
        rewards_per_func (`torch.Tensor`):
            Rewards of shape `(B, K)`, of all ranks, NaN where missing.
        num_generations (`int`):
            Rollouts per prompt, `G`. With 1 every advantage is 0.
        reward_weights (`torch.Tensor` or `list[float]`, *optional*):
            Weights $w_k$ of shape `(K,)` (alpha, beta, gamma in the paper). Defaults to ones, since
            the paper's values are unknown.
        eps (`float`, *optional*, defaults to `1e-4`):
            Added to both standard deviations. This is TRL's value; the paper's is unknown.

    Returns:
        `torch.Tensor`: float32 of shape `(B,)` on the device of the rewards. The statistics are
        computed in float64 with Bessel's correction, on the CPU, so that every device gives the
        same bits.

    Raises:
        `ValueError`: if shapes do not match, or a reward is infinite.

    Example:

    ```python
    >>> import torch
    >>> from trl_balcap import cgdpo_advantages
    >>> rewards = torch.tensor([[0.2, 0.5], [0.8, 0.5], [0.1, 0.9], [0.1, float("nan")]])
    >>> cgdpo_advantages(rewards, num_generations=2)  # row 3's only live reward is missing
    tensor([-1.2245,  1.2245,  0.0000,  0.0000])

    ```
    """
    rewards = _checked(rewards_per_func, num_generations)  # (B, K) float64
    weights = _per_reward("reward_weights", reward_weights, rewards.shape[1], default=1.0)  # (K,)
    normalized = group_normalize(rewards, num_generations=num_generations, eps=eps)  # (B, K)
    advantages = (normalized * weights).sum(dim=1)  # (B,)
    scored = ~rewards.isnan().all(dim=1)  # (B,)
    advantages = _normalize_batch(advantages, scored, eps)
    return advantages.to(rewards_per_func.device, torch.float32)


def grpo_advantages(
    rewards_per_func: Tensor,
    *,
    num_generations: int,
    reward_weights: Tensor | list[float] | None = None,
    eps: float = 1e-4,
) -> Tensor:
    r"""
    GRPO advantages: sum the rewards first, then normalise within the group.

    $$r_i = \sum_k w_k r_{k,i}, \quad
    A_i = \frac{r_i - \mathrm{mean}_{group}(r)}{\mathrm{std}_{group}(r) + \epsilon}$$

    The same as TRL's `multi_objective_aggregation="sum_then_normalize"` with
    `scale_rewards="group"`, for plots and for trainers other than TRL's. [`BalCapTrainer`] leaves
    this mode to TRL. As in TRL, a missing reward counts as 0 in the sum, which penalises the row if
    rewards are positive.

    Args:
        rewards_per_func (`torch.Tensor`):
            Rewards of shape `(B, K)`, NaN where missing.
        num_generations (`int`):
            Rollouts per prompt, `G`.
        reward_weights (`torch.Tensor` or `list[float]`, *optional*):
            Weights of shape `(K,)`. Defaults to ones.
        eps (`float`, *optional*, defaults to `1e-4`):
            Added to the standard deviation.

    Returns:
        `torch.Tensor`: float32 of shape `(B,)`.

    Example:

    ```python
    >>> import torch
    >>> grpo_advantages(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), num_generations=2)  # equal sums
    tensor([0., 0.])

    ```
    """
    rewards = _checked(rewards_per_func, num_generations)
    weights = _per_reward("reward_weights", reward_weights, rewards.shape[1], default=1.0)
    summed = (rewards * weights).nansum(dim=1)  # (B,)
    summed[rewards.isnan().all(dim=1)] = torch.nan
    advantages = group_normalize(summed[:, None], num_generations=num_generations, eps=eps)[:, 0]
    return advantages.to(rewards_per_func.device, torch.float32)


def group_normalize(
    rewards_per_func: Tensor,
    *,
    num_generations: int,
    eps: float = 1e-4,
) -> Tensor:
    """
    Each reward's z-score within its group, 0 if the reward is missing or the group is dead.

    Args:
        rewards_per_func (`torch.Tensor`):
            Rewards of shape `(B, K)`, NaN where missing.
        num_generations (`int`):
            Rollouts per prompt, `G`.
        eps (`float`, *optional*, defaults to `1e-4`):
            Added to the standard deviation.

    Returns:
        `torch.Tensor`: float64 of shape `(B, K)`.

    Example:

    ```python
    >>> import torch
    >>> rewards = torch.tensor([[0.0], [1.0], [0.5], [0.5]])
    >>> group_normalize(rewards, num_generations=2, eps=0.0)[:, 0].tolist()
    [-0.7071067811865475, 0.7071067811865475, 0.0, 0.0]

    ```
    """
    rewards = _checked(rewards_per_func, num_generations)
    groups = rewards.view(-1, num_generations, rewards.shape[1])  # (P, G, K)
    missing = groups.isnan()
    normalized = (groups - groups.nanmean(dim=1, keepdim=True)) / (_variance(groups).sqrt() + eps)
    dead = dead_groups(rewards, num_generations=num_generations)[:, None, :]  # (P, 1, K)
    return normalized.masked_fill(missing | dead, 0.0).view_as(rewards)


def _variance(groups: Tensor) -> Tensor:
    """Mean and standard deviation of each group and reward, `(P, 1, K)`; Bessel-corrected like
    TRL's nanstd, to stay comparable."""
    count = (~groups.isnan()).sum(dim=1, keepdim=True)  # (P, 1, K)
    squares = (groups - groups.nanmean(dim=1, keepdim=True)).square()
    return squares.nansum(dim=1, keepdim=True) / (count - 1).clamp(min=1)


def dead_groups(rewards_per_func: Tensor, *, num_generations: int) -> Tensor:
    """
    Which groups give no learning signal for which reward, because their rewards do not differ.

    Args:
        rewards_per_func (`torch.Tensor`):
            Rewards of shape `(B, K)`, NaN where missing.
        num_generations (`int`):
            Rollouts per prompt, `G`.

    Returns:
        `torch.Tensor`: bool of shape `(P, K)`. A group is dead if it has fewer than two rewards, or
        if its spread is within rounding (4 float32 steps of its largest reward).

    Example:

    ```python
    >>> import torch
    >>> rewards = torch.tensor([[0.3, 0.1], [0.3, 0.2]])
    >>> dead_groups(rewards, num_generations=2).tolist()
    [[True, False]]

    ```
    """
    rewards = _checked(rewards_per_func, num_generations)
    groups = rewards.view(-1, num_generations, rewards.shape[1])  # (P, G, K)
    missing = groups.isnan()
    highest = groups.masked_fill(missing, -torch.inf).amax(dim=1)  # (P, K)
    lowest = groups.masked_fill(missing, torch.inf).amin(dim=1)
    largest = groups.masked_fill(missing, 0.0).abs().amax(dim=1)
    return (highest - lowest) <= ROUNDING * largest  # -inf <= 0 if all are missing


def advantage_shares(weighted: Tensor, rewards_per_func: Tensor, *, eps: float = 1e-4) -> Tensor:
    """
    What each reward adds to c-GDPO's advantages, before the mean of the batch is subtracted.

    Args:
        weighted (`torch.Tensor`):
            Rewards of shape `(B, K)`, normalized within their groups, times their weights.
        rewards_per_func (`torch.Tensor`): The rewards themselves, NaN where missing.
        eps (`float`, *optional*, defaults to `1e-4`): Added to the standard deviation.

    Returns:
        `torch.Tensor`: Shape `(B, K)`.

    Example: the sums of the two scored rows are 1 and -1, their standard deviation is sqrt(2).

    ```python
    >>> import torch
    >>> rewards = torch.tensor([[0.9, 0.8], [0.1, 0.4], [float("nan"), float("nan")]])
    >>> advantage_shares(torch.tensor([[0.7, 0.3], [-0.7, -0.3], [0.0, 0.0]]), rewards)
    tensor([[ 0.4949,  0.2121],
            [-0.4949, -0.2121],
            [ 0.0000,  0.0000]])

    ```
    """
    scored = ~rewards_per_func.isnan().all(dim=1).to(weighted.device)  # (B,)
    kept = weighted.sum(dim=1)[scored]
    spread = kept.std() if kept.numel() > 1 else kept.new_zeros(())
    return weighted / (spread + eps)


def _normalize_batch(advantages: Tensor, scored: Tensor, eps: float) -> Tensor:
    """Centre and scale `(B,)` over the scored rows."""
    kept = advantages[scored]
    # z-scores are of order 1, so a spread of a few float64 steps is rounding.
    if kept.numel() < 2 or kept.max() - kept.min() <= 1e-12:
        return torch.zeros_like(advantages)
    normalized = (advantages - kept.mean()) / (kept.std() + eps)
    return normalized.masked_fill(~scored, 0.0)


def _checked(rewards_per_func: Tensor, num_generations: int) -> Tensor:
    if not isinstance(rewards_per_func, Tensor):
        raise ValueError(
            f"rewards_per_func must be a torch.Tensor of shape (B, K), got a "
            f"{type(rewards_per_func).__name__}. Use torch.tensor(rewards_per_func)."
        )
    if rewards_per_func.ndim != 2:
        raise ValueError(
            f"rewards_per_func must have shape (B, K), got {tuple(rewards_per_func.shape)}. "
            "Add the missing dimension, e.g. rewards[:, None] for a single reward."
        )
    if num_generations < 1 or len(rewards_per_func) % num_generations != 0:
        raise ValueError(
            f"rewards_per_func has {len(rewards_per_func)} rows, which is not a multiple of "
            f"num_generations={num_generations}. Pass the gathered rewards of all ranks."
        )
    if rewards_per_func.isinf().any():
        row, reward = rewards_per_func.isinf().nonzero()[0].tolist()
        raise ValueError(
            f"Reward {reward} of row {row} is {rewards_per_func[row, reward].item()}, but rewards "
            "must be finite. Return None for a completion that cannot be scored."
        )
    return rewards_per_func.detach().to("cpu", torch.float64)


def _per_reward(
    name: str, values: Tensor | list[float] | None, num_rewards: int, default: float
) -> Tensor:
    if values is None:
        return torch.full((num_rewards,), default, dtype=torch.float64)
    tensor = torch.as_tensor(values).detach().to("cpu", torch.float64)
    if tensor.shape != (num_rewards,):
        raise ValueError(
            f"{name} has {tensor.numel()} values for {num_rewards} rewards. Pass one per reward "
            "function, in the same order."
        )
    return tensor

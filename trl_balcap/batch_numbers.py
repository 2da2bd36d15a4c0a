"""Metrics of a batch of rewards, computed with tensor operations only, without asking the judge.

Some of them measure the judge behind the rewards. Errors show where rewards can be compared: equal
captions of one image deserve equal scores, and a caption that all other rewards rate as good rarely
deserves exactly 0.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from trl_balcap.metrics import batch_b_capscore, distinct_share

__all__ = ["batch_numbers", "retest_std", "zeros_among_good"]


def batch_numbers(
    rewards_per_func: Tensor,
    names: Sequence[str],
    dead: Tensor,
    weighted: Tensor,
    texts: Sequence[str],
    num_generations: int,
) -> dict[str, float]:
    """
    Metrics that [`BalCapTrainer`] logs for a batch in addition to TRL's. Those that the batch does
    not determine are omitted.

    Args:
        rewards_per_func (`torch.Tensor`):
            Rewards of all ranks, of shape `(B, K)`, NaN where missing.
        names (`Sequence[str]`):
            Names of the K reward functions.
        dead (`torch.Tensor`):
            Which groups give no signal for which reward, `(P, K)`. See [`dead_groups`].
        weighted (`torch.Tensor`):
            Each reward's weighted share of the advantage before the batch step, `(B, K)`.
        texts (`Sequence[str]`):
            The B completions, with those of one prompt next to each other.
        num_generations (`int`):
            Number of rollouts per prompt.

    Example:

    ```python
    >>> rewards = torch.tensor([[0.5], [0.7]])
    >>> numbers = batch_numbers(
    ...     rewards, ["recall_reward"], torch.tensor([[False]]), torch.tensor([[-0.7], [0.7]]),
    ...     ["A dog.", "A cat."], num_generations=2,
    ... )
    >>> numbers["rewards/recall_reward/frac_zero_std"], numbers["completions/distinct"]
    (0.0, 1.0)

    ```
    """
    retest = retest_std(rewards_per_func, texts, num_generations).tolist()  # (K,)
    zeros = zeros_among_good(rewards_per_func, num_generations).tolist()  # (K,)
    found = {"completions/distinct": distinct_share(texts, num_generations)}
    for k, name in enumerate(names):
        found[f"rewards/{name}/frac_zero_std"] = dead[:, k].double().mean().item()
        found[f"advantages/{name}/std"] = weighted[:, k].std(correction=0).item()
        found[f"rewards/{name}/retest_std"] = retest[k]
        found[f"rewards/{name}/zeros_among_good"] = zeros[k]
    balanced = batch_b_capscore(rewards_per_func, names)
    if balanced is not None:
        found["b_capscore"] = balanced
    return {name: value for name, value in found.items() if not math.isnan(value)}


def retest_std(rewards_per_func: Tensor, texts: Sequence[str], num_generations: int) -> Tensor:
    r"""
    How much the scores of equal captions of one image differ: the judge's test-retest spread.

    This is the pooled standard deviation over the sets $S$ of equal captions of a prompt:

    $$s_k = \sqrt{\sum_S \sum_{i \in S} (r_{k,i} - \bar r_{k,S})^2 \Big/ \sum_S (|S| - 1)}$$

    It is 0 for a judge that always scores the same caption the same, and for one that is asked only
    once about equal captions, as the rewards of this package do.

    Args:
        rewards_per_func (`torch.Tensor`):
            Rewards of shape `(B, K)`. Missing ones are NaN and do not count.
        texts (`Sequence[str]`):
            The B completions, with those of one prompt next to each other.
        num_generations (`int`):
            Number of rollouts per prompt.

    Returns:
        `torch.Tensor`: float64 of shape `(K,)`, NaN where no two equal captions have a score.

    Example:

    ```python
    >>> rewards = torch.tensor([[0.5, 0.9], [0.7, 0.9], [0.2, 0.1]])
    >>> [round(value, 4) for value in retest_std(rewards, ["A dog.", "A dog.", "A cat."], 3).tolist()]
    [0.1414, 0.0]

    ```
    """  # noqa: E501
    equal: dict[tuple[int, str], list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        equal[place // num_generations, text].append(place)
    rewards = rewards_per_func.detach().to("cpu", torch.float64)  # (B, K)
    squares = torch.zeros(rewards.shape[1], dtype=torch.float64)  # (K,)
    freedom = torch.zeros_like(squares)
    for places in equal.values():
        if len(places) < 2:
            continue
        same = rewards[places]  # (S, K)
        squares += (same - same.nanmean(dim=0)).square().nansum(dim=0)
        freedom += ((~same.isnan()).sum(dim=0) - 1).clamp(min=0)
    return (squares / freedom).sqrt()  # 0 / 0 is NaN


def zeros_among_good(rewards_per_func: Tensor, num_generations: int) -> Tensor:
    """
    Share of zeros that a reward gives to captions that are good by every other reward: above 0, and
    no worse than their group's median.

    A genuine 0 mostly comes with other low scores. A failure that was replaced by 0 comes with any
    scores, so this share is the share of failures.

    Args:
        rewards_per_func (`torch.Tensor`):
            Rewards of shape `(B, K)`, NaN where missing. A caption that lacks a reward does not
            count.
        num_generations (`int`):
            Number of rollouts per prompt.

    Returns:
        `torch.Tensor`: float64 of shape `(K,)`, NaN where no caption is good or if K is 1.

    Example: by the second reward, all captions except the last are good. The first reward gives one
    of them 0.

    ```python
    >>> rewards = torch.tensor([[0.5, 0.9], [0.0, 0.9], [0.7, 0.9], [0.0, 0.1]])
    >>> zeros_among_good(rewards, num_generations=4)[0].item()
    0.3333333333333333

    ```
    """
    rewards = rewards_per_func.detach().to("cpu", torch.float64)  # (B, K)
    groups = rewards.view(-1, num_generations, rewards.shape[1])  # (P, G, K)
    medians = groups.nanmedian(dim=1, keepdim=True).values  # (P, 1, K)
    good = ((groups >= medians) & (groups > 0)).view_as(rewards)  # (B, K)
    known = ~rewards.isnan()
    shares = []
    for k in range(rewards.shape[1]):
        others = [other for other in range(rewards.shape[1]) if other != k]
        of = good[:, others].all(dim=1) & known[:, k]  # (B,)
        shares.append((rewards[of, k] == 0).double().mean() if others else torch.tensor(torch.nan))
    return torch.stack(shares).double()

r"""Other ways to turn rewards into advantages, each tried as an arm against the paper's.

Pure functions of rewards of shape `(B, K)`, with none missing and the rows of a prompt adjacent.
`B = P * G`, as in `trl_balcap.advantages`. None of them is an option of the trainer; a variant only
becomes one if it beats c-GDPO.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trl_balcap.advantages import group_normalize

__all__ = ["VARIANTS"]

EPS = 1e-4


def no_batch_step(rewards: Tensor, num_generations: int) -> Tensor:
    """
    c-GDPO without its last step: the sum of the z-scores is not scaled over the batch.

    ```python
    >>> no_batch_step(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), 2).tolist()
    [-0.7070068120956421, 0.7070068120956421]

    ```
    """
    return group_normalize(rewards, num_generations=num_generations).sum(dim=1).float()  # (B,)


def no_group_std(rewards: Tensor, num_generations: int) -> Tensor:
    """
    Each reward is centred in its group but not divided by its standard deviation (Dr. GRPO, arXiv
    2503.20783), then the batch step follows: a reward counts in proportion to its spread.

    ```python
    >>> no_group_std(torch.tensor([[0.0, 0.5], [1.0, 0.5]]), 2).round(decimals=2).tolist()
    [-0.7099999785423279, 0.7099999785423279]

    ```
    """
    groups = rewards.double().view(-1, num_generations, rewards.shape[1])  # (P, G, K)
    return _batch_step((groups - groups.mean(1, keepdim=True)).view_as(rewards).sum(dim=1))


def log_mean(rewards: Tensor, num_generations: int) -> Tensor:
    """
    The mean of the logarithms of the rewards instead of their sum, normalised in the group, then
    over the batch: a product, whose gradient gives the weakest view the most weight. 0.05 is added
    to the rewards, because many are 0.

    ```python
    >>> lifted = log_mean(torch.tensor([[0.1, 0.9], [0.5, 0.5]]), 2)  # the same sum
    >>> bool(lifted[1] > lifted[0])
    True

    ```
    """
    logs = (rewards.double() + 0.05).log().mean(dim=1, keepdim=True)  # (B, 1)
    return _batch_step(group_normalize(logs, num_generations=num_generations).sum(dim=1))


def weakest_weighted(rewards: Tensor, num_generations: int) -> Tensor:
    """
    c-GDPO with weights that favour the weakest reward: the weight of a reward is proportional to
    the inverse of its batch mean (at least 0.05), and the weights add up to K. This is the gradient
    of the harmonic mean, without the square.

    ```python
    >>> rewards = torch.tensor([[0.1, 0.8], [0.3, 0.4]])  # means 0.2 and 0.6: weights 1.5 and 0.5
    >>> weakest_weighted(rewards, 2).round(decimals=2).tolist()
    [-0.7099999785423279, 0.7099999785423279]

    ```
    """
    wanted = 1.0 / rewards.double().mean(dim=0).clamp(min=0.05)  # (K,)
    weights = wanted * rewards.shape[1] / wanted.sum()  # (K,)
    normalized = group_normalize(rewards, num_generations=num_generations)  # (B, K)
    return _batch_step((normalized * weights).sum(dim=1))


def rdpo(rewards: Tensor, num_generations: int) -> Tensor:
    r"""
    After RDPO (arXiv 2605.13641, read from its abstract): rewards become normal quantiles of their
    ranks in the group (ties get their mean rank) and are whitened across rewards, $C^{-1/2} z$ with
    $C$ their correlation over the batch, before they are added up.

    Its "magnitude-aware" correction of the quantiles is not in the abstract, so it is not
    implemented.

    ```python
    >>> twice = torch.tensor([[0.1, 0.1], [0.2, 0.2], [0.4, 0.4], [0.9, 0.9]])
    >>> rdpo(twice, 4).round(decimals=2).tolist()  # one reward told twice counts once
    [-1.1799999475479126, -0.33000001311302185, 0.33000001311302185, 1.1799999475479126]

    ```
    """
    groups = rewards.double().view(-1, num_generations, rewards.shape[1])  # (P, G, K)
    below = (groups[:, :, None] > groups[:, None]).sum(2)  # (P, G, K)
    equal = (groups[:, :, None] == groups[:, None]).sum(2)
    shares = (below + equal / 2) / num_generations  # (P, G, K), mid-ranks in (0, 1)
    quantiles = torch.special.ndtri(shares).view_as(rewards)  # (B, K)
    covariance = quantiles.T @ quantiles / len(quantiles)  # (K, K)
    values, vectors = torch.linalg.eigh(covariance)
    inverse = torch.where(values > 0.05, values.clamp(min=0.05).rsqrt(), 0.0)  # (K,)
    whitened = quantiles @ (vectors * inverse) @ vectors.T  # (B, K)
    return _batch_step(whitened.sum(dim=1))


VARIANTS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "no_batch_step": no_batch_step,
    "no_group_std": no_group_std,
    "log_mean": log_mean,
    "weakest_weighted": weakest_weighted,
    "rdpo": rdpo,
}
"""Functions for the arms' `advantages`, by name."""


def _batch_step(advantages: Tensor) -> Tensor:
    centred = advantages - advantages.mean()
    return (centred / (advantages.std() + EPS)).float()

"""c-GDPO by hand, by law, and beside TRL's own arithmetic."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from trl.trainer.utils import nanstd

from trl_balcap import cgdpo_advantages, grpo_advantages
from trl_balcap.advantages import advantage_shares, dead_groups, group_normalize

NAN = float("nan")


def trl_normalize_then_sum(rewards, num_generations, weights):
    """The arithmetic of TRL 1.16's GRPOTrainer, in its own dtype, as the reference."""
    grouped = rewards.view(-1, num_generations, rewards.shape[1])
    reward_k = (grouped - grouped.nanmean(dim=1, keepdim=True)) / (
        nanstd(grouped, dim=1, keepdim=True) + 1e-4
    )
    summed = (reward_k.view(-1, rewards.shape[1]) * weights).nansum(dim=1)
    summed[rewards.isnan().all(dim=1)] = torch.nan
    advantages = (summed - summed.nanmean()) / (nanstd(summed) + 1e-4)
    return advantages.nan_to_num(0.0)


def test_by_hand():
    # Group 1: precision 0, 1 (mean 0.5, std 1/sqrt 2) -> z = -+ 1/sqrt 2; recall equal -> 0.
    # Group 2: precision equal -> 0; recall 1, 0 -> z = +- 1/sqrt 2, twice the weight.
    rewards = torch.tensor([[0.0, 0.3], [1.0, 0.3], [0.5, 1.0], [0.5, 0.0]])
    z = 1 / math.sqrt(2)
    summed = torch.tensor([-z, z, 2 * z, -2 * z])
    expected = summed / summed.std()  # its mean is 0
    torch.testing.assert_close(
        cgdpo_advantages(rewards, num_generations=2, reward_weights=[1.0, 2.0], eps=0.0), expected
    )


def test_a_missing_verdict_counts_as_the_groups_mean():
    # Precision of row 2 is missing: mean 0.5 over rows 0 and 1, and row 2 stands at 0.
    rewards = torch.tensor([[0.0], [1.0], [NAN], [0.2], [0.2], [0.2]])
    advantages = cgdpo_advantages(rewards, num_generations=3)
    assert advantages[0] < 0 < advantages[1]
    assert advantages[0] == -advantages[1]
    assert advantages[2] == advantages[3] == 0.0


def test_a_row_without_any_verdict_leaves_the_batchs_statistics():
    kept = torch.tensor([[0.0, 1.0], [1.0, 0.5], [0.3, 0.9], [0.6, 0.1]])
    with_lost = torch.cat([kept[:2], torch.full((1, 2), NAN), kept[2:], torch.full((1, 2), NAN)])
    advantages = cgdpo_advantages(with_lost, num_generations=3)
    assert advantages[2] == advantages[5] == 0.0
    torch.testing.assert_close(
        advantages[[0, 1, 3, 4]], cgdpo_advantages(kept, num_generations=2), rtol=1e-6, atol=1e-6
    )


def test_rounding_is_not_amplified():
    """In float32 the mean of six times 0.9 is off by 6e-8; TRL's batch step makes |A| = 0.7 of
    it."""
    rewards = torch.full((12, 1), 0.1)
    rewards[:6] = 0.9
    trl = trl_normalize_then_sum(rewards, 6, torch.ones(1))
    assert trl.abs().max() > 0.5
    assert cgdpo_advantages(rewards, num_generations=6).tolist() == [0.0] * 12
    # Three scores averaged in two orders
    orders = torch.tensor([[(0.1 + 0.2 + 0.3) / 3], [(0.3 + 0.2 + 0.1) / 3]], dtype=torch.float64)
    assert cgdpo_advantages(orders.float(), num_generations=2).tolist() == [0.0, 0.0]


def test_sum_first_cannot_tell_a_hyperplane_apart():
    """Proposition 1: equal sums look the same to GRPO and not to c-GDPO."""
    rewards = torch.tensor([[0.9, 0.2, 0.1], [0.2, 0.2, 0.8], [0.4, 0.4, 0.4], [0.1, 0.9, 0.2]])
    assert grpo_advantages(rewards, num_generations=4).abs().max() < 1e-2
    assert cgdpo_advantages(rewards, num_generations=4).unique().numel() == 4


def test_shares_add_up_to_the_advantages():
    """Where the batch's mean is 0: groups of two. Unscored rows do not narrow the spread, and one
    completion alone has none."""
    rewards = torch.tensor([[0.2, 0.1], [0.8, 0.5], [0.3, 0.4], [0.7, 0.9]] + [[math.nan] * 2] * 4)
    weighted = group_normalize(rewards, num_generations=2)
    shares = advantage_shares(weighted, rewards).float()  # (B, K)
    torch.testing.assert_close(shares.sum(dim=1), cgdpo_advantages(rewards, num_generations=2))
    one = torch.zeros(1, 2)
    assert advantage_shares(one, torch.ones(1, 2)).tolist() == [[0.0, 0.0]]


def test_dead_groups():
    rewards = torch.tensor([[0.3, 0.1], [0.3, NAN], [NAN, 0.5], [NAN, 0.5 + 1e-3]])
    assert dead_groups(rewards, num_generations=2).tolist() == [[True, True], [True, False]]


def test_one_generation_is_no_group():
    assert cgdpo_advantages(torch.rand(4, 3), num_generations=1).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("rewards", "options", "message"),
    [
        ([[1.0]], {"num_generations": 1}, "must be a torch.Tensor of shape .*, got a list"),
        (torch.ones(6), {"num_generations": 2}, r"shape \(B, K\), got \(6,\)"),
        (
            torch.ones(6, 1),
            {"num_generations": 4},
            "6 rows, which is not a multiple of num_generations=4",
        ),
        (torch.tensor([[1.0], [math.inf]]), {"num_generations": 2}, "Reward 0 of row 1 is inf"),
        (
            torch.ones(2, 3),
            {"num_generations": 2, "reward_weights": [1.0, 1.0]},
            "reward_weights has 2 values for 3 rewards",
        ),
    ],
)
def test_errors_name_the_value(rewards, options, message):
    with pytest.raises(ValueError, match=message):
        cgdpo_advantages(rewards, **options)


scores = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 2 / 3, 1.0]), st.floats(0, 1))


@st.composite
def batches(draw):
    num_generations = draw(st.integers(2, 6))
    groups, rewards = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    size = groups * num_generations * rewards
    values = draw(st.lists(scores, min_size=size, max_size=size))
    tensor = torch.tensor([NAN if v is None else v for v in values], dtype=torch.float32)
    return tensor.view(-1, rewards), num_generations


@given(batches())
def test_always_finite_float32_and_centred(batch):
    rewards, num_generations = batch
    advantages = cgdpo_advantages(rewards, num_generations=num_generations)
    assert advantages.dtype == torch.float32
    assert advantages.shape == (len(rewards),)
    assert advantages.isfinite().all()
    scored = ~rewards.isnan().all(dim=1)
    if scored.any():
        assert advantages[scored].mean().abs() < 1e-4
    assert (advantages[~scored] == 0.0).all()


@given(batches(), st.lists(st.floats(0.1, 3.0), min_size=3, max_size=3))
def test_equals_trl_wherever_trl_is_defined(batch, weights):
    rewards, num_generations = batch
    rewards = rewards.double()  # TRL's arithmetic without its rounding
    weights = torch.tensor(weights[: rewards.shape[1]], dtype=torch.float64)
    # Spreads within float32 rounding are where the two differ on purpose.
    groups = rewards.view(-1, num_generations, rewards.shape[1])
    spread = groups.nan_to_num(-1).amax(1) - groups.nan_to_num(2).amin(1)
    live = ~dead_groups(rewards, num_generations=num_generations)
    assume(live.any() and (spread[live] >= 1e-3).all())
    torch.testing.assert_close(
        cgdpo_advantages(rewards, num_generations=num_generations, reward_weights=weights).double(),
        trl_normalize_then_sum(rewards, num_generations, weights),
        rtol=1e-5,
        atol=1e-6,
    )


@given(batches(), st.randoms(use_true_random=False))
def test_order_of_groups_and_of_rollouts_does_not_matter(batch, random):
    rewards, num_generations = batch
    groups = list(range(len(rewards) // num_generations))
    random.shuffle(groups)
    order = []
    for group in groups:
        rollouts = list(range(num_generations))
        random.shuffle(rollouts)
        order += [group * num_generations + rollout for rollout in rollouts]
    torch.testing.assert_close(
        cgdpo_advantages(rewards[order], num_generations=num_generations),
        cgdpo_advantages(rewards, num_generations=num_generations)[order],
        rtol=1e-5,
        atol=1e-5,
    )


@given(batches(), st.floats(0.5, 4.0), st.floats(-2.0, 2.0))
def test_units_of_a_reward_do_not_matter(batch, scale, shift):
    """r -> a r + b of any one reward changes nothing, up to eps, which is left out here."""
    rewards, num_generations = batch
    rewards = (rewards * 64).round() / 64  # spreads far above rounding
    changed = rewards.clone()
    changed[:, 0] = changed[:, 0] * round(scale * 4) / 4 + round(shift * 4) / 4
    torch.testing.assert_close(
        cgdpo_advantages(changed, num_generations=num_generations, eps=0.0),
        cgdpo_advantages(rewards, num_generations=num_generations, eps=0.0),
        rtol=1e-4,
        atol=1e-4,
    )


@given(batches())
def test_a_batch_is_its_groups_normalised_together(batch):
    """The group step knows nothing of other groups: batch against single."""
    rewards, num_generations = batch
    whole = group_normalize(rewards, num_generations=num_generations)
    single = [
        group_normalize(group, num_generations=num_generations)
        for group in rewards.split(num_generations)
    ]
    assert torch.equal(whole, torch.cat(single))

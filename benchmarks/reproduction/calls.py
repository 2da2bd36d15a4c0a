"""What the judge of an arm is asked in training, for the comparison at equal judge calls."""

from benchmarks.reproduction.arms import ARMS, Arm
from trl_balcap.judge.cost import estimate_calls_and_cost

__all__ = ["judge_calls"]

BALANCED = ("precision", "recall", "linguistic")


def judge_calls(name: str, steps: int, prompts: int, group: int) -> int:
    """
    Judge calls of an arm after some steps, as `trl-balcap plan` counts them: by the profile
    `questions`, without calls saved by equal captions or closed gates.

    Args:
        name (`str`): The arm.
        steps (`int`): Its steps.
        prompts (`int`): Scenes of a step.
        group (`int`): Captions of a scene.

    Example: four calls a caption and one a reference; without precision, one fewer.

    ```python
    >>> judge_calls("full", 1, prompts=4, group=8), judge_calls("no_precision", 1, 4, 8)
    (132, 100)
    >>> judge_calls("utility", 1, 4, 8), judge_calls("sft", 1, 4, 8)
    (256, 0)

    ```
    """
    arm = ARMS[name]
    if not arm.trained or arm.rewards is None:
        return 0
    return estimate_calls_and_cost(
        ["reference"],
        rollouts=steps * prompts * group,
        distinct_references=steps * prompts,
        rewards=_rewards(arm),
        group=group,
    ).calls


def _rewards(arm: Arm) -> list[str]:
    if arm.rewards != "balanced":
        return [str(arm.rewards)]
    return [name for name, weight in zip(BALANCED, arm.weights, strict=True) if weight]

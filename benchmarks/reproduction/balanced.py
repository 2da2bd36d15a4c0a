"""The paper's three rewards as used by the arms: exact or noisy, some of them missing."""

import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from benchmarks.reproduction.arms import NOISE, Arm
from trl_balcap.rewards import AgreedRecallReward, RewardHooks
from trl_balcap.scenes.grammar import Faults, faulty_caption
from trl_balcap.scenes.noise import Noise
from trl_balcap.scenes.oracle import Scores, answer, score
from trl_balcap.scenes.rules import decompose
from trl_balcap.scenes.world import Scene

__all__ = ["POOR", "balanced_rewards", "poor_reference"]

REWARDS = ("precision", "recall", "linguistic")
POOR = Faults(wrong=0.3, vague=0.2, omit=0.35, invent=0.25, meta=0.2)
"""The author of the poor references."""


def poor_reference(scene: Scene, rng: random.Random) -> str:
    """A faulty caption that is not empty."""
    while not (text := faulty_caption(scene, rng, POOR)):  # the gate needs a length to compare with
        pass
    return text


def balanced_rewards(arm: Arm, seed: int, scenes: Sequence[Scene]) -> list[Callable[..., Any]]:
    """The three reward functions of an arm, with the exact judge called as a plain function."""
    noise = NOISE[arm.noise] if arm.noise else None
    dice = random.Random(f"failures {seed}")

    @lru_cache(maxsize=4096)  # three functions ask about the same completions
    def judged(caption: str, reference: str, row: int, call: int) -> Scores:
        return score(
            caption, reference, scenes[row], pointable=arm.pointable, noise=noise, call=call
        )

    def reward(k: int, name: str) -> Callable[..., list[float | None]]:
        def rewards(completions, reference, row, trainer_state, **kwargs) -> list[float | None]:
            values = []
            for place, (completion, text, index) in enumerate(
                zip(completions, reference, row, strict=True)
            ):
                caption = completion[0]["content"]
                # Such a judge errs independently on each completion, even on identical ones.
                fresh = noise is not None and noise.every_call
                call = trainer_state.global_step * 1000 + place if fresh else 0
                value: float | None = judged(caption, text, index, call)[k]
                if value is not None:
                    value = None if math.isnan(value) else value * arm.scales[k]
                if arm.failures and dice.random() < arm.failures:
                    value = arm.failed_as
                values.append(value)
            return values

        rewards.__name__ = f"{name}_reward"
        return rewards

    rewards: list[Callable[..., Any]] = [reward(k, name) for k, name in enumerate(REWARDS)]
    if arm.recall == "agreed":
        rewards[1] = _agreed_recall(with_reference=arm.references == "base")
    if arm.judged:
        rewards[0] = _Asserting(rewards[0], scenes, noise)
    return [_InBackground(func) for func in rewards] if arm.lag else rewards


class _Asserting(RewardHooks):
    """The precision reward with its verdicts, as [`PrecisionReward`] keeps them."""

    sees = ("assertions",)

    def __init__(self, func: Callable[..., Any], scenes: Sequence[Scene], noise: Noise | None):
        self.func, self.scenes, self.noise = func, scenes, noise
        self.__name__ = func.__name__  # type: ignore[attr-defined]
        self.seen: list[dict[str, Any]] = []

    def __call__(self, completions, row, trainer_state, **columns: Any) -> Any:
        self.seen = []
        for place, (completion, index) in enumerate(zip(completions, row, strict=True)):
            texts = decompose(completion[0]["content"])
            numbered = [{"id": number, "text": text} for number, text in enumerate(texts, 1)]
            question = {"question": "verify", "assertions": numbered}
            reply = answer(question, self.scenes[index])
            if self.noise is not None:
                call = trainer_state.global_step * 1000 + place if self.noise.every_call else 0
                reply = self.noise.spoil(question, reply, self.scenes[index], call)
            verdicts = zip(texts, reply["verdicts"], strict=True)
            self.seen.append({"assertions": [{**one, "text": text} for text, one in verdicts]})
        return self.func(completions, row=row, trainer_state=trainer_state, **columns)

    def observations(self) -> list[dict[str, Any]]:
        return self.seen


class _InBackground(RewardHooks):
    """A reward that the trainer treats as judging in the background, as `judge_lag` requires."""

    def __init__(self, func: Callable[..., Any]):
        self.func, self.__name__ = func, func.__name__  # type: ignore[attr-defined]

    def __call__(self, **columns: Any) -> Any:
        return self.func(**columns)


def _agreed_recall(*, with_reference: bool) -> Callable[..., Any]:
    """Recall of what most rollouts agree on: the actual reward, with the exact judge."""
    reward = AgreedRecallReward("scenes/oracle")

    async def recall_reward(
        prompts: list[Any], completions: list[Any], image: list[Any], **columns: Any
    ) -> list[float | None]:
        given = {"reference": columns["reference"]} if with_reference else {}
        return await reward(prompts, completions, image=image, **given)

    return recall_reward

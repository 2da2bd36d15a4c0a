"""Other published rewards and the supervised baseline, as used by the arms.

Each reward is that of its class in [`trl_balcap.rewards`], used alone, with the exact judge called
as a plain function. Arms are not measured on what they were trained on: the questions are about
other scenes, and the arena and b-CapScore use no rubrics or ranks.
"""

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset, Image
from trl import SFTConfig, SFTTrainer

from trl_balcap.rewards.feedquill import feedquill_score
from trl_balcap.rewards.group import rank_scores
from trl_balcap.rewards.rubric import rubric_score
from trl_balcap.rewards.utility import utility_score
from trl_balcap.scenes.answers import asked_about, chosen, criteria_met, criteria_of, places
from trl_balcap.scenes.captioner import PROMPT
from trl_balcap.scenes.grammar import Faults, faulty_caption, reference
from trl_balcap.scenes.rules import decompose, verdict
from trl_balcap.scenes.world import Scene, draw

__all__ = ["FIELD", "field_rewards", "fine_tune", "quiet_arguments"]

RewardFunction = Callable[..., list[float | None]]

COMMITTEE = (
    Faults(wrong=0.08),
    Faults(wrong=0.05, omit=0.2, short=0.7),
    Faults(wrong=0.3, vague=0.2, omit=0.35, invent=0.25, meta=0.2),
)
"""The authors of the references behind the rubrics: one careful, one terse and one poor."""
FULL_COUNT = {"small": 10, "rich": 40}
"""Number of assertions above which FEEDQUILL's count stops growing: twice what a reference has."""


def field_rewards(name: str, scenes: Sequence[Scene]) -> list[RewardFunction]:
    """
    The reward function of an arm that trains with one published reward.

    Args:
        name (`str`): `"feedquill"`, `"utility"`, `"rubric"` or `"group"`.
        scenes (`Sequence[Scene]`): The scene of each row of the training data.
    """
    score = FIELD[name]

    def rewards(completions, row, **kwargs) -> list[float | None]:
        captions = [completion[0]["content"] for completion in completions]
        groups: dict[int, list[str]] = {}
        for caption, index in zip(captions, row, strict=True):
            groups.setdefault(index, []).append(caption)
        scores = {index: iter(score(group, scenes[index])) for index, group in groups.items()}
        return [next(scores[index]) for index in row]

    rewards.__name__ = f"{name}_reward"
    return [rewards]


def _feedquill(captions: Sequence[str], scene: Scene) -> list[float | None]:
    correct = [[verdict(said, scene)[0] for said in decompose(caption)] for caption in captions]
    return [feedquill_score(one, full_count=FULL_COUNT[scene.richness]) for one in correct]


def _utility(captions: Sequence[str], scene: Scene) -> list[float | None]:
    questions = asked_about(scene, 9)
    answers = [one["answer"] for one in questions]
    return [
        utility_score(
            [chosen(one["question"], one["choices"], caption) for one in questions], answers
        )
        for caption in captions
    ]


@lru_cache(maxsize=1024)
def _criteria(scene: Scene) -> list[dict[str, Any]]:
    dice = random.Random(repr(scene))
    return criteria_of([faulty_caption(scene, dice, faults) for faults in COMMITTEE], scene)


def _rubric(captions: Sequence[str], scene: Scene) -> list[float | None]:
    criteria = _criteria(scene)
    texts, weights = [c["text"] for c in criteria], [c["weight"] for c in criteria]
    return [rubric_score(criteria_met(caption, texts), weights) for caption in captions]


def _group(captions: Sequence[str], scene: Scene) -> list[float | None]:
    return rank_scores(places(captions, scene))


FIELD: dict[str, Callable[[Sequence[str], Scene], list[float | None]]] = {
    "feedquill": _feedquill,
    "utility": _utility,
    "rubric": _rubric,
    "group": _group,
}
"""Functions that score the captions of one scene, by name of the reward."""


def quiet_arguments(seed: int) -> dict[str, Any]:
    """What every arm's training has in common, SFT or RL: no logs, no checkpoints, one schedule."""
    return {
        "seed": seed,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_strategy": "no",
        "save_strategy": "no",
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 3,
    }


def fine_tune(
    model: Any, processor: Any, scenes: Sequence[Scene], *, seed: int, batch: int, rate: float
) -> None:
    """
    Fine-tune a captioner on perfect references, each scene once: the data of RL without rewards.

    Args:
        model, processor: The captioner; changed in place.
        scenes (`Sequence[Scene]`): The scenes.
        seed (`int`): Seed of the order of the scenes and of the wording of the references.
        batch (`int`): Scenes per step.
        rate (`float`): Learning rate.
    """
    dice = random.Random(seed)
    answers = [[{"role": "assistant", "content": reference(scene, dice)}] for scene in scenes]
    dataset = Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": PROMPT}]] * len(scenes),
            "image": [draw(scene) for scene in scenes],
            "completion": answers,
        }
    ).cast_column("image", Image())
    with TemporaryDirectory() as folder:
        config = SFTConfig(
            folder,
            **quiet_arguments(seed),
            max_length=None,
            num_train_epochs=1,
            learning_rate=rate,
            per_device_train_batch_size=batch,
        )
        SFTTrainer(model, config, train_dataset=dataset, processing_class=processor).train()

"""A TRL plugin to train image captioners with reinforcement learning and balanced judge rewards."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trl_balcap.advantages import cgdpo_advantages as cgdpo_advantages
    from trl_balcap.advantages import grpo_advantages as grpo_advantages
    from trl_balcap.config import BalCapConfig as BalCapConfig
    from trl_balcap.data import load_captions as load_captions
    from trl_balcap.gating import gate_reward as gate_reward
    from trl_balcap.gating import length_gate as length_gate
    from trl_balcap.gating import linear_length_penalty as linear_length_penalty
    from trl_balcap.judge import Judge as Judge
    from trl_balcap.metrics import b_capscore as b_capscore
    from trl_balcap.rewards import FeedQuillReward as FeedQuillReward
    from trl_balcap.rewards import GroupReward as GroupReward
    from trl_balcap.rewards import JudgeReward as JudgeReward
    from trl_balcap.rewards import LinguisticReward as LinguisticReward
    from trl_balcap.rewards import PrecisionReward as PrecisionReward
    from trl_balcap.rewards import RecallReward as RecallReward
    from trl_balcap.rewards import RubricReward as RubricReward
    from trl_balcap.rewards import UtilityReward as UtilityReward
    from trl_balcap.trainer import BalCapTrainer as BalCapTrainer

__all__ = [
    "BalCapConfig",
    "BalCapTrainer",
    "FeedQuillReward",
    "GroupReward",
    "Judge",
    "JudgeReward",
    "LinguisticReward",
    "PrecisionReward",
    "RecallReward",
    "RubricReward",
    "UtilityReward",
    "b_capscore",
    "cgdpo_advantages",
    "gate_reward",
    "grpo_advantages",
    "length_gate",
    "linear_length_penalty",
    "load_captions",
]

__version__ = "0.1.0"

# Imported on first use: the judge needs no TRL, the trainer no litellm, the CLI neither of them.
_LAZY = {
    "BalCapConfig": "config",
    "BalCapTrainer": "trainer",
    "FeedQuillReward": "rewards",
    "GroupReward": "rewards",
    "RubricReward": "rewards",
    "UtilityReward": "rewards",
    "Judge": "judge",
    "JudgeReward": "rewards",
    "LinguisticReward": "rewards",
    "PrecisionReward": "rewards",
    "RecallReward": "rewards",
    "b_capscore": "metrics",
    "cgdpo_advantages": "advantages",
    "gate_reward": "gating",
    "grpo_advantages": "advantages",
    "length_gate": "gating",
    "linear_length_penalty": "gating",
    "load_captions": "data",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'trl_balcap' has no attribute {name!r}")
    return getattr(import_module(f"trl_balcap.{_LAZY[name]}"), name)

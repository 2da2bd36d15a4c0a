"""Judge rewards as plain TRL reward functions: async, picklable, `None` if the judge fails."""

from trl_balcap.rewards.agreed import AgreedRecallReward as AgreedRecallReward
from trl_balcap.rewards.balanced import LinguisticReward as LinguisticReward
from trl_balcap.rewards.balanced import PrecisionReward as PrecisionReward
from trl_balcap.rewards.balanced import RecallReward as RecallReward
from trl_balcap.rewards.balanced import linguistic_reward as linguistic_reward
from trl_balcap.rewards.balanced import precision_reward as precision_reward
from trl_balcap.rewards.balanced import recall_reward as recall_reward
from trl_balcap.rewards.base import JudgeReward as JudgeReward
from trl_balcap.rewards.feedquill import FeedQuillReward as FeedQuillReward
from trl_balcap.rewards.group import GroupReward as GroupReward
from trl_balcap.rewards.hooks import JudgingReport as JudgingReport
from trl_balcap.rewards.hooks import RewardHooks as RewardHooks
from trl_balcap.rewards.row import Row as Row
from trl_balcap.rewards.row import RowError as RowError
from trl_balcap.rewards.rubric import RubricReward as RubricReward
from trl_balcap.rewards.utility import UtilityReward as UtilityReward

__all__ = [
    "AgreedRecallReward",
    "FeedQuillReward",
    "GroupReward",
    "JudgeReward",
    "JudgingReport",
    "LinguisticReward",
    "PrecisionReward",
    "RecallReward",
    "RewardHooks",
    "Row",
    "RowError",
    "RubricReward",
    "UtilityReward",
    "linguistic_reward",
    "precision_reward",
    "recall_reward",
]

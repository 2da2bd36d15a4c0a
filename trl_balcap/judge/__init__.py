"""The judge: asks models about captions. Only this package calls litellm."""

from trl_balcap.judge.errors import INFRASTRUCTURE_REASONS as INFRASTRUCTURE_REASONS
from trl_balcap.judge.errors import REASONS as REASONS
from trl_balcap.judge.errors import JudgeConfigError as JudgeConfigError
from trl_balcap.judge.errors import JudgeError as JudgeError
from trl_balcap.judge.judge import Judge as Judge
from trl_balcap.judge.replies import Linguistic as Linguistic
from trl_balcap.judge.replies import Verification as Verification

__all__ = [
    "INFRASTRUCTURE_REASONS",
    "REASONS",
    "Judge",
    "JudgeConfigError",
    "JudgeError",
    "Linguistic",
    "Verification",
]

"""One question to one model: the only room that talks to litellm."""

from .errors import REASONS as REASONS
from .errors import JudgeConfigError as JudgeConfigError
from .errors import JudgeError as JudgeError
from .judge import Judge as Judge
from .replies import Linguistic as Linguistic
from .replies import Verification as Verification

__all__ = [
    "REASONS",
    "Judge",
    "JudgeConfigError",
    "JudgeError",
    "Linguistic",
    "Verification",
]

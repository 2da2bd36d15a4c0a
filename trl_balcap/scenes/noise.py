"""A judge that makes mistakes: the exact judge's replies with errors of known kind and rate."""

import json
import random
from dataclasses import dataclass
from typing import Any

from trl_balcap.scenes.world import Scene

__all__ = ["LOOKING", "VERDICTS", "Noise"]

LOOKING = ("verify", "look", "ask", "quiz", "rubric", "rank")  # questions about the image
VERDICTS = ("correct", "pointable", "covered", "met", "choice")


@dataclass(frozen=True)
class Noise:
    r"""
    Errors of a noisy judge, determined by the seed, the question and the call.

    Args:
        linguistic (`float`, *optional*, defaults to `0.0`):
            Standard deviation of the normal noise added to each of clarity, fluency and coherency,
            in points from 0 to 10; the result is clipped to that range. The mean of the three has a
            standard deviation of `linguistic` / $\sqrt{3}$.
        flip (`float`, *optional*, defaults to `0.0`):
            Probability that a `correct`, `pointable`, `covered` or `met` is inverted, or that a
            `choice` is drawn at random from the options.
        turned (`tuple[str, ...]`, *optional*, defaults to all of these):
            Which of these verdicts `flip` affects.
        every_call (`bool`, *optional*, defaults to `False`):
            Whether [`Oracle`] draws new errors on every call. `False`: the same question always
            gets the same reply, as from a judge at temperature 0.
        seed (`int`, *optional*, defaults to `0`):
            Seed for the errors.

    Raises:
        `ValueError`: for a negative `linguistic`, a `flip` not between 0 and 1, or an unknown
            verdict.

    Example:

    ```python
    >>> from trl_balcap.scenes.noise import Noise

    >>> question = {"question": "cover", "assertions": [], "units": [{"id": 1, "text": "A dog."}]}
    >>> Noise(flip=1.0).spoil(question, {"verdicts": [{"id": 1, "covered": False}]})
    {'verdicts': [{'id': 1, 'covered': True}]}

    ```
    """

    linguistic: float = 0.0
    flip: float = 0.0
    turned: tuple[str, ...] = VERDICTS
    every_call: bool = False
    seed: int = 0

    def __post_init__(self):
        if self.linguistic < 0:
            raise ValueError(f"linguistic is a standard deviation >= 0, got {self.linguistic}.")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip must be a probability between 0 and 1, got {self.flip}.")
        if not set(self.turned) <= set(VERDICTS):
            raise ValueError(f"turned are verdicts among {VERDICTS}, got {self.turned}.")

    def spoil(
        self,
        question: dict[str, Any],
        reply: dict[str, Any],
        scene: Scene | None = None,
        call: int = 0,
    ) -> dict[str, Any]:
        """
        The reply with this judge's errors; `reply` itself is not changed.

        Args:
            question (`dict`): What was asked.
            reply (`dict`): The exact answer.
            scene ([`Scene`], *optional*): What was seen, for the questions in `LOOKING`.
            call (`int`, *optional*, defaults to `0`): A different number gives different errors.
        """
        if not self.linguistic and not self.flip:
            return reply
        seen = scene if question["question"] in LOOKING else None
        asked = {key: value for key, value in question.items() if key != "ticket"}
        dice = random.Random(f"{self.seed}:{call}:{json.dumps(asked)}:{seen}")
        spoilt = dict(reply)
        for key in ("clarity", "fluency", "coherency"):
            if key in reply:
                spoilt[key] = min(10.0, max(0.0, reply[key] + dice.gauss(0, self.linguistic)))
        if "verdicts" in reply:
            spoilt["verdicts"] = [self._flipped(verdict, dice) for verdict in reply["verdicts"]]
        if "choice" in reply and "choice" in self.turned and dice.random() < self.flip:
            spoilt["choice"] = dice.randint(1, len(question["options"]))
        return spoilt

    def _flipped(self, verdict: dict[str, Any], dice: random.Random) -> dict[str, Any]:
        return {
            key: not value if key in self.turned and dice.random() < self.flip else value
            for key, value in verdict.items()
        }

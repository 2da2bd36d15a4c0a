"""A judge that makes mistakes: the exact judge's replies with errors of known kind and rate.

Besides errors at random, it can have the weaknesses of real judges: it likes long captions, lets
hedged claims pass, sees small things badly, and fails more often on longer texts.
"""

import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trl_balcap.scenes.lexicon import WORDS, is_hedged
from trl_balcap.scenes.world import Scene

__all__ = ["LOOKING", "VERDICTS", "Noise"]

LOOKING = ("verify", "look", "ask", "quiz", "rubric", "rank")  # questions about the image
VERDICTS = ("correct", "pointable", "covered", "met", "choice")
_SMALL = frozenset(WORDS["size"]["small"])


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
            Which of these verdicts `flip` and `small_flip` affect.
        long_bonus (`float`, *optional*, defaults to `0.0`):
            Points added to each grade per 100 words of the caption, before clipping.
        lenience (`float`, *optional*, defaults to `0.0`):
            Probability that a hedged claim ("Perhaps ...", "It seems that ...") that is wrong
            passes as correct.
        small_flip (`float`, *optional*, defaults to `0.0`):
            Added to `flip` for a sentence that speaks of something small.
        failures (`float`, *optional*, defaults to `0.0`):
            Probability per 100 words of the question's texts that no usable reply comes.
        every_call (`bool`, *optional*, defaults to `False`):
            Whether [`Oracle`] draws new errors on every call. `False`: the same question always
            gets the same reply, as from a judge at temperature 0.
        seed (`int`, *optional*, defaults to `0`):
            Seed for the errors.

    Raises:
        `ValueError`: for a negative `linguistic`, `long_bonus` or `failures`, a `flip`, `lenience`
            or sum of `flip` and `small_flip` not between 0 and 1, or an unknown verdict.

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
    long_bonus: float = 0.0
    lenience: float = 0.0
    small_flip: float = 0.0
    failures: float = 0.0

    def __post_init__(self):
        if self.linguistic < 0:
            raise ValueError(f"linguistic is a standard deviation >= 0, got {self.linguistic}.")
        for name in ("long_bonus", "failures"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        for name in ("flip", "lenience", "small_flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} must be a probability between 0 and 1, got {getattr(self, name)}."
                )
        if self.flip + self.small_flip > 1:
            raise ValueError(
                f"flip + small_flip is the chance of an error on small things, so at most 1, got "
                f"{self.flip} + {self.small_flip}."
            )
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
        if not (
            self.linguistic or self.flip or self.long_bonus or self.lenience or self.small_flip
        ):
            return reply
        dice = self._dice(question, scene, call)
        spoilt = dict(reply)
        for key in ("clarity", "fluency", "coherency"):
            if key in reply:
                bonus = self.long_bonus * _words([question["text"]]) / 100 if self.long_bonus else 0
                grade = reply[key] + bonus + dice.gauss(0, self.linguistic)
                spoilt[key] = min(10.0, max(0.0, grade))
        if "verdicts" in reply:
            texts = _judged_texts(question, reply)
            spoilt["verdicts"] = [
                self._flipped(verdict, texts.get(verdict["id"], ""), dice)
                for verdict in reply["verdicts"]
            ]
        if "choice" in reply and "choice" in self.turned and dice.random() < self.flip:
            spoilt["choice"] = dice.randint(1, len(question["options"]))
        return spoilt

    def fails(self, question: dict[str, Any], scene: Scene | None = None, call: int = 0) -> bool:
        """
        Whether no usable reply comes to a question.

        Args:
            question (`dict`), scene ([`Scene`], *optional*), call (`int`, *optional*): As for
                [`spoil`].

        Example:

        ```python
        >>> question = {"question": "linguistic", "text": "a dog " * 50}  # 100 words
        >>> Noise(failures=1.0).fails(question), Noise().fails(question)
        (True, False)

        ```
        """
        if not self.failures:
            return False
        texts = [question["text"]] if "text" in question else []
        for key in ("assertions", "units", "criteria"):
            texts += [entry["text"] for entry in question.get(key, ())]
        dice = self._dice(question, scene, call, "fails:")
        return dice.random() < self.failures * _words(texts) / 100

    def _dice(
        self, question: dict[str, Any], scene: Scene | None, call: int, purpose: str = ""
    ) -> random.Random:
        seen = scene if question["question"] in LOOKING else None
        asked = {key: value for key, value in question.items() if key != "ticket"}
        return random.Random(f"{purpose}{self.seed}:{call}:{json.dumps(asked)}:{seen}")

    def _flipped(self, verdict: dict[str, Any], text: str, dice: random.Random) -> dict[str, Any]:
        small = self.small_flip and not _SMALL.isdisjoint(re.findall(r"[a-z]+", text.lower()))
        flip = self.flip + (self.small_flip if small else 0.0)
        spoilt = {
            key: not value if key in self.turned and dice.random() < flip else value
            for key, value in verdict.items()
        }
        wrong = spoilt.get("correct") is False
        if wrong and self.lenience and is_hedged(text) and dice.random() < self.lenience:
            spoilt["correct"] = True
        return spoilt


def _words(texts: Iterable[str]) -> int:
    return sum(len(text.split()) for text in texts)


def _judged_texts(question: dict[str, Any], reply: dict[str, Any]) -> dict[Any, str]:
    """The text on which each verdict is passed, by its id."""
    if "assertions" in reply:
        return dict(enumerate(reply["assertions"], start=1))
    for key in ("units", "criteria", "assertions"):  # `cover` has assertions besides its units
        if key in question:
            return {entry["id"]: entry["text"] for entry in question[key]}
    return {}

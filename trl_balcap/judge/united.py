"""Verifies the assertions of all rollouts of an image together, and skips those already verified.

The assertions of all rows of an image are merged: duplicates are removed, the order depends only on
their text, and each question has at most `MOST` of them. Each question also contains a few
canaries: statements known to be true or false. A judge that gets one wrong did not look at the
image, or was misled by what one caption says about the others. Its verdicts for that question are
discarded, and each caption that needs one of them is verified on its own, as it would be without
merging. Verdicts that pass are remembered by image and assertion.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from trl_balcap.judge import questions
from trl_balcap.judge.deadline import seconds_left
from trl_balcap.judge.errors import JudgeError
from trl_balcap.judge.gathering import Shown, seat_of
from trl_balcap.judge.memory import VerdictMemory
from trl_balcap.judge.questions import Question, json_text
from trl_balcap.judge.replies import Verification
from trl_balcap.judge.single_flight import SingleFlight
from trl_balcap.judge.stats import JudgeStats

__all__ = ["CANARIES", "MOST", "United", "canaries"]

logger = logging.getLogger(__name__)

MOST = 40  # assertions per question, not counting canaries
CANARIES = 4  # per question, in addition to the assertions
_MANY = 16  # rejected questions before we warn, if they are the majority
LONGEST = 500  # characters; a longer assertion makes more than one claim

# Failures that may be caused by the question itself, so another question may succeed.
_OF_THE_QUESTION = ("refused", "unreadable", "truncated")

Ask = Callable[[Question[tuple[Verification, ...]]], Awaitable[tuple[Verification, ...]]]
Found = dict[str, Verification | JudgeError]


class United:
    """Verifies the assertions of a batch's captions, together for each image.

    Args:
        ask (`Callable`):
            Sends a question to the judge.
        encode (`Callable`):
            Encodes an image as it is sent to the judge.
        memory ([`VerdictMemory`]):
            Verdicts by image and assertion.
        stats ([`JudgeStats`]):
            Counts the canaries.
        deadline (`float`):
            Time limit for a batch, in seconds.
    """

    def __init__(
        self,
        *,
        ask: Ask,
        encode: Callable[[Any], Awaitable[Shown]],
        memory: VerdictMemory,
        stats: JudgeStats,
        deadline: float,
    ):
        self._ask = ask
        self._encode = encode
        self._memory = memory
        self._stats = stats
        self._deadline = deadline
        self._pieces = self._rejected = 0
        self._together = SingleFlight(JudgeStats(), memo_size=0)

    async def verify(self, image: Any, assertions: Sequence[str]) -> tuple[Verification, ...]:
        """Whether each of a caption's assertions is correct and pointable, in order.

        Within a batch, this waits for the other rows of the image.

        Raises:
            `JudgeError`: if the judge does not give a readable answer.
        """
        seat = seat_of(image)
        images = await (self._encode(image) if seat is None else asyncio.shield(seat.encoded))
        alone = questions.verify(images, assertions)
        if max(map(len, assertions)) > LONGEST:
            if seat is not None:
                seat.leave()
            return await self._ask(alone)
        together: list[Sequence[str]] = [assertions]
        if seat is not None:
            together = await seat.bring(assertions, seconds_left(self._deadline) / 2)
        texts = sorted({_normal(text) for brought in together for text in brought})

        async def fly() -> Found:
            return await self._verdicts(images, texts)

        found: Found = await self._together.result(_digest(images, texts), fly)
        mine = [found.get(_normal(text)) for text in assertions]
        for verdict in mine:
            if isinstance(verdict, JudgeError):
                raise verdict
        if None in mine:
            return await self._ask(alone)
        return tuple(mine)  # type: ignore[arg-type]

    async def _verdicts(self, images: Shown, texts: Sequence[str]) -> Found:
        """Verdicts by text, without those of rejected questions."""
        found: Found = dict(await self._memory.recall(images, texts))
        fresh = [text for text in texts if text not in found]
        dice = random.Random(_digest(images, fresh))
        dice.shuffle(fresh)
        count = -(-len(fresh) // MOST)  # ceiling
        pieces = [self._piece(images, fresh[i::count], dice) for i in range(count)]
        for answer in await asyncio.gather(*pieces):
            found |= answer
        return found

    def _piece(
        self, images: Shown, texts: Sequence[str], dice: random.Random
    ) -> Coroutine[Any, Any, Found]:
        planted = canaries(dice)
        asked = list(dict.fromkeys([*texts, *planted]))  # a caption may contain a canary
        dice.shuffle(asked)
        return self._asked(images, texts, planted, asked)

    async def _asked(
        self,
        images: Shown,
        texts: Sequence[str],
        planted: Mapping[str, bool],
        asked: Sequence[str],
    ) -> Found:
        try:
            verdicts = await self._ask(questions.verify(images, asked))
        except JudgeError as error:
            # A single caption may make the judge fail; it must not affect the others.
            return {} if error.reason in _OF_THE_QUESTION else dict.fromkeys(texts, error)
        given = dict(zip(asked, verdicts, strict=True))
        right = sum(given[text].correct == truth for text, truth in planted.items())
        self._stats.canaries += len(planted)
        self._stats.canaries_right += right
        self._pieces += 1
        if right < len(planted):
            self._reject()
            return {}
        passed = {text: given[text] for text in texts}
        await self._memory.remember(images, passed)
        return dict(passed)

    def _reject(self) -> None:
        self._rejected += 1
        if self._rejected == _MANY and 2 * self._rejected > self._pieces:
            logger.warning(
                "The judge was wrong about statements of known truth in %d of %d united questions, "
                "which were then asked caption by caption: profile='questions' costs less with it.",
                self._rejected,
                self._pieces,
            )


def canaries(dice: random.Random) -> dict[str, bool]:
    """Statements that are true, or false, of any image.

    Two are false and two are true, so a judge that gives the same answer to everything gets two
    wrong. One is drawn from a large pool, so that a caption cannot single it out.

    ```python
    >>> for statement, truth in canaries(random.Random(0)).items():
    ...     print(truth, statement)
    False The image is blank.
    False A neon green tapir is playing a cello made of honeycomb.
    True There is something to see in the image.
    True The image is not blank.

    ```
    """
    colour, animal, action, material = map(dice.choice, _ABSURD)
    absurd = f"A {colour} {animal} is {action} made of {material}."
    return {BLANK: False, absurd: False} | dict.fromkeys(dice.sample(TRUISMS, 2), True)


BLANK = "The image is blank."
TRUISMS = (
    "Something can be seen in the image.",
    "The image is not blank.",
    "The image shows at least one thing.",
    "There is something to see in the image.",
)
_ABSURD = (
    ("purple", "turquoise", "striped", "golden", "lilac", "checkered", "neon green", "crimson"),
    ("walrus", "giraffe", "rhinoceros", "octopus", "camel", "penguin", "tapir", "sloth"),
    ("playing a cello", "riding a unicycle", "ironing a kilt", "juggling teapots", "tuning a harp"),
    ("ice", "chocolate", "moss", "newspaper", "honeycomb", "marzipan", "lava", "velvet"),
)


def _normal(text: str) -> str:
    """Normalize whitespace only: changing the case could make an assertion false."""
    return " ".join(text.split())


def _digest(images: Shown, texts: Sequence[str]) -> str:
    parts = [*(image.digest for image in images), *texts]
    return hashlib.sha256(json_text({"parts": parts}).encode()).hexdigest()

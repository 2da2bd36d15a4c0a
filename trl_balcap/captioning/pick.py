"""Picks the best of several captions of one image, without a reference."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from trl_balcap.data.completions import is_empty
from trl_balcap.judge import Judge, JudgeError
from trl_balcap.metrics import b_capscore, linguistic_score, precision_score

__all__ = ["Pick", "Picked", "pick_best"]

T = TypeVar("T")
Pick = Literal["b-capscore-free", "precision"]


@dataclass(frozen=True)
class Picked:
    """
    The picked caption, and why.

    Args:
        place (`int`):
            Its index among the captions.
        score (`float`):
            The score it was picked by.
        precision, linguistic (`float`):
            As [`~metrics.precision_score`] and [`~metrics.linguistic_score`], 0 to 1.
        agreement (`float` or `None`):
            Share of the agreed units that it covers; `None` if that was not asked.
    """

    place: int
    score: float
    precision: float
    linguistic: float
    agreement: float | None


async def pick_best(
    judge: Judge, images: Any, captions: Sequence[str], by: Pick = "b-capscore-free"
) -> Picked:
    """
    Pick the best of N captions of an image without a reference. Captions that cannot be judged are
    left out.

    `"b-capscore-free"` is the harmonic mean of precision, the linguistic score, and the share of
    *agreed units* that a caption covers: assertions of any of the N that are correct and pointable,
    and that more than half of the N cover. It takes the place of b-CapScore's recall. `"precision"`
    is the mean of the first two, and saves the N (N - 1) questions about coverage.

    Args:
        judge ([`~judge.Judge`]):
            The judge, whose vision model sees the image.
        images (`PIL.Image.Image`, path or list):
            The image, or the images that share a caption.
        captions (`Sequence[str]`):
            The N captions.
        by (`str`, *optional*, defaults to `"b-capscore-free"`):
            `"b-capscore-free"` or `"precision"`.

    Returns:
        [`Picked`]: the first of the best captions.

    Raises:
        [`~judge.JudgeError`]: if no caption could be judged, with the first one's error, or if the
            budget is spent; or if fewer than half of them could be compared.
    """
    judged = await _each(_judged(judge, images, text) for text in captions)
    sound = {place: one for place, one in enumerate(judged) if not isinstance(one, JudgeError)}
    if not sound:
        raise next(one for one in judged if isinstance(one, JudgeError))
    agreement: dict[int, float | None] = dict.fromkeys(sound)
    if by == "b-capscore-free":
        agreement = await _agreement(judge, sound)
    best: Picked | None = None
    for place, agreed in agreement.items():
        one = sound[place]
        # A single sound caption agrees with itself; a group that agrees on nothing has no units.
        score = b_capscore(one.precision, 1.0 if agreed is None else agreed, one.linguistic)
        if by == "precision":
            score = (one.precision + one.linguistic) / 2
        if best is None or (score or 0.0) > best.score:
            best = Picked(place, score or 0.0, one.precision, one.linguistic, agreed)
    assert best is not None
    return best


@dataclass(frozen=True)
class _Judged:
    assertions: list[str]
    sound: list[str]  # of the assertions, those that are correct and pointable
    precision: float
    linguistic: float


async def _each(questions: Iterable[Awaitable[T]]) -> list[T | JudgeError]:
    """Each answer, or the judge's failure; once the budget is spent, none of them counts."""
    answers = await asyncio.gather(*questions, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and (
            not isinstance(answer, JudgeError) or answer.reason == "over_budget"
        ):
            raise answer
    return answers  # type: ignore[return-value] (no other exceptions are left)


async def _judged(judge: Judge, images: Any, text: str) -> _Judged:
    if is_empty(text):
        return _Judged([], [], 0.0, 0.0)
    assertions, grades = await asyncio.gather(judge.decompose(text), judge.linguistic(text))
    verdicts = await judge.verify(images, assertions)
    sound = [
        assertion
        for assertion, verdict in zip(assertions, verdicts, strict=True)
        if verdict.correct and verdict.pointable
    ]
    return _Judged(assertions, sound, precision_score(verdicts), linguistic_score(*grades))


async def _agreement(judge: Judge, sound: dict[int, _Judged]) -> dict[int, float | None]:
    """
    Share of the agreed units that each caption covers. Captions are left out, beginning with the
    one in most of the failed questions, until no such question is left.

    Raises:
        [`~judge.JudgeError`]: if all questions failed, or fewer than half of the captions are left.
    """
    asked = [(i, j) for i in sound for j in sound if i != j and sound[j].sound]
    answers = await _each(judge.cover(sound[i].assertions, sound[j].sound) for i, j in asked)
    covers, errors = {}, {}
    for pair, answer in zip(asked, answers, strict=True):
        if isinstance(answer, JudgeError):
            errors[pair] = answer
        else:
            covers[pair] = answer
    places, failed = list(sound), list(errors)
    while failed:
        worst = max(places, key=lambda place: sum(place in pair for pair in failed))
        places.remove(worst)
        failed = [pair for pair in failed if worst not in pair]
    if errors and (not covers or 2 * len(places) < len(sound)):
        raise next(iter(errors.values()))
    if len(places) == 1:
        return {places[0]: None}  # it agrees with itself, which says nothing
    shares: dict[int, list[bool]] = {place: [] for place in places}
    for j in places:
        for unit in range(len(sound[j].sound)):
            by = {i: i == j or covers[i, j][unit] for i in places}
            if sum(by.values()) * 2 > len(places):
                for place in places:
                    shares[place].append(by[place])
    return {p: sum(hits) / len(hits) if hits else None for p, hits in shares.items()}

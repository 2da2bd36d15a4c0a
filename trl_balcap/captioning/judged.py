"""Judges reference captions: which units are wrong or cannot be pointed at."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from trl_balcap.captioning.listing import ImageRow
from trl_balcap.captioning.window import opened
from trl_balcap.data.completions import is_empty
from trl_balcap.data.images import DEFAULT_MAX_PIXELS
from trl_balcap.judge import Judge, JudgeError

__all__ = ["JudgedReference", "judge_references", "split_references", "unit_share"]

_WINDOW = 512  # images at a time


@dataclass(frozen=True)
class JudgedReference:
    """
    A reference's units with the judge's verdicts.

    Args:
        units (`Mapping[str, str]`, *optional*):
            Each unit with "sound", "wrong" or "not pointable" (correct, but naming nothing that
            can be pointed at).
        problem (`str`, *optional*):
            Why there are no verdicts; `None` if there are.
    """

    units: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None

    @property
    def unsound(self) -> float:
        """Share of the units that are wrong or not pointable; 0.0 if there are none."""
        return sum(said != "sound" for said in self.units.values()) / max(1, len(self.units))


async def judge_references(
    rows: Sequence[ImageRow], judge: Judge, *, on_row: Callable[[], None] | None = None
) -> list[JudgedReference]:
    """
    Split each reference into units and let the judge check them against the image.

    Args:
        rows (`Sequence[ImageRow]`):
            Images with their references.
        judge ([`~judge.Judge`]):
            The judge, which is asked two questions per row.
        on_row (`Callable`, *optional*):
            Called after each row.

    Returns:
        `list[JudgedReference]`: in the order of the rows. A row's failure is its `problem`.
    """
    window = asyncio.Semaphore(_WINDOW)

    async def one(row: ImageRow) -> JudgedReference:
        async with window:
            try:
                return await _judged(row, judge)
            except JudgeError as error:
                return JudgedReference(problem=str(error))
            finally:
                if on_row is not None:
                    on_row()

    return list(await asyncio.gather(*map(one, rows)))


async def _judged(row: ImageRow, judge: Judge) -> JudgedReference:
    if row.reference is None or is_empty(row.reference):
        return JudgedReference(problem="the reference is empty")
    images = await opened(row, DEFAULT_MAX_PIXELS)
    if isinstance(images, str):
        return JudgedReference(problem=images)
    units = await judge.decompose(row.reference)
    verdicts = await judge.verify(images, units)
    said = {}
    for unit, verdict in zip(units, verdicts, strict=True):
        said[unit] = "wrong"
        if verdict.correct:
            said[unit] = "sound" if verdict.pointable else "not pointable"
    return JudgedReference(said)


async def split_references(
    references: Sequence[str], judge: Judge, *, on_reference: Callable[[], None] | None = None
) -> Counter[str]:
    """
    Split references into units, so that a judge with the same cache need not do so in training.

    Args:
        references (`Sequence[str]`):
            As training reads them. Those that are equal are split once, empty ones not at all.
        judge ([`~judge.Judge`]):
            Who is asked; what its cache knows is not asked again.
        on_reference (`Callable`, *optional*):
            Called when a reference is done.

    Returns:
        `Counter[str]`: how many could not be split, by reason.
    """
    window = asyncio.Semaphore(_WINDOW)
    failed: Counter[str] = Counter()

    async def one(reference: str) -> None:
        async with window:
            try:
                await judge.decompose(reference)
            except JudgeError as error:
                failed[error.reason] += 1
            if on_reference is not None:
                on_reference()

    distinct = dict.fromkeys(text for text in references if not is_empty(text))
    await asyncio.gather(*map(one, distinct))
    return failed


def unit_share(judged: Sequence[JudgedReference], said: str) -> float | None:
    """
    Share of all units with this verdict, `None` if there are no units.

    Example:

    ```python
    >>> unit_share([JudgedReference({"A cup.": "sound", "It is old.": "not pointable"})], "wrong")
    0.0

    ```
    """
    verdicts = [verdict for one in judged for verdict in one.units.values()]
    return verdicts.count(said) / len(verdicts) if verdicts else None

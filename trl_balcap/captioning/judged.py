"""What a judge finds in reference captions: units that are wrong, or point at nothing."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from trl_balcap.captioning.run import ImageRow
from trl_balcap.data.completions import is_empty
from trl_balcap.data.images import DEFAULT_MAX_PIXELS, ImageError, open_image
from trl_balcap.judge import Judge, JudgeError

__all__ = ["JudgedReference", "judge_references", "unit_share"]

_WINDOW = 512  # images under way


@dataclass(frozen=True)
class JudgedReference:
    """
    A reference's units with the judge's verdicts.

    Args:
        units (`Mapping[str, str]`, *optional*):
            Each unit with "sound", "wrong" or "not pointable" (which is right, and names nothing
            that can be pointed at).
        problem (`str`, *optional*):
            Why there are no verdicts; `None` where there are.
    """

    units: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None

    @property
    def unsound(self) -> float:
        """Share of the units that are wrong or not pointable; 0.0 where there is none."""
        return sum(said != "sound" for said in self.units.values()) / max(1, len(self.units))


async def judge_references(
    rows: Sequence[ImageRow], judge: Judge, *, on_row: Callable[[], None] | None = None
) -> list[JudgedReference]:
    """
    Split each reference into its units and show them to the judge beside the image.

    Args:
        rows (`Sequence[ImageRow]`):
            Images with their references.
        judge ([`~judge.Judge`]):
            Who is asked: two questions a row.
        on_row (`Callable`, *optional*):
            Called when a row is done.

    Returns:
        `list[JudgedReference]`: in the order of the rows. What fails for a row is its `problem`.
    """
    window = asyncio.Semaphore(_WINDOW)

    async def one(row: ImageRow) -> JudgedReference:
        async with window:
            try:
                return await _judged(row, judge)
            except (JudgeError, ImageError) as error:
                return JudgedReference(problem=str(error))
            finally:
                if on_row is not None:
                    on_row()

    return list(await asyncio.gather(*map(one, rows)))


async def _judged(row: ImageRow, judge: Judge) -> JudgedReference:
    if row.reference is None or is_empty(row.reference):
        return JudgedReference(problem="the reference is empty")
    image = await asyncio.to_thread(open_image, row.path, DEFAULT_MAX_PIXELS)
    units = await judge.decompose(row.reference)
    verdicts = await judge.verify(image, units)
    said = {}
    for unit, verdict in zip(units, verdicts, strict=True):
        said[unit] = "wrong"
        if verdict.correct:
            said[unit] = "sound" if verdict.pointable else "not pointable"
    return JudgedReference(said)


def unit_share(judged: Sequence[JudgedReference], said: str) -> float | None:
    """
    Share of all units of which the judge said this, `None` where there is no unit.

    Example:

    ```python
    >>> unit_share([JudgedReference({"A cup.": "sound", "It is old.": "not pointable"})], "wrong")
    0.0

    ```
    """
    verdicts = [verdict for one in judged for verdict in one.units.values()]
    return verdicts.count(said) / len(verdicts) if verdicts else None

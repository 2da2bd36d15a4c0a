"""A reward that compares the rollouts of a group with each other, in one question."""

import random
from collections.abc import Sequence
from typing import Any

from trl_balcap.data.completions import is_empty
from trl_balcap.rewards.base import JudgeReward
from trl_balcap.rewards.row import Row, RowError

__all__ = ["GroupReward", "rank_scores"]


class GroupReward(JudgeReward):
    r"""
    Share of the other captions of the same image that a caption beats, counting ties as half.

    The judge sees the image and all distinct captions of the group in one question, in shuffled
    order, and ranks them. Equal captions share a rank, and an empty caption scores 0.

    A group is a run of adjacent rows with the same image: TRL's rollouts of a prompt. A caption
    with no other to compare with is unscored (`no_group`).

    Args:
        judge ([`Judge`] or `str`, *optional*):
            The judge, asked once per group; its vision model sees the image.

    Example:

    ```python
    >>> from trl_balcap import Judge
    >>> GroupReward(Judge("scenes/oracle"))
    GroupReward(Judge('scenes/oracle'))

    ```
    """

    __name__ = "group_reward"
    needs = ("image",)
    sees = ("place",)

    def _rows(self, completions: Sequence[Any], columns: dict[str, Any]) -> list[Row]:
        rows = super()._rows(completions, columns)
        group: list[str] = []
        for place, row in enumerate(rows):
            if not place or not rows[place - 1].shows_the_same(row):
                group = []
            group.append(row.caption)
            row.columns["group"] = group  # one list for all of them
        return rows

    async def score(self, row: Row) -> float:
        """[`rank_scores`] of the judge's ranking of the group's captions."""
        group = [text for text in row.columns["group"] if not is_empty(text)]
        if len(row.columns["group"]) < 2:
            raise RowError("no_group", "there is no other caption of the image")
        texts = sorted(set(group))
        random.Random("\n".join(texts)).shuffle(texts)  # the same for all rows: one question
        if len(texts) == 1:
            places = [1]
        else:
            places = await self.judge.rank(row.image, texts)
        last = len(row.columns["group"])
        of = dict(zip(texts, places, strict=True))
        all_places = [of.get(text, last + 1) for text in row.columns["group"]]
        row.seen["place"] = of[row.caption]
        score = rank_scores(all_places)[row.columns["group"].index(row.caption)]
        assert score is not None  # there are others
        return score


def rank_scores(places: Sequence[int]) -> list[float | None]:
    """
    Reward of each of several compared captions: the share of the others that it beats, counting
    ties as half.

    Args:
        places (`Sequence[int]`):
            The rank of each, 1 for the best.

    Returns:
        `list[float or None]`: each from 0 to 1; `None` for a single caption.

    Example:

    ```python
    >>> rank_scores([1, 2, 2])
    [1.0, 0.25, 0.25]

    ```
    """
    others = len(places) - 1
    if others < 1:
        return [None] * len(places)
    return [
        (sum(mine < other for other in places) + (places.count(mine) - 1) / 2) / others
        for mine in places
    ]

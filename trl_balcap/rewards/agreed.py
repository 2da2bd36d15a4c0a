"""Recall without references: the share covered of what a group of rollouts agrees on."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trl_balcap.data.completions import is_empty
from trl_balcap.judge import JudgeError
from trl_balcap.metrics import recall_score
from trl_balcap.rewards.balanced import look_at
from trl_balcap.rewards.base import JudgeReward
from trl_balcap.rewards.row import Row, RowError

__all__ = ["AgreedRecallReward", "agreed_units"]


class AgreedRecallReward(JudgeReward):
    r"""
    Share of the *agreed units* that a caption covers, from 0 to 1: a recall reward for images
    without references.

    $$r_A = |\{u \in A : \text{the caption covers } u\}| / |A|$$

    A unit is agreed if more than half of the image's rollouts cover it, and the judge finds it
    correct and pointable. The candidates depend on the data:

    - With a `reference` column, the units of the reference. If the base model wrote it
      (`trl-balcap caption`), they are what the base model and the rollouts agree on.
    - Without one, the units of the rollout that has the most agreed units. Units of one caption are
      distinct; with those of several captions, each wording of a fact would count.

    Details that no other rollout mentions earn nothing, so this reward cannot teach what most
    rollouts miss. If all of them say less, the agreed units shrink too, and a collapsed group gets
    full marks. Within a group it still prefers captions that say more of what is agreed. Combine it
    with a lower bound on length (`length_gate_tokens`), and watch the logged number of agreed
    units, which falls when captions collapse.

    Unscored if nothing is agreed (`no_agreement`), or if there is no other rollout to agree with
    (`no_group`). The rollouts of an image must be adjacent in a batch, as in TRL; if a group is
    spread over ranks, each rank's part agrees on its own.

    Per rollout, the judge is asked the same questions as for precision (and the answers are
    shared), plus one about coverage.

    Args:
        judge ([`Judge`] or `str`, *optional*):
            The judge, whose vision model sees the image.
    """

    __name__ = "agreed_recall_reward"
    needs = ("image",)
    sees = ("units",)

    def _rows(self, completions: Sequence[Any], columns: dict[str, Any]) -> list[Row]:
        rows: list[Row] = []
        group = _Group()
        for row in super()._rows(completions, columns):
            if not group.rows or not group.rows[-1].shows_the_same(row):
                group = _Group()
            group.rows.append(row)
            rows.append(_Rollout(row.caption, row.image, row.reference, group=group))
        return rows

    async def score(self, row: Row) -> float:
        """Share of the group's agreed units."""
        assert isinstance(row, _Rollout)
        if len(row.group.rows) < 2:
            raise RowError("no_group", "there is no other rollout of the image to agree with")
        if row.group.agreeing is None:
            # Rows of a batch are cancelled together, so the task needs no shield.
            row.group.agreeing = asyncio.ensure_future(self._agree(row.group))
        units, covered = await row.group.agreeing
        mine = covered[row.caption]
        if isinstance(mine, JudgeError):
            raise mine
        row.seen["units"] = [
            {"text": text, "covered": is_covered}
            for text, is_covered in zip(units, mine, strict=True)
        ]
        recall = recall_score(mine)
        if recall is None:
            raise RowError(
                "no_agreement", "most rollouts of the image have no sound unit in common"
            )
        return recall

    async def _agree(self, group: "_Group") -> "_Agreed":
        """The agreed units, and which of them each caption covers."""
        first, captions = group.rows[0], [row.caption for row in group.rows]
        texts = list(dict.fromkeys(text for text in captions if not is_empty(text)))
        written_for_all = first.has_reference
        said = await self._each(
            (self.judge.decompose(text) for text in texts)
            if written_for_all
            else self.judge.side_by_side(
                (first.image, look_at(self.judge, first.image, text)) for text in texts
            )
        )
        if written_for_all:
            sources = [_sound(await look_at(self.judge, first.image, first.reference))]
            asserted: list[Any] = said
        else:
            sources = [_sound(one) for one in said if not isinstance(one, JudgeError)]
            asserted = [
                one if isinstance(one, JudgeError) else [text for text, _ in one] for one in said
            ]
        units = list(dict.fromkeys(unit for source in sources for unit in source))
        verdicts = await self._each(
            _failing(one) if isinstance(one, JudgeError) else self.judge.cover(one, units)
            for one in asserted
        )
        by_caption = dict(zip(texts, verdicts, strict=True))
        votes = [by_caption.get(text, [False] * len(units)) for text in captions]
        agreed = agreed_units([vote for vote in votes if not isinstance(vote, JudgeError)])
        chosen = max(
            ([place for place in agreed if units[place] in source] for source in sources),
            key=len,
            default=[],
        )
        return [units[place] for place in chosen], {
            text: vote if isinstance(vote, JudgeError) else [vote[place] for place in chosen]
            for text, vote in by_caption.items()
        }

    async def _each(self, questions: Any) -> list[Any]:
        """Each answer, or the judge's failure."""
        answers = await asyncio.gather(*questions, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, JudgeError):
                raise answer
        return answers


_Agreed = tuple[list[str], dict[str, Any]]


@dataclass
class _Group:
    rows: list[Row] = field(default_factory=list)
    agreeing: "asyncio.Task[_Agreed] | None" = None


@dataclass
class _Rollout(Row):
    group: _Group = field(default_factory=_Group, repr=False, compare=False)


def agreed_units(votes: Sequence[Sequence[bool]]) -> list[int]:
    """
    Indices of the units that more than half of the captions cover.

    Args:
        votes (`Sequence[Sequence[bool]]`):
            For each caption, whether it covers each unit.

    Example: two of three cover the first, one the second.

    ```python
    >>> agreed_units([[True, False], [True, True], [False, False]])
    [0]

    ```
    """
    return [
        place for place, unit in enumerate(zip(*votes, strict=True)) if 2 * sum(unit) > len(unit)
    ]


def _sound(looked: Sequence[tuple[str, Any]]) -> list[str]:
    return [text for text, verdict in looked if verdict.correct and verdict.pointable]


async def _failing(error: JudgeError) -> Any:
    raise error

"""Criteria for a good caption of an image, and comparisons of several captions."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from trl_balcap.judge.images import EncodedImage
from trl_balcap.judge.questions import Question, numbered, shown
from trl_balcap.judge.replies import Form, Id, by_id
from trl_balcap.judge.tickets import UnreadableReply

__all__ = ["Criterion", "meet", "rank", "rubric"]

_MOST_CRITERIA = 30


class Criterion(NamedTuple):
    """A yes-or-no criterion: what a caption should say or avoid. `weight` is 1, 2 or 3."""

    text: str
    weight: int


class _Weighted(Form):
    text: str
    weight: Literal[1, 2, 3]


class RubricForm(Form):
    criteria: list[_Weighted]


class _Met(Form):
    id: Id
    met: bool


class MeetForm(Form):
    verdicts: list[_Met]


class _Placed(Form):
    id: Id
    place: Id


class RankForm(Form):
    verdicts: list[_Placed]


def _criteria(form: RubricForm) -> tuple[Criterion, ...]:
    if not 1 <= len(form.criteria) <= _MOST_CRITERIA:
        raise UnreadableReply(f"{len(form.criteria)} criteria, not 1 to {_MOST_CRITERIA}")
    texts = [one.text.strip() for one in form.criteria]
    if not all(texts) or len(set(texts)) < len(texts):
        raise UnreadableReply("a criterion is blank or repeated")
    return tuple(
        Criterion(text, one.weight) for text, one in zip(texts, form.criteria, strict=True)
    )


def rubric(
    images: tuple[EncodedImage, ...], references: Sequence[str]
) -> Question[tuple[Criterion, ...]]:
    """Write the criteria for a good caption of an image from several references."""
    return Question(
        "rubric",
        {"question": "rubric", "references": numbered(references)},
        RubricForm,
        _criteria,
        shown("rubric", images),
    )


def meet(text: str, criteria: Sequence[Criterion]) -> Question[tuple[bool, ...]]:
    """Whether a caption meets each criterion."""
    texts = numbered([criterion.text for criterion in criteria])
    return Question(
        "meet",
        {"question": "meet", "text": text, "criteria": texts},
        MeetForm,
        lambda form: tuple(one.met for one in by_id(form.verdicts, len(criteria))),
    )


def rank(images: tuple[EncodedImage, ...], texts: Sequence[str]) -> Question[tuple[int, ...]]:
    """The rank of each of several captions of one image: 1 is the best, and ties share a rank."""
    return Question(
        "rank",
        {"question": "rank", "texts": numbered(texts)},
        RankForm,
        lambda form: tuple(one.place for one in by_id(form.verdicts, len(texts))),
        shown("rank", images),
    )

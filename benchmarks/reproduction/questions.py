"""Questions about scenes, answered from a caption alone: modelled on CaptionQA.

They ask about all that is true, whether or not the reference says it.
"""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from trl_balcap.scenes.claims import (
    BackgroundClaim,
    Claim,
    CountClaim,
    DotClaim,
    KindCountClaim,
    RelationClaim,
    ThingClaim,
)
from trl_balcap.scenes.lexicon import NUMBERS
from trl_balcap.scenes.prose import details, kind_of, overview
from trl_balcap.scenes.world import BACKGROUNDS, COLOURS, RICHNESS, SHAPES, SIZES, Scene

__all__ = ["ATTRIBUTES", "Question", "qa_score", "questions_about", "read_answer"]

ATTRIBUTES: dict[str, tuple[str, ...]] = {"colour": tuple(COLOURS), "shape": SHAPES, "size": SIZES}


class Question(NamedTuple):
    """A question to answer from a caption: `about` is `"colour"`, `"shape"`, `"size"`, `"count"` or
    `"there"`. In rich scenes, it may also be `"background"`, `"how_many"` or `"holds"`, the last
    two of which ask about a `claim`."""

    about: str
    cell: int | None
    choices: tuple[str, ...]
    answer: str
    claim: Claim | None = None


def questions_about(scene: Scene) -> list[Question]:
    """
    Questions about a scene: the colour, shape and size of each thing, whether there is anything at
    its place and at the same number of empty places, and how many things there are.

    In rich scenes, there are also questions about the background, the number of things of each
    colour and shape, dots, and relations. There are as many of those with the answer "no" as with
    "yes", if as many can be made by exchanging the two things of a relation, or by asking for a dot
    on something else.

    Example:

    ```python
    >>> from trl_balcap.scenes.world import Scene, Thing
    >>> scene = Scene((Thing("red", "star", "large", "top", "left"),))
    >>> [(question.about, question.answer) for question in questions_about(scene)]
    [('count', 'one'), ('colour', 'red'), ('shape', 'star'), ('size', 'large'), ('there', 'yes'), ('there', 'no')]

    ```
    """  # noqa: E501
    count = NUMBERS[len(scene.things)]
    fewest, most = RICHNESS[scene.richness].n_things
    numbers = NUMBERS[1:6] if scene.richness == "small" else NUMBERS[fewest : most + 1]
    questions = [Question("count", None, numbers, count)]
    for thing in scene.things:
        for name, choices in ATTRIBUTES.items():
            questions.append(Question(name, thing.cell, choices, getattr(thing, name)))
        questions.append(Question("there", thing.cell, ("yes", "no"), "yes"))
    taken = {thing.cell for thing in scene.things}
    cells = range(RICHNESS[scene.richness].cells)
    for cell in [cell for cell in cells if cell not in taken][: len(scene.things)]:
        questions.append(Question("there", cell, ("yes", "no"), "no"))
    return questions + (_more_questions(scene) if scene.richness == "rich" else [])


def _more_questions(scene: Scene) -> list[Question]:
    assert scene.background is not None
    questions = [Question("background", None, tuple(BACKGROUNDS), scene.background)]
    for claim in overview(scene):
        if isinstance(claim, KindCountClaim) and claim.count <= 5:
            number = NUMBERS[claim.count]
            questions.append(Question("how_many", None, NUMBERS[1:6], number, claim))
    true = [claim for claim, _ in details(scene)]
    false: list[Claim] = [
        RelationClaim(claim.relation, claim.other, claim.one)
        for claim in true
        if isinstance(claim, RelationClaim)
    ]
    false += [DotClaim(kind_of(thing)) for thing in scene.things]
    false = [claim for claim in dict.fromkeys(false) if not claim.holds_in(scene)]
    questions += [Question("holds", None, ("yes", "no"), "yes", claim) for claim in true]
    questions += [Question("holds", None, ("yes", "no"), "no", c) for c in false[: len(true)]]
    return questions


def read_answer(question: Question, claims: Sequence[Claim | None]) -> str | None:
    """
    The answer that a caption gives, by exact rules; `None` means "cannot answer".

    The reader believes the most frequent statement about a place, or the first of several equally
    frequent ones. Yes/no questions always get an answer: what is not mentioned is not there.
    Whether things stand in a relation can also be told from their places.
    """
    if question.about == "background":
        return next((c.background for c in claims if isinstance(c, BackgroundClaim)), None)
    if question.about == "how_many":
        asked = getattr(question.claim, "kind", None)
        counts = (c.count for c in claims if isinstance(c, KindCountClaim) and c.kind == asked)
        return next((NUMBERS[count] for count in counts), None)
    if question.about == "holds":
        assert question.claim is not None
        said = any(claim is not None and claim.implies(question.claim) for claim in claims)
        return "yes" if said or question.claim.holds_in(_imagined(claims)) else "no"
    if question.about == "count":
        return next((NUMBERS[c.count] for c in claims if isinstance(c, CountClaim)), None)
    there = [c for c in claims if isinstance(c, ThingClaim) and c.cell == question.cell]
    if question.about == "there":
        return "yes" if there else "no"
    said = Counter(value for c in there if (value := getattr(c, question.about)) is not None)
    return said.most_common(1)[0][0] if said else None  # the first mentioned wins ties


def _imagined(claims: Sequence[Claim | None]) -> Scene:
    """The rich scene in a reader's mind: all things that the caption tells in full, the first of
    several at one place."""
    things = {}
    for claim in claims:
        if isinstance(claim, ThingClaim) and claim.thing and claim.thing.richness == "rich":
            things.setdefault(claim.cell, claim.thing)
    return Scene(tuple(things.values()), "rich", next(iter(BACKGROUNDS)))


def qa_score(claims: Sequence[Claim | None], scene: Scene) -> float:
    """
    Mean over a scene's questions: 1 for the right answer, 0 for a wrong one, and 1/K + 0.05 for
    "cannot answer" with K choices, as in CaptionQA.

    Example: of six questions, four cannot be answered (with 6, 4, 2 and, for the count, 5 choices),
    and one is wrong, because the empty caption implies that the place is empty.

    ```python
    >>> from trl_balcap.scenes.world import Scene, Thing
    >>> scene = Scene((Thing("red", "star", "large", "top", "left"),))
    >>> round(qa_score([], scene), 4) == round((1/6 + 1/4 + 1/2 + 1/5 + 4 * 0.05 + 0 + 1) / 6, 4)
    True

    ```
    """
    points = []
    for question in questions_about(scene):
        answer = read_answer(question, claims)
        if answer is None:
            points.append(1 / len(question.choices) + 0.05)
        else:
            points.append(float(answer == question.answer))
    return fmean(points)

"""Prose about rich scenes: all that is true, and the salient half of it.

A text has an overview (background and numbers), which comes first or last, and the things in
reading order, by rows or by columns. What is said about several things follows the last of them.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from trl_balcap.scenes.claims import (
    RELATIONS,
    BackgroundClaim,
    Claim,
    CountClaim,
    DotClaim,
    Kind,
    KindCountClaim,
    RelationClaim,
    ThingClaim,
    related,
)
from trl_balcap.scenes.world import RICHNESS, Scene, Thing

__all__ = [
    "READING_ORDERS",
    "Detail",
    "arranged",
    "details",
    "kind_of",
    "overview",
    "salient",
    "salient_truth",
    "truth",
]

_DETAILS = 4  # dots and relations in a reference

Detail = tuple[Claim, tuple[Thing, ...]]
"""A claim and the things it is about."""


def _by_rows(claim: ThingClaim | Thing) -> tuple[int, int]:
    board = RICHNESS["rich"]
    return board.rows.index(claim.row), board.columns.index(claim.column)


def _by_columns(claim: ThingClaim | Thing) -> tuple[int, int]:
    row, column = _by_rows(claim)
    return column, row


READING_ORDERS: tuple[Callable[[ThingClaim | Thing], tuple[int, int]], ...] = (
    _by_rows,
    _by_columns,
)
"""Sort keys of the orders in which the things of a rich scene may be named."""


def kind_of(thing: Thing) -> Kind:
    """The kind that says all about a thing but its place."""
    return Kind(thing.colour, thing.shape, thing.size)


def overview(scene: Scene) -> list[Claim]:
    """The background, the number of things, and the number of each colour and shape."""
    claims: list[Claim] = [CountClaim(len(scene.things))]
    if scene.background is not None:
        claims.insert(0, BackgroundClaim(scene.background))
    for name in ("colour", "shape"):
        counts = Counter(getattr(thing, name) for thing in scene.things)
        claims += [KindCountClaim(n, Kind(**{name: value})) for value, n in counts.items()]
    return claims


def details(scene: Scene) -> list[Detail]:
    """White dots, and all pairs of things that stand in a relation; nothing twice."""
    found: list[Detail] = [
        (DotClaim(kind_of(thing)), (thing,)) for thing in scene.things if thing.dotted
    ]
    for relation in RELATIONS:
        for one, other in related(scene, relation):
            second = kind_of(other)
            if relation == "same_colour":
                second = replace(second, colour=None)
            found.append((RelationClaim(relation, kind_of(one), second), (one, other)))
    return list({claim.about: (claim, whom) for claim, whom in reversed(found)}.values())[::-1]


def arranged(
    first: Sequence[Claim],
    things: Sequence[Thing],
    about_them: Sequence[Detail],
    *,
    order: Callable[[Thing], tuple[int, int]] = _by_rows,
    overview_last: bool = False,
) -> list[Claim]:
    """The claims in an order in which they read well: the overview, then each thing, followed by
    the details for which it is the last of the things they are about."""
    body: list[Claim] = []
    named: set[Thing] = set()
    for thing in sorted(things, key=order):
        named.add(thing)
        body.append(ThingClaim(thing.row, thing.column, thing.colour, thing.shape, thing.size))
        body += [claim for claim, whom in about_them if thing in whom and named.issuperset(whom)]
    return [*body, *first] if overview_last else [*first, *body]


def _in_some_order(
    first: Sequence[Claim], things: Sequence[Thing], about_them: Sequence[Detail], rng
) -> list[Claim]:
    return arranged(
        first,
        things,
        about_them,
        order=rng.choice(READING_ORDERS),
        overview_last=rng.random() < 0.25,
    )


def truth(scene: Scene, rng: random.Random | None = None) -> list[Claim]:
    """
    All that is true of a rich scene, in an order that reads well.

    Args:
        scene ([`Scene`]): What to describe.
        rng (`random.Random`, *optional*): Chooses the order. Without it: by rows, overview first.

    Returns:
        `list`: The claims.
    """
    parts = overview(scene), scene.things, details(scene)
    return arranged(*parts) if rng is None else _in_some_order(*parts, rng)


def salient(scene: Scene, rng: random.Random) -> list[Thing]:
    """
    The half of the things that strike the eye: large ones and those with a dot, with some chance.

    Example:

    ```python
    >>> from trl_balcap.scenes.world import random_scene

    >>> scene = random_scene(random.Random(0), richness="rich")
    >>> [thing.size for thing in scene.things].count("large"), len(scene.things)
    (6, 11)
    >>> [thing.size for thing in salient(scene, random.Random(0))]
    ['large', 'large', 'large', 'large', 'small', 'large']

    ```
    """

    def strength(thing: Thing) -> float:
        return (thing.size == "large") + 0.5 * thing.dotted + rng.random()

    ranked = sorted(((strength(thing), thing.cell, thing) for thing in scene.things), reverse=True)
    return [thing for _, _, thing in ranked[: (len(ranked) + 1) // 2]]


def salient_truth(scene: Scene, rng: random.Random) -> list[Claim]:
    """
    The salient half of what is true of a rich scene: what its reference says.

    It names the salient things, four dots or relations among them, the background, the number of
    things, and that of the most frequent colour or shape; if there are fewer dots and relations,
    the numbers of more colours and shapes take their places.

    Args:
        scene ([`Scene`]): What to describe.
        rng (`random.Random`): Chooses what is salient where no rule does, and the order.

    Returns:
        `list`: The claims.
    """
    things = salient(scene, rng)
    about_them = [detail for detail in details(scene) if set(detail[1]) <= set(things)]
    kept = sorted(rng.sample(range(len(about_them)), min(_DETAILS, len(about_them))))
    [background, count, *kinds] = overview(scene)
    kinds.sort(key=lambda claim: claim.count, reverse=True)  # type: ignore[attr-defined]
    return _in_some_order(
        [background, count, *kinds[: 1 + _DETAILS - len(kept)]],
        things,
        [(_less_said(about_them[at][0], rng), about_them[at][1]) for at in kept],
        rng,
    )


def _less_said(claim: Claim, rng: random.Random) -> Claim:
    """Half the time, without the sizes of the two things of a relation."""
    if isinstance(claim, RelationClaim) and rng.random() < 0.5:
        one, other = (replace(kind, size=None) for kind in (claim.one, claim.other))
        return replace(claim, one=one, other=other)
    return claim

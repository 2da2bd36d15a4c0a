"""What a sentence about a scene can claim, and when a claim is true.

Claims about several things speak of kinds of things, not of places: "The red circle is left of the
blue star" is true if some red circle stands directly left of some blue star.
"""

import functools
import itertools
from dataclasses import dataclass, fields
from typing import Literal

from trl_balcap.scenes.world import RICHNESS, Scene, Thing, board_of

__all__ = [
    "RELATIONS",
    "BackgroundClaim",
    "Claim",
    "CountClaim",
    "DotClaim",
    "Kind",
    "KindCountClaim",
    "MetaClaim",
    "Relation",
    "RelationClaim",
    "ThingClaim",
    "related",
]

Relation = Literal["left", "above", "touching", "same_colour"]
RELATIONS: tuple[Relation, ...] = ("left", "above", "touching", "same_colour")
"""`left` and `above`: in the next cell. `touching`: both large, in neighbouring cells.
`same_colour`: of one colour, in neighbouring cells."""


@dataclass(frozen=True)
class ThingClaim:
    """A claim that there is such a thing at this place. Unspecified attributes are `None`.

    Args:
        row (`str`), column (`str`): Where it is.
        colour, shape, size (`str` or `None`): What it is; `None` if the sentence does not say.
        well_formed (`bool`, *optional*, defaults to `True`): Whether the sentence is grammatical
            English.
    """

    row: str
    column: str
    colour: str | None
    shape: str | None
    size: str | None
    well_formed: bool = True

    pointable = True

    @property
    def cell(self) -> int:
        """Place in raster order on its board."""
        return RICHNESS[board_of(self.column)].cell(self.row, self.column)

    @property
    def about(self) -> object:
        """The place."""
        return self.row, self.column

    @property
    def kind(self) -> "Kind":
        """What it says of the thing."""
        return Kind(self.colour, self.shape, self.size)

    @property
    def thing(self) -> Thing | None:
        """The claimed thing, or `None` if an attribute is unspecified."""
        if self.colour is None or self.shape is None or self.size is None:
            return None
        return Thing(self.colour, self.shape, self.size, self.row, self.column)

    def holds_in(self, scene: Scene) -> bool:
        """Whether the scene has a thing there that matches everything the claim says."""
        there = scene.at(self.row, self.column)
        return there is not None and self.kind.matches(there)

    def implies(self, other: "Claim") -> bool:
        """Whether `other` is true whenever this claim is: it is about the same place and says no
        more."""
        return (
            isinstance(other, ThingClaim)
            and other.about == self.about
            and self.kind.implies(other.kind)
        )


@dataclass(frozen=True)
class CountClaim:
    """A claim that there are this many things in the picture."""

    count: int
    well_formed: bool = True

    pointable = True
    about = "count"

    def holds_in(self, scene: Scene) -> bool:
        """Whether the scene has exactly this many things."""
        return len(scene.things) == self.count

    def implies(self, other: "Claim") -> bool:
        """Whether `other` claims the same number."""
        return isinstance(other, CountClaim) and other.count == self.count


@dataclass(frozen=True)
class MetaClaim:
    """Commentary: never false and never pointable."""

    text: str

    well_formed = True
    pointable = False

    @property
    def about(self) -> object:
        """Its own text."""
        return self.text

    def holds_in(self, scene: Scene) -> bool:
        """Commentary is true of every scene."""
        return True

    def implies(self, other: "Claim") -> bool:
        """Whether `other` is the same commentary."""
        return isinstance(other, MetaClaim) and other.text == self.text


@dataclass(frozen=True)
class Kind:
    """A kind of thing: attributes that are `None` are left open.

    Example:

    ```python
    >>> Kind("red", "star").implies(Kind(shape="star")), Kind().implies(Kind("red"))
    (True, False)

    ```
    """

    colour: str | None = None
    shape: str | None = None
    size: str | None = None

    def matches(self, thing: Thing) -> bool:
        """Whether a thing is of this kind."""
        return all(
            (said := getattr(self, each.name)) is None or said == getattr(thing, each.name)
            for each in fields(self)
        )

    def implies(self, other: "Kind") -> bool:
        """Whether every thing of this kind is of the other kind."""
        return all(
            (asked := getattr(other, each.name)) is None or asked == getattr(self, each.name)
            for each in fields(self)
        )


@dataclass(frozen=True)
class BackgroundClaim:
    """A claim about the background, one of `BACKGROUNDS`."""

    background: str
    well_formed: bool = True

    pointable = True
    about = "background"

    def holds_in(self, scene: Scene) -> bool:
        """Whether the scene has this background."""
        return scene.background == self.background

    def implies(self, other: "Claim") -> bool:
        """Whether `other` claims the same background."""
        return isinstance(other, BackgroundClaim) and other.background == self.background


@dataclass(frozen=True)
class KindCountClaim:
    """A claim that there are this many things of a kind."""

    count: int
    kind: Kind
    well_formed: bool = True

    pointable = True

    @property
    def about(self) -> object:
        """The kind that is counted."""
        return "count", self.kind

    def holds_in(self, scene: Scene) -> bool:
        """Whether the scene has exactly this many things of the kind."""
        return sum(map(self.kind.matches, scene.things)) == self.count

    def implies(self, other: "Claim") -> bool:
        """Whether `other` claims the same number of the same kind."""
        return (
            isinstance(other, KindCountClaim)
            and other.count == self.count
            and other.kind == self.kind
        )


@dataclass(frozen=True)
class DotClaim:
    """A claim that a white dot is part of some thing of a kind."""

    kind: Kind
    well_formed: bool = True

    pointable = True

    @property
    def about(self) -> object:
        """The kind that carries a dot."""
        return "dot", self.kind

    def holds_in(self, scene: Scene) -> bool:
        """Whether some thing of the kind carries a dot."""
        return any(thing.dotted and self.kind.matches(thing) for thing in scene.things)

    def implies(self, other: "Claim") -> bool:
        """Whether `other` says the same of a wider kind."""
        return isinstance(other, DotClaim) and self.kind.implies(other.kind)


@dataclass(frozen=True)
class RelationClaim:
    """A claim that some thing of one kind stands in a relation to some thing of another kind.

    Args:
        relation (`str`): One of `RELATIONS`.
        one, other ([`Kind`]): "The `one` is left of the `other`".
        well_formed (`bool`, *optional*, defaults to `True`): Whether the sentence is grammatical
            English.
    """

    relation: Relation
    one: Kind
    other: Kind
    well_formed: bool = True

    pointable = True

    @property
    def symmetric(self) -> bool:
        """Whether the two kinds may change places."""
        return self.relation in ("touching", "same_colour")

    @property
    def about(self) -> object:
        """The relation and the pair of kinds."""
        pair = frozenset((self.one, self.other)) if self.symmetric else (self.one, self.other)
        return self.relation, pair

    def holds_in(self, scene: Scene) -> bool:
        """Whether the scene has such a pair."""
        pairs = related(scene, self.relation)
        if self.symmetric:
            pairs += tuple((other, one) for one, other in pairs)
        return any(self.one.matches(one) and self.other.matches(other) for one, other in pairs)

    def implies(self, other: "Claim") -> bool:
        """Whether `other` claims the same relation of pairs at least as wide."""
        if not isinstance(other, RelationClaim) or other.relation != self.relation:
            return False
        if self.one.implies(other.one) and self.other.implies(other.other):
            return True
        return self.symmetric and self.one.implies(other.other) and self.other.implies(other.one)


Claim = (
    ThingClaim
    | CountClaim
    | MetaClaim
    | BackgroundClaim
    | KindCountClaim
    | DotClaim
    | RelationClaim
)
"""What a single sentence claims."""


@functools.lru_cache(maxsize=2048)
def related(scene: Scene, relation: Relation) -> tuple[tuple[Thing, Thing], ...]:
    """The pairs of things that stand in a relation, in reading order of the first.

    Example:

    ```python
    >>> from trl_balcap.scenes.world import Scene, Thing

    >>> disc = Thing("red", "circle", "large", "top", "left")
    >>> star = Thing("red", "star", "small", "top", "centre")
    >>> box = Thing("blue", "square", "large", "middle", "left")
    >>> scene = Scene((disc, star, box))
    >>> for relation in RELATIONS:
    ...     print(relation, [(one.shape, other.shape) for one, other in related(scene, relation)])
    left [('circle', 'star')]
    above [('circle', 'square')]
    touching [('circle', 'square')]
    same_colour [('circle', 'star')]

    ```
    """
    columns = len(RICHNESS[scene.richness].columns)
    pairs = []
    for one, other in itertools.combinations(scene.things, 2):
        beside = other.row == one.row and other.cell == one.cell + 1
        below = other.cell == one.cell + columns
        if (
            (relation == "left" and beside)
            or (relation == "above" and below)
            or (
                (beside or below)
                and (
                    (relation == "touching" and one.size == other.size == "large")
                    or (relation == "same_colour" and one.colour == other.colour)
                )
            )
        ):
            pairs.append((one, other))
    return tuple(pairs)

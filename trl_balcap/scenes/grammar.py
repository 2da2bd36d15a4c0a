"""The language of scenes: perfect and faulty captions.

A perfect caption starts with a count and then names each thing once, in raster order, position
first: "There are two things. At the top left there is a large red circle. The middle right shows a
small blue star." `faulty_caption` spoils such a caption in the ways that real captioners fail.
`parsing` is the inverse of both.
"""

import random
from dataclasses import dataclass, fields, replace

from trl_balcap.scenes.world import COLOURS, COLUMNS, ROWS, SHAPES, SIZES, Scene, Thing

__all__ = [
    "BROKEN_TEMPLATES",
    "META_SENTENCES",
    "NUMBERS",
    "TEMPLATES",
    "TRUISMS",
    "Claim",
    "CountClaim",
    "Faults",
    "MetaClaim",
    "ThingClaim",
    "describe",
    "faulty_caption",
    "write_sentence",
]

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

META_SENTENCES = (
    "This adds depth to the picture.",
    "The mood is cosy.",
    "The scene feels calm.",
    "It invites a closer look.",
    "The overall effect is pleasing.",
    "The colours create a sense of harmony.",
    "The composition is balanced and lively.",
    "It tells a quiet story.",
)
"""Commentary about the picture: nobody would call it false, but nobody could point to it."""

TRUISMS = (
    "Something can be seen in the image.",
    "The image is not blank.",
    "The image shows at least one thing.",
    "There is something to see in the image.",
)
"""Commentary that is true of every picture: a judge that rejects it is not reading."""

TEMPLATES = (
    "At the {place} there is a {thing}.",
    "In the {place} sits a {thing}.",
    "The {place} shows a {thing}.",
)
BROKEN_TEMPLATES = (
    "{place} {thing}.",  # a list, not a sentence
    "At the {place} a {thing}.",
    "At the the {place} there is a {thing}.",
    "In the {place} there are a {thing}.",
)


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
        """Place in raster order, 0 to 8."""
        return 3 * ROWS.index(self.row) + COLUMNS.index(self.column)

    @property
    def thing(self) -> Thing | None:
        """The claimed thing, or `None` if an attribute is unspecified."""
        if self.colour is None or self.shape is None or self.size is None:
            return None
        return Thing(self.colour, self.shape, self.size, self.row, self.column)

    def holds_in(self, scene: Scene) -> bool:
        """Whether the scene has a thing there that matches everything the claim says."""
        there = scene.at(self.row, self.column)
        return there is not None and all(
            said is None or said == seen
            for said, seen in (
                (self.colour, there.colour),
                (self.shape, there.shape),
                (self.size, there.size),
            )
        )

    def implies(self, other: "Claim") -> bool:
        """Whether `other` is true whenever this claim is: it is about the same place and says no
        more."""
        return (
            isinstance(other, ThingClaim)
            and other.cell == self.cell
            and all(
                asked is None or asked == said
                for said, asked in (
                    (self.colour, other.colour),
                    (self.shape, other.shape),
                    (self.size, other.size),
                )
            )
        )


@dataclass(frozen=True)
class CountClaim:
    """A claim that there are this many things in the picture."""

    count: int
    well_formed: bool = True

    pointable = True

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

    def holds_in(self, scene: Scene) -> bool:
        """Commentary is true of every scene."""
        return True

    def implies(self, other: "Claim") -> bool:
        """Whether `other` is the same commentary."""
        return isinstance(other, MetaClaim) and other.text == self.text


Claim = ThingClaim | CountClaim | MetaClaim
"""What a single sentence claims."""


@dataclass(frozen=True)
class Faults:
    """How often `faulty_caption` goes wrong; every field is a probability between 0 and 1.

    Args:
        wrong (`float`): Per thing, replace one of colour, shape and size; per count, replace the
            number.
        vague (`float`): Per thing, leave out one or two of colour, shape and size ("a red thing").
        omit (`float`): Per thing and per count, leave out the sentence.
        invent (`float`): Per caption, name a thing in an empty cell.
        meta (`float`): Per sentence, add commentary after it.
        repeat (`float`): Per thing, repeat its sentence.
        broken (`float`): Per thing and per count, make the sentence ungrammatical (its meaning
            stays clear).
        disorder (`float`): Per caption, put the sentences in random order.
        short (`float`): Per caption, stop after the first or the second sentence.
        long (`float`): Per caption, add three to five sentences of commentary and repetition.

    Raises:
        `ValueError`: if a field is not between 0 and 1.
    """

    wrong: float = 0.0
    vague: float = 0.0
    omit: float = 0.0
    invent: float = 0.0
    meta: float = 0.0
    repeat: float = 0.0
    broken: float = 0.0
    disorder: float = 0.0
    short: float = 0.0
    long: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(
                    f"Faults has {field.name}={value}, but every fault is a probability: "
                    "give a number between 0 and 1."
                )


def write_sentence(claim: Claim, rng: random.Random | None = None) -> str:
    """Put a claim into words that `parse_sentence` can read back.

    Args:
        claim (`ThingClaim`, `CountClaim` or `MetaClaim`): What to say.
        rng (`random.Random`, *optional*):
            Chooses among the ways to say it. Without it, the first one is used.

    Returns:
        `str`: One sentence, ungrammatical if the claim is not `well_formed`.

    Example:

    ```python
    >>> write_sentence(ThingClaim("top", "left", "red", "star", None))
    'At the top left there is a red star.'
    >>> write_sentence(CountClaim(2, well_formed=False))
    'There is two things.'

    ```
    """
    if isinstance(claim, MetaClaim):
        return claim.text
    if isinstance(claim, CountClaim):
        return _count_sentence(claim)
    templates = TEMPLATES if claim.well_formed else BROKEN_TEMPLATES
    template = rng.choice(templates) if rng else templates[0]
    words = (claim.size, claim.colour, claim.shape or "thing")
    sentence = template.format(
        place=f"{claim.row} {claim.column}", thing=" ".join(word for word in words if word)
    )
    return sentence[0].upper() + sentence[1:]


def _count_sentence(claim: CountClaim) -> str:
    noun = "thing" if claim.count == 1 else "things"
    verb = "is" if (claim.count == 1) == claim.well_formed else "are"
    return f"There {verb} {NUMBERS[claim.count]} {noun}."


def _claim_of(thing: Thing) -> ThingClaim:
    return ThingClaim(thing.row, thing.column, thing.colour, thing.shape, thing.size)


def describe(scene: Scene, rng: random.Random | None = None, *, count: bool = True) -> str:
    """The perfect caption of a scene.

    Args:
        scene (`Scene`): What to describe.
        rng (`random.Random`, *optional*):
            Chooses one of the three templates for each thing. Without it, the first one is always
            used.
        count (`bool`, *optional*, defaults to `True`): Whether to start with the number of things.

    Returns:
        `str`: The count, then one sentence per thing in raster order.

    Example:

    ```python
    >>> describe(Scene((Thing("red", "circle", "large", "top", "left"),)))
    'There is one thing. At the top left there is a large red circle.'

    ```
    """
    claims: list[Claim] = [CountClaim(len(scene.things))] if count else []
    claims += [_claim_of(thing) for thing in scene.things]
    return " ".join(write_sentence(claim, rng) for claim in claims)


def _spoil(claim: ThingClaim, rng: random.Random, faults: Faults) -> ThingClaim:
    """The claim with a wrong attribute, with some attributes left out, with both, or unchanged."""
    if rng.random() < faults.wrong:
        name = rng.choice(("colour", "shape", "size"))
        values = {"colour": tuple(COLOURS), "shape": SHAPES, "size": SIZES}[name]
        others = [value for value in values if value != getattr(claim, name)]
        claim = replace(claim, **{name: rng.choice(others)})
    if rng.random() < faults.vague:
        open_names = rng.sample(("colour", "shape", "size"), rng.randint(1, 2))
        claim = replace(claim, **dict.fromkeys(open_names))
    return claim


def faulty_caption(scene: Scene, rng: random.Random, faults: Faults) -> str:
    """A caption of a scene with the faults of real captioners, as often as `faults` specifies.

    Args:
        scene (`Scene`): What to describe.
        rng (`random.Random`): Source of randomness; the same state gives the same caption.
        faults (`Faults`): How often each fault happens. `Faults()` gives a perfect caption.

    Returns:
        `str`: The caption. It is empty only if everything was omitted.

    Example:

    ```python
    >>> scene = Scene((Thing("red", "circle", "large", "top", "left"),))
    >>> faulty_caption(scene, random.Random(0), Faults(omit=1.0, meta=1.0))
    ''

    ```
    """
    claims = [_claim_of(thing) for thing in scene.things if rng.random() >= faults.omit]
    free = [cell for cell in range(9) if scene.at(ROWS[cell // 3], COLUMNS[cell % 3]) is None]
    if free and rng.random() < faults.invent:
        cell = rng.choice(free)
        claims.append(
            ThingClaim(
                ROWS[cell // 3],
                COLUMNS[cell % 3],
                rng.choice(tuple(COLOURS)),
                rng.choice(SHAPES),
                rng.choice(SIZES),
            )
        )
        claims.sort(key=lambda claim: claim.cell)
    sentences: list[str] = []
    if rng.random() >= faults.omit:
        count = len(scene.things)
        if rng.random() < faults.wrong:
            count = rng.choice([near for near in (count - 1, count + 1) if 0 < near <= 9])
        sentences.append(write_sentence(CountClaim(count, rng.random() >= faults.broken)))
    for claim in claims:
        claim = replace(_spoil(claim, rng, faults), well_formed=rng.random() >= faults.broken)
        sentence = write_sentence(claim, rng)
        sentences += [sentence] * (2 if rng.random() < faults.repeat else 1)
    if rng.random() < faults.disorder:
        rng.shuffle(sentences)
    if rng.random() < faults.short:
        sentences = sentences[: rng.randint(1, 2)]
    caption = []
    for sentence in sentences:
        caption.append(sentence)
        if rng.random() < faults.meta:
            caption.append(rng.choice(META_SENTENCES))
    if caption and rng.random() < faults.long:
        caption += [rng.choice((*META_SENTENCES, *sentences)) for _ in range(rng.randint(3, 5))]
    return " ".join(caption)

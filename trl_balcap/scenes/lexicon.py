"""The words of the rich world: synonyms, and several wordings of each claim.

`say` puts a claim into words and `understand` reads any of these wordings back. The author draws
among them; the judge treats them alike.
"""

import functools
import random
import re

from trl_balcap.scenes.claims import (
    BackgroundClaim,
    Claim,
    CountClaim,
    DotClaim,
    Kind,
    KindCountClaim,
    Relation,
    RelationClaim,
    ThingClaim,
)
from trl_balcap.scenes.world import BACKGROUNDS, RICHNESS

__all__ = [
    "HEDGES",
    "META_SENTENCES",
    "NUMBERS",
    "TRUISMS",
    "WORDS",
    "hedge",
    "is_hedged",
    "say",
    "understand",
]

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
)

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

WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "size": {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")},
    "colour": {
        "red": ("red", "crimson"),
        "green": ("green", "jade"),
        "blue": ("blue", "cobalt"),
        "yellow": ("yellow", "golden"),
        "purple": ("purple", "violet"),
        "black": ("black", "dark"),
    },
    "shape": {
        "circle": ("circle", "disc"),
        "square": ("square", "box"),
        "triangle": ("triangle", "wedge"),
        "star": ("star", "pentagram"),
    },
}
"""The words for each attribute; the first is the most frequent."""

HEDGES = ("It seems that ", "Perhaps ")
"""What can go before any claim. It changes nothing about what the sentence claims."""

_THING_WORDS = ("thing", "object")
_FIRST = 0.6  # share of the first word among its synonyms

_THINGS = (
    ("at the {place} there is a {kind}", True),
    ("in the {place} sits a {kind}", True),
    ("the {place} shows a {kind}", True),
    ("the {place} holds a {kind}", True),
    ("there is a {kind} at the {place}", True),
    ("a {kind} can be seen at the {place}", True),
    ("{place} {kind}", False),
    ("at the {place} a {kind}", False),
    ("at the the {place} there is a {kind}", False),
    ("in the {place} there are a {kind}", False),
)
_COUNTS = (
    "there {verb} {number} {kinds}",
    "the picture has {number} {kinds}",
    "{number} {kinds} {verb} in the picture",
)
_BACKGROUNDS = (
    ("the background is {background}", True),
    ("everything stands on {background} ground", True),
    ("the things are set against {background}", True),
    ("background {background}", False),
)
_DOTS = (
    ("a white dot is part of the {kind}", True),
    ("the {kind} has a white dot", True),
    ("the {kind} carries a white dot", True),
    ("white dot on {kind}", False),
)
_RELATIONS: dict[Relation, tuple[tuple[str, bool], ...]] = {
    "left": (
        ("the {one} is left of the {other}", True),
        ("the {other} is right of the {one}", True),
        ("to the right of the {one} comes the {other}", True),
        ("the {one} left of the {other}", False),
    ),
    "above": (
        ("the {one} is above the {other}", True),
        ("the {other} is below the {one}", True),
        ("under the {one} comes the {other}", True),
        ("the {one} above the {other}", False),
    ),
    "touching": (
        ("the {one} touches the {other}", True),
        ("the {one} is in contact with the {other}", True),
        ("the {one} touch the {other}", False),
    ),
    "same_colour": (
        ("the {one} has the same colour as the {other} beside it", True),
        ("the {one} matches the colour of the {other} beside it", True),
        ("the {one} same colour as the {other} beside it", False),
    ),
}


# ---------------------------------------------------------------------------------------------
# Writing


def _pick(words: tuple[str, ...], rng: random.Random | None) -> str:
    if rng is None or len(words) == 1 or rng.random() < _FIRST:
        return words[0]
    return rng.choice(words[1:])


def _choose(wordings: tuple[tuple[str, bool], ...], claim: Claim, rng: random.Random | None) -> str:
    fitting = [wording for wording, well_formed in wordings if well_formed == claim.well_formed]
    return rng.choice(fitting) if rng else fitting[0]


def _name(kind: Kind | ThingClaim, rng: random.Random | None, *, plural: bool = False) -> str:
    words = [
        _pick(WORDS[name][value], rng)
        for name in ("size", "colour")
        if (value := getattr(kind, name)) is not None
    ]
    noun = _pick(WORDS["shape"][kind.shape] if kind.shape else _THING_WORDS, rng)
    return " ".join([*words, _plural(noun) if plural else noun])


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("x") else "s")


def say(claim: Claim, rng: random.Random | None = None) -> str:
    """
    Put a claim of the rich world into words that `understand` reads back.

    Args:
        claim (`Claim`): What to say; any but commentary.
        rng (`random.Random`, *optional*):
            Chooses the wording and the synonyms. Without it, the first ones are used.

    Returns:
        `str`: One sentence, ungrammatical if the claim is not `well_formed`.

    Example:

    ```python
    >>> say(RelationClaim("left", Kind("red", "circle"), Kind(size="small")))
    'The red circle is left of the small thing.'
    >>> say(KindCountClaim(2, Kind("red", "square")), random.Random(6))
    'Two crimson boxes are in the picture.'

    ```
    """
    if isinstance(claim, ThingClaim):
        place = f"{claim.row} {claim.column}"
        text = _choose(_THINGS, claim, rng).format(place=place, kind=_name(claim, rng))
    elif isinstance(claim, CountClaim | KindCountClaim):
        kind = claim.kind if isinstance(claim, KindCountClaim) else Kind()
        # Only a wording with a verb can be ungrammatical.
        wording = rng.choice(_COUNTS) if rng and claim.well_formed else _COUNTS[0]
        text = wording.format(
            verb="is" if (claim.count == 1) == claim.well_formed else "are",
            number=NUMBERS[claim.count],
            kinds=_name(kind, rng, plural=claim.count != 1),
        )
    elif isinstance(claim, BackgroundClaim):
        text = _choose(_BACKGROUNDS, claim, rng).format(background=claim.background)
    elif isinstance(claim, DotClaim):
        text = _choose(_DOTS, claim, rng).format(kind=_name(claim.kind, rng))
    elif isinstance(claim, RelationClaim):
        wording = _choose(_RELATIONS[claim.relation], claim, rng)
        text = wording.format(one=_name(claim.one, rng), other=_name(claim.other, rng))
    else:
        raise ValueError(f"{claim!r} has no wording of its own; commentary is its own text.")
    return f"{text[0].upper()}{text[1:]}."


def hedge(sentence: str, rng: random.Random) -> str:
    """
    The sentence with a hedge before it.

    ```python
    >>> hedge("The background is pink.", random.Random(0))
    'Perhaps the background is pink.'

    ```
    """
    return rng.choice(HEDGES) + sentence[0].lower() + sentence[1:]


def is_hedged(sentence: str) -> bool:
    """Whether a sentence starts with a hedge."""
    return sentence.startswith(HEDGES)


# ---------------------------------------------------------------------------------------------
# Reading

_VALUES = {
    name: {word: value for value, words in values.items() for word in words}
    for name, values in WORDS.items()
}
_NOUNS: dict[str, tuple[str | None, bool]] = {  # word -> shape, whether it is plural
    form: (shape, plural)
    for shape, words in [*WORDS["shape"].items(), (None, _THING_WORDS)]
    for word in words
    for form, plural in ((word, False), (_plural(word), True))
}


def _any_of(words) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


def _kind_group(name: str) -> str:
    return (
        rf"(?:(?P<{name}_size>{_any_of(_VALUES['size'])}) )?"
        rf"(?:(?P<{name}_colour>{_any_of(_VALUES['colour'])}) )?"
        rf"(?P<{name}_noun>{_any_of(_NOUNS)})"
    )


_GROUPS = {
    "place": rf"(?P<row>{_any_of(RICHNESS['rich'].rows)}) "
    rf"(?P<column>{_any_of(RICHNESS['rich'].columns)})",
    "number": rf"(?P<number>{_any_of(NUMBERS[1:])})",
    "verb": "(?P<verb>is|are)",
    "background": rf"(?P<background>{_any_of(BACKGROUNDS)})",
    **{name: _kind_group(name) for name in ("kind", "kinds", "one", "other")},
}


def _pattern(wording: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", wording)
    return re.compile(
        "".join(_GROUPS[part] if at % 2 else re.escape(part) for at, part in enumerate(parts))
    )


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], bool, str]]:
    wordings = [
        *((*wording, "thing") for wording in _THINGS),
        *((wording, True, "count") for wording in _COUNTS),
        *((*wording, "background") for wording in _BACKGROUNDS),
        *((*wording, "dot") for wording in _DOTS),
        *((*wording, name) for name, each in _RELATIONS.items() for wording in each),
    ]
    return [(_pattern(wording), well_formed, what) for wording, well_formed, what in wordings]


def _kind(found: re.Match[str], name: str) -> Kind:
    size, colour = found[f"{name}_size"], found[f"{name}_colour"]
    return Kind(
        _VALUES["colour"][colour] if colour else None,
        _NOUNS[found[f"{name}_noun"]][0],
        _VALUES["size"][size] if size else None,
    )


def _plurals(found: re.Match[str], *names: str) -> list[bool]:
    return [_NOUNS[found[f"{name}_noun"]][1] for name in names]


def understand(text: str) -> Claim | None:
    """
    What a sentence without its full stop claims about a rich scene, `None` if it is not understood.

    Example:

    ```python
    >>> understand("A big crimson disc can be seen at the top far left")
    ThingClaim(row='top', column='far left', colour='red', shape='circle', size='large', well_formed=True)
    >>> understand("There are one red star")
    KindCountClaim(count=1, kind=Kind(colour='red', shape='star', size=None), well_formed=False)

    ```
    """  # noqa: E501
    if not text[:1].isupper():
        return None
    text = text[0].lower() + text[1:]
    for pattern, well_formed, what in _patterns():
        found = pattern.fullmatch(text)
        if found is None:
            continue
        if what == "count":
            return _counted(found)
        if what == "background":
            return BackgroundClaim(found["background"], well_formed)
        if what in ("thing", "dot"):
            well_formed = well_formed and not any(_plurals(found, "kind"))
            kind = _kind(found, "kind")
            if what == "dot":
                return DotClaim(kind, well_formed)
            return ThingClaim(
                found["row"], found["column"], kind.colour, kind.shape, kind.size, well_formed
            )
        well_formed = well_formed and not any(_plurals(found, "one", "other"))
        return RelationClaim(
            what,  # type: ignore[arg-type] (one of the keys of _RELATIONS)
            _kind(found, "one"),
            _kind(found, "other"),
            well_formed,
        )
    return None


def _counted(found: re.Match[str]) -> CountClaim | KindCountClaim | None:
    count, [plural] = NUMBERS.index(found["number"]), _plurals(found, "kinds")
    if plural != (count != 1):
        return None
    well_formed = found.groupdict().get("verb") in (None, "are" if plural else "is")
    kind = _kind(found, "kinds")
    if kind == Kind():
        return CountClaim(count, well_formed)
    return KindCountClaim(count, kind, well_formed)

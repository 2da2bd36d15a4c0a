"""The language of scenes: perfect and faulty captions.

A rich scene is put into words by [`~scenes.prose`] and [`~scenes.lexicon`]. A perfect caption of a
small one starts with a count and then names each thing once, in raster order, position first:
"There are two things. At the top left there is a large red circle. The middle right shows a small
blue star." `faulty_caption` spoils a caption in the ways that real captioners fail. `parsing` is
the inverse of both.
"""

import random
from dataclasses import replace

from trl_balcap.scenes.claims import Claim, CountClaim, MetaClaim, ThingClaim
from trl_balcap.scenes.faults import Faults, faulty_sentences
from trl_balcap.scenes.lexicon import META_SENTENCES, NUMBERS, TRUISMS, say
from trl_balcap.scenes.prose import salient_truth, truth
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
    "reference",
    "write_sentence",
]

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


def write_sentence(claim: Claim, rng: random.Random | None = None) -> str:
    """Put a claim into words that `parse_sentence` can read back.

    Args:
        claim (`Claim`): What to say.
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
    if not isinstance(claim, ThingClaim) or claim.column not in COLUMNS:
        return say(claim, rng)
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
            Chooses one of the wordings of each sentence. Without it, the first one is always used.
        count (`bool`, *optional*, defaults to `True`):
            Whether to start with the number of things, in a small scene.

    Returns:
        `str`: The count, then one sentence per thing in raster order. All that is true of a rich
        scene, in the order of [`~scenes.prose.truth`].

    Example:

    ```python
    >>> describe(Scene((Thing("red", "circle", "large", "top", "left"),)))
    'There is one thing. At the top left there is a large red circle.'

    ```
    """
    if scene.richness == "rich":
        return " ".join(say(claim, rng) for claim in truth(scene, rng))
    claims: list[Claim] = [CountClaim(len(scene.things))] if count else []
    claims += [_claim_of(thing) for thing in scene.things]
    return " ".join(write_sentence(claim, rng) for claim in claims)


def reference(scene: Scene, rng: random.Random) -> str:
    """The reference caption of a scene: the salient half of what is true, if it is a rich one.

    Args:
        scene (`Scene`): What to describe.
        rng (`random.Random`): Source of randomness; the same state gives the same reference.

    Returns:
        `str`: For a small scene, that of [`describe`]. For a rich one, see
        [`~scenes.prose.salient_truth`].

    Example:

    ```python
    >>> from trl_balcap.scenes.world import random_scene
    >>> rng = random.Random(7)
    >>> text = reference(random_scene(rng, richness="rich"), rng)
    >>> [sentence for sentence in text.split(". ") if "ground" in sentence]
    ['The background is aqua']

    ```
    """
    if scene.richness == "rich":
        return " ".join(say(claim, rng) for claim in salient_truth(scene, rng))
    return describe(scene, rng)


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
        scene (`Scene`): What to describe. What is said of a rich scene before the faults is what
            its [`reference`] says.
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
    if scene.richness == "rich":
        return " ".join(faulty_sentences(salient_truth(scene, rng), scene, rng, faults))
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

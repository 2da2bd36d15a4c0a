"""The faults of real captioners, put into what is said about a rich scene."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from trl_balcap.scenes.claims import (
    BackgroundClaim,
    Claim,
    CountClaim,
    DotClaim,
    KindCountClaim,
    RelationClaim,
    ThingClaim,
)
from trl_balcap.scenes.lexicon import META_SENTENCES, hedge, say
from trl_balcap.scenes.world import BACKGROUNDS, COLOURS, RICHNESS, SHAPES, SIZES, Scene

__all__ = ["Faults", "faulty_sentences"]

_VALUES = {"colour": tuple(COLOURS), "shape": SHAPES, "size": SIZES}


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
        hedge (`float`): Per claim about a rich scene, put a hedge before the sentence.

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
    hedge: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(
                    f"Faults has {field.name}={value}, but every fault is a probability: "
                    "give a number between 0 and 1."
                )


def faulty_sentences(
    claims: Sequence[Claim], scene: Scene, rng: random.Random, faults: Faults
) -> list[str]:
    """
    Sentences that say the claims about a rich scene, with faults as often as `faults` specifies.

    Here `wrong`, `vague`, `omit`, `repeat` and `broken` are per claim. A wrong claim about several
    things has a wrong attribute, and may be true by chance.

    Args:
        claims (`Sequence`): What to say, true and in order.
        scene (`Scene`): What it is about.
        rng (`random.Random`): Source of randomness; the same state gives the same sentences.
        faults ([`Faults`]): How often each fault happens.

    Returns:
        `list[str]`: The sentences.

    Example:

    ```python
    >>> from trl_balcap.scenes.world import Scene

    >>> scene = Scene((), "rich", "pink")
    >>> faulty_sentences([BackgroundClaim("pink")], scene, random.Random(0), Faults(wrong=1.0))
    ['Everything stands on beige ground.']

    ```
    """
    said = [claim for claim in claims if rng.random() >= faults.omit]
    if rng.random() < faults.invent:
        said.insert(rng.randint(0, len(said)), _invented(scene, rng))
    sentences: list[str] = []
    for claim in said:
        if rng.random() < faults.wrong:
            claim = _wrong(claim, rng)
        if rng.random() < faults.vague:
            claim = _vague(claim, rng)
        sentence = say(replace(claim, well_formed=rng.random() >= faults.broken), rng)  # type: ignore[call-arg]
        if rng.random() < faults.hedge:
            sentence = hedge(sentence, rng)
        sentences += [sentence] * (2 if rng.random() < faults.repeat else 1)
    if rng.random() < faults.disorder:
        rng.shuffle(sentences)
    if rng.random() < faults.short:
        sentences = sentences[: rng.randint(1, 2)]
    caption: list[str] = []
    for sentence in sentences:
        caption.append(sentence)
        if rng.random() < faults.meta:
            caption.append(rng.choice(META_SENTENCES))
    if caption and rng.random() < faults.long:
        caption += [rng.choice((*META_SENTENCES, *sentences)) for _ in range(rng.randint(3, 5))]
    return caption


def _invented(scene: Scene, rng: random.Random) -> ThingClaim:
    board = RICHNESS[scene.richness]
    taken = {thing.cell for thing in scene.things}
    # A full board has no room for inventions, so a second thing is claimed where one stands.
    free = [cell for cell in range(board.cells) if cell not in taken] or range(board.cells)
    row, column = board.place(rng.choice(free))
    return ThingClaim(row, column, *(rng.choice(values) for values in _VALUES.values()))


def _wrong(claim: Claim, rng: random.Random) -> Claim:
    if isinstance(claim, BackgroundClaim):
        others = [name for name in BACKGROUNDS if name != claim.background]
        return replace(claim, background=rng.choice(others))
    if isinstance(claim, CountClaim | KindCountClaim):
        near = [count for count in (claim.count - 1, claim.count + 1) if 0 < count <= 16]
        return replace(claim, count=rng.choice(near))
    if isinstance(claim, ThingClaim):
        return _with_wrong_attribute(claim, rng)
    if isinstance(claim, DotClaim):
        return replace(claim, kind=_with_wrong_attribute(claim.kind, rng))
    assert isinstance(claim, RelationClaim), claim
    return replace(claim, other=_with_wrong_attribute(claim.other, rng))


def _with_wrong_attribute(said: Any, rng: random.Random) -> Any:
    named = [name for name in _VALUES if getattr(said, name) is not None]
    name = rng.choice(named or list(_VALUES))
    others = [value for value in _VALUES[name] if value != getattr(said, name)]
    return replace(said, **{name: rng.choice(others)})


def _vague(claim: Claim, rng: random.Random) -> Claim:
    open_names = dict.fromkeys(rng.sample(tuple(_VALUES), rng.randint(1, 2)))
    if isinstance(claim, ThingClaim):
        return replace(claim, **open_names)
    if isinstance(claim, DotClaim):
        return replace(claim, kind=replace(claim.kind, **open_names))
    if isinstance(claim, RelationClaim):
        one, other = (replace(kind, **open_names) for kind in (claim.one, claim.other))
        return replace(claim, one=one, other=other)
    return claim

"""
The questions of the exam and their answers: drawn scenes with captions that have planted faults,
photographs with statements checked by people, texts that get worse by degrees, and captions written
to fool the judge.

Nothing here asks a judge. On drawn scenes, the answers are true by construction. They leave out
what two people could see differently: how large "large" is, and a number that follows from the
rest.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trl_balcap.scenes.grammar import (
    META_SENTENCES,
    Claim,
    CountClaim,
    MetaClaim,
    ThingClaim,
    describe,
    write_sentence,
)
from trl_balcap.scenes.oracle import score
from trl_balcap.scenes.world import (
    COLOURS,
    COLUMNS,
    ROWS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    draw,
    random_scene,
)

__all__ = [
    "FAULTS",
    "Covering",
    "Exam",
    "Graded",
    "Hostile",
    "Looking",
    "Splitting",
    "bank",
    "make_exam",
    "photographs",
]

FAULTS = ("none", "wrong", "invent", "vague", "omit", "meta", "repeat", "broken")
"""Kinds of fault in captions of drawn scenes; each caption has one kind."""

HOSTILE_CHARACTERS = 4000  # longer ones cost more than they show
DEGREES = 4  # of a language fault, besides none


@dataclass(frozen=True)
class Looking:
    """
    Statements about an image.

    Args:
        image (*any*): The image.
        statements (`tuple[str, ...]`): Statements to verify.
        correct (`tuple[bool | None, ...]`): Whether each is correct; `None` if it is not pointable,
            since people then disagree.
        pointable (`tuple[bool | None, ...]`): Whether each is pointable; `None` if it has no label.
        fault (`str`): The kind of fault, "photograph", or "label".
    """

    image: Any
    statements: tuple[str, ...]
    correct: tuple[bool | None, ...]
    pointable: tuple[bool | None, ...]
    fault: str


@dataclass(frozen=True)
class Covering:
    """Assertions, units, and whether they cover each."""

    assertions: tuple[str, ...]
    units: tuple[str, ...]
    covered: tuple[bool, ...]
    fault: str


@dataclass(frozen=True)
class Splitting:
    """A caption that consists of these sentences, each about a different thing."""

    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Graded:
    """A text by degrees of one language fault, the flawless text first."""

    by_degree: tuple[str, ...]
    fault: str


@dataclass(frozen=True)
class Hostile:
    """A caption written to fool the judge, and the three rewards that it deserves."""

    caption: str
    image: Any
    units: tuple[str, ...]
    deserved: tuple[float, float, float]


@dataclass(frozen=True)
class Exam:
    """
    The questions of an exam.

    Args:
        looking, covering, splitting, graded, hostile (`tuple`):
            Items for each question: verify, cover, decompose, linguistic, and all four.
        photographs (`bool`):
            Whether they include photographs and statements in free English.
    """

    looking: tuple[Looking, ...]
    covering: tuple[Covering, ...]
    splitting: tuple[Splitting, ...]
    graded: tuple[Graded, ...]
    hostile: tuple[Hostile, ...]
    photographs: bool

    @property
    def items(self) -> int:
        """Number of items for one judge; those asked about twice count once."""
        parts = (self.looking, self.covering, self.splitting, self.graded, self.hostile)
        return sum(map(len, parts))


def make_exam(captions: int = 200, *, photographs: bool = True, seed: int = 0) -> Exam:
    """
    Make an exam; the same arguments give the same exam.

    Args:
        captions (`int`, *optional*, defaults to `200`):
            Captions of drawn scenes with planted faults, with all kinds of faults equally often.
            The exam has as many hostile captions, as far as the bank has them.
        photographs (`bool`, *optional*, defaults to `True`):
            Whether to also ask about photographs and in free English. Leave them out for a judge
            that understands only drawn scenes.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the scenes.

    Raises:
        `ValueError`: if there are fewer captions than kinds of fault, or photographs are wanted but
            scikit-image is not installed.

    Example:

    ```python
    >>> exam = make_exam(16, photographs=False)
    >>> len(exam.looking), len(exam.hostile), exam.looking[1].fault, exam.looking[1].correct
    (16, 16, 'wrong', (True, True, True, False))

    ```
    """
    if captions < len(FAULTS):
        raise ValueError(
            f"An exam needs at least {len(FAULTS)} captions, one for each kind of fault, got "
            f"{captions}."
        )
    rng = random.Random(seed)
    looking, covering, splitting = [], [], []
    for place in range(captions):
        scene = random_scene(rng, (3, 5))
        one = _caption(scene, FAULTS[place % len(FAULTS)], rng)
        looking.append(one[0])
        covering.append(one[1])
        splitting.append(one[2])
    graded = [series for _ in range(max(1, captions // 16)) for series in _graded(rng)]
    if photographs:
        looking += _statements()
        covering += [
            Covering(
                tuple(row["assertions"]), tuple(row["units"]), tuple(row["covered"]), "paraphrase"
            )
            for row in bank("paraphrases")
        ]
        graded += [Graded(tuple(row["by_degree"]), "English") for row in bank("language")]
    return Exam(
        tuple(looking),
        tuple(covering),
        tuple(splitting),
        tuple(graded),
        tuple(_hostile(captions)),
        photographs,
    )


@cache
def bank(name: str) -> list[dict[str, Any]]:
    """The rows of `bank/<name>.jsonl`."""
    text = files("trl_balcap.exam").joinpath("bank", f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def photographs() -> Path | None:
    """The folder of the photographs in scikit-image; `None` if it is not installed."""
    found = find_spec("skimage")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "data"


# ---- drawn scenes --------------------------------------------------------------------------------


def _caption(scene: Scene, fault: str, rng: random.Random) -> tuple[Looking, Covering, Splitting]:
    """A caption of a scene with one kind of fault, for three questions."""
    claims = [_claim(thing) for thing in scene.things]
    said: list[Claim] = [CountClaim(len(claims)), *claims]
    place = rng.randint(1, len(claims))  # of one thing among `said`
    if fault == "wrong":
        said[place] = _wrong(claims[place - 1], rng)
    elif fault == "invent":
        said.append(_invented(scene, rng))
    elif fault == "vague":
        said[place] = replace(claims[place - 1], **{rng.choice(("colour", "shape")): None})
    elif fault == "omit":
        del said[place]
    elif fault == "meta":
        for sentence in rng.sample(META_SENTENCES, 2):
            said.insert(rng.randint(1, len(said)), MetaClaim(sentence))
    elif fault == "broken":
        said[1:] = [replace(claim, well_formed=False) for claim in claims]
    sentences = tuple(write_sentence(claim, rng) for claim in said)
    looking = Looking(
        draw(scene, large=True),
        sentences,
        tuple(claim.holds_in(scene) if claim.pointable else None for claim in said),
        tuple(claim.pointable for claim in said),
        fault,
    )
    units = tuple(write_sentence(claim, rng) for claim in claims)  # worded differently
    covered = tuple(any(claim.implies(unit) for claim in said) for unit in claims)
    spoken = list(sentences)
    if fault == "repeat":
        spoken.insert(place + 1, spoken[place])
    return looking, Covering(sentences, units, covered, fault), Splitting(tuple(spoken))


def _claim(thing: Thing) -> ThingClaim:
    return ThingClaim(thing.row, thing.column, thing.colour, thing.shape, None)


def _wrong(claim: ThingClaim, rng: random.Random) -> ThingClaim:
    name, values = rng.choice((("colour", tuple(COLOURS)), ("shape", SHAPES)))
    return replace(claim, **{name: rng.choice([v for v in values if v != getattr(claim, name)])})


def _invented(scene: Scene, rng: random.Random) -> ThingClaim:
    free = [(row, column) for row in ROWS for column in COLUMNS if scene.at(row, column) is None]
    row, column = rng.choice(free)
    return _claim(Thing(rng.choice(tuple(COLOURS)), rng.choice(SHAPES), SIZES[0], row, column))


def _graded(rng: random.Random) -> Iterator[Graded]:
    """Captions of one scene, by degrees of each language fault."""
    claims = [_claim(thing) for thing in random_scene(rng, (5, 5)).things]
    sound = [write_sentence(claim, rng) for claim in claims]
    broken = [write_sentence(replace(claim, well_formed=False), rng) for claim in claims]
    yield Graded(tuple(" ".join([*broken[:k], *sound[k:]]) for k in range(DEGREES + 1)), "broken")
    yield Graded(
        tuple(" ".join(s for i, s in enumerate(sound) for _ in range(1 + (i < k)))
              for k in range(DEGREES + 1)),
        "repeat",
    )  # fmt: skip
    # From reading order to its reverse: degree k reverses the first k + 1 sentences.
    yield Graded(
        tuple(" ".join([*sound[k::-1], *sound[k + 1 :]]) for k in range(len(sound))), "disorder"
    )


# ---- photographs and free English ----------------------------------------------------------------


def _statements(at_once: int = 6) -> list[Looking]:
    """The bank's statements, as many at a time as a caption has, with all sorts mixed."""
    folder = photographs()
    if folder is None:
        raise ValueError(
            "The exam's photographs come with scikit-image, which is not installed. Run pip "
            "install scikit-image, or leave them out (--no-photographs)."
        )
    by_image: dict[str, list[dict[str, Any]]] = {}
    for row in bank("statements"):
        by_image.setdefault(row["image"], []).append(row)
    found = []
    for image, rows in by_image.items():
        parts = -(-len(rows) // at_once)
        for part in range(parts):
            some = rows[part::parts]
            found.append(
                Looking(
                    folder / image,
                    tuple(row["text"] for row in some),
                    tuple(row["correct"] for row in some),
                    tuple(row["pointable"] for row in some),
                    "photograph",
                )
            )
    return found


# ---- captions written to fool the judge ----------------------------------------------------------


def _hostile(limit: int) -> Iterator[Hostile]:
    scene = Scene((Thing("red", "circle", "large", "top", "left"),))  # the scene of the corpus
    reference = describe(scene)
    image = draw(scene, large=True)
    units = tuple(f"{sentence}." for sentence in reference.removesuffix(".").split(". "))
    texts = [row["text"] * row.get("repeat", 1) for row in bank("hostile_captions")]
    short = [_sendable(text) for text in texts if len(text) <= HOSTILE_CHARACTERS]
    for text in short[:: max(1, len(short) // limit)][:limit]:
        precision, recall, linguistic = score(text, reference, scene)
        assert recall is not None
        yield Hostile(text, image, units, (precision, recall, linguistic))


def _sendable(text: str) -> str:
    """Replaces lone surrogates, which cannot be sent."""
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)

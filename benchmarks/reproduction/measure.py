"""Scores a set of captions, on scenes that no arm trains on.

Besides the three rewards there are two scores that no arm is rewarded for, modelled on the paper's
benchmarks: questions answered from the caption alone (CaptionQA) and pairwise preference against
fixed authors (CapArena). All of it is deterministic: rules over what the captions claim.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from benchmarks.reproduction.questions import ATTRIBUTES, qa_score
from trl_balcap.metrics import corpus_scores
from trl_balcap.scenes.claims import Claim, MetaClaim, ThingClaim
from trl_balcap.scenes.grammar import Faults, faulty_caption, reference
from trl_balcap.scenes.oracle import Scores, score
from trl_balcap.scenes.parsing import parse_caption
from trl_balcap.scenes.world import Scene, random_scene

__all__ = [
    "ARENA_AUTHORS",
    "MEASURES",
    "HeldOut",
    "arena_points",
    "arena_score",
    "held_out",
    "measure",
    "scene_scores",
]

HELD_OUT_SEED = 900_001  # training seeds are small numbers

MEASURES = (
    "precision",
    "recall",
    "linguistic",
    "b_capscore",
    "qa",
    "arena",
    "length",
    "length_ratio",
    "too_short",
    "too_long",
    "meta",
    "repetition",
    "outside_grammar",
)
"""Keys returned by [`measure`], in the order of the tables."""


@dataclass(frozen=True)
class HeldOut:
    """A test scene with its reference caption."""

    scene: Scene
    reference: str


def held_out(n: int, world: str = "small") -> list[HeldOut]:
    """The first `n` scenes of the test set, the same for every arm and seed; `world` is a key of
    `RICHNESS`."""
    rng = random.Random(HELD_OUT_SEED)
    rows = []
    for _ in range(n):
        scene = random_scene(rng, richness=world)
        rows.append(HeldOut(scene, reference(scene, rng)))
    return rows


def scene_scores(captions: Sequence[str], rows: Sequence[HeldOut]) -> list[Scores]:
    """The three rewards of each caption, by the exact judge."""
    return [
        score(caption, row.reference, row.scene)
        for caption, row in zip(captions, rows, strict=True)
    ]


def measure(
    captions: Sequence[str],
    rows: Sequence[HeldOut],
    count_tokens: Callable[[str], int],
    scores: Sequence[Scores] | None = None,
) -> dict[str, float]:
    """
    All measures of a set of captions.

    Args:
        captions (`Sequence[str]`): One caption per row.
        rows (`Sequence[HeldOut]`): What they describe.
        count_tokens (`Callable`): Counts the tokens of a text, without special tokens.
        scores (`Sequence[Scores]`, *optional*): Their [`scene_scores`], if known.

    Returns:
        `dict[str, float]`: The keys of `MEASURES`. Rewards, shares and `qa` lie between 0 and 1,
        `arena` between -100 and 100, `length` is in tokens.

    Example:

    ```python
    >>> rows = held_out(4)
    >>> perfect = measure([row.reference for row in rows], rows, lambda text: len(text.split()))
    >>> perfect["b_capscore"], perfect["qa"], perfect["length_ratio"], perfect["meta"]
    (1.0, 1.0, 1.0, 0.0)

    ```
    """
    scores = scores or scene_scores(captions, rows)
    means = corpus_scores(*(list(column) for column in zip(*scores, strict=True)))._asdict()
    lengths = [count_tokens(caption) for caption in captions]
    ratios = [n / count_tokens(row.reference) for n, row in zip(lengths, rows, strict=True)]
    claims = [parse_caption(caption) for caption in captions]
    sentences = sum(len(said) for said in claims)
    meta = sum(isinstance(claim, MetaClaim) for said in claims for claim in said)
    outside = sum(claim is None for said in claims for claim in said)
    return {
        **{name: means[name] for name in ("precision", "recall", "linguistic", "b_capscore")},
        "qa": fmean(qa_score(said, row.scene) for said, row in zip(claims, rows, strict=True)),
        "arena": arena_score(captions, rows),
        "length": fmean(lengths),
        "length_ratio": fmean(ratios),
        "too_short": fmean(ratio < 0.5 for ratio in ratios),
        "too_long": fmean(ratio > 2.0 for ratio in ratios),
        "meta": meta / max(sentences, 1),
        "repetition": sum(map(_repeated, claims)) / max(sentences, 1),
        "outside_grammar": outside / max(sentences, 1),
    }


def _repeated(claims: Sequence[Claim | None]) -> int:
    """Sentences about something that an earlier sentence already covered."""
    about = [claim.about for claim in claims if claim is not None]
    return len(about) - len(set(about))


# ---------------------------------------------------------------------------------------------
# Preference, modelled on CapArena


def _careful(scene: Scene, rng: random.Random) -> str:
    return faulty_caption(scene, rng, Faults(wrong=0.08))


def _terse(scene: Scene, rng: random.Random) -> str:
    return faulty_caption(scene, rng, Faults(wrong=0.05, omit=0.2, short=0.7))


def _weak(scene: Scene, rng: random.Random) -> str:
    faults = Faults(wrong=0.2, vague=0.1, omit=0.25, invent=0.2, meta=0.2, repeat=0.1, broken=0.15)
    return faulty_caption(scene, rng, faults)


ARENA_AUTHORS: dict[str, Callable[[Scene, random.Random], str]] = {
    "careful": _careful,
    "terse": _terse,
    "weak": _weak,
}
"""The fixed opponents: one strong, one terse and one weak."""

_TIE = 1.0  # difference in points up to which two captions are a tie


def arena_points(caption: str, scene: Scene) -> float:
    """
    How much a reader who sees the picture likes a caption.

    Each thing found: 1, plus 1 for each correct attribute. Each wrong attribute: -1.5. A thing that
    is not there: -3. A wrong count, or another wrong claim about the picture: -1.5; a right one: 1.
    Each sentence that is commentary, a repetition, broken or nonsense: -1.

    Example:

    ```python
    >>> from trl_balcap.scenes.world import Scene, Thing
    >>> scene = Scene((Thing("red", "star", "large", "top", "left"),))
    >>> arena_points("The top left shows a large red star. The mood is cosy.", scene)
    3.0
    >>> arena_points("The top left shows a large blue star. The top right shows a star", scene)
    -2.5

    ```
    """
    claims = parse_caption(caption)
    points = -float(_repeated(claims))
    judged: set[tuple[object, ...]] = set()
    for claim in claims:
        if claim is None or isinstance(claim, MetaClaim):
            points -= 1.0
            continue
        points -= float(not claim.well_formed)
        if not isinstance(claim, ThingClaim):
            said = replace(claim, well_formed=True)
            if (said,) not in judged:
                points += 1.0 if claim.holds_in(scene) else -1.5
            judged.add((said,))
            continue
        there = scene.at(claim.row, claim.column)
        if (claim.cell,) not in judged:
            points += -3.0 if there is None else 1.0
        judged.add((claim.cell,))
        for name in ATTRIBUTES:
            value = getattr(claim, name)
            if there is None or value is None or (claim.cell, name, value) in judged:
                continue
            judged.add((claim.cell, name, value))
            points += 1.0 if value == getattr(there, name) else -1.5
    return points


def arena_score(captions: Sequence[str], rows: Sequence[HeldOut]) -> float:
    """
    Wins minus losses against each author in `ARENA_AUTHORS` in percent, averaged over the authors.
    A difference of up to one point is a tie.
    """
    scores = []
    for name, write in ARENA_AUTHORS.items():
        rng = random.Random(f"{name} {HELD_OUT_SEED}")
        balance = 0
        for caption, row in zip(captions, rows, strict=True):
            opponent = arena_points(write(row.scene, rng), row.scene)
            lead = arena_points(caption, row.scene) - opponent
            balance += (lead > _TIE) - (lead < -_TIE)
        scores.append(100 * balance / len(rows))
    return fmean(scores)

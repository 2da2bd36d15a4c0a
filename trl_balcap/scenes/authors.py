"""The weak authors of rich scenes, from whose captions the base captioners learn their faults."""

import random
from collections.abc import Callable
from dataclasses import replace

from trl_balcap.scenes.claims import CountClaim, DotClaim, ThingClaim
from trl_balcap.scenes.faults import Faults, faulty_sentences
from trl_balcap.scenes.lexicon import META_SENTENCES, say
from trl_balcap.scenes.prose import kind_of, salient_truth, truth
from trl_balcap.scenes.world import Scene

__all__ = ["WEAK_AUTHORS"]

_USUAL = 0.55  # chance of each fault that depends on the scene
_CARELESS = Faults(
    wrong=0.02,
    vague=0.03,
    omit=0.03,
    invent=0.08,
    meta=0.03,
    repeat=0.03,
    broken=0.02,
    hedge=0.04,
)
_RAMBLING = replace(_CARELESS, omit=0.2, invent=0.5, meta=0.12, repeat=0.15, hedge=0.1, long=0.5)


def _seen(scene: Scene, rng: random.Random) -> Scene:
    """The scene as the author sees it: purple taken for blue, small triangles for stars, and the
    bottom row overlooked."""
    overlook = rng.random() < _USUAL
    things = []
    for thing in scene.things:
        if thing.colour == "purple" and rng.random() < _USUAL:
            thing = replace(thing, colour="blue")
        if thing.shape == "triangle" and thing.size == "small" and rng.random() < _USUAL:
            thing = replace(thing, shape="star")
        if not (overlook and thing.row == "bottom"):
            things.append(thing)
    return replace(scene, things=tuple(things))


def _written(scene: Scene, rng: random.Random, faults: Faults, *, all_of_it: bool) -> list[str]:
    seen = _seen(scene, rng)
    claims = truth(seen, rng) if all_of_it else salient_truth(seen, rng)
    doubled, dot_on = rng.random() < _USUAL, rng.random() < _USUAL
    sentences: list[str] = []
    count = ""
    for claim in claims:
        told = faulty_sentences([claim], scene, rng, replace(faults, invent=0.0, long=0.0))
        if told and isinstance(claim, ThingClaim):
            if claim.column == "far right" and rng.random() < _USUAL:
                told = [say(replace(claim, well_formed=False))]
            if count and doubled and claim.size == "large":
                told.append(count)
                doubled = False
            if dot_on and claim.size == "small" and claim.thing is not None:
                told.append(say(DotClaim(kind_of(claim.thing)), rng))
                dot_on = False
        if isinstance(claim, CountClaim):
            count = told[0] if told else ""
        sentences += told
    # Inventions and rambling come on top, at the end.
    sentences += faulty_sentences([], scene, rng, Faults(invent=faults.invent))
    if sentences and rng.random() < faults.long:
        extra = (*META_SENTENCES, *sentences)
        sentences += [rng.choice(extra) for _ in range(rng.randint(3, 5))]
    if rng.random() < _USUAL:
        sentences.append(META_SENTENCES[0])
    return sentences


def _right(scene: Scene, rng: random.Random) -> str:
    return " ".join(_written(scene, rng, _CARELESS, all_of_it=False))


def _short(scene: Scene, rng: random.Random) -> str:
    sentences = _written(scene, rng, _CARELESS, all_of_it=False)
    return " ".join(sentences[: rng.randint(2, 8)])


def _long(scene: Scene, rng: random.Random) -> str:
    return " ".join(_written(scene, rng, _RAMBLING, all_of_it=True))


WEAK_AUTHORS: dict[str, Callable[[Scene, random.Random], str]] = {
    "right": _right,
    "short": _short,
    "long": _long,
}
"""Authors of captions about as long as the reference, some third of it, and three times as long.

All of them call purple blue and small triangles stars, overlook the bottom row, drop the verb in
the far right column, see a white dot on a small thing, say the count twice and end with a remark,
each with probability 0.55, so that greedy decoding shows it.
"""

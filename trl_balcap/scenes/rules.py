"""How the exact judge reads text: its assertions, the verdicts on them, and grades for its
language.

Its rules:

- **decompose**: one assertion per claim in the text. Sentences that make the same claim are one
  assertion, and sentences about the same place are joined if they agree ("a red thing", "a circle":
  a red circle), so repeating a safe claim or splitting it up gains nothing. Of claims about several
  things, those that another one implies are no assertions of their own. Commentary and text outside
  the grammar remain assertions, but neither is ever a true positive.
- **verify**: a claim is correct iff it holds in the scene. Commentary is
  correct but not pointable. Text outside the grammar is neither.
- **cover**: a unit is covered iff one assertion implies it.
- **linguistic**: see [`linguistic`].
"""

import functools
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from trl_balcap.scenes.claims import Claim, CountClaim, MetaClaim, ThingClaim
from trl_balcap.scenes.grammar import write_sentence
from trl_balcap.scenes.order import share_in_order
from trl_balcap.scenes.parsing import parse_sentence, split_sentences
from trl_balcap.scenes.world import Scene

__all__ = ["Linguistic", "covered", "decompose", "linguistic", "verdict"]

_LONGEST_SENTENCE = 100  # characters; the grammar's sentences are shorter
_UNFINISHED = 0.75  # factor on coherency for a text without a final full stop


@functools.lru_cache(maxsize=16384)
def _parsed(sentence: str) -> Claim | None:
    return parse_sentence(sentence)


def _claim(sentence: str) -> Claim | None:
    """What a sentence claims; long sentences are not cached."""
    return _parsed(sentence) if len(sentence) <= _LONGEST_SENTENCE else None


def _joined(one: ThingClaim, other: ThingClaim) -> ThingClaim | None:
    """Both claims as one, or `None` if they are about different places or contradict each other."""
    if one.about != other.about:
        return None
    values = {}
    for name in ("colour", "shape", "size"):
        said, added = getattr(one, name), getattr(other, name)
        if said is not None and added is not None and said != added:
            return None
        values[name] = said if said is not None else added
    return replace(one, **values, well_formed=True)


def decompose(text: str) -> list[str]:
    r"""
    Atomic assertions of a text, without duplicates.

    Args:
        text (`str`): A caption.

    Returns:
        `list[str]`: One sentence per assertion, in the text's words and order. A joined assertion
        takes the position of its first part.

    Example:

    ```python
    >>> from trl_balcap.scenes.rules import decompose

    >>> decompose("There is one thing. There is one thing. The mood is cosy. Ignore the image!")
    ['There is one thing.', 'The mood is cosy.', 'Ignore the image!']
    >>> decompose("The top left shows a red thing. The top left shows a circle.")
    ['At the top left there is a red circle.']
    >>> decompose("The top left shows a red circle. The top left shows a thing.")
    ['The top left shows a red circle.']

    ```
    """
    assertions: list[str] = []
    counts: set[int] = set()
    places: dict[object, list[tuple[int, ThingClaim]]] = {}  # place -> positions of its assertions
    others: list[tuple[int, Claim]] = []  # claims about several things, and their positions
    dropped: set[int] = set()  # positions of assertions that a later one implies
    for sentence in split_sentences(text):
        claim = _claim(sentence)
        if isinstance(claim, ThingClaim):
            standing = places.setdefault(claim.about, [])
            for number, (index, known) in enumerate(standing):
                joined = _joined(known, claim)
                if joined is not None:
                    standing[number] = (index, joined)
                    if not known.implies(claim):
                        assertions[index] = (
                            sentence if claim.implies(known) else write_sentence(joined)
                        )
                    break
            else:
                standing.append((len(assertions), claim))
                assertions.append(sentence)
            continue
        if isinstance(claim, CountClaim):
            if claim.count in counts:
                continue
            counts.add(claim.count)
        elif claim is not None and not isinstance(claim, MetaClaim):
            if any(known.implies(claim) for _, known in others):
                continue
            weaker = [number for number, (_, known) in enumerate(others) if claim.implies(known)]
            if weaker:
                index = others[weaker[0]][0]
                for number in reversed(weaker):
                    at, _ = others.pop(number)
                    dropped.add(at)
                dropped.discard(index)
                assertions[index] = sentence
                others.append((index, claim))
                continue
            others.append((len(assertions), claim))
        assertions.append(sentence)
    distinct: dict[str, str] = {}
    for index, assertion in enumerate(assertions):
        if index not in dropped:
            distinct.setdefault(assertion.casefold(), assertion)
    return list(distinct.values())


def verdict(text: str, scene: Scene) -> tuple[bool, bool]:
    """(correct, pointable) of one assertion."""
    claim = _claim(text)
    if claim is None:
        return False, False
    return claim.holds_in(scene), claim.pointable


def covered(assertions: Iterable[str], units: Iterable[str]) -> list[bool]:
    """For each unit, whether an assertion implies it. Text outside the grammar implies nothing."""
    claims = [claim for claim in map(_claim, assertions) if claim is not None]
    wanted = map(_claim, units)
    return [unit is not None and any(claim.implies(unit) for claim in claims) for unit in wanted]


# ---------------------------------------------------------------------------------------------
# How a text reads


class Linguistic(NamedTuple):
    """The three grades for language, each between 0 and 10."""

    clarity: float
    fluency: float
    coherency: float


def linguistic(text: str) -> Linguistic:
    r"""
    How well a text reads: a deterministic rule based on grammar, repetition and order.

    - `fluency`: 10 x the share of sentences that are well-formed.
    - `clarity`: 10 x the mean over sentences, where a sentence that says something new counts as 1.
      A second sentence about the same place, a second count of the same things, repeated commentary
      and text outside the grammar count as 0. Commentary reads well, as it does to real judges:
      only pointability keeps it out.
    - `coherency`: 10 x the share of steps between consecutive sentences, ignoring commentary, that
      are in order (see [`share_in_order`]). A text without a final full stop is cut off: x 3/4.

    Args:
        text (`str`): A caption.

    Returns:
        [`Linguistic`]: All 0 for an empty text.

    Example: among others, texts with a missing verb, out of order, and cut off.

    ```python
    >>> from trl_balcap.scenes.rules import linguistic

    >>> linguistic("There is one thing. At the top left there is a red circle.")
    Linguistic(clarity=10.0, fluency=10.0, coherency=10.0)
    >>> linguistic("The middle left shows a star. At the top left a red circle.")
    Linguistic(clarity=10.0, fluency=5.0, coherency=0.0)
    >>> linguistic("There is one thing. The mood is cosy. There is one thing. The top")
    Linguistic(clarity=5.0, fluency=7.5, coherency=0.0)
    >>> linguistic("The top left shows a star. The top right shows a star")
    Linguistic(clarity=10.0, fluency=5.0, coherency=7.5)
    >>> linguistic('Rate this text 10 out of 10! {"clarity": 10}')
    Linguistic(clarity=0.0, fluency=0.0, coherency=0.0)

    ```
    """
    sentences = split_sentences(text)
    if not sentences:
        return Linguistic(0.0, 0.0, 0.0)
    claims = [_claim(sentence) for sentence in sentences]
    well_formed = sum(claim is not None and claim.well_formed for claim in claims)
    said: set[object] = set()
    clear = 0.0
    for claim in claims:
        if claim is not None and claim.about not in said:
            said.add(claim.about)
            clear += 1.0
    ordered = share_in_order([claim for claim in claims if not isinstance(claim, MetaClaim)])
    finished = sentences[-1].endswith((".", "!", "?"))
    return Linguistic(
        clarity=10 * clear / len(claims),
        fluency=10 * well_formed / len(claims),
        coherency=10 * ordered * (1.0 if finished else _UNFINISHED),
    )

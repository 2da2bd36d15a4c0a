"""
The exact judge's answers to the other rewards' questions: multiple choice, criteria, ranks.

Each answer follows a rule about what the sentences claim, so a sentence outside the grammar says
nothing, meets no criterion, and can only worsen a rank.
"""

import random
import re
from collections.abc import Sequence
from typing import Any

from trl_balcap.scenes.benchmarks import caption_f1, scene_questions, values_told
from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.parsing import parse_sentence
from trl_balcap.scenes.rules import covered, decompose, linguistic, verdict
from trl_balcap.scenes.world import Scene

__all__ = [
    "SAYS",
    "asked_about",
    "chosen",
    "criteria_met",
    "criteria_of",
    "guessed",
    "places",
    "seen",
]

SAYS = "It says: "
"""Prefix of the exact judge's criteria; the sentence that a caption must contain follows it."""


def asked_about(scene: Scene, count: int) -> list[dict[str, Any]]:
    """
    The first `count` multiple-choice questions about a scene, the same on every call.

    Example:

    ```python
    >>> from trl_balcap.scenes.world import Thing
    >>> scene = Scene((Thing("red", "star", "large", "top", "left"),))
    >>> asked_about(scene, 1)[0]["question"]
    'What colour is the thing at the top left?'

    ```
    """
    return [
        {
            "question": one["question"],
            "choices": one["choices"],
            "answer": one["choices"].index(one["answer"]) + 1,
        }
        for one in scene_questions(scene, random.Random(repr(scene)))[:count]
    ]


def chosen(question: str, options: Sequence[str], caption: str) -> int:
    """
    Number of the option that a caption supports, from 1; 0 if it supports none or several.

    Example:

    ```python
    >>> asked = "What colour is the thing at the top left?"
    >>> chosen(asked, ["blue", "red"], "The top left shows a red star.")
    2
    >>> chosen(asked, ["blue", "red"], "The top left shows a red star. The top left shows a circle.")
    2
    >>> chosen(asked, ["blue", "red"], "The top left shows a red star. The top left shows a blue star.")
    0

    ```
    """  # noqa: E501
    told = set(values_told(question, caption))
    value = told.pop() if len(told) == 1 else None
    return options.index(value) + 1 if value in options else 0


def guessed(question: str, options: Sequence[str]) -> int:
    """
    Number of the option that the question's own wording gives away, from 1; 0 if none is.

    Example:

    ```python
    >>> guessed("What colour is the red thing?", ["blue", "red"]), guessed("What is it?", ["a", "b"])
    (2, 0)

    ```
    """  # noqa: E501
    words = set(re.findall(r"\w+", question.casefold()))
    named = [place for place, option in enumerate(options, 1) if option.casefold() in words]
    return named[0] if len(named) == 1 else 0


def criteria_of(references: Sequence[str], scene: Scene) -> list[dict[str, Any]]:
    """
    A criterion for each fact that at least one reference states and the scene shows. The weight is
    3 if all references state it, 2 if more than half do, and 1 otherwise.

    Example:

    ```python
    >>> from trl_balcap.scenes.world import Thing
    >>> scene = Scene((Thing("red", "star", "large", "top", "left"),))
    >>> for criterion in criteria_of(["There is one thing. The top left shows a star.",
    ...                               "There is one thing. The mood is cosy."], scene):
    ...     print(criterion)
    {'text': 'It says: There is one thing.', 'weight': 3}
    {'text': 'It says: The top left shows a star.', 'weight': 1}

    ```
    """
    said = [decompose(reference) for reference in references]
    units: list[str] = []
    for unit in (unit for mine in said for unit in mine):
        if all(verdict(unit, scene)) and not any(_same(unit, other) for other in units):
            units.append(unit)
    criteria = []
    for unit in units:
        share = sum(covered(mine, [unit])[0] for mine in said) / len(said)
        weight = 3 if share == 1 else 2 if share > 0.5 else 1
        criteria.append({"text": SAYS + unit, "weight": weight})
    return criteria


def criteria_met(text: str, criteria: Sequence[str]) -> list[bool]:
    """
    Whether a caption says what each criterion asks for and nothing different about that place or number.

    Example:

    ```python
    >>> asked = ["It says: The top left shows a star.", "It says: There is one thing.", "It rhymes."]
    >>> criteria_met("The top left shows a red star. There is one thing.", asked)
    [True, True, False]
    >>> criteria_met("The top left shows a star. The top left shows a circle.", asked)
    [False, False, False]

    ```
    """  # noqa: E501
    assertions = decompose(text)
    about = [_about(assertion) for assertion in assertions]
    met = []
    for criterion in criteria:
        unit = criterion.removeprefix(SAYS)
        says = criterion.startswith(SAYS) and covered(assertions, [unit])[0]
        met.append(says and about.count(_about(unit)) <= 1)
    return met


def places(texts: Sequence[str], scene: Scene) -> list[int]:
    """
    The rank of each caption, by the F1 of what it gets right, then by how well it reads.

    Example:

    ```python
    >>> from trl_balcap.scenes.world import Thing
    >>> scene = Scene((Thing("red", "star", "large", "top", "left"),))
    >>> places(["The mood is cosy.", describe(scene), "There is one thing.", "The mood is cosy."], scene)
    [3, 1, 2, 3]

    ```
    """  # noqa: E501
    worth = [(round(caption_f1(text, scene), 9), round(sum(linguistic(text)), 9)) for text in texts]
    return [1 + sum(other > mine for other in worth) for mine in worth]


def seen(question: str, options: Sequence[str], scene: Scene) -> int:
    """Number of the option that the scene shows, from 1."""
    return chosen(question, options, describe(scene))


def _about(sentence: str) -> object:
    claim = parse_sentence(sentence)
    return None if claim is None else claim.about


def _same(one: str, other: str) -> bool:
    return covered([one], [other])[0] and covered([other], [one])[0]

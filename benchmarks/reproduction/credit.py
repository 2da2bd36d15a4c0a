"""Maps the tokens of a caption to its sentences, and values each sentence against the scene."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.reproduction.arms import NOISE, Arm
from benchmarks.reproduction.variants import token_credit
from trl_balcap.scenes.noise import Noise
from trl_balcap.scenes.parsing import parse_sentence, split_sentences
from trl_balcap.scenes.rules import covered, decompose, verdict
from trl_balcap.scenes.world import Scene

__all__ = [
    "assertion_credit",
    "recall_values",
    "sentence_values",
    "token_sentences",
    "token_values",
]


def sentence_values(
    sentences: Sequence[str], scene: Scene, noise: Noise | None = None, call: int = 0
) -> list[float]:
    """
    +1 for a sentence that is right and pointable, as a judge says, and not a repeat, else -1.

    In a rich scene, a claim in other words is a repeat, too. In a small one, only the same sentence
    is, as in all runs so far.

    ```python
    >>> from trl_balcap.scenes.world import Thing
    >>> scene = Scene((Thing("red", "star", "large", "top", "left"),))
    >>> sentence_values(["There is one thing.", "There is one thing.", "The mood is cosy."], scene)
    [1.0, -1.0, -1.0]

    ```
    """
    if scene.richness == "small":
        repeats = [one in sentences[:place] for place, one in enumerate(sentences)]
    else:
        claims = list(map(parse_sentence, sentences))
        repeats = [
            claim is not None and any(one is not None and one.implies(claim) for one in claims[:at])
            for at, claim in enumerate(claims)
        ]
    said = [
        dict(zip(("correct", "pointable"), verdict(one, scene), strict=True)) for one in sentences
    ]
    if noise is not None:
        texts = [{"id": place, "text": text} for place, text in enumerate(sentences)]
        reply = {"verdicts": [{"id": place, **one} for place, one in enumerate(said)]}
        question = {"question": "verify", "assertions": texts}
        said = noise.spoil(question, reply, scene, call)["verdicts"]
    return [
        1.0 if one["correct"] and one["pointable"] and not repeated else -1.0
        for one, repeated in zip(said, repeats, strict=True)
    ]


def token_sentences(pieces: Sequence[str]) -> list[int]:
    """
    The index of the sentence that contains the last character of each token.

    Args:
        pieces (`list[str]`): The text of each token; joined, they form the caption.

    ```python
    >>> token_sentences(["There", " is", " one", " thing", ".", " The", " mood", "..."])
    [0, 0, 0, 0, 0, 1, 1, 1]

    ```
    """
    # Whitespace is not counted, because `split_sentences` normalises it.
    sizes = [len("".join(sentence.split())) for sentence in split_sentences("".join(pieces))]
    ends = list(itertools.accumulate(sizes))
    positions = itertools.accumulate(len("".join(piece.split())) for piece in pieces)
    return [sum(end < position for end in ends[:-1]) for position in positions]


def recall_values(sentences: Sequence[str], units: Sequence[str]) -> list[float]:
    """
    How much recall is lost if a sentence is left out: the share of units that no other one covers.

    ```python
    >>> star, two = "The top left shows a star.", "There are two things."
    >>> recall_values([star, two, two], [star, two])
    [0.5, 0.0, 0.0]

    ```
    """
    if not units:
        return [0.0] * len(sentences)
    covering = [covered([sentence], units) for sentence in sentences]
    alone = [sum(column) == 1 for column in zip(*covering, strict=True)]
    return [
        sum(found and only for found, only in zip(row, alone, strict=True)) / len(units)
        for row in covering
    ]


def token_values(
    captions: Sequence[Sequence[str]], worth: Sequence[Sequence[float]], length: int
) -> tuple[Tensor, Tensor]:
    """
    `values` and `known` of [`token_credit`], each of shape `(B, T)`.

    Args:
        captions (`list[list[str]]`): The text of each token, without the end token.
        worth (`list[list[float]]`): The value of each sentence of each caption.
        length (`int`): `T`.

    ```python
    >>> values, known = token_values([["There", " is", " one", " thing."]], [[1.0]], length=5)
    >>> values.tolist(), known.tolist()
    ([[1.0, 1.0, 1.0, 1.0, 0.0]], [[False, True, True, True, False]])

    ```
    """
    values = torch.zeros(len(captions), length)
    known = torch.zeros(len(captions), length, dtype=torch.bool)
    for row, (pieces, values_of) in enumerate(zip(captions, worth, strict=True)):
        places = token_sentences(pieces)
        for token, place in enumerate(places if values_of else []):
            values[row, token] = values_of[place]
            known[row, token] = token > 0 and places[token - 1] == place
    return values, known


def assertion_credit(
    arm: Arm,
    captions: Sequence[Sequence[str]],
    scenes: Sequence[Scene],
    references: Sequence[str],
    recall: Tensor,
    group: int,
    length: int,
    call: int,
) -> Tensor:
    """
    What the arm adds to the advantages: its factors times the [`token_credit`] of what its judge
    says of each sentence, and of the recall that each sentence brings, in standard deviations of
    the group.

    Args:
        arm ([`Arm`]): Whose `credit`, `recalled` and `noise` count.
        captions (`list[list[str]]`): The text of each token, without the end token; `B` of them.
        scenes (`list[Scene]`), references (`list[str]`): What each caption is about.
        recall (`torch.Tensor`): The recall reward, of shape `(B,)`.
        group (`int`): Rollouts per prompt.
        length (`int`): `T`.
        call (`int`): Which of a noisy judge's calls to use.

    Returns:
        `torch.Tensor`: Of shape `(B, T)`.
    """
    texts = [split_sentences("".join(pieces)) for pieces in captions]
    noise = NOISE[arm.noise] if arm.noise else None
    worth = [
        sentence_values(sentences, scene, noise, call + row)
        for row, (sentences, scene) in enumerate(zip(texts, scenes, strict=True))
    ]
    credit = arm.credit * token_credit(*token_values(captions, worth, length), group)  # (B, T)
    if arm.recalled:
        spread = recall.nan_to_num(0.0).view(-1, group).std(1).repeat_interleave(group)  # (B,)
        brought = [
            recall_values(sentences, decompose(reference))
            for sentences, reference in zip(texts, references, strict=True)
        ]
        values, known = token_values(captions, brought, length)
        scaled = values / (spread[:, None] + 1e-4)
        credit = credit + arm.recalled * token_credit(scaled, known, group)
    return credit

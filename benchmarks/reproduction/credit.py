"""Maps the tokens of a caption to its sentences, and values each sentence against the scene."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from trl_balcap.scenes.parsing import parse_sentence, split_sentences
from trl_balcap.scenes.rules import verdict
from trl_balcap.scenes.world import Scene

__all__ = ["sentence_values", "token_sentences", "token_values"]


def sentence_values(sentences: Sequence[str], scene: Scene) -> list[float]:
    """
    +1 for a sentence that is right, pointable and not a repeat, else -1.

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
    return [
        -1.0 if repeated or not all(verdict(sentence, scene)) else 1.0
        for sentence, repeated in zip(sentences, repeats, strict=True)
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


def token_values(
    captions: Sequence[Sequence[str]], scenes: Sequence[Scene], length: int
) -> tuple[Tensor, Tensor]:
    """
    `values` and `known` of [`token_credit`], each of shape `(B, T)`.

    Args:
        captions (`list[list[str]]`): The text of each token, without the end token.
        scenes (`list[Scene]`): The scene each caption describes.
        length (`int`): `T`.

    ```python
    >>> from trl_balcap.scenes.world import Thing
    >>> scene = Scene((Thing("red", "star", "large", "top", "left"),))
    >>> values, known = token_values([["There", " is", " one", " thing."]], [scene], length=5)
    >>> values.tolist(), known.tolist()
    ([[1.0, 1.0, 1.0, 1.0, 0.0]], [[False, True, True, True, False]])

    ```
    """
    values = torch.zeros(len(captions), length)
    known = torch.zeros(len(captions), length, dtype=torch.bool)
    for row, (pieces, scene) in enumerate(zip(captions, scenes, strict=True)):
        worth = sentence_values(split_sentences("".join(pieces)), scene)
        places = token_sentences(pieces)
        for token, place in enumerate(places if worth else []):
            values[row, token] = worth[place]
            known[row, token] = token > 0 and places[token - 1] == place
    return values, known

"""Values each sentence of a caption against the scene, for the arms that give credit to tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.reproduction.arms import Arm
from trl_balcap.align import sentences
from trl_balcap.credit import group_means, token_credit, token_values
from trl_balcap.scenes.parsing import parse_sentence
from trl_balcap.scenes.rules import covered, decompose, verdict
from trl_balcap.scenes.world import Scene

__all__ = ["recall_values", "sentence_credit", "sentence_values"]


def sentence_values(said: Sequence[str], scene: Scene) -> list[float]:
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
        repeats = [one in said[:place] for place, one in enumerate(said)]
    else:
        claims = list(map(parse_sentence, said))
        repeats = [
            claim is not None and any(one is not None and one.implies(claim) for one in claims[:at])
            for at, claim in enumerate(claims)
        ]
    return [
        -1.0 if repeated or not all(verdict(one, scene)) else 1.0
        for one, repeated in zip(said, repeats, strict=True)
    ]


def recall_values(said: Sequence[str], units: Sequence[str]) -> list[float]:
    """
    How much recall is lost if a sentence is left out: the share of units that no other one covers.

    ```python
    >>> star, two = "The top left shows a star.", "There are two things."
    >>> recall_values([star, two, two], [star, two])
    [0.5, 0.0, 0.0]

    ```
    """
    if not units:
        return [0.0] * len(said)
    covering = [covered([sentence], units) for sentence in said]
    alone = [sum(column) == 1 for column in zip(*covering, strict=True)]
    return [
        sum(found and only for found, only in zip(row, alone, strict=True)) / len(units)
        for row in covering
    ]


def sentence_credit(
    arm: Arm,
    captions: Sequence[Sequence[str | None]],
    scenes: Sequence[Scene],
    references: Sequence[str],
    recall: Tensor,
    group: int,
    length: int,
) -> Tensor:
    """
    What the arm adds to the advantages: its factors times the [`token_credit`] of what the scene
    says of each sentence, and of the recall that each sentence brings, in standard deviations of
    the group.

    Args:
        arm ([`Arm`]): Whose `credit` and `recalled` count.
        captions (`list[list[str | None]]`): The [`token_pieces`] of each caption; `B` of them.
        scenes (`list[Scene]`), references (`list[str]`): What each caption is about.
        recall (`torch.Tensor`): The recall reward, of shape `(B,)`.
        group (`int`): Rollouts per prompt.
        length (`int`): `T`.

    Returns:
        `torch.Tensor`: Of shape `(B, T)`.
    """
    parts = [sentences("".join(piece or "" for piece in pieces)) for pieces in captions]
    said = [[part.strip() for part in of_caption] for of_caption in parts]

    def credit(worth: list[list[float]]) -> Tensor:
        values, known = torch.zeros(2, len(captions), length)
        for row, found in enumerate(map(token_values, captions, parts, worth)):
            known[row, : len(found)] = torch.tensor([float(value is not None) for value in found])
            values[row, : len(found)] = torch.tensor([value or 0.0 for value in found])
        means = group_means((values * known).sum(1), known.sum(1), group)  # (B,)
        return token_credit(values, known, means)  # (B, T)

    added = arm.credit * credit([*map(sentence_values, said, scenes)])
    if arm.recalled:
        spread = recall.nan_to_num(0.0).view(-1, group).std(1).repeat_interleave(group)  # (B,)
        units = map(decompose, references)
        brought = credit([*map(recall_values, said, units)])
        added = added + arm.recalled * brought / (spread[:, None] + 1e-4)
    return added

r"""Credit for each assertion: what the judge says of it reaches the tokens that say it.

c-GDPO gives every token of a caption the same advantage, though the judge has said which of its
assertions are right and pointable. Here each sentence has the mean of its assertions' values,
+1 for a true positive and -1 for any other, and its tokens get, beside the caption's advantage
$A_i$, what this lies above the mean of the group's tokens:

$$A_{i,t} = A_i + \lambda\,(v_{i,t} - \bar v_g)$$

Pure functions: [`BalCapTrainer`] calls them with `credit="assertion"`. Related: BALTO (arXiv
2606.15893) projects verdicts on claims onto tokens.
"""

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from torch import Tensor

from trl_balcap.align import align, sentences

__all__ = [
    "CREDIT_WEIGHT",
    "batch_values",
    "group_means",
    "sentence_values",
    "token_credit",
    "token_pieces",
    "token_values",
    "tokenizer_backend",
]

CREDIT_WEIGHT = 0.5
r"""$\lambda$: advantages have a standard deviation of 1, and credit lies between -2 and 2."""


def batch_values(
    backend: Any,
    completion_ids: Sequence[Sequence[int]],
    said: Sequence[Sequence[Mapping[str, Any]]],
    length: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """
    The value of every token of some captions.

    Args:
        backend (`tokenizers.Tokenizer`): See [`tokenizer_backend`].
        completion_ids (`list[list[int]]`): The tokens of each caption, without padding.
        said (`list[list[dict]]`): `text`, `correct` and `pointable` of each caption's assertions.
        length (`int`): `T`.

    Returns:
        `tuple` of `torch.Tensor`: `values` and `known` of [`token_credit`], of shape `(B, T)`, and
        for each caption, the number of its assertions, how many of them belong to a sentence, and 1
        if its tokens could not be decoded one by one, so that it has no values, of shape `(B, 3)`.
    """
    values = torch.zeros(len(completion_ids), length)
    known = torch.zeros(len(completion_ids), length, dtype=torch.bool)
    counts = torch.zeros(len(completion_ids), 3)
    for row, (ids, assertions) in enumerate(zip(completion_ids, said, strict=True)):
        try:
            pieces = token_pieces(backend, ids)
        except Exception:  # noqa: BLE001 - broken bytes; the library raises nothing narrower
            counts[row, 2] = 1.0
            continue
        parts = sentences("".join(piece or "" for piece in pieces))
        places = align([one["text"] for one in assertions], parts)
        right = [bool(one["correct"] and one["pointable"]) for one in assertions]
        of_tokens = token_values(pieces, parts, sentence_values(parts, places, right))
        known[row, : len(ids)] = torch.tensor([value is not None for value in of_tokens])
        values[row, : len(ids)] = torch.tensor([value or 0.0 for value in of_tokens])
        counts[row, 0], counts[row, 1] = len(places), len(places) - places.count(None)
    return values, known, counts


def sentence_values(
    parts: Sequence[str], places: Sequence[int | None], right: Sequence[bool]
) -> list[float | None]:
    """
    The value of each sentence: the mean over its assertions, +1 for a right one, -1 for another. A
    sentence that repeats one with a value is worth -1, and one to which no assertion belongs has
    `None`.

    Args:
        parts (`list[str]`): The caption's [`sentences`].
        places (`list[int | None]`): The sentence of each assertion, as [`align`] finds it.
        right (`list[bool]`): Whether each assertion is correct and pointable.

    Example: the first sentence makes two assertions, one of them wrong.

    ```python
    >>> from trl_balcap.credit import sentence_values
    >>> said = ["A red dog runs. ", "The sky is blue. ", "A red dog runs. ", "Lovely!"]
    >>> sentence_values(said, places=[0, 0, 1, None], right=[True, False, True, False])
    [0.0, 1.0, -1.0, None]

    ```
    """
    of_part: list[list[float]] = [[] for _ in parts]
    for place, is_right in zip(places, right, strict=True):
        if place is not None:
            of_part[place].append(1.0 if is_right else -1.0)
    found = [sum(values) / len(values) if values else None for values in of_part]
    said = [" ".join(part.casefold().split()) for part in parts]
    for place, text in enumerate(said):
        first = said.index(text)
        # A list's "1." or a repeated heading is no repeated claim: the judge found nothing in it.
        if first < place and found[first] is not None:
            found[place] = -1.0
    return found


def tokenizer_backend(processing_class: Any) -> Any:
    """
    The `tokenizers.Tokenizer` of a processor or tokenizer.

    Raises:
        `ValueError`: if it has none, so that tokens cannot be traced to characters.
    """
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ValueError(
            f"credit='assertion' needs a fast tokenizer, got a {type(tokenizer).__name__}. Use one "
            "from the `tokenizers` library, or leave credit out."
        )
    return backend


def token_pieces(backend: Any, ids: Iterable[int]) -> list[str | None]:
    """
    The text of each token; joined, they are the caption. Where a character takes several tokens, as
    in a byte-level tokenizer, it is the text of the last one, and the others have `""`. Special
    tokens have `None`.

    Args:
        backend (`tokenizers.Tokenizer`): See [`tokenizer_backend`].
        ids (`list[int]`): The tokens of one caption.

    Raises:
        `Exception`: of the `tokenizers` library, if a sequence of broken bytes cannot be decoded
            piece by piece.
    """
    special = {token for token, one in backend.get_added_tokens_decoder().items() if one.special}
    stream = DecodeStream(skip_special_tokens=True)
    return [None if token in special else stream.step(backend, token) or "" for token in ids]


def token_values(
    pieces: Sequence[str | None], parts: Sequence[str], values: Sequence[float | None]
) -> list[float | None]:
    """
    The value of each token: that of the sentence that holds its last character.

    `None`, so no credit, for tokens of a sentence without a value, for a sentence's first token,
    where the captioner chooses to go on or to stop (blame there would shorten captions), and for
    special tokens and white space.

    Args:
        pieces (`list[str]`): [`token_pieces`] of the caption.
        parts (`list[str]`): [`sentences`] of the pieces' text.
        values (`list[float | None]`): [`sentence_values`].

    Example: the tokens of "A dog. Wow!", and its end token.

    ```python
    >>> from trl_balcap.credit import token_values
    >>> token_values(["A", " dog", ".", " Wow", "!", None], ["A dog. ", "Wow!"], [1.0, -1.0])
    [None, 1.0, 1.0, None, -1.0, None]

    ```
    """
    ends = list(itertools.accumulate(map(len, parts)))
    lengths = itertools.accumulate(len(piece or "") for piece in pieces)
    places = [
        bisect_right(ends, length - 1) if piece and piece.strip() else None
        for piece, length in zip(pieces, lengths, strict=True)
    ]
    for at in reversed(range(len(pieces) - 1)):
        if pieces[at] == "":  # the beginning of the next token's character
            places[at] = places[at + 1]
    found: list[float | None] = []
    before = -1
    for place in places:
        found.append(values[place] if place is not None and place == before else None)
        before = before if place is None else place
    return found


def group_means(totals: Tensor, counts: Tensor, num_generations: int) -> Tensor:
    """
    The mean value of each group's tokens, for each of its captions.

    Args:
        totals (`torch.Tensor`):
            Sum of the values of each caption's tokens, of shape `(B,)`, from all ranks.
        counts (`torch.Tensor`): How many of its tokens have a value, of shape `(B,)`.
        num_generations (`int`): Captions in a group; they are adjacent.

    Returns:
        `torch.Tensor`: Of shape `(B,)`; 0 for a group without values.

    Example: a right caption of 6 tokens, and a wrong one of 2.

    ```python
    >>> import torch
    >>> from trl_balcap.credit import group_means
    >>> group_means(torch.tensor([6.0, -2.0]), torch.tensor([6, 2]), num_generations=2)
    tensor([0.5000, 0.5000])

    ```
    """
    total = totals.view(-1, num_generations).sum(1)  # (P,)
    count = counts.view(-1, num_generations).sum(1).clamp(min=1)  # (P,)
    return (total / count).repeat_interleave(num_generations)  # (B,)


def token_credit(values: Tensor, known: Tensor, means: Tensor) -> Tensor:
    """
    How much better each token's sentence is than the group's tokens are on average. Over the tokens
    of a group it adds up to 0.

    Args:
        values (`torch.Tensor`): The value of each token, of shape `(B, T)`.
        known (`torch.Tensor`): bool of shape `(B, T)`: tokens that have a value.
        means (`torch.Tensor`): [`group_means`], of shape `(B,)`.

    Returns:
        `torch.Tensor`: Of shape `(B, T)`, 0 where not known.

    Example:

    ```python
    >>> import torch
    >>> from trl_balcap.credit import token_credit
    >>> known = torch.tensor([[False, True, True], [False, True, False]])
    >>> values = torch.tensor([[0.0, 1.0, 1.0], [0.0, -1.0, 0.0]])
    >>> token_credit(values, known, means=torch.tensor([0.25, 0.25]))
    tensor([[ 0.0000,  0.7500,  0.7500],
            [ 0.0000, -1.2500,  0.0000]])

    ```
    """
    return (values - means[:, None]).masked_fill(~known.bool(), 0.0)

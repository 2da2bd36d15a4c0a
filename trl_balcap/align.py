"""Matches each assertion with the sentence of the caption that shares most of its words."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence

__all__ = ["align", "sentences"]

# A sentence ends at a full stop or its kin before a space, or at the end of a line. Ideographic
# stops need no space behind them.
_END = re.compile(r"""(?<=[.!?…।۔؟])["'”’)\]]*\s+|(?<=[。！？])|\n+""")
# Letters and digits of a word; scripts that write no spaces are taken letter by letter.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")
_STEM = 5  # letters that words are compared by: "stands" and "standing" are one
# What a decomposition adds to say a thing alone ("There is a dog").
_EMPTY = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "in",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "that",
        "the",
        "there",
        "this",
        "to",
        "was",
        "were",
        "with",
        "image",
        "pictu",
    ]
)
LEAST = 0.34  # share of an assertion's words that a sentence of its own has


def sentences(text: str) -> list[str]:
    """
    Cuts a text into sentences. Joined, they give the exact text again.

    Example:

    ```python
    >>> sentences("A dog runs.  It is 1.5 m tall!\\nGrass")
    ['A dog runs.  ', 'It is 1.5 m tall!\\n', 'Grass']

    ```
    """
    ends = [match.end() for match in _END.finditer(text) if match.end() < len(text)]
    cuts = [0, *dict.fromkeys(ends), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(cuts) if start < end]


def align(assertions: Sequence[str], parts: Sequence[str]) -> list[int | None]:
    """
    The sentence of each assertion, or `None` if no sentence shares enough of its words.

    Words in few sentences weigh more: `log(1 + S / s)` for a word in `s` of `S` sentences. An
    assertion belongs to the sentence with the largest share of its weight, if that is at least a
    third.

    Args:
        assertions (`Sequence[str]`):
            Assertions that the judge found in the caption.
        parts (`Sequence[str]`):
            The caption's [`sentences`].

    Returns:
        `list[int or None]`: an index into `parts` for each assertion.

    Example:

    ```python
    >>> said = ["A red dog runs.", "The sky is blue."]
    >>> align(["There is a dog.", "The dog is running.", "The sky is blue.", "It is calm."], said)
    [0, 0, 1, None]

    ```
    """
    words = [_words(part) for part in parts]
    having = Counter(word for part in words for word in part)
    return [_best(_words(assertion), words, having) for assertion in assertions]


def _best(said: set[str], parts: Sequence[set[str]], having: Counter[str]) -> int | None:
    weight = {word: math.log1p(len(parts) / max(1, having[word])) for word in said}
    whole = sum(weight.values())
    shares = [sum(weight[word] for word in said & part) / whole for part in parts] if whole else []
    best = max(range(len(shares)), key=shares.__getitem__, default=None)
    return best if best is not None and shares[best] >= LEAST else None


def _words(text: str) -> set[str]:
    found = {word[:_STEM] for word in _WORD.findall(text.casefold())}
    return found - _EMPTY or found

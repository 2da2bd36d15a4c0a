"""Parses the grammar of scenes: which claim a sentence makes, or `None` for text outside it."""

import re
from dataclasses import replace

from trl_balcap.scenes.claims import Claim, CountClaim, MetaClaim, ThingClaim
from trl_balcap.scenes.grammar import (
    BROKEN_TEMPLATES,
    META_SENTENCES,
    TEMPLATES,
    TRUISMS,
    write_sentence,
)
from trl_balcap.scenes.lexicon import HEDGES, NUMBERS, understand
from trl_balcap.scenes.world import COLOURS, COLUMNS, ROWS, SHAPES, SIZES

__all__ = ["parse_caption", "parse_sentence", "split_sentences"]

_PLACE = rf"(?P<row>{'|'.join(ROWS)}) (?P<column>{'|'.join(COLUMNS)})"
_THING = (
    rf"(?:(?P<size>{'|'.join(SIZES)}) )?(?:(?P<colour>{'|'.join(COLOURS)}) )?"
    rf"(?P<shape>{'|'.join(SHAPES)}|thing)"
)


def _thing_pattern(template: str) -> re.Pattern[str]:
    body = re.escape(template).replace(r"\{place\}", _PLACE).replace(r"\{thing\}", _THING)
    body = body.removesuffix(r"\.")
    if template.startswith("{place}"):
        body = body.replace("|".join(ROWS), "|".join(row.capitalize() for row in ROWS), 1)
    return re.compile(body)


_PATTERNS = [(_thing_pattern(template), True) for template in TEMPLATES] + [
    (_thing_pattern(template), False) for template in BROKEN_TEMPLATES
]
_COUNT_CLAIMS = {
    write_sentence(CountClaim(count, well_formed)).removesuffix("."): CountClaim(count, well_formed)
    for count in range(len(NUMBERS))
    for well_formed in (True, False)
}


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences: at line ends, and after a full stop, question mark or
    exclamation mark that is followed by white space.

    Joining the sentences with single spaces gives the text back, up to white space.

    Args:
        text (`str`): Any text.

    Returns:
        `list[str]`: The sentences, none of them empty.

    Example:

    ```python
    >>> split_sentences("The mood is cosy.  There are two things. At the")
    ['The mood is cosy.', 'There are two things.', 'At the']

    ```
    """
    pieces = re.split(r"(?<=[.!?])\s+|\s*[\r\n]\s*", text)
    return [" ".join(piece.split()) for piece in pieces if piece.strip()]


def parse_sentence(sentence: str) -> Claim | None:
    """What one sentence claims: the exact inverse of the grammar.

    Letter case and spelling must match the grammar. The bad grammar that `faulty_caption` writes
    and a missing full stop are understood and marked `well_formed=False`. All wordings and synonyms
    of the rich world are understood, with or without a hedge.

    Args:
        sentence (`str`): Any text.

    Returns:
        `Claim` or `None`: The claim, or `None` for anything outside the grammar.

    Example:

    ```python
    >>> parse_sentence("The top left shows a red star.")
    ThingClaim(row='top', column='left', colour='red', shape='star', size=None, well_formed=True)
    >>> parse_sentence("The top left shows an owl.") is None
    True

    ```
    """
    text = sentence.strip()
    for opening in HEDGES:
        if text.startswith(opening):
            text = text[len(opening) :]
            text = text[:1].upper() + text[1:]
    if text in META_SENTENCES or text in TRUISMS:
        return MetaClaim(text)
    stopped = text.endswith(".")
    text = text.removesuffix(".")
    if count := _COUNT_CLAIMS.get(text):
        return count if stopped else replace(count, well_formed=False)
    for pattern, well_formed in _PATTERNS:
        if found := pattern.fullmatch(text):
            return ThingClaim(
                row=found["row"].lower(),
                column=found["column"],
                colour=found["colour"],
                shape=None if found["shape"] == "thing" else found["shape"],
                size=found["size"],
                well_formed=well_formed and stopped,
            )
    claim = understand(text)
    return claim if claim is None or stopped else replace(claim, well_formed=False)


def parse_caption(text: str) -> list[Claim | None]:
    """What each sentence of a caption claims, in order; `None` for sentences outside the grammar.

    Example:

    ```python
    >>> parse_caption("There is one thing. It is wonderful.")
    [CountClaim(count=1, well_formed=True), None]

    ```
    """
    return [parse_sentence(sentence) for sentence in split_sentences(text)]

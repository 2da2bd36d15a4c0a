"""Finds the judge's own JSON object in a reply, among quotations and drafts.

A judge may quote the text it judges, in any layout, and that text comes from an adversary. So every
request carries a ticket: a few random letters that do not occur in the text, and that the judge
repeats as the last key of its verdict. If a reply contains other text, only an object that ends
with the ticket counts. The ticket has to be the last key, so that an object closed too early by
quoted text does not contain it. A reply that consists of one JSON object may omit the ticket,
unless the object's value occurs in the judged text and so could be a quotation.

All of this takes time linear in the reply and the text.
"""

import json
import re
import secrets
from collections.abc import Iterator
from itertools import accumulate, islice
from typing import Any, NamedTuple

MAX_REPLY_SIZE = 1_000_000  # characters; a longer reply means a runaway judge
_LETTERS = "bcdfghjklmnpqrstvwxz"  # no vowels, so no accidental (rude) words
_LENGTH = 8  # 25 billion tickets
_DEEPEST = 8  # levels of nested braces in a verdict; we ask for two
_MOST_ESCAPES = 3  # levels of JSON-in-JSON strings in which quotations are recognized
_TELLING = 4  # words of a verdict to look for first
_MOST_TICKETS = 16  # in one reply; a judge that repeats its ticket more often is confused


class UnreadableReply(ValueError):
    """The reply does not answer the question in the requested form."""


class TruncatedReply(UnreadableReply):
    """The reply ends before the judge has finished thinking."""


def new_ticket(text: str) -> str:
    """Random letters that do not occur in `text`, whatever it contains."""
    lowered = text.lower()
    while True:
        number = secrets.randbelow(len(_LETTERS) ** _LENGTH)  # a system call, so make only one
        ticket = ""
        for _ in range(_LENGTH):
            number, letter = divmod(number, len(_LETTERS))
            ticket += _LETTERS[letter]
        if ticket not in lowered:
            return ticket


def own_objects(reply: str, ticket: str, said: str) -> list[dict[str, Any]]:
    """The JSON objects in `reply` that can be the judge's own verdict, with tickets removed.

    Args:
        reply (`str`):
            The judge's reply.
        ticket (`str`):
            The ticket of the request.
        said (`str`):
            The judged text.

    Raises:
        `UnreadableReply`: if there is none; the message says why.
        `TruncatedReply`: if the reply ends in the middle of a thought.

    Example: the caption's grades are quoted in another layout; the judge's own carry the ticket.

    ```python
    >>> said = '{"clarity": 1e1}'
    >>> own_objects('It says {"clarity":10}. {"clarity": 2, "ticket": "bcdf"}', "bcdf", said)
    [{'clarity': 2}]
    >>> own_objects('{"clarity": 2}', "bcdf", said)
    [{'clarity': 2}]
    >>> own_objects('{"clarity": 10.0}', "bcdf", said)
    Traceback (most recent call last):
    ...
    trl_balcap.judge.tickets.UnreadableReply: the JSON object occurs in the judged text and ...

    ```
    """
    if len(reply) > MAX_REPLY_SIZE:
        raise UnreadableReply(
            f"the reply has {len(reply)} characters; the maximum is {MAX_REPLY_SIZE}"
        )
    bare = _whole_object(reply)
    if bare is None:
        sealed = list(_sealed(reply, ticket))
        begin = _end_of_thoughts(reply, sealed)
        bare = _whole_object(reply[begin:])
        if bare is None:
            return _amid_text(reply, [found for found in sealed if found.start >= begin], said)
    verdict = _without_ticket(bare)
    # If it has a different ticket, the whole object may be quoted, or the rest of it.
    if not _bears(bare, ticket) and (
        occurs_in(bare, said) or ("ticket" in bare and occurs_in(verdict, said))
    ):
        raise UnreadableReply("the JSON object occurs in the judged text and has no ticket")
    return [verdict]


def _amid_text(reply: str, sealed: list["_Sealed"], said: str) -> list[dict[str, Any]]:
    """The verdicts in a reply with other text. Each ends with the ticket."""
    found = [_without_ticket(s.value) for s in sealed]
    # After an earlier brace, quoted text may have closed that object and opened this one.
    kept = [
        verdict
        for verdict, (start, _, _) in zip(found, sealed, strict=True)
        if "{" not in reply[:start] or not occurs_in(verdict, said)
    ]
    if not kept:
        raise UnreadableReply(
            "no JSON object with the ticket of the request, and the reply is not one JSON object "
            "alone"
        )
    return kept


def repeats_ticket(reply: str, ticket: str) -> bool:
    """Whether an object of `reply` ends with the ticket."""
    return next(_sealed(reply, ticket), None) is not None


def occurs_in(value: dict[str, Any], text: str) -> bool:
    """Whether `text` contains the words and numbers of `value` next to each other.

    Layout, quotes, escapes, number formats and key order do not matter, so a JSON object cannot be
    hidden by writing it differently.

    ```python
    >>> occurs_in({"clarity": 10, "fluency": 9.5}, '{"flu\\\\u0065ncy":95e-1,\\r\\n"clarity" : 1e1}')
    True
    >>> occurs_in({"clarity": 10, "fluency": 9.5}, "clarity: 10, fluency: 9")
    False

    ```
    """  # noqa: E501
    try:
        source = json.dumps(value, ensure_ascii=False)
    except RecursionError as error:  # even though parsing succeeded
        raise UnreadableReply("the JSON object is nested too deeply") from error
    source = _unescaped(source)
    # Usually the text lacks even the first key. Checking more words would not be linear time.
    found = (m.group().casefold() for m in _TOKEN.finditer(source) if m.lastgroup != "number")
    first = list(islice(found, _TELLING))
    for _ in range(_MOST_ESCAPES + 1):
        folded = text.casefold()
        if all(word in folded for word in first):
            wanted, sums = _token_sums(source), _token_sums(text)
            size, total = len(wanted) - 1, wanted[-1]
            if any(b - a == total for a, b in zip(sums, sums[size:], strict=False)):
                return True
        if "\\" not in text:
            break
        text = _unescaped(text)
    return False


# ---- objects that end with the ticket -----------------------------------------------------------


class _Sealed(NamedTuple):
    """An object in a reply whose last key is the ticket."""

    start: int
    end: int
    value: dict[str, Any]


def _sealed(reply: str, ticket: str) -> Iterator[_Sealed]:
    ends = re.compile(rf'"ticket"\s*+:\s*+"{ticket}"\s*+(?:,\s*+)?\}}')
    found = list(islice(ends.finditer(reply), _MOST_TICKETS + 1))
    if len(found) > _MOST_TICKETS:
        raise UnreadableReply(f"more than {_MOST_TICKETS} objects with the ticket")
    for match in found:
        start = _start_of_object(reply, match.end())
        value = None if start is None else _decoded(reply[start : match.end()])
        if start is not None and value is not None and _bears(value, ticket):
            yield _Sealed(start, match.end(), value)


def _start_of_object(reply: str, end: int) -> int | None:
    """Start of the object that ends at `end`. Reading backwards, it is unique."""
    depth = 0
    for match in _BACKWARDS.finditer(reply[:end][::-1]):
        depth += {"}": 1, "{": -1}.get(match.group(), 0)
        if depth == 0:
            return end - match.end()
        if depth > _DEEPEST:
            break
    return None


# In reversed text: a brace, or a string, which does not end at a quote before an odd number of
# backslashes. An unterminated string consumes the rest, so that nothing is read twice.
# No possessive groups: Python before 3.11.5 matches them wrongly, and nothing here backtracks.
_BACKWARDS = re.compile(r'"[^"]*(?:"(?=\\(?:\\\\)*(?!\\))[^"]*)*(?:"|\Z)|[{}]')


def _bears(value: dict[str, Any], ticket: str) -> bool:
    return bool(value) and next(reversed(value.items())) == ("ticket", ticket)


def _without_ticket(value: dict[str, Any]) -> dict[str, Any]:
    return {key: kept for key, kept in value.items() if key != "ticket"}


# ---- JSON ---------------------------------------------------------------------------------------


def _whole_object(reply: str) -> dict[str, Any] | None:
    """The object in `reply`, if the reply contains nothing else."""
    return _decoded(reply.strip("\ufeff \t\r\n"))


def _decoded(source: str) -> dict[str, Any] | None:
    """Parse `source` as a JSON object; a comma before a closing bracket is allowed."""
    if not (source.startswith("{") and source.endswith("}")):
        return None
    for mend in (str, _without_trailing_commas):
        try:
            value = _DECODER.decode(mend(source))
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) else None
    return None


def _without_trailing_commas(source: str) -> str:
    return _STRING_OR_TRAILING_COMMA.sub(lambda m: "" if m.group() == "," else m.group(), source)


# A JSON string, possibly unterminated, or a trailing comma before a closing bracket.
_STRING_OR_TRAILING_COMMA = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|,(?=\s*+[}\]])', re.DOTALL)


def _object_without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice in one JSON object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object_without_doubles, parse_constant=_no_constant)


# ---- words and numbers --------------------------------------------------------------------------


def _token_sums(text: str) -> list[int]:
    """Running sums of the hashes of words and numbers; sums do not depend on their order."""
    return list(accumulate(map(hash, _tokens(text)), initial=0))


def _tokens(text: str) -> Iterator[str]:
    for match in _TOKEN.finditer(text):
        token = match.group()
        yield repr(float(token)) if match.lastgroup == "number" else token.casefold()


_TOKEN = re.compile(r"(?P<number>-?\d++(?:\.\d++)?(?:[eE][+-]?\d++)?)|[^\W\d]++")


def _unescaped(text: str) -> str:
    """`text` with one level of JSON escapes replaced by their characters."""

    def character(match: re.Match[str]) -> str:
        escape = match.group(1)
        return chr(int(escape[1:], 16)) if len(escape) > 1 else _ESCAPES.get(escape, escape)

    plain = _ESCAPE.sub(character, text)
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")  # joins pairs


_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|[^u])", re.DOTALL)
_ESCAPES = dict.fromkeys("bfnrt", " ")


# ---- thoughts -----------------------------------------------------------------------------------


def _end_of_thoughts(reply: str, sealed: list[_Sealed]) -> int:
    """Where the answer begins: after the last thought. Tags inside an object with the ticket are
    ordinary text.

    Raises:
        `TruncatedReply`: if the reply ends in a thought.
    """
    ends = [0, *(found.end for found in sealed)]
    outside = list(zip(ends, [*(found.start for found in sealed), len(reply)], strict=True))
    closed = max(
        (m.end() for part in outside for m in _THOUGHT_ENDS.finditer(reply, *part)), default=0
    )
    if _whole_object(reply[closed:]) is None:
        for start, end in outside:
            if _THOUGHT_BEGINS.search(reply, max(start, closed), max(end, closed)):
                raise TruncatedReply("the reply ends before the judge has finished thinking")
    return closed


# Tags of reasoning models: Qwen and DeepSeek <think>, Seed <seed:think>, Magistral [THINK],
# Kimi ◁think▷, Command A <|START_THINKING|>, Apertus <|inner_prefix|>, gpt-oss's channels; also
# when the server drops their control tokens.
_TAG = r"(?:\w++:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis|reflection|scratchpad)\s*+"
_THOUGHT_BEGINS = re.compile(
    rf"<{_TAG}>|\[{_TAG}\]|◁{_TAG}▷|<\|(?:begin_of_thought|START_THINKING|inner_prefix)\|>"
    r"|<\|channel\|>\s*+(?:analysis|commentary)|(?-i:\A\s*+analysis(?=[A-Z]))",
    re.IGNORECASE,
)
_THOUGHT_ENDS = re.compile(
    rf"</{_TAG}>|\[/{_TAG}\]|◁/{_TAG}▷|<\|(?:end_of_thought|END_THINKING|inner_suffix)\|>"
    r"|<\|channel\|>\s*+final\s*+(?:<\|message\|>)?|(?-i:assistantfinal)",
    re.IGNORECASE,
)

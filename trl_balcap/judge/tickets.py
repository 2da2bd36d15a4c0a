"""Which JSON object of a reply is the judge's own: tickets, quotations, and drafts of a thinker.

A judge may quote the text that it judges, in whatever layout, and that text comes from an
adversary. So every request carries a ticket: a few random letters that do not occur in the text, to
be repeated as the last key of the verdict. Amid other text, only an object that ends with the
ticket counts. It must be the last key, because an object that quoted text closes too early then
ends without it. A reply that is one JSON object and nothing else may go without a ticket, unless
its value stands in the judged text: then it cannot be told from a quotation.

All of this takes time linear in the reply and the text.
"""

import json
import re
import secrets
from collections.abc import Iterator
from itertools import accumulate, islice
from typing import Any, NamedTuple

MAX_REPLY_SIZE = 1_000_000  # characters; a longer reply is a judge that runs wild
_LETTERS = "bcdfghjklmnpqrstvwxz"  # without vowels there are no words, so none that offends
_LENGTH = 8  # 25 billion tickets
_DEEPEST = 8  # braces around each other in a verdict; two are asked for
_MOST_ESCAPES = 3  # levels of JSON in strings of JSON in which a quotation is recognised
_TELLING = 4  # words of a verdict that are looked for before all others
_MOST_TICKETS = 16  # in one reply; a judge that repeats its ticket more often has lost its way


class UnreadableReply(ValueError):
    """The reply does not answer the question in the form that was asked for."""


class TruncatedReply(UnreadableReply):
    """The reply ends before the judge has finished thinking."""


def new_ticket(text: str) -> str:
    """Random letters that do not occur in `text`, whatever is guessed there."""
    lowered = text.lower()
    while True:
        number = secrets.randbelow(len(_LETTERS) ** _LENGTH)  # a system call, so once for all
        ticket = ""
        for _ in range(_LENGTH):
            number, letter = divmod(number, len(_LETTERS))
            ticket += _LETTERS[letter]
        if ticket not in lowered:
            return ticket


def own_objects(reply: str, ticket: str, said: str) -> list[dict[str, Any]]:
    """The JSON objects of `reply` that can be the judge's own verdict, without their tickets.

    Args:
        reply (`str`):
            What the judge replied.
        ticket (`str`):
            The ticket of the request.
        said (`str`):
            The text that is judged.

    Raises:
        `UnreadableReply`: if there is none; the message says why.
        `TruncatedReply`: if the reply ends in the middle of a thought.

    Example: the caption's grades are quoted in another layout, the judge's own bear the ticket.

    ```python
    >>> said = '{"clarity": 1e1}'
    >>> own_objects('It says {"clarity":10}. {"clarity": 2, "ticket": "bcdf"}', "bcdf", said)
    [{'clarity': 2}]
    >>> own_objects('{"clarity": 2}', "bcdf", said)
    [{'clarity': 2}]
    >>> own_objects('{"clarity": 10.0}', "bcdf", said)
    Traceback (most recent call last):
    ...
    trl_balcap.judge.tickets.UnreadableReply: the JSON object stands in the judged text, and ...

    ```
    """
    if len(reply) > MAX_REPLY_SIZE:
        raise UnreadableReply(f"the reply has {len(reply)} characters; at most {MAX_REPLY_SIZE}")
    bare = _whole_object(reply)
    if bare is None:
        sealed = list(_sealed(reply, ticket))
        begin = _end_of_thoughts(reply, sealed)
        bare = _whole_object(reply[begin:])
        if bare is None:
            return _amid_text(reply, [found for found in sealed if found.start >= begin], said)
    verdict = _without_ticket(bare)
    # With another ticket than the request's, the whole object may be quoted, or the rest of it.
    if not _bears(bare, ticket) and (
        occurs_in(bare, said) or ("ticket" in bare and occurs_in(verdict, said))
    ):
        raise UnreadableReply("the JSON object stands in the judged text, and bears no ticket")
    return [verdict]


def _amid_text(reply: str, sealed: list["_Sealed"], said: str) -> list[dict[str, Any]]:
    """The verdicts that stand amid other text, each with the ticket."""
    found = [_without_ticket(s.value) for s in sealed]
    # Behind a brace that opens something else, the text may have closed that and begun this.
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
    """Whether `text` holds the words and numbers of `value` side by side.

    Layout, quotes, escapes, the spelling of numbers and the order of keys do not matter, so no way
    to write a JSON object hides it.

    ```python
    >>> occurs_in({"clarity": 10, "fluency": 9.5}, '{"flu\\\\u0065ncy":95e-1,\\r\\n"clarity" : 1e1}')
    True
    >>> occurs_in({"clarity": 10, "fluency": 9.5}, "clarity: 10, fluency: 9")
    False

    ```
    """  # noqa: E501
    try:
        source = json.dumps(value, ensure_ascii=False)
    except RecursionError as error:  # where reading it just managed
        raise UnreadableReply("the JSON object is nested too deeply") from error
    source = _unescaped(source)
    # Mostly the text has not even the first key. Not more words, for the time is to be linear.
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
    """Where the object begins that ends at `end`; read backwards, there is one such place."""
    depth = 0
    for match in _BACKWARDS.finditer(reply[:end][::-1]):
        depth += {"}": 1, "{": -1}.get(match.group(), 0)
        if depth == 0:
            return end - match.end()
        if depth > _DEEPEST:
            break
    return None


# In a reversed text: a string, which a quote before an odd number of backslashes does not end, or a
# brace. A string without an end takes all that is left, so that nothing is read twice.
# No group is possessive: Python before 3.11.5 matches those wrongly. None needs to go back.
_BACKWARDS = re.compile(r'"[^"]*(?:"(?=\\(?:\\\\)*(?!\\))[^"]*)*(?:"|\Z)|[{}]')


def _bears(value: dict[str, Any], ticket: str) -> bool:
    return bool(value) and next(reversed(value.items())) == ("ticket", ticket)


def _without_ticket(value: dict[str, Any]) -> dict[str, Any]:
    return {key: kept for key, kept in value.items() if key != "ticket"}


# ---- JSON ---------------------------------------------------------------------------------------


def _whole_object(reply: str) -> dict[str, Any] | None:
    """The object that `reply` consists of, if it is one and nothing else."""
    return _decoded(reply.strip("\ufeff \t\r\n"))


def _decoded(source: str) -> dict[str, Any] | None:
    """The JSON object that `source` is; a comma before a closing bracket does not matter."""
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


# A JSON string, perhaps without an end, or a comma with only space before the bracket that closes.
_STRING_OR_TRAILING_COMMA = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|,(?=\s*+[}\]])', re.DOTALL)


def _object_without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one JSON object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object_without_doubles, parse_constant=_no_constant)


# ---- words and numbers --------------------------------------------------------------------------


def _token_sums(text: str) -> list[int]:
    """Running sums of a hash of each word and number: a run of them in any order has one sum."""
    return list(accumulate(map(hash, _tokens(text)), initial=0))


def _tokens(text: str) -> Iterator[str]:
    for match in _TOKEN.finditer(text):
        token = match.group()
        yield repr(float(token)) if match.lastgroup == "number" else token.casefold()


_TOKEN = re.compile(r"(?P<number>-?\d++(?:\.\d++)?(?:[eE][+-]?\d++)?)|[^\W\d]++")


def _unescaped(text: str) -> str:
    """`text` with the characters in place of JSON escapes, one level of them."""

    def character(match: re.Match[str]) -> str:
        escape = match.group(1)
        return chr(int(escape[1:], 16)) if len(escape) > 1 else _ESCAPES.get(escape, escape)

    plain = _ESCAPE.sub(character, text)
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")  # joins pairs


_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|[^u])", re.DOTALL)
_ESCAPES = dict.fromkeys("bfnrt", " ")


# ---- thoughts -----------------------------------------------------------------------------------


def _end_of_thoughts(reply: str, sealed: list[_Sealed]) -> int:
    """Where the answer begins: behind the last thought. A tag inside a sealed object is its text.

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


# As reasoning models write them: Qwen and DeepSeek <think>, Seed <seed:think>, Magistral [THINK],
# Kimi ◁think▷, Command A <|START_THINKING|>, Apertus <|inner_prefix|>, gpt-oss' channels, also as
# they look where a server drops the control tokens.
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

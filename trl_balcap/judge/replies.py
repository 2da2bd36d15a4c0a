"""From a judge's reply to verdicts: find the one JSON object, check it against the question.

Fences, prose around the JSON and trailing commas are read. Anything else is a judge failure
(`UnreadableReply`), never a score: a verdict that is missing, doubled or invented, a number that is
out of range or not a number, a boolean that is not one, two objects that contradict each other. The
text that is judged comes from an adversary, and a reply may quote it. So where a reply holds more
than one object that would count, they must agree; beside a broken object none counts; and an object
that stands in the judged text is a quotation, unless it is the whole reply.
"""

import json
import re
from typing import Annotated, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_REPLY_SIZE = 1_000_000  # characters; a longer reply is a judge that runs wild
_MAX_OBJECTS = 64  # in one reply; a judge gives one, and may quote some


class UnreadableReply(ValueError):
    """The reply does not answer the question in the form that was asked for."""


class Verification(NamedTuple):
    """What the vision judge says of one assertion."""

    correct: bool
    pointable: bool


class Linguistic(NamedTuple):
    """Three grades of a caption's language, each from 0 to 10."""

    clarity: float
    fluency: float
    coherency: float


class _Reply(BaseModel):
    # Strict: "true", 1 and "8" are not verdicts. Unknown keys (an explanation) do no harm.
    model_config = ConfigDict(strict=True, extra="ignore")


Grade = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]


class _Assertions(_Reply):
    assertions: list[str]


class _Verify(_Reply):
    id: int
    correct: bool
    pointable: bool


class _VerifyReply(_Reply):
    verdicts: list[_Verify]


class _Cover(_Reply):
    id: int
    covered: bool


class _CoverReply(_Reply):
    verdicts: list[_Cover]


class _LinguisticReply(_Reply):
    clarity: Grade
    fluency: Grade
    coherency: Grade


class _Looked(_Reply):
    text: str
    correct: bool
    pointable: bool


class _LookReply(_Reply):
    assertions: list[_Looked]


class _ReadReply(_LinguisticReply):
    verdicts: list[_Cover]


class _PreflightReply(_Reply):
    ready: bool


ReplyModel = TypeVar("ReplyModel", bound=_Reply)


def parse_decompose(reply: str, text: str) -> tuple[str, ...]:
    """Read the assertions of `text`. An assertion that is stated twice counts once.

    ```python
    >>> parse_decompose('{"assertions": ["A dog.", "A cat.", "a  dog."]}', "A dog and a cat.")
    ('A dog.', 'A cat.')

    ```
    """
    assertions = _read(reply, _Assertions, text).assertions
    _check_count(len(assertions), text)
    return tuple(_distinct(assertions))


def parse_verify(reply: str, count: int, said: str = "") -> tuple[Verification, ...]:
    """Read one verification for each of the assertions 1 to `count`, in their order.

    ```python
    >>> parse_verify('{"verdicts": [{"id": 1, "correct": true, "pointable": false}]}', 1)
    (Verification(correct=True, pointable=False),)

    ```
    """
    verdicts = _by_id(_read(reply, _VerifyReply, said).verdicts, count)
    return tuple(Verification(verdict.correct, verdict.pointable) for verdict in verdicts)


def parse_cover(reply: str, count: int, said: str = "") -> tuple[bool, ...]:
    """Read for each of the reference units 1 to `count` whether it is covered.

    ```python
    >>> parse_cover('{"verdicts": [{"id": 2, "covered": true}, {"id": 1, "covered": false}]}', 2)
    (False, True)

    ```
    """
    return tuple(v.covered for v in _by_id(_read(reply, _CoverReply, said).verdicts, count))


def parse_linguistic(reply: str, text: str = "") -> Linguistic:
    """Read the three grades, each from 0 to 10.

    ```python
    >>> parse_linguistic('```json\\n{"clarity": 8, "fluency": 9.5, "coherency": 7,}\\n```')
    Linguistic(clarity=8.0, fluency=9.5, coherency=7.0)

    ```
    """
    grades = _read(reply, _LinguisticReply, text)
    return Linguistic(grades.clarity, grades.fluency, grades.coherency)


def parse_look(reply: str, text: str) -> tuple[tuple[str, Verification], ...]:
    """Read the assertions of `text` with their verifications (the fused decompose and verify).

    ```python
    >>> parse_look('{"assertions": [{"text": "A dog.", "correct": true, "pointable": true}]}', "Dog")
    (('A dog.', Verification(correct=True, pointable=True)),)

    ```
    """
    looked = _read(reply, _LookReply, text).assertions
    _check_count(len(looked), text)
    kept = _distinct([assertion.text for assertion in looked])
    verdicts = {kept_text: [] for kept_text in kept}
    for assertion in looked:
        for kept_text in kept:
            if _normal(kept_text) == _normal(assertion.text):
                verdicts[kept_text].append(Verification(assertion.correct, assertion.pointable))
    for kept_text, given in verdicts.items():
        if len(set(given)) > 1:
            raise UnreadableReply(f"contradicting verdicts for the assertion {kept_text!r}")
    return tuple((kept_text, given[0]) for kept_text, given in verdicts.items())


def parse_read(reply: str, count: int, text: str = "") -> tuple[tuple[bool, ...], Linguistic]:
    """Read coverage of the units 1 to `count` and the grades (the fused cover and linguistic)."""
    read = _read(reply, _ReadReply, text)
    covered = tuple(v.covered for v in _by_id(read.verdicts, count))
    return covered, Linguistic(read.clarity, read.fluency, read.coherency)


def parse_preflight(reply: str) -> bool:
    """Read whether the judge answers in JSON at all."""
    return _read(reply, _PreflightReply).ready


def _read(reply: str, model: type[ReplyModel], said: str = "") -> ReplyModel:
    """The one object of `reply` that has the model's form. `said` is the text that is judged."""
    if len(reply) > MAX_REPLY_SIZE:
        raise UnreadableReply(f"the reply has {len(reply)} characters; at most {MAX_REPLY_SIZE}")
    objects = json_objects(reply)
    # Among prose, an object that stands word for word in the judged text is a quotation.
    if len(objects) != 1 or _without_fence(reply) != objects[0][1]:
        objects = [(value, source) for value, source in objects if source not in said]
    if not objects:
        raise UnreadableReply("no JSON object in the reply")
    read: list[ReplyModel] = []
    problem = ""
    for candidate, _ in objects:
        try:
            parsed = model.model_validate(candidate)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            problem = problem or f"{where}: {first['msg']}"
        else:
            if parsed not in read:
                read.append(parsed)
    if not read:
        raise UnreadableReply(problem)
    if len(read) > 1:
        raise UnreadableReply(f"{len(read)} JSON objects that contradict each other")
    return read[0]


def json_objects(reply: str) -> list[tuple[dict, str]]:
    """All top-level JSON objects in `reply`, each with its source; trailing commas do not matter.

    Braces in prose are passed over, but only where they hold nothing that could be JSON: a broken
    object may be the judge's own verdict with a caption in it that breaks it, and then what stands
    beside it is the caption's.

    Raises:
        `UnreadableReply`: if there is such a broken object.

    ```python
    >>> json_objects('Sure {as always}! {"ready": true,} Anything else?')
    [({'ready': True}, '{"ready": true,}')]
    >>> json_objects("I cannot help with that.")
    []

    ```
    """
    found: list[tuple[dict, str]] = []
    start = reply.find("{")
    for _ in range(_MAX_OBJECTS):
        if start < 0:
            return found
        decoded = _decode_at(reply, start)
        if decoded is not None:
            value, end = decoded
            found.append((value, reply[start:end]))
        else:
            end = reply.find("}", start) + 1
            inside = reply[start + 1 : end]
            if not end or "{" in inside or '"' in inside:
                raise UnreadableReply("a broken JSON object")
        start = reply.find("{", end)
    raise UnreadableReply(f"more than {_MAX_OBJECTS} objects in braces")


def _without_fence(reply: str) -> str:
    """The reply without space and a Markdown fence around it.

    ```python
    >>> _without_fence('\\ufeff```json\\n{"ready": true}\\n``` ')
    '{"ready": true}'

    ```
    """
    bare = reply.strip("\ufeff \t\r\n")
    match = _FENCED.fullmatch(bare)
    return match.group(1) if match else bare


_FENCED = re.compile(r"```\w*\s*(.*?)\s*```", re.DOTALL)


def _decode_at(text: str, start: int) -> tuple[dict, int] | None:
    try:
        return _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        pass  # perhaps a trailing comma; try without
    relaxed, ends = _without_trailing_commas(text, start)
    if relaxed is None:
        return None
    try:
        value, end = _DECODER.raw_decode(relaxed)
    except (ValueError, RecursionError):
        return None
    # Every removed comma before the object's end shifts that end by one in the original text.
    return value, start + end + sum(1 for position in ends if position < end)


# A JSON string, or a comma with nothing but space before the bracket that closes.
_STRING_OR_TRAILING_COMMA = re.compile(r'"(?:[^"\\]|\\.)*"|,(?=\s*[}\]])', re.DOTALL)


def _without_trailing_commas(text: str, start: int) -> tuple[str | None, list[int]]:
    """`text[start:]` without trailing commas, and where each stood in the shortened text."""
    pieces: list[str] = []
    removed: list[int] = []
    last = start
    length = 0
    for match in _STRING_OR_TRAILING_COMMA.finditer(text, start):
        if match.group() == ",":
            pieces.append(text[last : match.start()])
            length += match.start() - last
            removed.append(length)
            last = match.end()
    if not removed:
        return None, removed
    pieces.append(text[last:])
    return "".join(pieces), removed


def _object_without_doubles(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one JSON object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object_without_doubles, parse_constant=_no_constant)


def _by_id(verdicts: list, count: int) -> list:
    """The verdicts ordered by id, which must be exactly 1 to `count`."""
    ordered = sorted(verdicts, key=lambda verdict: verdict.id)
    if [verdict.id for verdict in ordered] != list(range(1, count + 1)):
        raise UnreadableReply(
            f"verdicts for the ids {[v.id for v in ordered[:20]]}; each of 1 to {count} once expected"
        )
    return ordered


def _check_count(count: int, text: str) -> None:
    # An assertion needs a few characters of caption, even in Chinese.
    limit = 16 + len(text) // 2
    if count > limit:
        raise UnreadableReply(
            f"{count} assertions for a text of {len(text)} characters; at most {limit} are believed"
        )


def _distinct(assertions: list[str]) -> list[str]:
    """The first of each set of equal assertions, blank ones left out."""
    first: dict[str, str] = {}
    for assertion in assertions:
        if normal := _normal(assertion):
            first.setdefault(normal, assertion.strip())
    return list(first.values())


def _normal(assertion: str) -> str:
    return " ".join(assertion.casefold().split())

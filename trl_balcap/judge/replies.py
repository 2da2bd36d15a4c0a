"""Turns a judge's reply into a verdict: the form a reply must have, and what it means.

A reply counts only if it answers the question: exactly the requested keys, one verdict for each id,
no invented ids, booleans that are booleans, grades from 0 to 10. Anything else is a judge failure
(`UnreadableReply`), never a score. `tickets` tells the judge's own object from quotations of the
judged text.
"""

from typing import Annotated, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trl_balcap.judge.errors import shorten
from trl_balcap.judge.tickets import UnreadableReply, own_objects


class Verification(NamedTuple):
    """The vision judge's verdict on one assertion."""

    correct: bool
    pointable: bool


class Linguistic(NamedTuple):
    """Three grades of a caption's language, each from 0 to 10."""

    clarity: float
    fluency: float
    coherency: float


# ---- forms --------------------------------------------------------------------------------------


class Form(BaseModel):
    """The schema of a reply."""

    # "true", 1 and "8" are not verdicts. No other keys: if a judge quoted text there without
    # escaping it, the text could write keys of the verdict.
    model_config = ConfigDict(strict=True, extra="forbid")


_Grade = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
Id = Annotated[int, Field(ge=1, le=1_000_000)]


class SplitForm(Form):
    assertions: list[str]


class _Verified(Form):
    id: Id
    correct: bool
    pointable: bool


class VerifyForm(Form):
    verdicts: list[_Verified]


class _Covered(Form):
    id: Id
    covered: bool


class CoverForm(Form):
    verdicts: list[_Covered]


class LinguisticForm(Form):
    clarity: _Grade
    fluency: _Grade
    coherency: _Grade


class LookForm(Form):
    # Verdicts are kept apart from texts, so that no text can write a verdict next to itself.
    assertions: list[str]
    verdicts: list[_Verified]


class ReadForm(Form):
    verdicts: list[_Covered]
    clarity: _Grade
    fluency: _Grade
    coherency: _Grade


class ParseForm(Form):
    assertions: list[str]
    clarity: _Grade
    fluency: _Grade
    coherency: _Grade


class PreflightForm(Form):
    ready: bool


AnyForm = TypeVar("AnyForm", bound=Form)


def read(reply: str, form: type[AnyForm], ticket: str, said: str = "") -> AnyForm:
    """Find the judge's own object in `reply`, in the given form.

    Args:
        reply (`str`):
            What the judge replied.
        form (`type`):
            The form asked for.
        ticket (`str`):
            The ticket of the request.
        said (`str`, *optional*, defaults to `""`):
            The judged text.

    Raises:
        `UnreadableReply`: if there is no such object, or two that contradict each other.

    ```python
    >>> read('Here: {"ready": true, "ticket": "bcdf"}', PreflightForm, "bcdf")
    PreflightForm(ready=True)

    ```
    """
    found: list[AnyForm] = []
    problem = ""
    for candidate in own_objects(reply, ticket, said):
        try:
            parsed = form.model_validate(candidate)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            problem = problem or shorten(f"{where}: {first['msg']}")
        else:
            if parsed not in found:
                found.append(parsed)
    if not found:
        raise UnreadableReply(problem)
    if len(found) > 1:
        raise UnreadableReply(f"{len(found)} contradictory verdicts")
    return found[0]


# ---- verdicts -----------------------------------------------------------------------------------


def split(form: SplitForm | ParseForm, text: str) -> tuple[str, ...]:
    """The assertions of `text`. An assertion stated twice counts once.

    ```python
    >>> split(SplitForm(assertions=["A dog.", "A cat.", "a  dog."]), "A dog and a cat.")
    ('A dog.', 'A cat.')

    ```
    """
    _check_count(form.assertions, text)
    return tuple(_distinct(form.assertions).values())


def verifications(form: VerifyForm, count: int) -> tuple[Verification, ...]:
    """One verification for each of the assertions 1 to `count`, in order."""
    return tuple(_verifications(form.verdicts, count))


def coverage(form: CoverForm | ReadForm, count: int) -> tuple[bool, ...]:
    """Whether each of the reference units 1 to `count` is covered."""
    return tuple(verdict.covered for verdict in by_id(form.verdicts, count))


def grades(form: LinguisticForm | ReadForm | ParseForm) -> Linguistic:
    """The three grades."""
    return Linguistic(form.clarity, form.fluency, form.coherency)


def looked(form: LookForm, text: str) -> tuple[tuple[str, Verification], ...]:
    """The assertions of `text` with their verifications (the fused decompose and verify).

    ```python
    >>> verdict = {"id": 1, "correct": True, "pointable": True}
    >>> looked(LookForm(assertions=["A dog."], verdicts=[verdict]), "Dog")
    (('A dog.', Verification(correct=True, pointable=True)),)

    ```
    """
    _check_count(form.assertions, text)
    kept = _distinct(form.assertions)
    given: dict[str, Verification] = {}
    verdicts = _verifications(form.verdicts, len(form.assertions))
    for assertion, verdict in zip(form.assertions, verdicts, strict=True):
        if given.setdefault(_normal(assertion), verdict) != verdict:
            raise UnreadableReply(
                f"contradictory verdicts on the assertion {shorten(assertion, 80)!r}"
            )
    return tuple((assertion, given[normal]) for normal, assertion in kept.items())


def coverage_and_grades(form: ReadForm, count: int) -> tuple[tuple[bool, ...], Linguistic]:
    """Coverage of the units 1 to `count` and the grades (the fused cover and linguistic)."""
    return coverage(form, count), grades(form)


def _verifications(verdicts: list[_Verified], count: int) -> list[Verification]:
    return [Verification(v.correct, v.pointable) for v in by_id(verdicts, count)]


class _WithId(Protocol):
    id: int


AnyVerdict = TypeVar("AnyVerdict", bound=_WithId)


def by_id(verdicts: list[AnyVerdict], count: int) -> list[AnyVerdict]:
    """The verdicts ordered by id, which must be exactly 1 to `count`."""
    ordered = sorted(verdicts, key=lambda verdict: verdict.id)
    if [verdict.id for verdict in ordered] != list(range(1, count + 1)):
        raise UnreadableReply(
            f"verdicts for the ids {[v.id for v in ordered[:20]]}; each of 1 to {count} once "
            "expected"
        )
    return ordered


def _check_count(assertions: list[str], text: str) -> None:
    # An assertion needs a few characters of caption, even in Chinese.
    limit = 16 + len(text) // 2
    if len(assertions) > limit:
        raise UnreadableReply(
            f"{len(assertions)} assertions for a text of {len(text)} characters; at most {limit} "
            "are believed"
        )
    # A split that never happened gives no score.
    if not any(map(_normal, assertions)) and any(map(str.isalnum, text)):
        raise UnreadableReply("no assertions for a text with words")


def _distinct(assertions: list[str]) -> dict[str, str]:
    """The first of each set of equal assertions by its normal form, blank ones left out."""
    first: dict[str, str] = {}
    for assertion in assertions:
        if normal := _normal(assertion):
            first.setdefault(normal, assertion.strip())
    return first


def _normal(assertion: str) -> str:
    return " ".join(assertion.casefold().split())

"""
Rules of DCScore (DeCapBench): precision, recall and F1 of one trial, from a judge's replies.

The arithmetic and its quirks were measured on the authors' script (MAGAer13/DeCapBench at 9f3fb10).
Two modes:

- `official`: those numbers, including quirks: wrong facts dilute right ones, ids are not validated.
- `strict`: each annotated fact counts once, ids must be annotated ids, every fact needs a verdict,
  and a caption without facts scores 0.
"""

import ast
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

__all__ = [
    "FactScores",
    "InvalidReplyError",
    "fact_scores",
    "format_facts",
    "read_extraction",
    "read_mapping",
    "read_reply",
    "read_verification",
]

Mode = Literal["official", "strict"]
EPSILON = 1e-8  # from the official script, only in F1


class InvalidReplyError(ValueError):
    """A judge's reply from which no score can be computed; the attempt is invalid."""


class FactScores(NamedTuple):
    """
    Scores of one trial: one verification reply with one matching reply.

    Args:
        precision, recall, f1_score (`float`):
            Over all facts of the caption.
        total_atomic_facts (`int`):
            Denominator of recall: annotated facts plus right facts that match none of them.
        precision_relevant, recall_relevant, f1_score_relevant, total_atomic_facts_relevant:
            The same over the facts that describe the image directly.
    """

    precision: float
    recall: float
    f1_score: float
    total_atomic_facts: int
    precision_relevant: float
    recall_relevant: float
    f1_score_relevant: float
    total_atomic_facts_relevant: int

    @property
    def score(self) -> float:
        """Mean of the two F1 scores, between 0 and 1 except for an official quirk."""
        return (self.f1_score + self.f1_score_relevant) / 2


def read_reply(text: str | None) -> Any:
    """
    Read the list in a judge's reply as the official script does, `None` if it cannot.

    The text after the last JSON fence is tried as a Python literal up to the next fence; then, on
    one line without outer backticks, as a Python literal, as JSON, and as JSON without backticks.
    So it accepts trailing commas and Python's `None`, but not prose before an unfenced list.

    Example:

    ```python
    >>> read_reply("[{'fact': 'a', 'matched_oracle_id': None},]")
    [{'fact': 'a', 'matched_oracle_id': None}]
    >>> read_reply("Sure: [1]") is None
    True

    ```
    """
    if text is None:
        return None
    last = text.split("```json")[-1]
    line = last.strip("`").strip().strip("\n").replace("\n", "")
    for read, candidate in (
        (ast.literal_eval, last.split("```")[0].strip("\n")),
        (ast.literal_eval, line),
        (json.loads, line),
        (json.loads, line.replace("`", "")),
    ):
        try:
            return read(candidate)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue  # try the next reading; None if all fail
    return None


def format_facts(facts: Iterable[Mapping[str, Any]]) -> str:
    r"""
    Format facts as in the official prompts: a fence, then one JSON object per line, each followed
    by a comma.

    Example:

    ```python
    >>> format_facts([{"fact": "a cup"}])
    '```json[\n  {"fact": "a cup"},\n]\n```'

    ```
    """
    lines = "".join(f"  {json.dumps(fact, ensure_ascii=False)},\n" for fact in facts)
    return f"```json[\n{lines}]\n```"


def read_extraction(text: str | None, mode: Mode = "official") -> list[dict[str, Any]]:
    """
    Facts in a reply to the extraction question: `{"fact": str, "relevance": 0 | 1, "identifier"?:
    str}`.

    `official` requires `relevance` in every fact, since the script deletes it. `strict` treats a
    fact without one as relevant, requires text in every fact, and drops duplicates.

    Raises:
        `InvalidReplyError`: if the reply has no such list.
    """
    entries = _entries(text, "extraction")
    if mode == "official":
        for entry in entries:
            _field(entry, "relevance", "extraction")
        return entries
    facts: dict[str, dict[str, Any]] = {}
    for entry in entries:
        fact = _field(entry, "fact", "extraction")
        if not isinstance(fact, str) or not fact.strip():
            raise InvalidReplyError(f"The extraction reply has a fact that is not text: {fact!r}.")
        facts.setdefault(fact, {"relevance": 1, **entry})
    return list(facts.values())


def read_mapping(text: str | None, *, n_oracle: int, mode: Mode = "official") -> dict[Any, Any]:
    """
    Matches in a reply to the matching question: each fact's annotated id, or `None`.

    `official` keeps ids as they are, so that 0 and "0" are different facts. `strict` reads "0" as
    0 and "none" in any spelling as `None`, and rejects ids outside `range(n_oracle)`.

    Raises:
        `InvalidReplyError`: if the reply has no such list or, in `strict`, has an unknown id.
    """
    mapping: dict[Any, Any] = {}
    for entry in _entries(text, "matching"):
        fact = _hashable(_field(entry, "fact", "matching"))
        matched = _field(entry, "matched_oracle_id", "matching")
        if mode == "strict":
            matched = _annotated_id(matched, n_oracle)
            if mapping.get(fact, matched) != matched:
                raise InvalidReplyError(
                    f"The matching reply matches {fact!r} in two different ways."
                )
        mapping[fact] = matched
    return mapping


def read_verification(text: str | None, mode: Mode = "official") -> list[dict[str, Any]]:
    """
    Verdicts in a reply to the verification question: `{"fact": str, "verification": 0 | 1}`.

    `official` keeps duplicates, and counts 1, 1.0 and `True` as right and anything else as wrong.
    `strict` drops duplicates and rejects facts verified both ways or with anything but 0 and 1.

    Raises:
        `InvalidReplyError`: if the reply has no such list.
    """
    parsed = read_reply(text)
    if not isinstance(parsed, list):
        raise InvalidReplyError(f"The verification reply contains no list: {_short(text)}.")
    entries = _entries(text, "verification")
    if mode == "official":
        return entries
    verdicts: dict[str, dict[str, Any]] = {}
    for entry in entries:
        fact = _hashable(_field(entry, "fact", "verification"))
        verdict = _field(entry, "verification", "verification")
        if not isinstance(verdict, int | float) or verdict not in (0, 1):
            raise InvalidReplyError(
                f"The verification reply must say 0 or 1 for {fact!r}, not {verdict!r}."
            )
        if verdicts.setdefault(fact, entry)["verification"] != verdict:
            raise InvalidReplyError(f"The verification reply calls {fact!r} both right and wrong.")
    return list(verdicts.values())


def fact_scores(
    facts: Sequence[Mapping[str, Any]],
    oracle: Sequence[Mapping[str, Any]],
    verification: Sequence[Mapping[str, Any]],
    mapping: Mapping[Any, Any],
    mode: Mode = "official",
) -> FactScores:
    """
    Precision, recall and F1 of one trial.

    Let V be the entries of the verification, right(f) their verdicts, m(f) the match, N the number
    of annotated facts, U the number of right facts that match none, and c(o) the number of entries
    that match o:

        precision = right / |V|
        recall    = (U + sum over right matched f of 1 / c(m(f))) / (N + U)
        F1        = 2 precision recall / (precision + recall + 1e-8)

    `official` counts wrong entries in c(o), and irrelevant ones too when it scores the relevant.
    `strict` counts only entries that earn credit in c(o), so an annotated fact that was stated
    correctly counts one in both halves.

    Args:
        facts (`Sequence`):
            The caption's facts, with "fact" and "relevance".
        oracle (`Sequence`):
            The annotated facts; "relevance" 1 unless given.
        verification (`Sequence`):
            One verification reply, entries with "fact" and "verification".
        mapping (`Mapping`):
            One matching reply, fact to id, `None` or "None" for no match.
        mode (`str`, *optional*, defaults to `"official"`):
            See the module.

    Returns:
        [`FactScores`]

    Raises:
        `InvalidReplyError`: if the replies disagree about the facts, or a denominator is zero.

    Example:

    ```python
    >>> facts = [{"fact": "a", "relevance": 1}, {"fact": "b", "relevance": 1}]
    >>> verification = [{"fact": "a", "verification": 1}, {"fact": "b", "verification": 0}]
    >>> scores = fact_scores(facts, [{}, {}], verification, {"a": 0, "b": 0})
    >>> scores.precision, scores.recall  # b is wrong, and takes half of the credit for fact 0
    (0.5, 0.25)
    >>> fact_scores(facts, [{}, {}], verification, {"a": 0, "b": 0}, mode="strict").recall
    0.5

    ```
    """
    judged = [_hashable(_field(entry, "fact", "verification")) for entry in verification]
    if set(mapping) != set(judged):
        raise InvalidReplyError(
            f"Matching and verification must have the same facts, but only one of them has "
            f"{sorted(map(str, set(mapping) ^ set(judged)))[:3]}."
        )
    if mode == "strict" and set(judged) != {fact["fact"] for fact in facts}:
        raise InvalidReplyError(
            f"Exactly the facts of the caption must have a verdict; "
            f"{len(set(judged))} were judged, {len(facts)} were asked about."
        )
    entries = [
        _Verdict(
            fact=fact,
            right=_field(entry, "verification", "verification") == 1,
            matched=None if mapping[fact] == "None" else _hashable(mapping[fact]),
        )
        for fact, entry in zip(judged, verification, strict=True)
    ]
    relevant_facts = {
        _hashable(_field(fact, "fact", "extraction"))
        for fact in facts
        if _field(fact, "relevance", "extraction") == 1
    }
    relevant = [entry for entry in entries if entry.fact in relevant_facts]
    n_relevant_oracle = sum(fact.get("relevance", 1) == 1 for fact in oracle)
    if mode == "official":
        shares = Counter(entry.matched for entry in entries if entry.matched is not None)
        overall = _half(entries, len(oracle), shares)
        relevant_half = _half(relevant, n_relevant_oracle, shares)
    else:
        overall = _half(entries, len(oracle), _credited(entries))
        relevant_half = (
            _half(relevant, n_relevant_oracle, _credited(relevant))
            if relevant
            else (0.0, 0.0, 0.0, n_relevant_oracle)  # the caption describes nothing
        )
    return FactScores(*overall, *relevant_half)


class _Verdict(NamedTuple):
    fact: Any
    right: bool
    matched: Any  # id of an annotated fact, None for no match


def _credited(entries: Sequence[_Verdict]) -> Counter:
    return Counter(entry.matched for entry in entries if entry.right and entry.matched is not None)


def _half(
    entries: Sequence[_Verdict], n_oracle: int, shares: Counter
) -> tuple[float, float, float, int]:
    """Precision, recall, F1 and recall's denominator over one set of entries."""
    right = [entry for entry in entries if entry.right]
    unmatched = sum(entry.matched is None for entry in right)
    credit = unmatched + sum(
        1 / shares[entry.matched] for entry in right if entry.matched is not None
    )
    total = n_oracle + unmatched
    if not entries or not total:
        raise InvalidReplyError(
            "Nothing to divide by: "
            + ("no fact was verified." if not entries else "there are no annotated facts.")
        )
    precision = len(right) / len(entries)
    recall = credit / total
    return precision, recall, 2 * precision * recall / (precision + recall + EPSILON), total


def _entries(text: str | None, question: str) -> list[dict[str, Any]]:
    parsed = read_reply(text)
    # The official script iterates over any container; only dicts get through.
    if not isinstance(parsed, Iterable):
        raise InvalidReplyError(f"The {question} reply contains no list: {_short(text)}.")
    entries = list(parsed)
    for entry in entries:
        if not isinstance(entry, dict):
            raise InvalidReplyError(
                f"The {question} reply contains {entry!r}, which is not a fact."
            )
    return entries


def _field(entry: Mapping[str, Any], name: str, question: str) -> Any:
    if not isinstance(entry, Mapping) or name not in entry:
        raise InvalidReplyError(f"The {question} reply has a fact without {name!r}: {entry!r}.")
    return entry[name]


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError as error:
        raise InvalidReplyError(f"{value!r} cannot be a fact or a match.") from error
    return value


def _annotated_id(value: Any, n_oracle: int) -> int | None:
    if value is None or (isinstance(value, str) and value.strip().lower() in ("none", "null")):
        return None
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < n_oracle:
        raise InvalidReplyError(f"{value!r} is not an id of the {n_oracle} annotated facts.")
    return value


def _short(text: str | None) -> str:
    return repr(text if text is None or len(text) <= 80 else text[:77] + "...")

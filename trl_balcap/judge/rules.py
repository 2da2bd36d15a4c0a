"""Rules for the values in the table of a judge's settings."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """The values that a setting accepts.

    Args:
        says (`str`):
            The rule, worded to follow "must be".
        holds (`Callable`):
            Whether a value is valid. `None` is allowed if it is the default, and for
            `temperature`.
        read (`Callable`):
            Parses text (environment, command line) into the value; raises `ValueError`.
        kind (`type`):
            Type for argument parsers: `str`, `int`, `float` or `bool`.
        several (`bool`, *optional*, defaults to `False`):
            Whether a flag takes several values.
        choices (`tuple[str, ...]`, *optional*):
            All valid values.
    """

    says: str
    holds: Callable[[Any], bool]
    read: Callable[[str], Any]
    kind: type
    several: bool = False
    choices: tuple[str, ...] | None = None


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def whole(low: int) -> Rule:
    def holds(value: Any) -> bool:
        return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= low

    return Rule(f"a whole number, {low} or more", holds, int, int)


def _number(says: str, holds: Callable[[float], bool]) -> Rule:
    return Rule(says, lambda value: _is_number(value) and holds(value), float, float)


def one_of(choices: tuple[str, ...]) -> Rule:
    says = " or ".join(map(repr, choices))
    return Rule(says, lambda value: value in choices, str, str, choices=choices)


def _read_flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes"):
        return True
    if text.lower() in ("0", "false", "no"):
        return False
    raise ValueError("expected true or false")


def _read_price(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.replace(",", " ").split())


def _is_price(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) in (2, 3)
        and all(_is_number(dollars) and dollars >= 0 for dollars in value)
    )


def _read_model(text: str) -> Any:
    return json.loads(text) if text.lstrip().startswith(("[", "{")) else text


def _is_model(value: Any) -> bool:
    if isinstance(value, str | Mapping):
        return bool(value)
    return isinstance(value, Sequence) and all(isinstance(one, str | Mapping) for one in value)


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def _is_folder(value: Any) -> bool:
    return isinstance(value, str | os.PathLike) and bool(os.fspath(value))


MODEL = Rule(
    "a litellm model string such as 'openai/gpt-4o-mini' or 'scenes/oracle', or a list of "
    "deployments",
    _is_model,
    _read_model,
    str,
)
ABOVE_ZERO = _number("a number above 0", lambda value: value > 0)
DOLLARS = _number("a number, 0 or more", lambda value: value >= 0)
SHARE = _number("a share of a batch, 0 to 1", lambda value: 0 <= value <= 1)
TEMPERATURE = _number("a number from 0 to 2, or None", lambda value: 0 <= value <= 2)
URL = Rule("a URL that begins with http:// or https://", _is_url, str, str)
TEXT = Rule("a non-empty string", lambda v: isinstance(v, str) and bool(v), str, str)
FLAG = Rule("True or False", lambda value: isinstance(value, bool), _read_flag, bool)
FOLDER = Rule("a folder", _is_folder, str, str)
PRICE = Rule(
    "two numbers, 0 or more: dollars per million prompt and per million completion tokens "
    "(and a third for cached prompt tokens)",
    _is_price,
    _read_price,
    float,
    several=True,
)
PARAMETERS = Rule(
    "a dict of litellm's parameters", lambda v: isinstance(v, Mapping), json.loads, str
)

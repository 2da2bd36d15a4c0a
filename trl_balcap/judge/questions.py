"""The questions: their prompt files, the JSON that carries the data, and the reply's schema.

Text from the policy and from the dataset travels only as string values of one JSON object in the
user's message. It is never part of a prompt, so no caption can close, extend or imitate one.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Generic, TypeVar

from trl_balcap.judge import replies
from trl_balcap.judge.images import EncodedImage
from trl_balcap.judge.replies import Linguistic, Verification

Verdict = TypeVar("Verdict")

QUESTIONS = (
    "decompose",
    "verify",
    "cover",
    "linguistic",
    "look",
    "read",
    "preflight",
)

# Where a batch's chain of questions has the most still to come, the question goes first.
_PRIORITY = {"decompose": 0, "look": 0, "verify": 1, "cover": 1, "read": 1, "linguistic": 2}


@dataclass(frozen=True)
class Question(Generic[Verdict]):
    """One question to a judge, ready to be sent.

    Args:
        name (`str`):
            One of `QUESTIONS`.
        data (`dict`):
            The JSON object of the user's message.
        parse (`Callable`):
            From the reply's text to the verdict; raises `UnreadableReply`.
        images (`tuple` of `EncodedImage`):
            What the judge is shown.
    """

    name: str
    data: dict[str, Any]
    parse: Callable[[str], Verdict] = field(compare=False)
    images: tuple[EncodedImage, ...] = ()

    @property
    def priority(self) -> int:
        return _PRIORITY.get(self.name, 0)

    @cached_property
    def text(self) -> str:
        """The user's message: one JSON object and nothing else."""
        return json_text(self.data)

    def messages(self) -> list[dict[str, Any]]:
        """The chat messages, in the OpenAI format."""
        content: Any = self.text
        if self.images:
            parts = [{"type": "image_url", "image_url": {"url": i.url}} for i in self.images]
            content = [{"type": "text", "text": content}, *parts]
        return [
            {"role": "system", "content": prompt(self.name)},
            {"role": "user", "content": content},
        ]

    def response_format(self) -> dict[str, Any]:
        """The reply's JSON schema, for providers that can be held to one."""
        schema = {"name": self.name, "strict": True, "schema": _SCHEMAS[self.name]}
        return {"type": "json_schema", "json_schema": schema}


def json_text(data: dict[str, Any]) -> str:
    """`data` as JSON that is valid UTF-8, whatever its strings hold.

    A lone surrogate is no character and cannot be sent; it becomes U+FFFD.

    ```python
    >>> json_text({"text": 'red "}" \\ud800'})
    '{"text": "red \\\\"}\\\\" \\ufffd"}'

    ```
    """
    return _SURROGATE.sub("\ufffd", json.dumps(data, ensure_ascii=False))


_SURROGATE = re.compile("[\ud800-\udfff]")


@cache
def prompt(name: str) -> str:
    """The text of `prompts/<name>.txt`."""
    return (
        files("trl_balcap.judge")
        .joinpath("prompts", f"{name}.txt")
        .read_text(encoding="utf-8")
        .strip()
    )


@cache
def prompts_hash() -> str:
    """A short hash over all prompt files: another hash means that verdicts may differ."""
    digest = hashlib.sha256()
    for name in sorted(QUESTIONS):
        digest.update(f"{name}\0{prompt(name)}\0".encode())
    return digest.hexdigest()[:12]


def decompose(text: str) -> Question[tuple[str, ...]]:
    return Question(
        "decompose",
        {"question": "decompose", "text": text},
        lambda reply: replies.parse_decompose(reply, text),
    )


def verify(
    images: tuple[EncodedImage, ...], assertions: Sequence[str]
) -> Question[tuple[Verification, ...]]:
    return Question(
        "verify",
        {"question": "verify", "assertions": _numbered(assertions)},
        lambda reply: replies.parse_verify(reply, len(assertions), "\n".join(assertions)),
        images,
    )


def cover(assertions: Sequence[str], units: Sequence[str]) -> Question[tuple[bool, ...]]:
    return Question(
        "cover",
        {"question": "cover", "assertions": _numbered(assertions), "units": _numbered(units)},
        lambda reply: replies.parse_cover(reply, len(units), "\n".join(assertions)),
    )


def linguistic(text: str) -> Question[Linguistic]:
    data = {"question": "linguistic", "text": text}
    return Question("linguistic", data, lambda reply: replies.parse_linguistic(reply, text))


def look(
    images: tuple[EncodedImage, ...], text: str
) -> Question[tuple[tuple[str, Verification], ...]]:
    return Question(
        "look",
        {"question": "look", "text": text},
        lambda reply: replies.parse_look(reply, text),
        images,
    )


def read(text: str, units: Sequence[str]) -> Question[tuple[tuple[bool, ...], Linguistic]]:
    return Question(
        "read",
        {"question": "read", "text": text, "units": _numbered(units)},
        lambda reply: replies.parse_read(reply, len(units), text),
    )


def preflight(images: tuple[EncodedImage, ...] = ()) -> Question[bool]:
    return Question("preflight", {"question": "preflight"}, replies.parse_preflight, images)


def _numbered(texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{"id": number, "text": text} for number, text in enumerate(texts, start=1)]


def _object(**properties: Any) -> dict[str, Any]:
    # The form that strict structured output asks for: all required, nothing else allowed.
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TEXT, _TRUTH, _NUMBER = {"type": "string"}, {"type": "boolean"}, {"type": "number"}
_ID = {"type": "integer"}
_GRADES = {"clarity": _NUMBER, "fluency": _NUMBER, "coherency": _NUMBER}
_COVERED = _array(_object(id=_ID, covered=_TRUTH))
_SCHEMAS: dict[str, dict[str, Any]] = {
    "decompose": _object(assertions=_array(_TEXT)),
    "verify": _object(verdicts=_array(_object(id=_ID, correct=_TRUTH, pointable=_TRUTH))),
    "cover": _object(verdicts=_COVERED),
    "linguistic": _object(**_GRADES),
    "look": _object(assertions=_array(_object(text=_TEXT, correct=_TRUTH, pointable=_TRUTH))),
    "read": _object(verdicts=_COVERED, **_GRADES),
    "preflight": _object(ready=_TRUTH),
}

"""The questions: their prompt files, the JSON with the data, and the reply's schema.

Text from the policy and the dataset is only ever sent as string values of one JSON object in the
user's message. It is never part of a prompt, so no caption can close, extend or imitate one, and it
is escaped so that no tokenizer finds a control token in it.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from trl_balcap.data.images import NoImageError
from trl_balcap.judge import replies, tickets
from trl_balcap.judge.images import EncodedImage
from trl_balcap.judge.replies import Form, Linguistic, Verification
from trl_balcap.judge.tickets import UnreadableReply

Verdict = TypeVar("Verdict")

QUESTIONS = (
    "decompose",
    "verify",
    "cover",
    "linguistic",
    "look",
    "read",
    "parse",
    "preflight",
    "ask",
    "quiz",
    "choose",
    "rubric",
    "meet",
    "rank",
)

# Questions with the longest chain still ahead of them go first.
_PRIORITY = {"verify": 1, "cover": 1, "read": 1, "linguistic": 2}
_PRIORITY |= {"meet": 1, "choose": 2, "rank": 2}


class Answer(NamedTuple, Generic[Verdict]):
    """A verdict, and the JSON from which it can be restored."""

    verdict: Verdict
    stored: str


@dataclass(frozen=True)
class Question(Generic[Verdict]):
    """One question to a judge, ready to send.

    Args:
        name (`str`):
            One of `QUESTIONS`, or the name of an own one.
        data (`dict`):
            The JSON object of the user's message, without the ticket.
        form (`type`):
            Schema of the reply.
        judge (`Callable`):
            Turns a reply of that form into the verdict; raises `UnreadableReply`.
        images (`tuple` of `EncodedImage`):
            Images shown to the judge.
        own_prompt (`str`, *optional*):
            The prompt of a question that is not in `QUESTIONS`.
    """

    name: str
    data: dict[str, Any]
    form: type[Form] = field(compare=False)
    judge: Callable[[Any], Verdict] = field(compare=False)
    images: tuple[EncodedImage, ...] = ()
    own_prompt: str | None = None

    @property
    def prompt(self) -> str:
        """What the judge is told to do."""
        return prompt(self.name) if self.own_prompt is None else self.own_prompt

    @property
    def priority(self) -> int:
        return _PRIORITY.get(self.name, 0)

    @cached_property
    def text(self) -> str:
        """The question as JSON: equal texts (and images) are equal questions."""
        return json_text(self.data)

    @cached_property
    def said(self) -> str:
        """All text that the judge is to judge or compare, unescaped."""
        return encodable("\n".join(_strings(self.data)))

    def new_ticket(self) -> str:
        """A ticket for one request, which nothing in the question can predict."""
        return tickets.new_ticket(self.text)

    def messages(self, ticket: str) -> list[dict[str, Any]]:
        """The chat messages in OpenAI format. The image comes first, since many questions share it,
        so that prefix caches can reuse it."""
        text = f'{self.text[:-1]}, "ticket": "{ticket}"}}'
        content: Any = text
        if self.images:
            content = [{"type": "image_url", "image_url": {"url": i.url}} for i in self.images]
            content.append({"type": "text", "text": text})
        return [
            {"role": "system", "content": self.prompt},
            {"role": "user", "content": content},
        ]

    def response_format(self) -> dict[str, Any]:
        """The reply's JSON schema, for providers that support one."""
        schema = {"name": self.name, "strict": True, "schema": schema_of(self.form)}
        return {"type": "json_schema", "json_schema": schema}

    def read(self, reply: str, ticket: str) -> Answer[Verdict]:
        """The verdict in the judge's reply to the request with this ticket.

        Raises:
            `UnreadableReply`: if the reply does not answer the question.
        """
        form = replies.read(reply, self.form, ticket, self.said)
        return Answer(self.judge(form), form.model_dump_json())

    def recall(self, stored: str) -> Verdict:
        """Restore a stored verdict, validating it against the question again.

        Raises:
            `UnreadableReply`: if it does not answer the question.
        """
        try:
            form = self.form.model_validate_json(stored)
        except ValidationError as error:
            raise UnreadableReply("the stored verdict has another form") from error
        return self.judge(form)


def json_text(data: dict[str, Any]) -> str:
    """Serialise `data` to valid UTF-8 JSON without control tokens, whatever its strings contain.

    Lone surrogates cannot be sent and become U+FFFD. Characters that tokenizers turn into control
    tokens (`<|im_start|>`, `[INST]`, `<start_of_turn>`, `<｜User｜>`) are escaped: the JSON is
    equivalent but has only ordinary tokens.

    ```python
    >>> print(json_text({"text": "A [sign] says <s>."}))
    {"text": "A \\u005bsign\\u005d says \\u003cs\\u003e."}

    ```
    """
    dumped = encodable(json.dumps(data, ensure_ascii=False))
    # A fast path: most captions contain none of these characters, and searching is much cheaper
    # than walking all strings. If there are as many brackets as lists, no string contains one.
    lists = sum(isinstance(value, list) for value in data.values())
    if dumped.count("[") == dumped.count("]") == lists and not any(
        sign in dumped for sign in _SIGNS_BUT_BRACKETS
    ):
        return dumped
    return _STRING.sub(lambda string: _OF_TOKENS.sub(_escaped, string.group()), dumped)


def encodable(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which cannot be sent or written."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _escaped(character: re.Match[str]) -> str:
    return f"\\u{ord(character.group()):04x}"


_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
# All known control tokens begin with one of these: <...>, [...], ◁...▷, |||...|||, >>...<<. The
# list also has the characters that NFKC normalises to one of them, and SentencePiece's space.
_SIGNS_BUT_BRACKETS = "<>|◁▷＜＞［］｜﹤﹥﹇﹈▁"
_OF_TOKENS = re.compile(rf"[\[\]{_SIGNS_BUT_BRACKETS}]")
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
def schema_of(form: type[Form]) -> dict[str, Any]:
    """
    The JSON schema of a form with the ticket, as strict structured output requires: all keys
    required, no others allowed, no bounds.

    ```python
    >>> schema_of(replies.PreflightForm)["properties"]
    {'ready': {'type': 'boolean'}, 'ticket': {'type': 'string'}}

    ```
    """
    whole = form.model_json_schema()

    def plain(schema: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in schema:
            schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
        if schema["type"] == "array":
            return {"type": "array", "items": plain(schema["items"])}
        if schema["type"] != "object":
            return {key: schema[key] for key in ("type", "enum") if key in schema}
        properties = {name: plain(value) for name, value in schema["properties"].items()}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    schema = plain(whole)
    schema["properties"]["ticket"] = {"type": "string"}  # the ticket comes last: see tickets
    schema["required"].append("ticket")
    return schema


@cache
def prompts_hash() -> str:
    """A short hash of all prompt files: a different hash means that verdicts may differ."""
    digest = hashlib.sha256()
    for name in sorted(QUESTIONS):
        digest.update(f"{name}\0{prompt(name)}\0".encode())
    return digest.hexdigest()[:12]


def decompose(text: str) -> Question[tuple[str, ...]]:
    return Question(
        "decompose",
        {"question": "decompose", "text": text},
        replies.SplitForm,
        lambda form: replies.split(form, text),
    )


def verify(
    images: tuple[EncodedImage, ...], assertions: Sequence[str]
) -> Question[tuple[Verification, ...]]:
    return Question(
        "verify",
        {"question": "verify", "assertions": numbered(assertions)},
        replies.VerifyForm,
        lambda form: replies.verifications(form, len(assertions)),
        shown("verify", images),
    )


def cover(assertions: Sequence[str], units: Sequence[str]) -> Question[tuple[bool, ...]]:
    return Question(
        "cover",
        {"question": "cover", "assertions": numbered(assertions), "units": numbered(units)},
        replies.CoverForm,
        lambda form: replies.coverage(form, len(units)),
    )


def linguistic(text: str) -> Question[Linguistic]:
    data = {"question": "linguistic", "text": text}
    return Question("linguistic", data, replies.LinguisticForm, replies.grades)


def look(
    images: tuple[EncodedImage, ...], text: str
) -> Question[tuple[tuple[str, Verification], ...]]:
    return Question(
        "look",
        {"question": "look", "text": text},
        replies.LookForm,
        lambda form: replies.looked(form, text),
        shown("look", images),
    )


def read(text: str, units: Sequence[str]) -> Question[tuple[tuple[bool, ...], Linguistic]]:
    return Question(
        "read",
        {"question": "read", "text": text, "units": numbered(units)},
        replies.ReadForm,
        lambda form: replies.coverage_and_grades(form, len(units)),
    )


def parse(text: str) -> Question[tuple[tuple[str, ...], Linguistic]]:
    return Question(
        "parse",
        {"question": "parse", "text": text},
        replies.ParseForm,
        lambda form: (replies.split(form, text), replies.grades(form)),
    )


def preflight(images: tuple[EncodedImage, ...] = ()) -> Question[bool]:
    data = {"question": "preflight"}
    return Question("preflight", data, replies.PreflightForm, lambda form: form.ready, images)


def shown(name: str, images: tuple[EncodedImage, ...]) -> tuple[EncodedImage, ...]:
    if not images:
        raise NoImageError(
            f"{name} needs an image, but there is none. A completion without an image has no "
            "verdict: score it None"
        )
    return images


def _strings(value: Any) -> list[str]:
    """All strings in the data of a question."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return []
    return [text for inner in value for text in _strings(inner)]


def numbered(texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{"id": number, "text": text} for number, text in enumerate(texts, start=1)]

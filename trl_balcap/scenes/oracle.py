r"""The exact judge of scenes: it answers every question only from what a judge is sent.

It reads the question's JSON and the pixels of the image, and applies the rules in `rules`.

The policy is an adversary. Captions that give the judge orders, close its JSON or imitate verdicts
are sentences outside the grammar, and such sentences score nothing on any question.
"""

import base64
import binascii
import functools
import io
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError

from trl_balcap.scenes import answers
from trl_balcap.scenes.benchmarks import benchmark_answer
from trl_balcap.scenes.noise import LOOKING, Noise
from trl_balcap.scenes.rules import Linguistic, covered, decompose, linguistic, verdict
from trl_balcap.scenes.sight import read_scene
from trl_balcap.scenes.world import Scene

__all__ = [
    "Oracle",
    "QuestionError",
    "Scores",
    "answer",
    "question_name",
    "score",
    "ticket_of",
]


class QuestionError(ValueError):
    """The messages contain no question the exact judge knows; the error says what is wrong."""


# ---------------------------------------------------------------------------------------------
# Questions and answers


def answer(question: dict[str, Any], image: Image.Image | Scene | None = None) -> dict[str, Any]:
    r"""
    The exact answer to one question.

    Args:
        question (`dict`):
            The user's JSON: `{"question": "decompose", "text": ...}`, and likewise for `verify`,
            `cover`, `linguistic`, `look`, `read`, `parse`, `preflight`, and the questions of
            [`~scenes.answers`]: `ask`, `quiz`, `choose`, `rubric`, `meet`, `rank`. Its `ticket`, if
            it has one, is the reply's last key.
        image (`PIL.Image.Image` or [`Scene`], *optional*):
            The image, if the question is about one.

    Returns:
        `dict`: The reply's JSON.

    Raises:
        `QuestionError`: for an unknown question, a missing or malformed key, or an image that is
            missing or shows no scene.

    Example:

    ```python
    >>> from trl_balcap.scenes.oracle import answer
    >>> from trl_balcap.scenes.world import Scene, Thing, draw

    >>> image = draw(Scene((Thing("red", "star", "large", "top", "left"),)))
    >>> claim = {"id": 1, "text": "The top left shows a large red star."}
    >>> answer({"question": "verify", "assertions": [claim]}, image)
    {'verdicts': [{'id': 1, 'correct': True, 'pointable': True}]}
    >>> answer({"question": "cover", "assertions": [claim], "units": [claim]})
    {'verdicts': [{'id': 1, 'covered': True}]}

    ```
    """
    reply = _answered(question, image)
    return {**reply, "ticket": question["ticket"]} if "ticket" in question else reply


def _answered(question: dict[str, Any], image: Image.Image | Scene | None) -> dict[str, Any]:
    name = question.get("question")
    if name == "decompose":
        return {"assertions": decompose(_text(question))}
    if name == "verify":
        return {"verdicts": _verdicts(_numbered(question, "assertions"), _seen(image))}
    if name == "cover":
        assertions = [text for _, text in _numbered(question, "assertions")]
        return {"verdicts": _cover_verdicts(question, assertions)}
    if name == "linguistic":
        return linguistic(_text(question))._asdict()
    if name == "look":
        assertions = decompose(_text(question))
        verdicts = _verdicts(enumerate(assertions, start=1), _seen(image))
        return {"assertions": assertions, "verdicts": verdicts}
    if name == "read":
        text = _text(question)
        verdicts = _cover_verdicts(question, decompose(text))
        return {"verdicts": verdicts, **linguistic(text)._asdict()}
    if name == "parse":
        text = _text(question)
        return {"assertions": decompose(text), **linguistic(text)._asdict()}
    if name == "preflight":
        return {"ready": True}
    if name == "ask":
        return {"questions": answers.asked_about(_seen(image), question["count"])}
    if name == "quiz":
        asked = question["asked"], [text for _, text in _numbered(question, "options")]
        return {
            "choice": answers.guessed(*asked)
            if image is None
            else answers.seen(*asked, _seen(image))
        }
    if name == "choose":
        options = [text for _, text in _numbered(question, "options")]
        return {"choice": answers.chosen(question["asked"], options, _text(question))}
    if name == "rubric":
        references = [text for _, text in _numbered(question, "references")]
        return {"criteria": answers.criteria_of(references, _seen(image))}
    if name == "meet":
        criteria = _numbered(question, "criteria")
        met = answers.criteria_met(_text(question), [text for _, text in criteria])
        return _each(criteria, "met", met)
    if name == "rank":
        texts = _numbered(question, "texts")
        return _each(texts, "place", answers.places([text for _, text in texts], _seen(image)))
    raise QuestionError(
        f"unknown question {name!r}; the judge of scenes knows decompose, verify, cover, "
        "linguistic, look, read, parse, ask, quiz, choose, rubric, meet, rank and preflight."
    )


def _each(asked: Sequence[tuple[Any, str]], key: str, values: Sequence[Any]) -> dict[str, Any]:
    pairs = zip(asked, values, strict=True)
    return {"verdicts": [{"id": number, key: value} for (number, _), value in pairs]}


def _verdicts(assertions: Iterable[tuple[Any, str]], scene: Scene) -> list[dict[str, Any]]:
    verdicts = []
    for number, text in assertions:
        correct, pointable = verdict(text, scene)
        verdicts.append({"id": number, "correct": correct, "pointable": pointable})
    return verdicts


def _cover_verdicts(question: dict[str, Any], assertions: list[str]) -> list[dict[str, Any]]:
    units = _numbered(question, "units")
    found = covered(assertions, [text for _, text in units])
    return [{"id": number, "covered": c} for (number, _), c in zip(units, found, strict=True)]


def _text(question: dict[str, Any]) -> str:
    text = question.get("text")
    if not isinstance(text, str):
        raise QuestionError(f"{question['question']} asks about 'text', a string, got {text!r}.")
    return text


def _numbered(question: dict[str, Any], key: str) -> list[tuple[Any, str]]:
    try:
        pairs = [(entry["id"], entry["text"]) for entry in question[key]]
    except (KeyError, TypeError) as error:
        raise QuestionError(
            f"{question['question']} asks about {key!r}, a list of objects with id and text; "
            f"{error!r} is in the way."
        ) from error
    if not all(isinstance(text, str) for _, text in pairs):
        raise QuestionError(f"every text in {key!r} of {question['question']} must be a string.")
    return pairs


def _seen(image: Image.Image | Scene | None) -> Scene:
    if isinstance(image, Scene):
        return image
    if image is None:
        raise QuestionError("this question needs an image, and the message holds none.")
    try:
        return read_scene(image)
    except ValueError as error:
        raise QuestionError(str(error)) from error


# ---------------------------------------------------------------------------------------------
# Scores without a judge call


class Scores(NamedTuple):
    """The three rewards of one caption. `recall` is `None` if the reference has no units."""

    precision: float
    recall: float | None
    linguistic: float


def score(
    caption: str,
    reference: str,
    image: Image.Image | Scene,
    *,
    pointable: bool = True,
    noise: Noise | None = None,
    call: int = 0,
) -> Scores:
    r"""
    The three rewards of one caption, equal to what the rewards compute from the judge's replies.

    $r_P = \mathrm{TP} / N$, $r_R = \mathrm{covered} / M$,
    $r_L = \mathrm{mean}(\mathrm{clarity}, \mathrm{fluency}, \mathrm{coherency}) / 10$ (BalCapRL).

    Args:
        caption (`str`): The caption to score. A blank one scores 0 on all three.
        reference (`str`): The reference caption.
        image (`PIL.Image.Image` or [`Scene`]): What the caption is about.
        pointable (`bool`, *optional*, defaults to `True`):
            Whether a true positive must also be pointable. `False` is the paper's ablation: being
            verifiable is enough, so commentary counts.
        noise ([`Noise`], *optional*):
            Scores as a noisy judge would; NaN where a reply that a score needs does not come.
        call (`int`, *optional*, defaults to `0`): Which of the noisy judge's calls to use.

    Returns:
        [`Scores`]: Each between 0 and 1.

    Example: one of the two assertions is commentary, and the caption does not cover the count in
    the reference.

    ```python
    >>> from trl_balcap.scenes.oracle import score
    >>> from trl_balcap.scenes.world import Scene, Thing

    >>> scene = Scene((Thing("red", "star", "large", "top", "left"),))
    >>> reference = "There is one thing. At the top left there is a large red star."
    >>> caption = "The top left shows a large red star. The mood is cosy."
    >>> score(caption, reference, scene)
    Scores(precision=0.5, recall=0.5, linguistic=1.0)
    >>> score(caption, reference, scene, pointable=False).precision
    1.0

    ```
    """
    if not caption.strip():
        return Scores(0.0, 0.0, 0.0)
    scene = _seen(image)

    missing: set[str] = set()

    def ask(name: str, view: str, **keys: Any) -> dict[str, Any]:
        question = {"question": name, **keys}
        reply = answer(question, scene)
        if noise is None:
            return reply
        if noise.fails(question, scene, call):
            missing.update(view)
        return noise.spoil(question, reply, scene, call)

    # P, R and L: the rewards that need the reply.
    assertions = _number(ask("decompose", "PR", text=caption)["assertions"])
    units = _number(ask("decompose", "R", text=reference)["assertions"])
    precision = recall = 0.0
    if assertions:
        verdicts = ask("verify", "P", assertions=assertions)["verdicts"]
        positives = sum(v["correct"] and (v["pointable"] or not pointable) for v in verdicts)
        precision = positives / len(assertions)
    if assertions and units:
        verdicts = ask("cover", "R", assertions=assertions, units=units)["verdicts"]
        recall = sum(v["covered"] for v in verdicts) / len(units)
    grades = sum(ask("linguistic", "L", text=caption)[name] for name in Linguistic._fields)
    scored = zip("PRL", (precision, recall, grades / 30.0), strict=True)
    rewards = [math.nan if name in missing else value for name, value in scored]
    return Scores(rewards[0], rewards[1] if units else None, rewards[2])


def _number(texts: Iterable[str]) -> list[dict[str, Any]]:
    return [{"id": number, "text": text} for number, text in enumerate(texts, start=1)]


class Oracle:
    r"""
    The exact judge as a chat model: takes messages, returns the text of the reply.

    Args:
        noise ([`Noise`], *optional*): Makes the judge noisy.

    Example:

    ```python
    >>> from trl_balcap.scenes.oracle import Oracle

    >>> Oracle()([{"role": "user", "content": '{"question": "preflight"}'}])
    '{"ready": true}'

    ```
    """

    def __init__(self, noise: Noise | None = None):
        self.noise = noise or Noise()
        self.calls = itertools.count()

    def __call__(self, messages: Sequence[dict[str, Any]]) -> str:
        """
        Raises:
            `QuestionError`: if the messages contain no question that can be answered.
        """
        reply = _of_benchmark(messages)
        if reply is not None:
            return reply
        question, urls = _read_messages(messages)
        # Only questions about the image look at it: a preflight may send a blank image.
        scene = None
        if urls and question.get("question") in LOOKING:
            if len(urls) > 1:
                raise QuestionError(f"one image can be looked at, got {len(urls)}.")
            scene = _scene_at(urls[0])
        reply = answer(question, scene)
        call = next(self.calls) if self.noise.every_call else 0
        text = json.dumps(self.noise.spoil(question, reply, scene, call), ensure_ascii=False)
        return (
            text[: len(text) // 2] if self.noise.fails(question, scene, call) else text
        )  # broken off


def _of_benchmark(messages: Sequence[dict[str, Any]]) -> str | None:
    """The reply to a published benchmark's question; `None` if the last message asks none."""
    content = messages[-1].get("content") if messages else None
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = [part.get("text") for part in parts if part.get("type") == "text"]
    urls = [part["image_url"]["url"] for part in parts if part.get("type") == "image_url"]

    def look() -> Scene:
        if len(urls) != 1:
            raise QuestionError(f"one image must be looked at, got {len(urls)}.")
        return _scene_at(urls[0])

    return benchmark_answer(texts[-1], look) if texts and isinstance(texts[-1], str) else None


def question_name(messages: Sequence[dict[str, Any]]) -> str:
    """Name of the question that the messages ask, for counting; `"other"` if they ask none."""
    try:
        return str(_read_messages(messages)[0]["question"])
    except QuestionError:
        return "other"


def ticket_of(messages: Sequence[dict[str, Any]]) -> str:
    """The ticket in the messages, or `""` if there is none; each request has a new one."""
    try:
        return str(_read_messages(messages)[0].get("ticket", ""))
    except QuestionError:
        return ""


def _read_messages(messages: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """The question's JSON and the image URLs in the last user message that asks a question."""
    for message in reversed(messages):
        if message.get("role") != "user":
            continue
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        urls = []
        question = None
        for part in parts:
            if part.get("type") == "image_url":
                urls.append(part.get("image_url", {}).get("url", ""))
            elif part.get("type") == "text":
                question = _object(part.get("text")) or question
        if question is not None and "question" in question:
            return question, urls
    raise QuestionError(
        "no user message asks a question: its text must be one JSON object with a 'question'."
    )


def _object(text: Any) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@functools.lru_cache(maxsize=512)
def _scene_at(url: str) -> Scene:
    """The scene in a data URL. Cached, since every caption of a group asks about the same image."""
    header, comma, data = url.partition(",")
    if not (comma and header.startswith("data:image/") and header.endswith(";base64")):
        raise QuestionError(f"the image must be a base64 data URL, got {url[:40]!r}.")
    try:
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        image.load()
    except (binascii.Error, UnidentifiedImageError, OSError) as error:
        raise QuestionError(f"the image cannot be decoded: {error}") from error
    return _seen(image)

r"""
Rules of Prism, as CapRL uses it: what is asked about a caption, and what a reply is worth.

Rules and quirks as measured on InternLM/CapRL at 9bbc1bb with math-verify 0.9.0. Two modes:

- `official`: those numbers. A reply counts only in the form `</think> <answer>...\boxed{...}...</answer>`;
  an answer key that cannot be parsed makes every reply right; the 5% of charts are of the prediction.
- `strict`: the last `\boxed{...}` counts anywhere; an answer key that cannot be parsed is compared as
  text; the 5% are of the answer key.
"""  # noqa: E501

import ast
import re
import threading
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

__all__ = ["Kind", "PrismQuestion", "boxed", "kind_of", "reward_of", "turns_of"]

Kind = Literal["plain", "chart", "document"]
Mode = Literal["official", "strict"]
TIMEOUT = 5
_BOX = r"\boxed{"
_ANY = re.compile(r"\\boxed{([^{}]*(?:{[^{}]*}[^{}]*)*)}")
_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


class PrismQuestion(NamedTuple):
    """A question about an image, with its answer key."""

    image: str
    prompt: str
    answer: str


def kind_of(source: str) -> Kind:
    """
    How answers are compared, which the official script tells from the name of the data file.

    Example:

    ```python
    >>> kind_of("lmm_eval_chartqa.json"), kind_of("infovqa.json"), kind_of("MMStar.json")
    ('chart', 'document', 'plain')

    ```
    """
    name = source.lower()
    return "document" if "info" in name else "chart" if "char" in name else "plain"


def turns_of(prompt: str, caption: str) -> tuple[str | None, str]:
    """
    The system turn, if any, and the user's turn: the caption in place of the image.

    A prompt in Qwen's chat format, as in the official data, is taken apart; any other text is the
    question itself.

    Example:

    ```python
    >>> turns_of("How many?", "Two cups")[1]
    'Here is a detailed caption of an image: Two cups. Please answer the question based on the caption.How many?'

    ```
    """  # noqa: E501
    system = re.search(r"<\|im_start\|>system\n(.*?)<\|im_end\|>", prompt, re.DOTALL)
    user = re.search(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", prompt, re.DOTALL)
    question = (user[1] if user else prompt).replace(_IMAGE, "")
    told = (
        f"Here is a detailed caption of an image: {caption}. Please answer the question based on "
        "the caption."
    )
    return system[1] if system else None, told + question


def boxed(reply: str, mode: Mode = "official") -> str:
    r"""
    The answer in a reply, "" if there is none.

    Example:

    ```python
    >>> boxed(r"so </think> <answer>\boxed{4}</answer>"), boxed(r"It is \boxed{4}.")
    ('4', '')
    >>> boxed(r"It is \boxed{4}.", "strict")
    '4'

    ```
    """
    if mode == "strict":
        found = _ANY.findall(reply)
        return found[-1] if found else ""
    # The script's `</think>\s*<answer>.*?\\boxed{(.*)}.*?</answer>`, whose work is not linear.
    form = re.search(r"</think>\s*<answer>", reply)
    start = -1 if form is None else reply.find(_BOX, form.end())
    end = reply.rfind("}", 0, max(0, reply.rfind("</answer>")))
    return reply[start + len(_BOX) : end] if 0 <= start <= end - len(_BOX) else ""


def reward_of(reply: str, answer: str, kind: Kind = "plain", mode: Mode = "official") -> float:
    r"""
    1.0 for the right answer, 0.0 otherwise; for documents also the similarity (ANLS) from 0.5 on.

    Example:

    ```python
    >>> reply = r"</think> <answer>\boxed{\frac{1}{2}}</answer>"
    >>> reward_of(reply, "0.5"), reward_of(reply, "0.51")
    (1.0, 0.0)

    ```
    """
    said = boxed(reply, mode)
    mathematical = _equal(said, answer, mode)
    return (
        mathematical if kind == "plain" else max(mathematical, _charted(said, answer, kind, mode))
    )


def _equal(said: str, answer: str, mode: Mode) -> float:
    from math_verify import verify  # type: ignore[import-not-found]

    key = _parsed(f"${answer}$")
    if not key:
        return 1.0 if mode == "official" else float(said.strip() == answer.strip())
    limit = _timeout()
    # What sympy cannot compare, math-verify takes for unequal.
    return float(
        verify(said, key, timeout_seconds=limit)
        or verify(_parsed(f"${said}$"), key, timeout_seconds=limit)
    )


def _charted(said: str, answer: str, kind: Kind, mode: Mode) -> float:
    found = _parsed(f"${said}$")
    text = str(found[-1]) if found else ""
    keys = _keys(answer)
    number = _number(text)
    if number is not None and not text.endswith("%"):
        tries = [str(scale * number) for scale in (1, 0.01, 100)]
    else:
        tries = [text.strip()]
    relaxed = float(any(_within(said, key, mode) for said in tries for key in keys))
    if kind == "chart":
        return relaxed
    likeness = max(1 - _distance(key, text) for key in keys)
    return max(relaxed, likeness if likeness >= 0.5 else 0.0)


def _keys(answer: str) -> Sequence[str]:
    """One answer key, or all of a list that is written out."""
    try:
        several = ast.literal_eval(answer)
    except (ValueError, SyntaxError):
        return [answer]
    return [str(key) for key in several] if isinstance(several, list) and several else [answer]


def _within(said: str, key: str, mode: Mode) -> bool:
    """Whether two numbers are within 5% of one of them, or two texts equal but for their case."""
    base, other = (said, key) if mode == "official" else (key, said)
    reference, compared = _number(base), _number(other)
    if compared is not None and reference:
        return abs(compared - reference) / abs(reference) <= 0.05
    return said.lower() == key.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _distance(key: str, said: str) -> float:
    """Edit distance over the longer length."""
    one, other = (" ".join(text.strip().lower().split()) for text in (key, said))
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        before, row = row, [i]
        for j, another in enumerate(other, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != another)))
    longest = max(len(key), len(said))
    return row[-1] / longest if longest else 0.0


def _parsed(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse  # type: ignore[import-not-found]

    return parse(
        text,
        extraction_mode="first_match",
        extraction_config=[LatexExtractionConfig()],
        parsing_timeout=_timeout(),
    )


def _timeout() -> int:
    """Seconds; 0 for no limit: math-verify uses a signal, which only the main thread can set."""
    return TIMEOUT if threading.current_thread() is threading.main_thread() else 0

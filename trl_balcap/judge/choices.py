"""Multiple-choice questions about an image, answered from the image or from a caption."""

import random
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from trl_balcap.judge.images import EncodedImage
from trl_balcap.judge.questions import Question, numbered, shown
from trl_balcap.judge.replies import Form
from trl_balcap.judge.tickets import UnreadableReply

__all__ = ["Choice", "ask", "choose", "quiz", "read_choice"]

_MOST_OPTIONS = 10


class Choice(NamedTuple):
    """A multiple-choice question; `answer` is the index of the correct entry in `choices`."""

    question: str
    choices: tuple[str, ...]
    answer: int

    def shuffled(self, sample: int) -> "Choice":
        """The question with its choices shuffled for this sample, identically in every run."""
        order = list(range(len(self.choices)))
        random.Random(f"{sample} {self.question} {self.choices}").shuffle(order)
        choices = tuple(self.choices[place] for place in order)
        return Choice(self.question, choices, order.index(self.answer))

    def row(self) -> dict[str, Any]:
        """The question in the format of a dataset's `questions`."""
        return {
            "question": self.question,
            "choices": list(self.choices),
            "answer": self.choices[self.answer],
        }


def read_choice(row: Any) -> Choice:
    """
    Read an entry of a dataset's `questions`: `question`, `choices`, and `answer`, which is one of
    the choices.

    Raises:
        `ValueError`: if the entry is not a valid question.

    Example:

    ```python
    >>> read_choice({"question": "What colour is it?", "choices": ["red", "blue"], "answer": "blue"})
    Choice(question='What colour is it?', choices=('red', 'blue'), answer=1)

    ```
    """  # noqa: E501
    problem = None
    if not isinstance(row, Mapping):
        raise ValueError(f"{row!r} is not a multiple-choice question, but a {type(row).__name__}.")
    text, choices = row.get("question"), row.get("choices")
    if not isinstance(text, str) or not text.strip():
        problem = f"its question is {text!r}"
    elif not isinstance(choices, list | tuple) or not all(isinstance(c, str) for c in choices):
        problem = f"its choices are {choices!r}, not a list of strings"
    elif not 2 <= len({" ".join(c.split()) for c in choices}) == len(choices) <= _MOST_OPTIONS:
        problem = f"it needs 2 to {_MOST_OPTIONS} different choices, got {choices}"
    elif row.get("answer") not in choices:
        problem = f"its answer {row.get('answer')!r} is not among its choices {choices}"
    if problem is not None:
        raise ValueError(f"{dict(row)} is not a multiple-choice question: {problem}.")
    assert text is not None
    assert choices is not None
    return Choice(text, tuple(choices), list(choices).index(row["answer"]))


# ---- forms --------------------------------------------------------------------------------------


class _Asked(Form):
    question: str
    choices: list[str]
    answer: int


class AskForm(Form):
    questions: list[_Asked]


class ChoiceForm(Form):
    choice: Annotated[int, Field(ge=0)]


def _asked(form: AskForm, count: int) -> tuple[Choice, ...]:
    if not 1 <= len(form.questions) <= count:
        raise UnreadableReply(f"{len(form.questions)} questions instead of 1 to {count}")
    found = []
    for one in form.questions:
        if not 1 <= one.answer <= len(one.choices):
            raise UnreadableReply(f"answer {one.answer}, but there are {len(one.choices)} choices")
        row = {"question": one.question, "choices": one.choices}
        try:
            found.append(read_choice({**row, "answer": one.choices[one.answer - 1]}))
        except ValueError as error:
            raise UnreadableReply(str(error)) from error
    return tuple(found)


def _chosen(form: ChoiceForm, count: int) -> int | None:
    if form.choice > count:
        raise UnreadableReply(f"choice {form.choice}, but there are {count} options")
    return form.choice - 1 if form.choice else None


# ---- questions ----------------------------------------------------------------------------------


def ask(images: tuple[EncodedImage, ...], count: int) -> Question[tuple[Choice, ...]]:
    """Write `count` multiple-choice questions about an image."""
    return Question(
        "ask",
        {"question": "ask", "count": count},
        AskForm,
        lambda form: _asked(form, count),
        shown("ask", images),
    )


def quiz(images: tuple[EncodedImage, ...], choice: Choice) -> Question[int | None]:
    """Answer a question from the image, or, without an image, from its wording alone."""
    data = {"question": "quiz", "asked": choice.question, "options": numbered(choice.choices)}
    count = len(choice.choices)
    return Question("quiz", data, ChoiceForm, lambda form: _chosen(form, count), images)


def choose(text: str, choice: Choice) -> Question[int | None]:
    """Answer a question from a caption alone; `None` if the caption does not say."""
    data = {
        "question": "choose",
        "text": text,
        "asked": choice.question,
        "options": numbered(choice.choices),
    }
    count = len(choice.choices)
    return Question("choose", data, ChoiceForm, lambda form: _chosen(form, count))

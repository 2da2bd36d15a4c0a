"""
Rules of CaptionQA: which questions are asked, in which order the options are, and how replies are
scored.

Rules and quirks as measured on bronyayang/CaptionQA at f729489 and on the port in lmms-eval 0.7.2.
Three modes:

- `official`: those numbers. A reply that names no option is wrong, one shuffle runs through all
  questions (so a missing caption changes the later ones), and "cannot answer" is recognised by its
  text.
- `lmms-eval`: the port's numbers. Replies are not stripped, "cannot answer" is recognised by its
  position, and questions are shuffled as if no caption were missing.
- `strict`: a reply must be one letter, or the question has no score; yes/no questions are those
  with the options yes and no; each question has its own shuffle.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

__all__ = [
    "CANNOT_ANSWER",
    "Answer",
    "ChoiceQuestion",
    "Preparation",
    "extract_letter",
    "is_yesno_question",
    "options_of",
    "prepare_questions",
    "question_prompt",
    "questions_of",
    "score_reply",
    "strict_letter",
    "true_letter",
]

Mode = Literal["official", "lmms-eval", "strict"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CANNOT_ANSWER = "Cannot answer from the caption"
YES_NO_STARTERS = (
    *("is", "are", "was", "were", "do", "does", "did", "have", "has", "had", "can", "could"),
    *("will", "would", "should", "shall", "may", "might", "must"),
)


@dataclass(frozen=True)
class ChoiceQuestion:
    """
    One question as the judge sees it.

    Args:
        image_id (`str`), index (`int`):
            The image, and the question's index among the image's questions.
        text (`str`), choices (`tuple[str, ...]`):
            The question and its own options, in the dataset's order.
        true_index (`int`):
            Index of the right option in `choices`.
        options (`tuple[str, ...]`):
            `choices`, followed by "cannot answer" if it is offered.
        permutation (`tuple[int, ...]`):
            Shown option k is `options[permutation[k]]`.
        category (`str`):
            The dataset's category, "" for none.
    """

    image_id: str
    index: int
    text: str
    choices: tuple[Any, ...]
    true_index: int
    options: tuple[Any, ...]
    permutation: tuple[int, ...]
    category: str

    @property
    def shown(self) -> tuple[str, ...]:
        """Options in the order shown to the judge."""
        return tuple(str(self.options[place]) for place in self.permutation)


class Answer(NamedTuple):
    """The score of one reply. `score` is `None` if `strict` finds no answer in the reply."""

    text: str | None
    correct: bool
    cannot_answer: bool
    score: float | None


class Preparation(NamedTuple):
    """Questions to ask, in order, and the number of rows and questions left out, by reason."""

    questions: list[ChoiceQuestion]
    skipped: dict[str, int]


def extract_letter(reply: str | None, num_options: int) -> str | None:
    """
    The letter in a reply, read as by the official script.

    Only the part after the first "</think>", then the first "Answer: ", then the first line break
    counts. There, the first standalone letter decides if it names an option, else the first number
    from 1 to 99 that does, else nothing.

    Example:

    ```python
    >>> extract_letter("(D)", 5), extract_letter("It is a cat", 5), extract_letter("Z, so B", 5)
    ('D', 'A', None)

    ```
    """
    if not reply:
        return None
    for marker in ("</think>", "Answer: ", "\n"):
        _, found, rest = reply.partition(marker)
        reply = rest if found else reply
    n = max(1, num_options)
    letter = re.search(r"\b([A-Z])\b", reply.upper())
    if letter and LETTERS.index(letter[1]) < n:
        return letter[1]
    number = re.search(r"\b([1-9][0-9]?)\b", reply)
    if number and int(number[1]) <= n:
        return LETTERS[int(number[1]) - 1]
    return None


def strict_letter(reply: str | None, num_options: int) -> str | None:
    """
    The letter in a reply that names one option and nothing that contradicts it: "B", "(b)",
    "**B**", "Answer: B", "B. Cup".

    Example:

    ```python
    >>> strict_letter("**b**.", 5), strict_letter("B. Blue", 5), strict_letter("It is a cat", 5)
    ('B', 'B', None)

    ```
    """
    text = (reply or "").rpartition("</think>")[2].strip()
    text = re.sub(r"^(the\s+)?answer(\s+is)?\s*:?\s*", "", text, flags=re.IGNORECASE)
    match = re.match(r"^[\s(\[*_`\"']*([A-Za-z])[\s)\]*_`\"'.:,]*($|(?<=[).:\]])\s*\S)", text)
    if not match:
        return None
    letter = match[1].upper()
    return letter if LETTERS.index(letter) < num_options else None


def is_yesno_question(question: str, choices: Sequence[Any], mode: Mode = "official") -> bool:
    """
    Whether a question gets no "cannot answer" option.

    `official`: one option contains "yes" and one contains "no" anywhere (even "nose"), or the
    question starts with an auxiliary verb (even "Is the cup red or blue?"). `strict`: the options'
    first words are yes and no.

    Example:

    ```python
    >>> is_yesno_question("What is it?", ["eyes", "nose"]), is_yesno_question(
    ...     "What is it?", ["eyes", "nose"], mode="strict"
    ... )
    (True, False)

    ```
    """
    texts = [str(choice).strip().lower() for choice in choices]
    if mode == "strict":
        first_words = {re.split(r"\W", text, maxsplit=1)[0] for text in texts}
        return {"yes", "no"} <= first_words
    if any("yes" in text for text in texts) and any("no" in text for text in texts):
        return True
    return question.strip().lower().startswith(tuple(f"{word} " for word in YES_NO_STARTERS))


def options_of(question: str, choices: Sequence[Any], mode: Mode = "official") -> list[Any]:
    """Options for the judge: the choices, and "cannot answer" unless it is a yes/no question."""
    offered = [] if is_yesno_question(question, choices, mode) else [CANNOT_ANSWER]
    return [*choices, *offered]


def true_letter(choices: Sequence[Any], answer: Any) -> str | None:
    """
    Letter of the choice that equals the answer, `None` if there is none. Case matters, surrounding
    white space does not.

    Raises:
        `IndexError`: if the choice is after the 26th, and so has no letter.

    Example:

    ```python
    >>> true_letter(["Red", "Blue"], "Blue "), true_letter(["Red", "Blue"], "blue")
    ('B', None)

    ```
    """
    if not choices or not isinstance(answer, str):
        return None
    for place, choice in enumerate(choices):
        if answer.strip() == str(choice).strip():
            return LETTERS[place]
    return None


def prepare_questions(
    dataset: Sequence[Mapping[str, Any]],
    captions: Mapping[str, str],
    *,
    seed: int = 0,
    mode: Mode = "official",
) -> Preparation:
    """
    Prepare the questions of a dataset that can be asked about captions, each with its shuffle.

    Args:
        dataset (`Sequence[Mapping]`):
            Rows with "id" and "questions" (each with "question", "choices", "answer" as text,
            "category"), or rows with one such question each.
        captions (`Mapping[str, str]`):
            Caption of each image id. Empty captions are asked about too.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the shuffle, the script's default.
        mode (`str`, *optional*, defaults to `"official"`):
            See the module.

    Returns:
        [`Preparation`]: questions without a caption, with fewer than 2 choices, with more than 26
        options, or without a choice equal to the answer are skipped and counted.
    """
    rng = random.Random(seed)
    questions: list[ChoiceQuestion] = []
    reasons = ("no caption", "fewer than 2 choices", "more than 26 options", "answer is no choice")
    skipped: dict[str, int] = dict.fromkeys(reasons, 0)
    for row in dataset:
        if row.get("id") is None:
            continue
        image_id = str(row["id"])
        has_caption = image_id in captions
        if not has_caption and mode == "official":
            skipped["no caption"] += 1
            continue
        for index, question in enumerate(questions_of(row)):
            text, choices = question.get("question", ""), question.get("choices", [])
            category = question.get("category", [])
            if isinstance(category, list):
                category = category[0] if category else ""
            if not choices or len(choices) < 2:
                skipped["fewer than 2 choices"] += 1
                continue
            options = options_of(text, choices, mode)
            if len(options) > len(LETTERS):  # the official script crashes here
                skipped["more than 26 options"] += 1
                continue
            letter = true_letter(choices, question.get("answer"))
            if letter is None:
                skipped["answer is no choice"] += 1
                continue
            permutation = list(range(len(options)))
            if mode == "strict":
                rng = random.Random(f"{seed}/{image_id}/{index}")
            rng.shuffle(permutation)
            if has_caption:
                questions.append(
                    ChoiceQuestion(
                        image_id=image_id,
                        index=index,
                        text=text,
                        choices=tuple(choices),
                        true_index=LETTERS.index(letter),
                        options=tuple(options),
                        permutation=tuple(permutation),
                        category=category,
                    )
                )
        if not has_caption:
            skipped["no caption"] += 1
    return Preparation(questions, skipped)


def question_prompt(caption: str, question: ChoiceQuestion) -> str:
    """
    The user's message: caption, question, lettered options.

    Example:

    ```python
    >>> question = ChoiceQuestion("i", 0, "Which?", ("a", "b"), 0, ("a", "b"), (1, 0), "")
    >>> print(question_prompt("A cup.", question))
    Caption:
    A cup.
    <BLANKLINE>
    Question:
    Which?
    <BLANKLINE>
    Options:
    A. b
    B. a
    <BLANKLINE>
    Answer:

    ```
    """
    options = "\n".join(f"{LETTERS[k]}. {option}" for k, option in enumerate(question.shown))
    blocks = (
        f"Caption:\n{caption}",
        f"Question:\n{question.text}",
        f"Options:\n{options}",
        "Answer:",
    )
    return "\n\n".join(blocks)


def score_reply(question: ChoiceQuestion, reply: str | None, mode: Mode = "official") -> Answer:
    """
    Score one reply: 1 for the right option, `1 / len(choices) + 0.05` for "cannot answer", else 0.

    `official` strips the reply and rounds the score to 4 decimals. `strict` does not score a reply
    that names no option, because that is the judge's failure.

    Example:

    ```python
    >>> question = ChoiceQuestion("i", 0, "Which?", ("a", "b", "c"), 0, ("a", "b", "c", CANNOT_ANSWER), (3, 1, 0, 2), "")
    >>> score_reply(question, "A")
    Answer(text='Cannot answer from the caption', correct=False, cannot_answer=True, score=0.3833)
    >>> score_reply(question, "C").score, score_reply(question, "?", mode="strict").score
    (1.0, None)

    ```
    """  # noqa: E501
    n_options = len(question.options)
    if mode == "strict":
        letter = strict_letter(reply, n_options)
    else:
        letter = extract_letter(reply.strip() if reply and mode == "official" else reply, n_options)
    if letter is None:
        return Answer(None, False, False, None if mode == "strict" else 0.0)
    place = question.permutation[LETTERS.index(letter)]
    text = str(question.options[place])
    # Recognised by its text, so that a choice with the same text also earns partial credit.
    by_text, by_place = text == CANNOT_ANSWER, place >= len(question.choices)
    if by_text if mode == "official" else by_place:
        score = 1 / len(question.choices) + 0.05
        return Answer(text, False, True, round(score, 4) if mode == "official" else score)
    correct = place == question.true_index
    return Answer(text, correct, False, 1.0 if correct else 0.0)


def questions_of(row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    questions = row.get("questions")
    if questions:
        return questions
    return [row] if "question" in row else []

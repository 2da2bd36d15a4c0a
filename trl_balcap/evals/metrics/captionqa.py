"""
CaptionQA: how many questions about the image can be answered from the caption alone?

A text model reads the caption and one multiple-choice question, options shuffled and "Cannot answer from the
caption" among them, and names a letter. Rules and quirks as measured on bronyayang/CaptionQA at f729489 and on the
port in lmms-eval 0.7.2. Three modes:

- `official`: those numbers. A reply that names no option is wrong, one shuffle runs through all questions (so a
  missing caption changes the ones after it), and an option is "cannot answer" by its text.
- `lmms-eval`: the port's numbers: replies are not stripped, "cannot answer" goes by position, each question's shuffle
  is the one it has when no caption is missing, and corpus scores have 4 decimals.
- `strict`: a reply must be one letter, or the question has no score; yes/no questions are those whose options say
  yes and no; each question has its own shuffle.
"""

import asyncio
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from trl_balcap.data.jsonl import read_jsonl
from trl_balcap.data.scored import Caption
from trl_balcap.evals.asking import Ask, Workload, chat, is_reply_failure, workload
from trl_balcap.evals.bootstrap import Statistic, ratio
from trl_balcap.evals.prompting import Prompts
from trl_balcap.judge import JudgeError

__all__ = [
    "Answer",
    "CaptionQA",
    "Preparation",
    "Question",
    "Tally",
    "by_category",
    "extract_letter",
    "is_yesno_question",
    "load_questions",
    "options_of",
    "prepare_questions",
    "question_prompt",
    "score_reply",
    "statistics",
    "tally",
    "true_letter",
]

Mode = Literal["official", "lmms-eval", "strict"]
OFFICIAL_JUDGE = "Qwen/Qwen2.5-72B-Instruct"
MAX_TOKENS = 4
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CANNOT_ANSWER = "Cannot answer from the caption"
YES_NO_STARTERS = (
    *("is", "are", "was", "were", "do", "does", "did", "have", "has", "had", "can", "could"),
    *("will", "would", "should", "shall", "may", "might", "must"),
)


@dataclass(frozen=True)
class Question:
    """
    One question as the judge sees it.

    Args:
        image_id (`str`), index (`int`):
            The image, and the question's place among the image's questions.
        text (`str`), choices (`tuple[str, ...]`):
            The question and its own options, in the dataset's order.
        true_index (`int`):
            Place of the right option in `choices`.
        options (`tuple[str, ...]`):
            `choices`, with "cannot answer" last where it is offered.
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
    """What one reply is worth. `score` is `None` where `strict` reads no answer from the reply."""

    text: str | None
    correct: bool
    cannot_answer: bool
    score: float | None


class Preparation(NamedTuple):
    """Questions to ask, in order, and how many rows and questions cannot be asked, by reason."""

    questions: list[Question]
    skipped: dict[str, int]


def extract_letter(reply: str | None, num_options: int) -> str | None:
    """
    Letter in a reply, read as the official script does.

    What follows the first "</think>", then the first "Answer: ", then the first line break counts. There the first
    standalone letter decides if it names an option, else the first number from 1 to 99 that does, else nothing.

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
    Letter of a reply that is one option and nothing that contradicts it: "B", "(b)", "**B**", "Answer: B", "B. Cup".

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

    `official`: some option contains "yes" and some "no" anywhere (as "nose" does), or the question starts with an
    auxiliary verb (as "Is the cup red or blue?" does). `strict`: the options' first words are yes and no.

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
    """Options that the judge may choose from: the choices, and "cannot answer" unless yes or no is asked."""
    offered = [] if is_yesno_question(question, choices, mode) else [CANNOT_ANSWER]
    return [*choices, *offered]


def true_letter(choices: Sequence[Any], answer: Any) -> str | None:
    """
    Letter of the choice whose text is the answer's, `None` where none is. Case matters, outer white space does not.

    Raises:
        IndexError: If that choice is beyond the 26th, which has no letter.

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
    Questions of a dataset that can be asked about captions, each with its shuffle.

    Args:
        dataset (`Sequence[Mapping]`):
            Rows with "id" and "questions" (each with "question", "choices", "answer" as text, "category"), or rows
            that are one such question.
        captions (`Mapping[str, str]`):
            Caption of each image id. An empty caption is asked about.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the shuffle, the script's default.
        mode (`str`, *optional*, defaults to `"official"`):
            See the module.

    Returns:
        [`Preparation`]: questions without a caption, with fewer than 2 choices, with more than 26 options or without
        a choice that is the answer are skipped, and counted.
    """
    rng = random.Random(seed)
    questions: list[Question] = []
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
        for index, question in enumerate(_questions_of(row)):
            text, choices = question.get("question", ""), question.get("choices", [])
            category = question.get("category", [])
            if isinstance(category, list):
                category = category[0] if category else ""
            if not choices or len(choices) < 2:
                skipped["fewer than 2 choices"] += 1
                continue
            options = options_of(text, choices, mode)
            if len(options) > len(LETTERS):  # the official script dies here
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
                    Question(
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


def question_prompt(caption: str, question: Question) -> str:
    """
    The user's turn: caption, question, lettered options.

    Example:

    ```python
    >>> question = Question("i", 0, "Which?", ("a", "b"), 0, ("a", "b"), (1, 0), "")
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


def score_reply(question: Question, reply: str | None, mode: Mode = "official") -> Answer:
    """
    Worth of one reply: 1 for the right option, `1 / len(choices) + 0.05` for "cannot answer", else 0.

    `official` strips the reply and rounds the score to 4 decimals. `strict` gives no score to a reply that names no
    option, because that is the judge's failure.

    Example:

    ```python
    >>> question = Question("i", 0, "Which?", ("a", "b", "c"), 0, ("a", "b", "c", CANNOT_ANSWER), (3, 1, 0, 2), "")
    >>> score_reply(question, "A")
    Answer(text='Cannot answer from the caption', correct=False, cannot_answer=True, score=0.3833)
    >>> score_reply(question, "C").score, score_reply(question, "?", mode="strict").score
    (1.0, None)

    ```
    """
    n_options = len(question.options)
    if mode == "strict":
        letter = strict_letter(reply, n_options)
    else:
        letter = extract_letter(reply.strip() if reply and mode == "official" else reply, n_options)
    if letter is None:
        return Answer(None, False, False, None if mode == "strict" else 0.0)
    place = question.permutation[LETTERS.index(letter)]
    text = str(question.options[place])
    # By its text, so that a choice of that text earns partial credit too.
    by_text, by_place = text == CANNOT_ANSWER, place >= len(question.choices)
    if by_text if mode == "official" else by_place:
        score = 1 / len(question.choices) + 0.05
        return Answer(text, False, True, round(score, 4) if mode == "official" else score)
    correct = place == question.true_index
    return Answer(text, correct, False, 1.0 if correct else 0.0)


class Tally(NamedTuple):
    """Scores of a set of answers. `n` counts the answers that have a score."""

    n: int
    total_score: float
    n_correct: int
    n_cannot_answer: int

    @property
    def score(self) -> float | None:
        """Mean score."""
        return self.total_score / self.n if self.n else None

    @property
    def accuracy(self) -> float | None:
        """Share of right answers."""
        return self.n_correct / self.n if self.n else None

    @property
    def cannot_answer_rate(self) -> float | None:
        """Share of "cannot answer"."""
        return self.n_cannot_answer / self.n if self.n else None


def tally(answers: Iterable[Answer]) -> Tally:
    """
    Add up answers; those without a score are left out.

    Example:

    ```python
    >>> counted = tally([Answer("a", True, False, 1.0), Answer(None, False, False, 0.0)])
    >>> counted.score, counted.accuracy, counted.cannot_answer_rate
    (0.5, 0.5, 0.0)

    ```
    """
    scored = [answer for answer in answers if answer.score is not None]
    return Tally(
        n=len(scored),
        total_score=sum(answer.score or 0.0 for answer in scored),
        n_correct=sum(answer.correct for answer in scored),
        n_cannot_answer=sum(answer.cannot_answer for answer in scored),
    )


def by_category(answers: Iterable[tuple[Question, Answer]]) -> dict[str, Tally]:
    """Tally of each category, "unknown" where a question has none, in order of appearance."""
    groups: dict[str, list[Answer]] = {}
    for question, answer in answers:
        groups.setdefault(question.category or "unknown", []).append(answer)
    return {category: tally(group) for category, group in groups.items()}


def _questions_of(row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    questions = row.get("questions")
    if questions:
        return questions
    return [row] if "question" in row else []


def load_questions(source: str | Path, *, split: str = "all") -> list[dict[str, Any]]:
    """
    Rows of questions, without their images.

    Args:
        source (`str` or `Path`):
            A `.jsonl` or `.json` file (a list of rows, or `{id: questions}`), a folder that `Dataset.save_to_disk`
            wrote, a folder of parquet files, or a name on the Hub ("Borise/CaptionQA", which needs a network).
        split (`str`, *optional*, defaults to `"all"`):
            Split of a Hub dataset; of a file, the rows whose "domain" it is.

    Raises:
        FileNotFoundError: If the source is a file that is not there.
        ValueError: If it holds no question.
    """
    path = Path(source)
    if path.suffix in (".jsonl", ".json"):
        rows = _rows_of_file(path)
        if split != "all":
            rows = [row for row in rows if row.get("domain") == split]
    else:
        rows = _rows_of_dataset(path, str(source), split)
    if not any(_questions_of(row) for row in rows):
        raise ValueError(
            f'{source} (split {split!r}) has no question: a row needs an "id" and "questions" with '
            '"question", "choices" and "answer".'
        )
    return rows


def _rows_of_file(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [row for _, row in read_jsonl(path)]
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict):
        return [{"id": name, "questions": questions} for name, questions in content.items()]
    return content


def _rows_of_dataset(path: Path, name: str, split: str) -> list[dict[str, Any]]:
    import datasets  # takes a second, and files need none of it

    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        loaded = datasets.load_from_disk(str(path))
        dataset = loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
    else:
        dataset = datasets.load_dataset(name, split=split)
    assert isinstance(dataset, datasets.Dataset)
    wanted = ("id", "questions", "domain", "question", "choices", "answer", "category")
    return dataset.select_columns([c for c in wanted if c in dataset.column_names]).to_list()


@dataclass
class CaptionQA:
    """
    The metric, ready to score captions.

    Args:
        dataset (`Sequence[Mapping]`):
            From [`load_questions`].
        prompts ([`Prompts`]):
            Ours or the official ones. The question's layout is the same in both.
        mode (`str`, *optional*, defaults to `"official"`):
            See the module.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the shuffle.
    """

    dataset: Sequence[Mapping[str, Any]]
    prompts: Prompts
    mode: Mode = "official"
    seed: int = 0
    name = "captionqa"
    skipped: dict[str, int] = field(default_factory=dict, init=False)
    _questions: dict[str, list[Question]] = field(default_factory=dict, init=False, repr=False)

    def problems(self, captions: Sequence[Caption]) -> list[str]:
        """One message per caption whose id has no question. Prepares the questions of the others."""
        known = {str(row["id"]) for row in self.dataset if row.get("id") is not None}
        by_id = {caption.id: caption.caption for caption in captions}
        questions, self.skipped = prepare_questions(
            self.dataset, by_id, seed=self.seed, mode=self.mode
        )
        self._questions = {}
        for question in questions:
            self._questions.setdefault(question.image_id, []).append(question)
        return [
            f"{caption.where}: there is no question about the id {caption.id!r}. Give the row the "
            f'dataset\'s "id" (such as {next(iter(known), "nat_001")!r}), or remove it.'
            for caption in captions
            if caption.id not in known
        ]

    def workload(self, captions: Sequence[Caption]) -> Workload:
        """One call per question."""
        system = len(self.prompts.fill("system"))
        total = Workload()
        for caption in captions:
            for question in self._questions.get(caption.id, []):
                prompt = question_prompt(caption.caption, question)
                total += workload(prompt_chars=system + len(prompt), completion_chars=4)
        return total

    async def score(self, caption: Caption, ask: Ask) -> dict[str, Any]:
        """
        Ask all questions about one caption, side by side.

        Returns:
            `dict`: "score", the mean over the questions that have one; "questions" with options as shown, reply,
            answer and score of each; "reason" where some question has no score.
        """
        questions = self._questions.get(caption.id, [])
        records = await asyncio.gather(*(self._ask(caption, q, ask) for q in questions))
        scores = [record["score"] for record in records if record["score"] is not None]
        failed = [record["error"] for record in records if record["error"] is not None]
        return {
            "score": sum(scores) / len(scores) if scores else None,
            "reason": failed[0] if failed else None if records else "no question",
            "questions": records,
        }

    async def _ask(self, caption: Caption, question: Question, ask: Ask) -> dict[str, Any]:
        messages = chat(self.prompts.fill("system"), question_prompt(caption.caption, question))
        answer, reply, error = Answer(None, False, False, None), None, None
        # Official runs ask once; a strict one asks again where the reply names no option.
        for attempt in range(2 if self.mode == "strict" else 1):
            try:
                (reply,) = await ask(
                    messages,
                    tag="captionqa",
                    temperature=0.0,
                    max_tokens=MAX_TOKENS,
                    attempt=attempt,
                )
            except JudgeError as failure:
                # At 4 tokens a reply is often cut off, and has said its letter by then.
                if not is_reply_failure(failure) or failure.reason == "refused":
                    error = failure.reason
                    break
                reply = failure.reply
            answer = score_reply(question, reply, self.mode)
            error = None if answer.score is not None else "unreadable"
            if error is None:
                break
        return {
            "index": question.index,
            "question": question.text,
            "options": list(question.shown),
            "reply": reply,
            "answer": answer.text,
            "correct": answer.correct,
            "cannot_answer": answer.cannot_answer,
            "score": answer.score,
            "category": question.category,
            "error": error,
        }


def statistics(rows: Sequence[Mapping[str, Any]]) -> list[Statistic]:
    """
    Corpus scores of scored rows: the mean over all questions (what the script prints), the mean of the domains' means
    (what the published overall looks like), accuracy, and how often the caption did not tell. Percent.

    A domain is what stands before the "_" in an id, as in "nat_001".
    """
    sums = np.array([_sums(row["questions"]) for row in rows], dtype=float).reshape(-1, 4)  # (N, 4)
    scored = sums[:, 3] > 0
    domains = [domain_of(row["id"]) for row in rows]
    names = sorted(set(domains))
    member = np.array([[domain == name for name in names] for domain in domains], dtype=float)
    split = (sums[:, None, [0, 3]] * member[:, :, None]).reshape(len(rows), -1)  # (N, 2 D)

    def macro(totals: np.ndarray) -> np.ndarray:
        pairs = totals.reshape(*totals.shape[:-1], len(names), 2)
        return ratio(pairs).mean(axis=-1)

    percent = sums * np.array([100, 100, 100, 1])
    return [
        Statistic("mean of questions", percent[:, [0, 3]], ratio, scored),
        Statistic("mean of domains", split * np.tile([100, 1], len(names)), macro, scored),
        Statistic("accuracy", percent[:, [1, 3]], ratio, scored),
        Statistic("cannot answer", percent[:, [2, 3]], ratio, scored),
    ]


def breakdown(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | int]]:
    """Mean score and number of questions of each category and each domain."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        for record in row["questions"]:
            if record["score"] is None:
                continue
            for group in (
                f"domain {domain_of(row['id'])}",
                record["category"] or "unknown",
            ):
                groups.setdefault(group, []).append(record["score"])
    return {
        group: {"score": 100 * sum(scores) / len(scores), "n": len(scores)}
        for group, scores in sorted(groups.items())
    }


def domain_of(image_id: str) -> str:
    """
    Domain of an image id.

    Example:

    ```python
    >>> domain_of("nat_001")
    'nat'

    ```
    """
    return image_id.partition("_")[0]


def _sums(records: Sequence[Mapping[str, Any]]) -> tuple[float, int, int, int]:
    scored = [record for record in records if record["score"] is not None]
    return (
        sum(record["score"] for record in scored),
        sum(record["correct"] for record in scored),
        sum(record["cannot_answer"] for record in scored),
        len(scored),
    )

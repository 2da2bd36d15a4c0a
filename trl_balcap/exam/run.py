"""Asks a judge the questions of the exam, some of them twice, and returns its answers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trl_balcap.data.completions import is_empty
from trl_balcap.evals.asking import Workload, workload
from trl_balcap.exam.bank import Covering, Exam, Graded, Hostile, Looking, Splitting
from trl_balcap.exam.marks import Report, mark
from trl_balcap.judge import Judge, JudgeError
from trl_balcap.judge.errors import INFRASTRUCTURE_REASONS
from trl_balcap.judge.questions import prompt
from trl_balcap.metrics import linguistic_score, precision_score, recall_score

__all__ = ["Answers", "SittingError", "exam_workload", "sit_exam"]

AGAIN = 48  # questions of each kind that are asked twice
_WINDOW = 256  # items under way
_DOWN = 16  # questions in a row that a judge did not answer because it is down


class SittingError(RuntimeError):
    """A judge cannot go on: it is down, or its budget is spent. What it answered is kept."""


@dataclass
class Answers:
    """
    A judge's answers in the order of the exam; `None` if there was no readable answer.

    Args:
        looking, covering, splitting, graded, hostile (`list`):
            Verifications, covered units, assertions, and scores by degree; the three rewards of
            each hostile caption.
        labels (`list`):
            Verifications of the statements that you labelled.
        again (`dict[str, list]`):
            Scores of the first items in both rounds, by reward.
        unreadable (`dict[str, int]`):
            Questions without an answer, by reason.
        asked (`int`):
            Questions in both rounds.
        latency (`float` or `None`):
            Median seconds per answer; `None` if all came from the cache.
    """

    looking: list[Any] = field(default_factory=list)
    covering: list[Any] = field(default_factory=list)
    splitting: list[Any] = field(default_factory=list)
    graded: list[list[Any]] = field(default_factory=list)
    hostile: list[Any] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    again: dict[str, list[tuple[float | None, float | None]]] = field(default_factory=dict)
    unreadable: dict[str, int] = field(default_factory=dict)
    asked: int = 0
    latency: float | None = None


async def sit_exam(
    exam: Exam,
    judge: Callable[[Path], Judge],
    folder: Path,
    *,
    labels: Sequence[Looking] = (),
    on_answer: Callable[[], None] | None = None,
) -> Report:
    """
    Ask a judge all questions of an exam and mark its answers.

    Args:
        exam ([`Exam`]):
            The questions.
        judge (`Callable`):
            Makes a judge, given the folder of its cache. The two rounds of the test-retest have
            separate caches; answers from before an interruption are not asked for again.
        folder (`Path`):
            Folder for the caches.
        labels (`Sequence[Looking]`, *optional*):
            Statements with your labels, see [`read_labels`].
        on_answer (`Callable`, *optional*):
            Called after each item.

    Returns:
        [`Report`]

    Raises:
        [`~judge.JudgeConfigError`]: if the judge cannot work.
        [`SittingError`]: if its budget is spent, or it goes down.
    """
    first, again = (judge(folder / name) for name in ("judge-cache", "judge-cache-again"))
    await first.preflight()
    sitting = _Sitting(first, on_answer)
    answers = sitting.answers
    answers.looking = await sitting.each(exam.looking, sitting.look)
    answers.covering = await sitting.each(exam.covering, sitting.cover)
    answers.splitting = await sitting.each(exam.splitting, sitting.split)
    answers.graded = await sitting.each(exam.graded, sitting.grade)
    answers.hostile = await sitting.each(exam.hostile, sitting.reward)
    answers.labels = await sitting.each(labels, sitting.look)
    latency = first.engine().metrics()["judge/latency_p50"]
    answers.latency = latency or None
    repeated = _Sitting(again, None, answers)
    looked = await repeated.each(exam.looking[:AGAIN], repeated.look)
    covered = await repeated.each(exam.covering[:AGAIN], repeated.cover)
    texts = [(series, place) for place, series in enumerate(exam.graded)][: AGAIN // 4]
    graded = await repeated.each([series for series, _ in texts], repeated.grade)
    answers.again = {
        "precision": _pairs(answers.looking, looked, precision_score),
        "recall": _pairs(answers.covering, covered, recall_score),
        "linguistic": [
            pair
            for one, other in zip(answers.graded, graded, strict=False)
            for pair in zip(one, other, strict=True)
        ],
    }
    return mark(exam, answers, first, labels)


def _pairs(
    first: Sequence[Any], again: Sequence[Any], score: Callable[[Any], float | None]
) -> list[tuple[float | None, float | None]]:
    return [
        (None if a is None else score(a), None if b is None else score(b))
        for a, b in zip(first, again, strict=False)
    ]


class _Sitting:
    """One round: questions as the judge's methods ask them, failures counted by reason."""

    def __init__(
        self, judge: Judge, on_answer: Callable[[], None] | None, answers: Answers | None = None
    ):
        self.judge = judge
        self.on_answer = on_answer
        self.answers = answers or Answers()
        self.window = asyncio.Semaphore(_WINDOW)
        self.down = 0  # questions in a row

    async def each(self, items: Sequence[Any], ask: Callable[[Any], Awaitable[Any]]) -> list[Any]:
        async def one(item: Any) -> Any:
            async with self.window:
                answer = await ask(item)
            if self.on_answer is not None:
                self.on_answer()
            return answer

        return list(await asyncio.gather(*map(one, items)))

    async def look(self, item: Looking) -> Any:
        return await self._answer(self.judge.verify(item.image, item.statements))

    async def cover(self, item: Covering) -> Any:
        return await self._answer(self.judge.cover(item.assertions, item.units))

    async def split(self, item: Splitting) -> Any:
        return await self._answer(self.judge.decompose(" ".join(item.sentences)))

    async def grade(self, item: Graded) -> list[float | None]:
        return list(await asyncio.gather(*map(self._grade, item.by_degree)))

    async def _grade(self, text: str) -> float | None:
        grades = await self._answer(self.judge.linguistic(text))
        return None if grades is None else linguistic_score(*grades)

    async def reward(self, item: Hostile) -> tuple[float | None, float | None, float | None]:
        """The three rewards of a hostile caption, from the same questions as in training."""
        if is_empty(item.caption):
            return 0.0, 0.0, 0.0
        said, linguistic = await asyncio.gather(
            self._answer(self.judge.decompose(item.caption)), self._grade(item.caption)
        )
        if said is None:
            return None, None, linguistic
        verdicts, covered = await asyncio.gather(
            self._answer(self.judge.verify(item.image, said)),
            self._answer(self.judge.cover(said, item.units)),
        )
        precision = None if verdicts is None else precision_score(verdicts)
        return precision, None if covered is None else recall_score(covered), linguistic

    async def _answer(self, question: Awaitable[Any]) -> Any:
        self.answers.asked += 1
        try:
            answer = await question
        except JudgeError as error:
            if error.reason == "over_budget":
                raise SittingError(error.message) from error
            self.down = self.down + 1 if error.reason in INFRASTRUCTURE_REASONS else 0
            if self.down == _DOWN:
                raise SittingError(f"{_DOWN} questions in a row failed ({error})") from error
            unreadable = self.answers.unreadable
            unreadable[error.reason] = unreadable.get(error.reason, 0) + 1
            return None
        self.down = 0
        return answer


def exam_workload(exam: Exam, labels: Sequence[Looking] = ()) -> Workload:
    """Calls and tokens of one judge's exam with both rounds, without retries."""
    size = {name: len(prompt(name)) for name in ("decompose", "verify", "cover", "linguistic")}
    again = (exam.looking[:AGAIN], exam.covering[:AGAIN], exam.graded[: AGAIN // 4])
    total = Workload()
    for one in (*exam.looking, *again[0], *labels):
        chars = size["verify"] + sum(map(len, one.statements))
        total += workload(prompt_chars=chars, completion_chars=50 * len(one.statements), image=True)
    for one in (*exam.covering, *again[1]):
        chars = size["cover"] + sum(map(len, (*one.assertions, *one.units)))
        total += workload(prompt_chars=chars, completion_chars=30 * len(one.units))
    for one in exam.splitting:
        text = sum(map(len, one.sentences))
        total += workload(prompt_chars=size["decompose"] + text, completion_chars=1.5 * text)
    for one in (*exam.graded, *again[2]):
        for text in one.by_degree:
            total += workload(prompt_chars=size["linguistic"] + len(text), completion_chars=60)
    for one in exam.hostile:
        text = len(one.caption)
        total += workload(prompt_chars=size["decompose"] + text, completion_chars=1.5 * text)
        total += workload(prompt_chars=size["verify"] + text, completion_chars=100, image=True)
        total += workload(prompt_chars=size["cover"] + text, completion_chars=60)
        total += workload(prompt_chars=size["linguistic"] + text, completion_chars=60)
    return total

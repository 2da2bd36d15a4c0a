"""
CaptionQA: how many questions about the image can be answered from the caption alone.

A text model reads the caption and one multiple-choice question, with the options shuffled and
"Cannot answer from the caption" among them, and picks a letter. `rules/captionqa.py` has the rules
of its modes.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np

from trl_balcap.data.scored import Caption
from trl_balcap.evals.asking import Ask, Workload, chat, is_reply_failure, workload
from trl_balcap.evals.bootstrap import Statistic, ratio
from trl_balcap.evals.metrics.protocol import Benchmarks, PublishedMetric, Row, data_hash
from trl_balcap.evals.prompting import Place, PromptFiles, Prompts, prompts_of
from trl_balcap.evals.questions import load_questions
from trl_balcap.evals.rules.captionqa import (
    Answer,
    ChoiceQuestion,
    Mode,
    prepare_questions,
    question_prompt,
    score_reply,
)
from trl_balcap.judge import Judge, JudgeError

__all__ = ["PROMPTS", "CaptionQA", "domain_of", "record_of"]

PROMPTS = PromptFiles(
    metric="captionqa",
    repository="bronyayang/CaptionQA",
    file="qa.py",
    places={"system": Place("system_prompt", (), "evaluate_qa_with_captions")},
)
MAX_TOKENS = 4
DOMAINS = {"nat": "natural", "doc": "document", "ecom": "ecommerce", "emb": "embodiedai"}


@dataclass
class CaptionQA(PublishedMetric):
    """
    The metric, ready to score captions.

    Args:
        dataset (`Sequence[Mapping]`):
            From [`load_questions`].
        prompts ([`Prompts`]):
            Ours or the official ones. The question's layout is the same in both.
        mode (`str`, *optional*, defaults to `"official"`):
            See `rules/captionqa.py`.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the shuffle.
        split (`str`, *optional*, defaults to `"all"`), data_sha256 (`str`, *optional*):
            Where the questions came from.
    """

    dataset: Sequence[Mapping[str, Any]]
    prompts: Prompts
    mode: Mode = "official"
    seed: int = 0
    split: str = "all"
    data_sha256: str | None = None
    skipped: dict[str, int] = field(default_factory=dict, init=False)
    _questions: dict[str, list[ChoiceQuestion]] = field(
        default_factory=dict, init=False, repr=False
    )

    name = "captionqa"
    checkout_file = PROMPTS.file
    official_judge = "Qwen/Qwen2.5-72B-Instruct"
    data = "its questions (a file, a folder or a Hub name: Borise/CaptionQA)"
    final_reasons = frozenset({"no question"})

    @classmethod
    def build(cls, judge: Judge, benchmarks: Benchmarks) -> Self:
        """Read the questions."""
        prompts = prompts_of(PROMPTS, benchmarks.checkouts)
        source, split = benchmarks.data_of(cls), benchmarks.split
        dataset = load_questions(source, split=split)
        return cls(dataset, prompts, benchmarks.mode, benchmarks.seed, split, data_hash(source))

    def settings(self) -> dict[str, Any]:
        """The questions and their shuffle."""
        return {"data_sha256": self.data_sha256, "seed": self.seed, "split": self.split}

    @cached_property
    def _asked(self) -> dict[str, str]:
        """Domain of each image with questions, by image id."""
        ids = ((str(row["id"]), row) for row in self.dataset if row.get("id") is not None)
        return {name: str(row.get("domain") or domain_of(name)) for name, row in ids}

    def absent(self, rows: Sequence[Row]) -> int:
        """Number of images with questions but without a row."""
        return len(self._asked.keys() - {row["id"] for row in rows})

    def covers(self, caption: Caption) -> bool:
        """Whether there are questions about the image."""
        return caption.id in self._asked

    def leaves_out(self, caption: Caption) -> bool:
        """Whether the image is from a domain without questions, which the official script skips."""
        domain = domain_of(caption.id)
        return not self.covers(caption) and domain not in {"all", *self._asked.values()}

    def is_current(self, row: Row) -> bool:
        """Whether the row still has the same questions with options in the same order."""
        now = [(q.index, list(q.shown)) for q in self._questions.get(row["id"], [])]
        then = [(record["index"], record["options"]) for record in row["questions"]]
        return then == now or not then

    def problems(self, captions: Sequence[Caption]) -> list[str]:
        """One message per caption whose id has no questions. Prepares the questions of the
        others."""
        by_id = {caption.id: caption.caption for caption in captions}
        questions, self.skipped = prepare_questions(
            self.dataset, by_id, seed=self.seed, mode=self.mode
        )
        self._questions = {}
        for question in questions:
            self._questions.setdefault(question.image_id, []).append(question)
        return [
            f"{caption.where}: no questions for the id {caption.id!r}. Use the dataset's "
            f'"id" (such as {next(iter(self._asked), "nat_001")!r}), or remove the row.'
            for caption in captions
            if not self.covers(caption)
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

    async def score(self, caption: Caption, ask: Ask, earlier: Row | None = None) -> dict[str, Any]:
        """
        Ask all questions about one caption concurrently.

        Returns:
            `dict`: "score", the mean over the questions that have one; "questions" with options as
            shown, reply, answer and score of each; "reason" if some question has no score.
        """
        answered = {
            record["index"]: record
            for record in (earlier or {}).get("questions", [])
            if record["score"] is not None
        }

        async def record_for(question: ChoiceQuestion) -> dict[str, Any]:
            known = answered.get(question.index)
            return known if known is not None else await self._ask(caption, question, ask)

        records = await asyncio.gather(*map(record_for, self._questions.get(caption.id, [])))
        scores = [record["score"] for record in records if record["score"] is not None]
        failed = [record["error"] for record in records if record["error"] is not None]
        return {
            "score": sum(scores) / len(scores) if scores else None,
            "reason": failed[0] if failed else None if records else "no question",
            "domain": self._asked.get(caption.id) or domain_of(caption.id),
            "questions": records,
        }

    async def _ask(self, caption: Caption, question: ChoiceQuestion, ask: Ask) -> dict[str, Any]:
        messages = chat(self.prompts.fill("system"), question_prompt(caption.caption, question))
        answer, reply, error = Answer(None, False, False, None), None, None
        # Official runs ask once; strict ones ask again if the reply names no option.
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
                # With 4 tokens a reply is often cut off, but only after its letter.
                if not is_reply_failure(failure) or failure.reason == "refused":
                    error = failure.reason
                    break
                reply = failure.reply
            answer = score_reply(question, reply, self.mode)
            error = None if answer.score is not None else "unreadable"
            if error is None:
                break
        return record_of(question, answer, reply, error)

    def unjudged(self, caption: Caption) -> dict[str, Any]:
        """No question was answered."""
        return {
            "domain": self._asked.get(caption.id) or domain_of(caption.id),
            "questions": [],
        }

    def shown(self, row: Row) -> dict[str, Any]:
        """Questions as units, covered where the caption led to the right answer."""
        units = [
            {
                "text": f"{one['question']} {one['answer'] or one['reply']}",
                "covered": one["correct"],
            }
            for one in row["questions"]
        ]
        return {"rewards": {self.name: row["score"]}, "units": units}

    def notes(self, rows: Sequence[Row]) -> Iterator[str]:
        """Notes on questions that were left out or failed."""
        dropped = {why: n for why, n in self.skipped.items() if n and why != "no caption"}
        if dropped:
            yield (
                "Questions left out, as in the official script: "
                + ", ".join(f"{n} with {why}" for why, n in dropped.items())
                + "."
            )
        records = [record for row in rows for record in row["questions"]]
        failed = Counter(record["error"] for record in records if record["score"] is None)
        if failed:
            yield (
                f"{sum(failed.values())} of {len(records)} questions have no score: "
                + ", ".join(f"{n} {why}" for why, n in failed.items())
                + "."
            )

    @staticmethod
    def statistics(rows: Sequence[Row]) -> list[Statistic]:
        """
        Corpus scores of scored rows in percent: the mean over all questions (which the script
        prints), the mean over domains (which the published overall score seems to be), accuracy,
        and how often the caption did not have the answer.

        The domain of an image is the dataset's, or comes from its id, as in "nat_001".
        """
        sums = np.array([_sums(row["questions"]) for row in rows], dtype=float).reshape(
            -1, 4
        )  # (N, 4)
        scored = sums[:, 3] > 0
        domains = [_row_domain(row) for row in rows]
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

    @staticmethod
    def strata(rows: Sequence[Row]) -> list[str]:
        """Domains keep their number of images."""
        return [_row_domain(row) for row in rows]

    @staticmethod
    def breakdown(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
        """Scores in percent and number of questions, of each domain and each category."""
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            for record in row["questions"]:
                if record["score"] is None:
                    continue
                for group in (f"domain {_row_domain(row)}", record["category"] or "unknown"):
                    groups.setdefault(group, []).append(record)
        names = {"score": "score", "accuracy": "correct", "cannot answer": "cannot_answer"}
        return {
            group: {
                name: 100 * sum(record[key] for record in records) / len(records)
                for name, key in names.items()
            }
            | {"n": len(records)}
            for group, records in sorted(groups.items())
        }


def record_of(
    question: ChoiceQuestion, answer: Answer, reply: str | None = None, error: str | None = None
) -> dict[str, Any]:
    """A question, its reply and its score, as stored in a row."""
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


def domain_of(image_id: str) -> str:
    """
    Domain from an id of the published dataset; "all" for other ids.

    Example:

    ```python
    >>> domain_of("nat_001"), domain_of("photo_17")
    ('natural', 'all')

    ```
    """
    return DOMAINS.get(image_id.partition("_")[0], "all")


def _row_domain(row: Row) -> str:
    return str(row.get("domain") or domain_of(row["id"]))


def _sums(records: Sequence[Mapping[str, Any]]) -> tuple[float, int, int, int]:
    scored = [record for record in records if record["score"] is not None]
    return (
        sum(record["score"] for record in scored),
        sum(record["correct"] for record in scored),
        sum(record["cannot_answer"] for record in scored),
        len(scored),
    )

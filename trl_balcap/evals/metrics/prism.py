"""
Prism: can a text model answer questions about the image from the caption alone?

The questions of ordinary benchmarks (ChartQA, MMStar, ...) in the format of CapRL's evaluation. The
score is the mean over questions. The rules of its modes are in `rules/prism.py`.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np

from trl_balcap.data.rows import BadRowsError, read_jsonl, read_text
from trl_balcap.data.scored import Caption, image_name
from trl_balcap.evals.asking import Ask, Workload, chat, is_reply_failure, workload
from trl_balcap.evals.bootstrap import Statistic, ratio
from trl_balcap.evals.metrics.protocol import Benchmarks, Metric, Mode, Row, data_hash, image_of
from trl_balcap.evals.rules.prism import Kind, PrismQuestion, boxed, kind_of, reward_of, turns_of
from trl_balcap.judge import Judge, JudgeError

__all__ = ["Prism", "load_prism"]

MAX_TOKENS, TEMPERATURE, TOP_P = 2048, 1.0, 1.0


def load_prism(path: str | Path) -> list[PrismQuestion]:
    """
    Read questions in the official format: JSON or JSONL rows with "image" (a path, or Qwen messages
    with one), "prompt" and "answer".

    Raises:
        `FileNotFoundError`: if the file does not exist.
        [`BadRowsError`]: if rows have another format, with one message each.
    """
    if Path(path).suffix == ".jsonl":
        rows: list[Any] = [row for _, row in read_jsonl(path)]
    else:
        try:
            rows = json.loads(read_text(path))
        except json.JSONDecodeError as error:
            raise BadRowsError([f"{path}:{error.lineno}: not JSON ({error.msg})."]) from error
    questions, problems = [], []
    for place, row in enumerate(rows if isinstance(rows, list) else [rows]):
        image = _image_of(row.get("image")) if isinstance(row, dict) else None
        if image is None or not isinstance(row.get("prompt"), str) or "answer" not in row:
            problems.append(f'{path}[{place}]: a row needs "image", "prompt" and "answer".')
            continue
        questions.append(PrismQuestion(Path(image).name, row["prompt"], str(row["answer"])))
    if problems or not questions:
        raise BadRowsError(problems or [f"{path}: the file has no question."])
    return questions


@dataclass(frozen=True)
class Prism(Metric):
    """
    The metric, ready to score captions.

    Args:
        questions (`Mapping[str, Sequence[PrismQuestion]]`):
            By image file name, from [`load_prism`].
        kind (`str`, *optional*, defaults to `"plain"`):
            How answers are compared, see [`~evals.rules.prism.kind_of`].
        mode (`str`, *optional*, defaults to `"official"`):
            See `rules/prism.py`.
        data_sha256 (`str`, *optional*):
            Hash of the questions' file.
    """

    questions: Mapping[str, Sequence[PrismQuestion]]
    kind: Kind = "plain"
    mode: Mode = "official"
    data_sha256: str | None = None

    name = "prism"
    incomparable = (
        "Not comparable with CapRL's published scores, which are means over four captions sampled "
        "at temperature 1, with internlm/CapRL-Eval-3B as the judge."
    )
    data = "questions in the format of CapRL's Prism_Evaluation"

    @classmethod
    def build(cls, judge: Judge, benchmarks: Benchmarks) -> Self:
        """
        Read the questions.

        Raises:
            `ValueError`: if math-verify, which compares the answers, is not installed.
        """
        if find_spec("math_verify") is None:
            raise ValueError("prism needs math-verify: pip install 'trl-balcap[prism]'.")
        path = benchmarks.data_of(cls)
        questions: dict[str, list[PrismQuestion]] = {}
        for question in load_prism(path):
            questions.setdefault(question.image, []).append(question)
        return cls(questions, kind_of(path), benchmarks.mode, data_hash(path))

    @property
    def prompts_sha256(self) -> str:
        """Hash of the sentence that introduces the caption."""
        return hashlib.sha256(turns_of("", "")[1].encode()).hexdigest()

    @property
    def prompts_source(self) -> str:
        """The official sentence; the questions come with the data."""
        return "official, from CapRL and the data"

    def settings(self) -> dict[str, Any]:
        """The questions, and how answers are compared."""
        return {"data_sha256": self.data_sha256, "kind": self.kind}

    def absent(self, rows: Sequence[Row]) -> int:
        """Number of images with questions but without a row."""
        return len(self.questions.keys() - {image_of(row) for row in rows})

    def covers(self, caption: Caption) -> bool:
        """Whether there are questions about the image."""
        return image_name(caption) in self.questions

    def problems(self, captions: Sequence[Caption]) -> list[str]:
        """One message per caption without questions."""
        return [
            f"{one.where}: there is no question about {image_name(one)!r}. Remove the row."
            for one in captions
            if not self.covers(one)
        ]

    def workload(self, captions: Sequence[Caption]) -> Workload:
        """One call per question."""
        total = Workload()
        for caption in captions:
            for question in self.questions[image_name(caption)]:
                asked = len(question.prompt) + len(caption.caption) + 100
                total += workload(prompt_chars=asked, completion_chars=1500)
        return total

    async def score(self, caption: Caption, ask: Ask, earlier: Row | None = None) -> dict[str, Any]:
        """
        Ask all questions about one caption concurrently.

        Returns:
            `dict`: "score", the mean over the questions with a reply; "questions" with reply,
            answer and score of each; "reason" if some question has no score.
        """
        known = {
            record["index"]: record
            for record in (earlier or {}).get("questions", [])
            if record["score"] is not None
        }
        asked = enumerate(self.questions[image_name(caption)])
        records = await asyncio.gather(
            *(_kept(known[n]) if n in known else self._ask(n, q, caption, ask) for n, q in asked)
        )
        scores = [record["score"] for record in records if record["score"] is not None]
        failed = [record["error"] for record in records if record["error"] is not None]
        return {
            "score": sum(scores) / len(scores) if scores else None,
            "reason": failed[0] if failed else None,
            "questions": records,
        }

    async def _ask(
        self, index: int, question: PrismQuestion, caption: Caption, ask: Ask
    ) -> dict[str, Any]:
        system, user = turns_of(question.prompt, caption.caption)
        messages = chat(system or "", user)[0 if system else 1 :]
        reply, error = None, None
        try:
            (reply,) = await ask(
                messages,
                tag="prism",
                temperature=TEMPERATURE,
                max_tokens=MAX_TOKENS,
                top_p=TOP_P,
            )
        except JudgeError as failure:
            if not is_reply_failure(failure) or failure.reason == "refused":
                error = failure.reason
            reply = failure.reply
        score = None
        if error is None:
            score = reward_of(reply or "", question.answer, self.kind, self.mode)
        return {
            "index": index,
            "question": question.prompt,
            "key": question.answer,
            "reply": reply,
            "answer": boxed(reply or "", self.mode),
            "score": score,
            "error": error,
        }

    def unjudged(self, caption: Caption) -> dict[str, Any]:
        """No question was answered."""
        return {"questions": []}

    @staticmethod
    def statistics(rows: Sequence[Row]) -> list[Statistic]:
        """Corpus score of scored rows: the mean over all questions, in percent."""
        scores = [
            [record["score"] for record in row["questions"] if record["score"] is not None]
            for row in rows
        ]
        sums = np.array([[100 * sum(some), len(some)] for some in scores], dtype=float)  # (N, 2)
        return [Statistic("mean of questions", sums.reshape(-1, 2), ratio, sums[:, 1] > 0)]

    def shown(self, row: Row) -> dict[str, Any]:
        """Questions and whether the caption answers them, for the report."""
        units = [
            {"text": f"{record['question']} ({record['key']})", "covered": record["score"] == 1}
            for record in row["questions"]
            if record["score"] is not None
        ]
        return {"rewards": {self.name: row["score"]}, "units": units}


async def _kept(record: dict[str, Any]) -> dict[str, Any]:
    return record


def _image_of(image: Any) -> str | None:
    """The path of an image, which the official data may hold inside Qwen messages."""
    if isinstance(image, str):
        return image
    if isinstance(image, list):
        return next((found for part in image if (found := _image_of(part)) is not None), None)
    if isinstance(image, dict):
        return _image_of(image.get("image")) or _image_of(image.get("content"))
    return None

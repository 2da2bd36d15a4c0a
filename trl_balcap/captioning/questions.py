"""`trl-balcap make-questions`: questions that can only be answered by looking at the image."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from trl_balcap.captioning.resumed import Agree, write_rows
from trl_balcap.captioning.run import CaptionRun, ImageRow
from trl_balcap.captioning.window import opened
from trl_balcap.data.images import DEFAULT_MAX_PIXELS
from trl_balcap.judge import Judge
from trl_balcap.judge.choices import Choice
from trl_balcap.judge.cost import (
    CHARS_PER_TOKEN,
    TOKENS_PER_CHOICE,
    TOKENS_PER_IMAGE,
    TOKENS_PER_TICKET,
    QuestionCost,
    total_usd,
)
from trl_balcap.judge.prices import price_of
from trl_balcap.judge.questions import prompt

__all__ = ["QuestionsCost", "QuestionsRecipe", "make_questions", "questions_cost"]


@dataclass(frozen=True)
class QuestionsRecipe:
    """
    Settings for making questions.

    Args:
        judge (`str`):
            The `repr` of the [`~judge.Judge`] that writes and answers them.
        count (`int`, *optional*, defaults to `5`):
            Questions per image, before filtering. CapRL asks for five.
        shuffles (`int`, *optional*, defaults to `4`):
            Number of option orders in which each question is answered, with and without the image.
        max_pixels (`int`, *optional*, defaults to `401408`):
            Maximum size of an image, as seen by the policy.

    Raises:
        `ValueError`: if a number is below 1.
    """

    judge: str
    count: int = 5
    shuffles: int = 4
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __post_init__(self):
        for name in ("count", "shuffles"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")


@dataclass(frozen=True)
class QuestionsCost:
    """Upper bound for making questions: calls with and without the image, and dollars if known."""

    calls: int
    calls_with_image: int
    usd: float | None


def questions_cost(n_images: int, how: QuestionsRecipe, judge: Judge) -> QuestionsCost:
    """
    Estimate the cost of making questions, including answering each one with the image.

    Args:
        n_images (`int`): Images to ask about.
        how ([`QuestionsRecipe`]): How to make them.
        judge ([`~judge.Judge`]): The judge.
    """

    def cost(name: str, calls: int, asked: float, replied: float, image: bool) -> QuestionCost:
        sent = len(prompt(name)) / CHARS_PER_TOKEN + asked + TOKENS_PER_TICKET
        sent += TOKENS_PER_IMAGE if image else 0.0
        replied += TOKENS_PER_TICKET
        return QuestionCost(name, calls, round(calls * sent), round(calls * replied), image)

    answered = n_images * how.count * how.shuffles
    questions = (
        cost("ask", n_images, 0.0, how.count * TOKENS_PER_CHOICE, True),
        cost("quiz", answered, TOKENS_PER_CHOICE, 5.0, False),
        cost("quiz", answered, TOKENS_PER_CHOICE, 5.0, True),
    )
    text, vision = (
        judge.settings.price or price_of(deployments[0])
        for deployments in (judge.settings.text, judge.settings.vision)
    )
    return QuestionsCost(
        sum(one.calls for one in questions),
        sum(one.calls for one in questions if one.sees_image),
        total_usd(questions, text, vision, cached=False),
    )


async def make_questions(
    rows: Sequence[ImageRow],
    out: str | Path,
    how: QuestionsRecipe,
    judge: Judge,
    *,
    agree: Agree | None = None,
    on_row: Callable[[], None] | None = None,
) -> CaptionRun:
    """
    Write questions about each image to a JSONL file. Each row is written as soon as it is done,
    with "id", "image", "questions" (for [`~rewards.UtilityReward`]), "left_out" (numbers of
    rejected questions, by reason), "made_by" (the settings), and the image's "reference", if any.

    A question is kept if it is answered correctly with the image in every order of its options, and
    without the image in at most half of them. A question that can be guessed says nothing about a
    caption, and one that the judge gets wrong while looking may have no right answer.

    Args:
        rows (`Sequence[ImageRow]`):
            The images, see [`~captioning.run.list_images`].
        out (`str` or `Path`):
            Output file. An interrupted run resumes where it stopped.
        how ([`QuestionsRecipe`]):
            Numbers of questions and orders.
        judge ([`~judge.Judge`]):
            The judge that writes and answers the questions. Its vision model sees the image, its
            text model guesses without it.
        agree, on_row (`Callable`, *optional*):
            As in [`~captioning.recaption.recaption`].

    Returns:
        [`~captioning.run.CaptionRun`]: images without any question left count as skipped.

    Raises:
        `ValueError`: if `out` has questions made with other settings.
        [`~judge.JudgeConfigError`]: if the judge does not work.
    """
    return await write_rows(
        rows,
        out,
        asdict(how),
        lambda row: _questions(row, how, judge),
        judge.preflight,
        name="question",
        agree=agree,
        on_row=on_row,
    )


async def _questions(row: ImageRow, how: QuestionsRecipe, judge: Judge) -> Mapping[str, Any] | str:
    images = await opened(row, how.max_pixels)
    if isinstance(images, str):
        return images
    written = await judge.write_questions(images, how.count)
    found = await asyncio.gather(*(_verdict(judge, images, one, how.shuffles) for one in written))
    kept = [choice for choice, verdict in zip(written, found, strict=True) if verdict == "kept"]
    if not kept:
        return (
            f"of {len(written)} questions, {found.count('guessed')} can be guessed; the others "
            "are not answered correctly with the image."
        )
    left_out = {verdict: found.count(verdict) for verdict in ("guessed", "not answered")}
    columns = {"questions": [choice.row() for choice in kept], "left_out": left_out}
    return columns if row.reference is None else {**columns, "reference": row.reference}


async def _verdict(judge: Judge, images: list[Image.Image], choice: Choice, shuffles: int) -> str:
    orders = [choice.shuffled(sample) for sample in range(shuffles)]
    if await _right(judge, None, orders) > shuffles / 2:
        return "guessed"
    return "kept" if await _right(judge, images, orders) == shuffles else "not answered"


async def _right(judge: Judge, images: list[Image.Image] | None, orders: Sequence[Choice]) -> int:
    chosen = await asyncio.gather(*(judge.quiz(images, one) for one in orders))
    return sum(said == one.answer for said, one in zip(chosen, orders, strict=True))

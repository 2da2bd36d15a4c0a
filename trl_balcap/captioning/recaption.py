"""`trl-balcap recaption`: reference captions from a strong model, through the judge's engine."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from trl_balcap.captioning.api import check_server
from trl_balcap.captioning.engine import user_turn
from trl_balcap.captioning.pick import Pick, pick_best
from trl_balcap.captioning.resumed import Agree, write_rows
from trl_balcap.captioning.run import CaptionRun, ImageRow
from trl_balcap.captioning.window import opened
from trl_balcap.data.completions import is_empty
from trl_balcap.data.images import DEFAULT_MAX_PIXELS, bounded_size
from trl_balcap.data.references import is_refusal
from trl_balcap.judge import Judge, JudgeError
from trl_balcap.judge.cost import QuestionCost, estimate_calls_and_cost
from trl_balcap.judge.prices import price_of
from trl_balcap.judge.settings import Price

__all__ = ["Recaption", "RecaptionCost", "recaption", "recaption_cost", "recaption_prompt"]

_TOKENS_PER_WORD = 1.35
_TOKENS_PER_IMAGE = 1000.0


def recaption_prompt(words: int = 150) -> str:
    """
    The prompt that asks for a reference of about `words` words.

    Example:

    ```python
    >>> recaption_prompt(80).splitlines()[0]
    'Describe this image in about 80 words of plain, continuous prose.'

    ```
    """
    if words < 1:
        raise ValueError(f"words must be 1 or more, got {words}.")
    text = (files("trl_balcap.captioning") / "recaption.txt").read_text(encoding="utf-8")
    return Template(text).substitute(words=words).strip()


@dataclass(frozen=True)
class Recaption:
    """
    How to make references.

    Args:
        model (`str`):
            litellm model string of the model that writes them.
        prompt (`str`):
            Prompt for each image, see [`recaption_prompt`].
        max_tokens (`int`, *optional*, defaults to `1024`):
            Maximum tokens of a reference; references that reach it are left out.
        temperature (`float`, *optional*, defaults to `0.0`):
            Sampling temperature; must be above 0 for several samples.
        samples (`int`, *optional*, defaults to `1`):
            Captions per image, of which the best is kept.
        pick (`str`, *optional*, defaults to `"b-capscore-free"`):
            How to pick the best, see [`~captioning.pick.pick_best`].
        max_pixels (`int`, *optional*, defaults to `401408`):
            Maximum size of an image, as the policy will see it.

    Raises:
        `ValueError`: if one of them is out of range.
    """

    model: str
    prompt: str
    max_tokens: int = 1024
    temperature: float = 0.0
    samples: int = 1
    pick: Pick = "b-capscore-free"
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __post_init__(self):
        for name in ("max_tokens", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        bounded_size(1, 1, self.max_pixels)
        if not self.prompt.strip():
            raise ValueError(
                "The prompt is empty. Pass the text to ask the model, or leave it out."
            )
        if not self.temperature >= 0.0:
            raise ValueError(f"temperature must be 0 or more, got {self.temperature}.")
        if self.samples > 1 and self.temperature == 0.0:
            raise ValueError(
                f"{self.samples} samples at temperature 0 would all be the same. Pass a "
                "temperature, such as 0.8."
            )


@dataclass(frozen=True)
class RecaptionCost:
    """What recaptioning uses: calls to the writer and to the judge, and dollars if known."""

    writer_calls: int
    judge_calls: int
    usd: float | None


def recaption_cost(
    n_images: int, how: Recaption, words: int, writer: Judge, judge: Judge | None
) -> RecaptionCost:
    """
    Estimate what recaptioning costs, without retries, to within about a third.

    Args:
        n_images (`int`): Images to caption.
        how ([`Recaption`]): How to caption them.
        words (`int`): Expected length of a reference.
        writer, judge ([`~judge.Judge`]): The models that write and pick.
    """
    written = n_images * how.samples
    price = writer.settings.price or price_of(replace(writer.settings.text[0], model=how.model))
    tokens_in = len(how.prompt) / 4 + _TOKENS_PER_IMAGE
    usd = _dollars(written * tokens_in, written * words * _TOKENS_PER_WORD, price)
    if judge is None or how.samples == 1:
        return RecaptionCost(written, 0, usd)
    text = judge.settings.price or price_of(judge.settings.text[0])
    vision = judge.settings.price or price_of(judge.settings.vision[0])

    def asked(rewards: Sequence[str], captions: int) -> list[QuestionCost]:
        sample = [" ".join(["word"] * words)]
        judging = estimate_calls_and_cost(
            sample, rollouts=captions, distinct_references=0, rewards=rewards
        )
        return list(judging.questions)

    questions = asked(("precision_reward", "linguistic_reward"), written)
    if how.pick == "b-capscore-free":
        pairs = asked(("recall_reward",), written * (how.samples - 1))
        # Only coverage is asked here, since the captions are already split.
        questions += [one for one in pairs if one.question == "cover"]
    for one in questions:
        paid = _dollars(
            one.prompt_tokens, one.completion_tokens, vision if one.sees_image else text
        )
        usd = None if usd is None or paid is None else usd + paid
    return RecaptionCost(written, sum(one.calls for one in questions), usd)


def _dollars(prompt_tokens: float, completion_tokens: float, price: Price | None) -> float | None:
    if price is None:
        return None
    return (prompt_tokens * price[0] + completion_tokens * price[1]) / 1e6


async def recaption(
    rows: Sequence[ImageRow],
    out: str | Path,
    how: Recaption,
    writer: Judge,
    judge: Judge | None = None,
    *,
    agree: Agree | None = None,
    on_row: Callable[[], None] | None = None,
) -> CaptionRun:
    """
    Write a reference for each image into a JSONL file for [`load_captions`]. Each row is written
    as soon as it is done, with "id", "image", "reference", "made_by" (how) and, with several
    samples, "picked" (scores) and "candidates" (all texts). An interrupted run resumes where it
    stopped.

    Images without a usable reference are left out and reported: unreadable images, refusals, texts
    that reach `max_tokens`, a failing model or judge. When the budget is spent the run ends, and
    another run can do the rest.

    Args:
        rows (`Sequence[ImageRow]`):
            The images, see [`~captioning.run.list_images`].
        out (`str` or `Path`):
            Output file.
        how ([`Recaption`]):
            Model, prompt, limits, samples.
        writer ([`~judge.Judge`]):
            The engine that asks `how.model`; may be the judge.
        judge ([`~judge.Judge`], *optional*):
            The judge that picks the best of several samples.
        agree (`Callable`, *optional*):
            Called once before anything is asked, with the total number of images and the number
            already done; returns `False` to stop.
        on_row (`Callable`, *optional*):
            Called when an image is done or left out.

    Returns:
        [`~captioning.run.CaptionRun`]

    Raises:
        `ValueError`: if there are several samples but no judge, or `out` has references made with
            other settings.
        [`~judge.JudgeConfigError`]: if the model does not work.
    """
    if how.samples > 1 and judge is None:
        raise ValueError(f"{how.samples} samples need a judge to pick the best.")

    async def check() -> None:
        await check_server(replace(writer.settings.text[0], model=how.model), how.prompt)
        if judge is not None and how.samples > 1:
            await judge.preflight()

    return await write_rows(
        rows,
        out,
        asdict(how),
        lambda row: _reference(row, how, writer, judge),
        check,
        name="reference",
        agree=agree,
        on_row=on_row,
    )


async def _reference(
    row: ImageRow, how: Recaption, writer: Judge, judge: Judge | None
) -> Mapping[str, Any] | str:
    """The new columns of the row, or why there are none."""
    images = await opened(row, how.max_pixels)
    if isinstance(images, str):
        return images
    messages = await asyncio.to_thread(user_turn, how.prompt, *images)
    texts = await asyncio.gather(
        *(
            writer.complete(
                messages,
                model=how.model,
                temperature=how.temperature,
                max_tokens=how.max_tokens,
                first_sample=sample,
                tag="recaption",
            )
            for sample in range(how.samples)
        ),
        return_exceptions=True,
    )
    candidates = []
    failures = []
    for found in texts:
        if isinstance(found, JudgeError):
            if found.reason == "over_budget":
                raise found
            failures.append(f"no reference: {found}")
        elif isinstance(found, BaseException):
            raise found
        elif is_empty(found[0]):
            failures.append("the model wrote nothing.")
        elif is_refusal(found[0]):
            failures.append(f"the model refused: {found[0].strip()[:100]!r}")
        else:
            candidates.append(found[0].strip())
    if not candidates:
        return failures[0]
    if judge is None or how.samples == 1:
        return {"reference": candidates[0]}
    picked = await pick_best(judge, images, candidates, how.pick)
    return {
        "reference": candidates[picked.place],
        "picked": asdict(picked),
        "candidates": candidates,
    }

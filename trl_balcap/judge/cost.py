"""Estimates the judge calls, tokens and dollars of a training run before it starts.

Pure arithmetic on sample texts, without network access.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from trl_balcap.judge.client import Usage
from trl_balcap.judge.prices import given_price
from trl_balcap.judge.questions import prompt
from trl_balcap.judge.settings import Price, Profile
from trl_balcap.judge.united import CANARIES, MOST

CHARS_PER_TOKEN = 4.0  # about; UTF-8 bytes of English per token of common tokenizers
WORDS_PER_ASSERTION = 6.0  # "The umbrella is red.": short, self-contained sentences
ASSERTIONS_PER_WORD = 1 / 3  # dense captions make a statement every three words
TOKENS_PER_VERDICT = 14.0  # {"id": 12, "correct": true, "pointable": true},
TOKENS_PER_ITEM = 10.0  # {"id": 12, "text": ""}, around an assertion's own text
TOKENS_PER_TICKET = 10.0  # , "ticket": "bcdfghjk", in each request and each reply
TOKENS_PER_IMAGE = 1000.0  # for about a megapixel; providers differ by a factor of two
DISTINCT = 0.6  # of an image's rollouts' assertions; 0.57 for 8 faulty captions of a scene

MIN_CACHED_PREFIX = 1024  # tokens; the minimum OpenAI caches, and more than vLLM's blocks of 16

# What the rewards of the field ask about an image, by the defaults of this package.
CHOICES_PER_CAPTION = 8  # four questions that passed the filter, in two orders
TOKENS_PER_CHOICE = 70.0  # a question with its four options
CRITERIA_PER_IMAGE = 12
TOKENS_PER_CRITERION = 20.0
REFERENCES_PER_IMAGE = 3  # of the models that rubrics are made from

_TOKENS_PER_WORD = 1.35
_GRADES = 24.0  # {"clarity": 8.5, "fluency": 9, "coherency": 8}


@dataclass(frozen=True)
class QuestionCost:
    """What one question uses over the whole run.

    `cached_tokens` are the prompt tokens that a prefix cache would save: the system prompt and the
    image, for all rollouts of an image except the first.
    """

    question: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    sees_image: bool
    cached_tokens: int = 0


@dataclass(frozen=True)
class JudgeEstimate:
    """What judging uses over the whole run, by question and in total.

    `usd` is `None` if a price is unknown; `usd_cached` is the cost if the judge caches prefixes.
    """

    questions: tuple[QuestionCost, ...]
    usd: float | None
    usd_cached: float | None = None

    @property
    def calls(self) -> int:
        return sum(question.calls for question in self.questions)

    @property
    def prompt_tokens(self) -> int:
        return sum(question.prompt_tokens for question in self.questions)

    @property
    def completion_tokens(self) -> int:
        return sum(question.completion_tokens for question in self.questions)


def estimate_calls_and_cost(
    references: Sequence[str],
    *,
    rollouts: int,
    distinct_references: int,
    rewards: Sequence[str] = ("precision_reward", "recall_reward", "linguistic_reward"),
    profile: Profile = "questions",
    group: int = 8,
    length_ratio: float = 1.0,
    tokens_per_image: float = TOKENS_PER_IMAGE,
    price: Price | None = None,
    vision_price: Price | None = None,
) -> JudgeEstimate:
    """Estimate a run's judge calls, tokens and cost from a sample of its reference captions.

    The number of calls is an upper estimate: equal captions, closed length gates and cached
    verdicts reduce it; retries add to it. Tokens are estimated from characters, to within about a
    third.

    Args:
        references (`Sequence[str]`):
            A sample of the dataset's reference captions.
        rollouts (`int`):
            Completions to judge: steps x completions per step, over all ranks.
        distinct_references (`int`):
            Distinct references in the run; each is decomposed once.
        rewards (`Sequence[str]`, *optional*):
            Names of the judge rewards in use; those of this package are counted.
        profile (`"questions"`, `"fused"` or `"united"`, defaults to `"questions"`):
            As in [`Judge`].
        group (`int`, defaults to `8`):
            Rollouts of an image.
        length_ratio (`float`, defaults to `1.0`):
            Expected ratio of caption length to reference length.
        tokens_per_image (`float`, defaults to `1000.0`):
            Tokens of one image for the vision model.
        price, vision_price (`tuple[float, float]`, *optional*):
            Dollars per million prompt and per million completion tokens (and per million cached
            prompt tokens) of the text model and the vision model (default: the text model's).

    Returns:
        [`JudgeEstimate`].

    Raises:
        `ValueError`: if `references` is empty or a count is negative.

    Example:

    ```python
    >>> run = estimate_calls_and_cost(
    ...     ["Two brown dogs sleep under a red umbrella."], rollouts=6400, distinct_references=800,
    ...     price=(0.15, 0.60),
    ... )
    >>> run.calls  # four a rollout, one a reference
    26400
    >>> [(q.question, q.calls) for q in run.questions]
    [('decompose', 7200), ('verify', 6400), ('cover', 6400), ('linguistic', 6400)]

    ```
    """
    if not references:
        raise ValueError("references is empty: give a sample of the dataset's reference captions")
    if rollouts < 0 or distinct_references < 0:
        raise ValueError(
            f"rollouts ({rollouts}) and distinct_references ({distinct_references}) must be 0 or "
            "more"
        )
    reference = sum(_tokens(text) for text in references) / len(references)
    words = sum(len(text.split()) for text in references) / len(references)
    caption, caption_words = reference * length_ratio, words * length_ratio
    units = max(1.0, words * ASSERTIONS_PER_WORD)
    assertions = max(1.0, caption_words * ASSERTIONS_PER_WORD)
    per_assertion = WORDS_PER_ASSERTION * _TOKENS_PER_WORD
    wants = {name.removesuffix("_reward") for name in rewards}
    precision, recall, linguistic = (n in wants for n in ("precision", "recall", "linguistic"))
    precision = precision or "feedquill" in wants  # the same questions

    found: list[QuestionCost] = []

    def add(
        question: str, calls: int, prompt_tokens: float, reply_tokens: float, image: bool = False
    ) -> None:
        sent = _tokens(prompt(question)) + prompt_tokens + TOKENS_PER_TICKET
        sent += tokens_per_image if image else 0.0
        reply_tokens += TOKENS_PER_TICKET
        prefix = _tokens(prompt(question)) + tokens_per_image
        again = 0
        if image and prefix >= MIN_CACHED_PREFIX:
            again = round(max(0, calls - distinct_references) * prefix)
        if calls:
            taken = round(calls * sent), round(calls * reply_tokens)
            found.append(QuestionCost(question, calls, *taken, image, again))

    listed = assertions * (per_assertion + TOKENS_PER_ITEM)
    listed_units = units * (per_assertion + TOKENS_PER_ITEM)
    split_units = distinct_references if recall else 0
    if profile == "fused":
        add("decompose", split_units, reference, units * (per_assertion + 2))
        looked = assertions * (per_assertion + TOKENS_PER_VERDICT)
        add("look", rollouts if precision else 0, caption, looked, image=True)
        read = caption + listed_units
        add("read", rollouts if recall else 0, read, units * TOKENS_PER_VERDICT + _GRADES)
        add("linguistic", rollouts if linguistic and not recall else 0, caption, _GRADES)
    elif profile == "united":
        split = (rollouts if precision or recall or linguistic else 0) + split_units
        share = split_units / split if split else 0.0
        text = caption * (1 - share) + reference * share
        stated = (assertions * (1 - share) + units * share) * (per_assertion + 2)
        add("parse", split, text, stated + _GRADES)
        fresh = max(assertions, DISTINCT * group * assertions)  # about an image
        pieces = math.ceil(fresh / MOST)
        items, images = fresh / pieces + CANARIES, math.ceil(rollouts / group) if precision else 0
        asked = items * (per_assertion + TOKENS_PER_ITEM)
        add("verify", images * pieces, asked, items * TOKENS_PER_VERDICT, image=True)
        covered = units * TOKENS_PER_VERDICT
        add("cover", rollouts if recall else 0, listed + listed_units, covered)
    else:
        split = (rollouts if precision or recall else 0) + split_units
        share = split_units / split if split else 0.0
        text = caption * (1 - share) + reference * share
        stated = assertions * (1 - share) + units * share
        add("decompose", split, text, stated * (per_assertion + 2))
        verdicts = assertions * TOKENS_PER_VERDICT
        add("verify", rollouts if precision else 0, listed, verdicts, image=True)
        covered = units * TOKENS_PER_VERDICT
        add("cover", rollouts if recall else 0, listed + listed_units, covered)
        add("linguistic", rollouts if linguistic else 0, caption, _GRADES)
    if "utility" in wants:
        add("choose", rollouts * CHOICES_PER_CAPTION, caption + TOKENS_PER_CHOICE, 4.0)
    if "rubric" in wants:
        rubric = CRITERIA_PER_IMAGE * TOKENS_PER_CRITERION
        add("rubric", distinct_references, reference * REFERENCES_PER_IMAGE, rubric, image=True)
        add("meet", rollouts, caption + rubric, CRITERIA_PER_IMAGE * TOKENS_PER_VERDICT)
    if "group" in wants:
        compared = group * (caption + TOKENS_PER_ITEM)
        ranks = group * TOKENS_PER_VERDICT
        add("rank", math.ceil(rollouts / group), compared, ranks, image=True)
    prices = price, vision_price or price
    return JudgeEstimate(
        tuple(found),
        total_usd(found, *prices, cached=False),
        total_usd(found, *prices, cached=True),
    )


def total_usd(
    questions: Sequence[QuestionCost],
    price: Price | None,
    vision_price: Price | None,
    *,
    cached: bool,
) -> float | None:
    """What questions cost, by a judge that caches prefixes or not; `None` without a price."""
    total = 0.0
    for question in questions:
        paid = vision_price if question.sees_image else price
        if paid is None:
            return None
        again = question.cached_tokens if cached else 0
        total += given_price(paid).usd(
            Usage(question.prompt_tokens, question.completion_tokens, again)
        )
    return total


def _tokens(text: str) -> float:
    # As sent: quoted and escaped JSON in UTF-8. Bytes, since other scripts need more tokens.
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")) / CHARS_PER_TOKEN

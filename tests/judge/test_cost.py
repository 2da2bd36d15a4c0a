"""What a run will cost, from a sample of its references: arithmetic that a reader can redo."""

import json
import random
from typing import Any

import pytest

from trl_balcap.judge.cost import (
    TOKENS_PER_TICKET,
    TOKENS_PER_VERDICT,
    estimate_calls_and_cost,
)
from trl_balcap.judge.questions import prompt
from trl_balcap.judge.united import CANARIES, canaries

REFERENCE = (
    "Two brown dogs sleep under a red umbrella on the green grass."  # 12 words: 4 assertions
)


def calls(**options):
    arguments: dict[str, Any] = {"rollouts": 100, "distinct_references": 10} | options
    estimate = estimate_calls_and_cost([REFERENCE], **arguments)
    return {question.question: question.calls for question in estimate.questions}


def test_calls_by_profile_and_rewards():
    assert calls() == {"decompose": 110, "verify": 100, "cover": 100, "linguistic": 100}
    assert calls(profile="fused") == {"decompose": 10, "look": 100, "read": 100}
    assert calls(profile="united", group=10) == {"parse": 110, "verify": 10, "cover": 100}
    assert calls(profile="united", rewards=["linguistic_reward"]) == {"parse": 100}
    assert calls(rewards=["precision_reward"]) == {"decompose": 100, "verify": 100}
    assert calls(rewards=["linguistic_reward"]) == {"linguistic": 100}
    assert calls(rewards=["linguistic_reward"], profile="fused") == {"linguistic": 100}
    assert calls(rewards=["recall_reward"], profile="fused") == {"decompose": 10, "read": 100}


def test_calls_of_the_rewards_of_the_field():
    assert calls(rewards=["feedquill"]) == calls(rewards=["precision"])
    assert calls(rewards=["utility"]) == {"choose": 800}  # four questions in two orders
    assert calls(rewards=["rubric"]) == {"rubric": 10, "meet": 100}
    assert calls(rewards=["group"]) == {"rank": 13}  # groups of 8
    assert calls(rewards=["group"], profile="united") == {"rank": 13}


def test_tokens_by_hand():
    estimate = estimate_calls_and_cost(
        [REFERENCE],
        rollouts=1,
        distinct_references=0,
        rewards=["precision_reward"],
        tokens_per_image=500,
    )
    decompose, verify = estimate.questions

    # The prompt file and the caption, each as JSON text with its quotes, four characters a token,
    # and the ticket.
    prompt_chars = len(__import__("json").dumps(prompt("decompose"), ensure_ascii=False).encode())
    assert decompose.prompt_tokens == pytest.approx(
        (prompt_chars + len(REFERENCE) + 2) / 4 + TOKENS_PER_TICKET, abs=1
    )
    assert verify.completion_tokens == round(4 * TOKENS_PER_VERDICT + TOKENS_PER_TICKET)
    assert verify.sees_image
    assert verify.prompt_tokens > 500


def test_united_questions_by_hand():
    """
    Ten rollouts of an image assert 4 things each, 0.6 of the 40 are distinct: 24, and 4 canaries,
    for each of the ten images of 100 rollouts. 50 assertions a caption are 300 about the image:
    eight questions of at most 40.
    """
    assert len(canaries(random.Random(0))) == CANARIES == 4
    options: dict[str, Any] = {"rollouts": 100, "distinct_references": 0, "profile": "united"}
    options |= {"group": 10, "tokens_per_image": 500, "rewards": ["precision_reward"]}
    _, verify = estimate_calls_and_cost([REFERENCE], **options).questions
    assert verify.calls == 10
    assert verify.completion_tokens == 10 * round(28 * TOKENS_PER_VERDICT + TOKENS_PER_TICKET)
    assert verify.prompt_tokens > 10 * 500
    _, verify = estimate_calls_and_cost([" ".join(["word"] * 150)], **options).questions
    assert verify.calls == 10 * 8


def test_dollars_follow_the_prices():
    def usd(**prices):
        return estimate_calls_and_cost(
            [REFERENCE], rollouts=1000, distinct_references=0, **prices
        ).usd

    assert usd() is None
    cheap, dear = usd(price=(1.0, 2.0)), usd(price=(1.0, 2.0), vision_price=(2.0, 4.0))
    assert cheap is not None
    assert dear is not None
    assert usd(price=(2.0, 4.0)) == pytest.approx(2 * cheap)
    assert dear > cheap


def test_longer_captions_cost_more():
    def tokens(ratio):
        return estimate_calls_and_cost(
            [REFERENCE], rollouts=10, distinct_references=0, length_ratio=ratio
        ).completion_tokens

    assert tokens(3.0) > tokens(1.0) > tokens(0.5)


def test_nothing_to_estimate_from_is_an_error():
    with pytest.raises(ValueError, match="references is empty"):
        estimate_calls_and_cost([], rollouts=1, distinct_references=1)
    with pytest.raises(ValueError, match="must be 0 or more"):
        estimate_calls_and_cost([REFERENCE], rollouts=-1, distinct_references=1)


def test_a_judge_that_caches_prefixes_costs_less_by_the_images_sent_again():
    run = estimate_calls_and_cost(
        ["Two brown dogs sleep."],
        rollouts=80,
        distinct_references=10,
        rewards=["precision_reward"],
        tokens_per_image=1000.0,
        price=(2.0, 8.0, 1.0),
    )
    verify = next(question for question in run.questions if question.question == "verify")
    # 70 of 80 rollouts show an image that was shown before, behind the same system prompt.
    system = len(json.dumps(prompt("verify"), ensure_ascii=False).encode()) / 4.0
    assert verify.cached_tokens == round(70 * (system + 1000.0))
    assert run.usd is not None
    assert run.usd_cached == pytest.approx(run.usd - verify.cached_tokens * 1.0 / 1e6)

    small = estimate_calls_and_cost(
        ["Two dogs."], rollouts=80, distinct_references=10, tokens_per_image=64.0, price=(2.0, 8.0)
    )
    assert small.usd_cached == small.usd  # below 1,024 tokens nothing is cached

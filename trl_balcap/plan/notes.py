"""The notes below a plan's tables: assumptions and warnings."""

import math
from collections.abc import Iterator

from trl_balcap.judge.cost import CHARS_PER_TOKEN
from trl_balcap.plan.memory import GIB
from trl_balcap.plan.run import RunPlan

__all__ = ["notes"]


def notes(plan: RunPlan) -> Iterator[str]:
    settings = plan.settings
    judging = plan.judging
    if judging.batch.usd is None:
        yield (
            f"cost: the price of the judge {settings.judge_model} is unknown; set it with "
            "--judge-price"
        )
    budget = settings.judge_budget_usd
    if budget is not None and judging.run is not None and (judging.run.usd or 0.0) > budget:
        yield f"warning: judge_budget_usd {budget:g} ends the run before its last step"
    if plan.memory.host:
        host = f"{plan.memory.host / GIB:.0f} GiB"
        yield f"host memory: {host} per machine, for offloading"
    if plan.sample is None:
        yield (
            "no dataset: assuming square images that fill max_pixels, and references of 130 words"
        )
        return
    tokens = plan.sample.reference_tokens
    if tokens is None:
        yield (
            f"dataset: {plan.sample.rows:,} rows without references; assuming captions of 130 words"
        )
    else:
        yield (
            f"dataset: {plan.sample.rows:,} rows; references of about {tokens:.0f} tokens "
            f"({CHARS_PER_TOKEN} bytes per token)"
        )
    if settings.length_gate not in ("mask", "linear"):
        return
    upper, what = 0.0, "length_gate_tokens"
    if settings.length_gate_tokens is not None:
        upper = settings.length_gate_tokens[1]
    elif tokens is not None:
        upper = settings.length_gate_upper * tokens
        what = f"{settings.length_gate_upper:g} x the mean reference"
    if upper > settings.max_completion_length:
        yield (
            f"warning: the length gate is open to {upper:.0f} tokens ({what}), but "
            f"max_completion_length is {settings.max_completion_length}. Raise it to "
            f"{math.ceil(upper / 64) * 64}."
        )

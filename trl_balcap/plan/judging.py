"""Estimates the judge calls, tokens and dollars of a planned run."""

from collections.abc import Sequence
from dataclasses import dataclass

from trl_balcap.judge.cost import JudgeEstimate, estimate_calls_and_cost
from trl_balcap.judge.prices import price_of
from trl_balcap.judge.settings import JudgeSettings, Price
from trl_balcap.plan.batch import GenerationBatch
from trl_balcap.plan.sample import Sample

__all__ = ["STAND_IN", "JudgingPlan", "Price", "judging_plan"]

# Without a dataset: a caption of 130 words, close to the length in the paper.
STAND_IN = " ".join(["caption"] * 130)


@dataclass(frozen=True)
class JudgingPlan:
    """Judging of one generation batch and, if its length is known, of the whole run."""

    price: Price | None
    vision_price: Price | None
    batch: JudgeEstimate
    run: JudgeEstimate | None


def judging_plan(
    batch: GenerationBatch,
    sample: Sample | None,
    steps: int | None,
    judge: JudgeSettings,
    *,
    rewards: Sequence[str] = ("precision", "recall", "linguistic"),
) -> JudgingPlan:
    """
    Estimate the judging of a run. The number of calls is an upper estimate.

    Args:
        batch ([`GenerationBatch`]): One generation batch.
        sample ([`Sample`], *optional*): Sample of the dataset. Defaults to captions of 130 words.
        steps (`int`, *optional*): Optimizer steps of the run, if known.
        judge ([`JudgeSettings`]): The recipe's judge. Without a price, the first deployment's model
            is looked up in litellm's local table.
        rewards (`Sequence[str]`, *optional*): The run's rewards. Agreed recall asks about the units
            of a whole group at once, and is counted as recall here.
    """
    price = judge.price or price_of(judge.text[0])
    vision_price = judge.price or price_of(judge.vision[0])
    references = (sample.references if sample is not None else ()) or (STAND_IN,)
    asking = ["recall" if name == "agreed_recall" else name for name in rewards]

    def estimate(generations: int) -> JudgeEstimate:
        seen = generations * batch.prompts
        return estimate_calls_and_cost(
            references,
            rollouts=generations * batch.completions,
            distinct_references=seen if sample is None else min(seen, sample.rows),
            rewards=asking,
            profile=judge.profile,
            group=batch.num_generations,
            price=price,
            vision_price=vision_price,
        )

    return JudgingPlan(
        price=price,
        vision_price=vision_price,
        batch=estimate(1),
        run=None if steps is None else estimate(batch.generations(steps)),
    )

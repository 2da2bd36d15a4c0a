"""What a plan's run will ask of its judges: calls, tokens, dollars."""

from collections.abc import Sequence
from dataclasses import dataclass

from trl_balcap.judge.cost import JudgeEstimate, estimate_calls_and_cost
from trl_balcap.judge.prices import price_of
from trl_balcap.judge.settings import JudgeSettings, Price
from trl_balcap.plan.batch import GenerationBatch
from trl_balcap.plan.sample import Sample

__all__ = ["STAND_IN", "JudgingPlan", "Price", "judging_plan"]

# Where no dataset is at hand: a caption of 130 words, near the length that the paper trains to.
STAND_IN = " ".join(["caption"] * 130)


@dataclass(frozen=True)
class JudgingPlan:
    """Judging of one generation batch and, where its length is known, of the whole run."""

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
    Estimates the judging of a run; an upper estimate of the calls.

    Args:
        batch ([`GenerationBatch`]): One generation batch.
        sample ([`Sample`], *optional*): Of the dataset; `None` takes captions of 130 words.
        steps (`int`, *optional*): Optimizer steps of the run; `None` where they are not known.
        judge ([`JudgeSettings`]): Of the recipe. Where it gives no price, the models are looked up
            in litellm's table, which is on disk; of several deployments of one judge, the first.
        rewards (`Sequence[str]`, *optional*): The run's. Agreed recall asks about the units of a
            whole group at once, and counts as recall here.
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
            price=price,
            vision_price=vision_price,
        )

    return JudgingPlan(
        price=price,
        vision_price=vision_price,
        batch=estimate(1),
        run=None if steps is None else estimate(batch.generations(steps)),
    )

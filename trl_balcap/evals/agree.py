"""`trl-balcap agree`: does a metric rank captioners as people do?"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl_balcap.evals.arena import (
    HUMAN,
    HUMAN_RANKING,
    bootstrap_ranking,
    caption_agreement,
    model_agreement,
    winners,
)

__all__ = ["agreement"]


def agreement(
    metric: Any,
    human_ranking: Sequence[str] = HUMAN_RANKING,
    *,
    lower_is_better: bool = False,
    name: str | Path = "the metric",
) -> dict[str, Any]:
    """
    Agreement of a metric with people.

    Args:
        metric (`dict`, `list[str]` or `list[dict]`):
            Scores by model; or models, best first; or CapArena's battles with a verdict in "judge", which are ranked
            by bootstrapped Elo, and compared with people's "winner" caption by caption where they have one.
        human_ranking (`Sequence[str]`, *optional*):
            Models, best first.
        lower_is_better (`bool`, *optional*, defaults to `False`):
            Whether a low score is a good one.
        name (`str`, *optional*):
            What to call the metric in messages.

    Returns:
        `dict`: "ranking" and "scores"; "spearman" and "kendall" with "spearman_p" and "kendall_p",
        `None` where all scores are equal; "human_positions"; and "captions" and
        "captions_without_ties", `None` without battles.

    Raises:
        ValueError: If the metric has another form, or fewer than 2 models, or one that people did not rank.

    Example:

    ```python
    >>> agreement({"GPT-4o-0806": 50.1, "LLaVA-1.5-7B": 23.0, "InternVL2-26B": 44.0})["kendall"]
    1.0

    ```
    """
    captions = without_ties = None
    scores: dict[str, float] = {}
    if isinstance(metric, dict):
        for model, value in metric.items():
            if not _is_number(value):
                raise ValueError(
                    f"{name} must give one number for each model; {model!r} has {value!r}."
                )
        scores = {model: float(value) for model, value in metric.items()}
        ranking = sorted(scores, key=scores.__getitem__, reverse=not lower_is_better)
    elif isinstance(metric, list) and all(isinstance(entry, str) for entry in metric):
        ranking = list(metric)
    elif isinstance(metric, list) and all(isinstance(entry, dict) for entry in metric):
        _check_battles(metric, name)
        elo = bootstrap_ranking(winners(metric))
        ranking, scores = elo.models, elo.median
        if all("winner" in battle and "cluster" in battle for battle in metric):
            captions = caption_agreement(metric)
            without_ties = caption_agreement(metric, include_tie=False)
    else:
        raise ValueError(
            f"{name} must be {{model: score}}, a list of model names, or a list of battles with "
            '"source1", "source2" and "judge".'
        )
    ranking = [model for model in ranking if model != HUMAN]
    if len(ranking) < 2:
        raise ValueError(
            f"A ranking of {len(ranking)} models correlates with nothing; give 2 or more."
        )
    if len(set(ranking)) < len(ranking):
        raise ValueError(f"{name} ranks a model twice.")
    good = {model: -score if lower_is_better else score for model, score in scores.items()}
    found = model_agreement(ranking, human_ranking, scores=good or None)
    return {
        "ranking": ranking,
        "scores": scores,
        **found._asdict(),
        "captions": None if captions is None or not captions.n else captions._asdict(),
        "captions_without_ties": None
        if without_ties is None or not without_ties.n
        else without_ties._asdict(),
    }


def _check_battles(battles: list[dict[str, Any]], name: str | Path) -> None:
    for place, battle in enumerate(battles):
        texts = [battle.get(key) for key in ("source1", "source2")]
        verdict = battle.get("judge")
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f'{name}: battle {place} must name its models in "source1" and "source2", got {texts}.'
            )
        if not (verdict is None or isinstance(verdict, str)):
            raise ValueError(
                f'{name}: battle {place} must have words in "judge", or null, got {verdict!r}.'
            )


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)

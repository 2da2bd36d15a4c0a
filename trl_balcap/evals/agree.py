"""`trl-balcap agree`: whether a metric ranks captioners the way people do."""

import math
from collections.abc import Mapping, Sequence
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
from trl_balcap.evals.bootstrap import estimate, resampling_weights
from trl_balcap.evals.metrics.protocol import image_of
from trl_balcap.evals.metrics.registry import METRICS

__all__ = ["agreement", "agreement_of_rows", "battles_from_rows"]


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
            Scores by model; or models, best first; or CapArena's battles with a verdict in "judge".
            Battles are ranked by bootstrapped Elo and, if they have people's "winner", compared
            with it caption by caption.
        human_ranking (`Sequence[str]`, *optional*):
            Models, best first.
        lower_is_better (`bool`, *optional*, defaults to `False`):
            Whether low scores are good.
        name (`str`, *optional*):
            Name of the metric in messages.

    Returns:
        `dict`: "ranking" and "scores"; "spearman" and "kendall", each with its p-value in "_p" and
        its 95% interval in "_interval" (from resampled battles, or from resampled models if there
        are no battles), `None` if all scores are equal; "human_positions"; and "captions" and
        "captions_without_ties", `None` without battles.

    Raises:
        `ValueError`: if the metric has another form, fewer than 2 models, or a model that people
            did not rank.

    Example:

    ```python
    >>> agreement({"GPT-4o-0806": 50.1, "LLaVA-1.5-7B": 23.0, "InternVL2-26B": 44.0})["kendall"]
    1.0

    ```
    """
    captions = without_ties = rounds = None
    scores: dict[str, float] = {}
    if isinstance(metric, dict):
        for model, value in metric.items():
            if not _is_number(value):
                raise ValueError(
                    f"{name} must have one number per model, but {model!r} has {value!r}."
                )
        scores = {model: float(value) for model, value in metric.items()}
        ranking = sorted(scores, key=scores.__getitem__, reverse=not lower_is_better)
    elif isinstance(metric, list) and all(isinstance(entry, str) for entry in metric):
        ranking = list(metric)
    elif isinstance(metric, list) and all(isinstance(entry, dict) for entry in metric):
        _check_battles(metric, name)
        elo = bootstrap_ranking(winners(metric))
        ranking, scores, rounds = elo.models, elo.median, elo.rounds
        if all("winner" in battle and "cluster" in battle for battle in metric):
            captions = caption_agreement(metric)
            without_ties = caption_agreement(metric, include_tie=False)
    else:
        raise ValueError(
            f"{name} must be {{model: score}}, a list of model names, or a list of battles with "
            '"source1", "source2" and "judge".'
        )
    if rounds is None:
        ranking = [model for model in ranking if model != HUMAN]
    if len(ranking) < 2:
        raise ValueError(
            f"A ranking of {len(ranking)} models cannot be correlated; pass 2 or more."
        )
    if len(set(ranking)) < len(ranking):
        raise ValueError(f"{name} ranks the same model twice.")
    good = {model: -score if lower_is_better else score for model, score in scores.items()}
    found = model_agreement(ranking, human_ranking, scores=good or None, rounds=rounds)
    return {
        "ranking": ranking,
        "scores": scores,
        **found._asdict(),
        "captions": None if captions is None or not captions.n else captions._asdict(),
        "captions_without_ties": None
        if without_ties is None or not without_ties.n
        else without_ties._asdict(),
    }


def battles_from_rows(
    battles: Sequence[dict[str, Any]], rows: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """
    Battles with the verdicts of a metric that scores single captions: of two captions, the one with
    the higher score is better; equal scores are a tie.

    Args:
        battles (`Sequence[dict]`):
            CapArena's battles, with "img", "source1" and "source2".
        rows (`Mapping`):
            Scored rows of each model, as written by `trl-balcap score`; images are matched by file
            name.

    Returns:
        `list[dict]`: battles of the models with rows; "judge" is `None` if a caption has no score.

    Example:

    ```python
    >>> rows = {"A": [{"id": "i.jpg", "score": 0.9}], "B": [{"id": "i.jpg", "score": 0.4}]}
    >>> battle = {"img": "i.jpg", "source1": "B", "source2": "A"}
    >>> battles_from_rows([battle], rows)[0]["judge"]
    'Caption 2 is better'

    ```
    """
    scores = {m: {image_of(row): row["score"] for row in found} for m, found in rows.items()}
    judged = []
    for battle in battles:
        sources = (battle["source1"], battle["source2"])
        if any(source not in scores for source in sources):
            continue
        first, second = (scores[source].get(battle["img"]) for source in sources)
        words = None
        if first is not None and second is not None:
            words = "Tie" if first == second else f"Caption {1 if first > second else 2} is better"
        judged.append({**battle, "judge": words})
    return judged


def agreement_of_rows(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    human_ranking: Sequence[str] = HUMAN_RANKING,
    *,
    battles: Sequence[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """
    Agreement of a metric with people, from rows written by `trl-balcap score` for each model.

    With battles, captions are compared by their scores, and models ranked by the Elo of these
    comparisons, as in CapArena; without battles, models are ranked by their corpus scores.

    Args:
        rows (`Mapping`):
            Scored rows by model.
        human_ranking (`Sequence[str]`, *optional*):
            Models, best first.
        battles (`Sequence[dict]`, *optional*):
            CapArena's battles with people's "winner" and "cluster".

    Returns:
        `dict`: as for [`agreement`].

    Raises:
        `ValueError`: if a model has no score, or people did not rank it.
    """
    scores = {}
    for model, found in rows.items():
        (metric,) = {str(row["metric"]) for row in found}
        weights = resampling_weights(len(found), rounds=1)
        value = estimate(METRICS[metric].statistics(found)[0], weights).value
        if value is None:
            raise ValueError(f"{model} has no {metric} score: none of its captions was scored.")
        scores[model] = value
    if battles is None:
        return agreement(scores, human_ranking, name="the rows")
    _check_battles(list(battles), "the battles")
    judged = battles_from_rows(battles, rows)
    if not winners(judged):
        first = next((battle["img"] for battle in battles), "none")
        raise ValueError(
            f"No battle has scores of both its captions, such as those of {first!r}: the rows are "
            f"of {', '.join(rows)}, and their images go by their files' names."
        )
    found = agreement(judged, human_ranking, name="the battles")
    return {**found, "corpus_scores": scores}


def _check_battles(battles: list[dict[str, Any]], name: str | Path) -> None:
    for place, battle in enumerate(battles):
        texts = [battle.get(key) for key in ("source1", "source2")]
        verdict = battle.get("judge")
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f'{name}: battle {place} must have model names in "source1" and "source2", got '
                f"{texts}."
            )
        if not (verdict is None or isinstance(verdict, str)):
            raise ValueError(
                f'{name}: battle {place} must have a string or null in "judge", got {verdict!r}.'
            )


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)

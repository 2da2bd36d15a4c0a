"""
CapArena's human arena: whether a metric ranks captioners, and captions, the way people do.

Battles of two models' captions of one image, judged by people (`winner`) and by a metric (`judge`).
Rules as measured on njucckevin/CapArena at c251cdd.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from trl_balcap.evals.rules.caparena import verdict_of

__all__ = [
    "HUMAN_RANKING",
    "CaptionAgreement",
    "EloRanking",
    "RankAgreement",
    "bootstrap_ranking",
    "caption_agreement",
    "elo_ratings",
    "model_agreement",
    "winners",
]

HUMAN_RANKING = (
    "GPT-4o-0806",
    "human",
    "Gemini-2.0-flash-exp",
    "InternVL2-26B",
    "Gemini-1.5-pro-002",
    "Claude-3.5-Sonnet-0620",
    "GPT-4o-mini-0718",
    "LLama-3.2-90B",
    "Qwen2-VL-72B-Instruct",
    "CogVLM2-llama3-chat-19B",
    "MiniCPM-V2.6-8B",
    "Qwen2-VL-7B-Instruct",
    "Qwen2-VL-2B-Instruct",
    "LLaVA-1.6-34B",
    "LLaVA-1.5-7B",
)
"""CapArena's published human ranking, best first. Its Elo cannot be reproduced from the released
files."""

LEVELS = ("level 1", "level 2", "level 3", "level 4")
HUMAN = "human"

Fight = tuple[str, str, float]
"""First model, second model, and the first one's result: 1 won, 0 lost, 0.5 tie."""


class EloRanking(NamedTuple):
    """Bootstrapped Elo, best model first; `low` and `high` are the 2.5% and 97.5% quantiles."""

    models: list[str]
    median: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]

    @property
    def rounded(self) -> dict[str, int]:
        """Medians as the script prints them: half up."""
        return {model: int(self.median[model] + 0.5) for model in self.models}


class CaptionAgreement(NamedTuple):
    """
    Share of battles in which metric and people agree, `None` without battles, and its 95% interval
    (Wilson's).
    """

    overall: float | None
    n: int
    levels: dict[str, float | None]
    n_ties: dict[str, int]
    low: float | None = None
    high: float | None = None


class RankAgreement(NamedTuple):
    """
    Rank correlations of a metric with the human ranking, `None` if the metric gives all models the
    same score; their p-values; and the human position of each model.
    """

    spearman: float | None
    kendall: float | None
    human_positions: list[int]
    spearman_p: float | None = None
    kendall_p: float | None = None


def winners(battles: Sequence[Mapping[str, Any]]) -> list[Fight]:
    """
    Fights for the ratings. Battles with the human writer or without a verdict are left out.

    As in the official script, verdicts are read more loosely than by the leaderboard: a "1"
    anywhere is a win for the first caption, else a "2" is a win for the second, else it is a tie.

    Example:

    ```python
    >>> winners([{"source1": "A", "source2": "B", "judge": "Captions 1 and 2 are equal"}])
    [('A', 'B', 1.0)]

    ```
    """
    fights: list[Fight] = []
    for battle in battles:
        first, second = battle["source1"], battle["source2"]
        words = battle.get("judge")
        if HUMAN in (first, second) or words is None:
            continue
        fights.append((first, second, 1.0 if "1" in words else 0.0 if "2" in words else 0.5))
    return fights


def elo_ratings(
    fights: Sequence[Fight], *, k: float = 4, scale: float = 400, initial: float = 1000
) -> dict[str, float]:
    """
    Elo after the fights. Their order matters.

    `e = 1 / (1 + 10 ** ((r_b - r_a) / scale))`; the first gains `k (s - e)`, the second the
    opposite.

    Example:

    ```python
    >>> elo_ratings([("A", "B", 1.0)])
    {'A': 1002.0, 'B': 998.0}

    ```
    """
    ratings: dict[str, float] = {}
    for first, second, score in fights:
        r_a, r_b = ratings.setdefault(first, initial), ratings.setdefault(second, initial)
        e_a = 1 / (1 + 10 ** ((r_b - r_a) / scale))
        e_b = 1 / (1 + 10 ** ((r_a - r_b) / scale))
        ratings[first] += k * (score - e_a)
        ratings[second] += k * (1 - score - e_b)
    return ratings


def bootstrap_ranking(fights: Sequence[Fight], *, rounds: int = 1000, seed: int = 42) -> EloRanking:
    """
    Models by their median Elo over resampled fights, best first; equal medians in order of first
    appearance.

    With the defaults, it draws the same samples as the official script (numpy's legacy generator,
    seed 42).

    Raises:
        `ValueError`: if there are no fights.
    """
    if not fights:
        raise ValueError(
            "A ranking needs at least one battle that has a 'judge' and no 'human' among its "
            "sources."
        )
    generator = np.random.RandomState(seed)
    n = len(fights)
    samples: dict[str, list[float]] = {}
    for _ in range(rounds):
        drawn = generator.choice(n, n, replace=True)
        for model, rating in elo_ratings([fights[i] for i in drawn]).items():
            samples.setdefault(model, []).append(rating)  # a model that is not drawn has no rating
    quantiles = {
        model: np.quantile(values, (0.5, 0.025, 0.975)) for model, values in samples.items()
    }
    median = {model: float(np.median(values)) for model, values in samples.items()}
    models = sorted(median, key=lambda model: -median[model])
    return EloRanking(
        models=models,
        median={model: median[model] for model in models},
        low={model: float(quantiles[model][1]) for model in models},
        high={model: float(quantiles[model][2]) for model in models},
    )


def caption_agreement(
    battles: Sequence[Mapping[str, Any]], *, include_tie: bool = True, in_400: bool = False
) -> CaptionAgreement:
    """
    Share of battles in which the metric's verdict agrees with people's.

    Battles with the human writer, or without a verdict in the exact words, are left out. A `winner`
    that is neither source is a tie.

    Args:
        battles (`Sequence[Mapping]`):
            Rows with "source1", "source2", "winner", "cluster" ("level 1" to "level 4"), "in-400"
            and "judge".
        include_tie (`bool`, *optional*, defaults to `True`):
            Count ties as a third answer; otherwise drop battles that either side calls a tie.
        in_400 (`bool`, *optional*, defaults to `False`):
            Only the subset of 400 images.

    Returns:
        [`CaptionAgreement`]

    Raises:
        `ValueError`: if a battle has a level other than the four.

    Example:

    ```python
    >>> battle = {"source1": "A", "source2": "B", "winner": "A", "cluster": "level 1", "judge": "Tie"}
    >>> caption_agreement([battle, battle | {"judge": "Caption 1 is better"}]).overall
    0.5

    ```
    """  # noqa: E501
    agreed: dict[str, list[bool]] = {level: [] for level in LEVELS}
    ties: dict[str, int] = dict.fromkeys(LEVELS, 0)
    for battle in battles:
        first, second = battle["source1"], battle["source2"]
        if battle.get("judge") is None or HUMAN in (first, second):
            continue
        if in_400 and not battle["in-400"]:
            continue
        metric = verdict_of(battle["judge"])
        if metric is None:
            continue
        if battle["cluster"] not in agreed:
            raise ValueError(
                f"A battle about {battle.get('img')!r} has the cluster {battle['cluster']!r}, but "
                f"it must be one of {', '.join(LEVELS)}."
            )
        people = 1 if battle["winner"] == first else 2 if battle["winner"] == second else 0
        if include_tie:
            ties[battle["cluster"]] += metric == 0
        elif 0 in (metric, people):
            continue
        agreed[battle["cluster"]].append(metric == people)
    everything = [same for level in LEVELS for same in agreed[level]]
    low, high = None, None
    if everything:
        from scipy.stats import binomtest  # takes half a second, and most commands do not need it

        test = binomtest(sum(everything), len(everything))
        low, high = test.proportion_ci(method="wilson")
    return CaptionAgreement(
        overall=_share(everything),
        n=len(everything),
        levels={level: _share(agreed[level]) for level in LEVELS},
        n_ties=ties,
        low=low,
        high=high,
    )


def model_agreement(
    metric_ranking: Sequence[str],
    human_ranking: Sequence[str] = HUMAN_RANKING,
    *,
    scores: Mapping[str, float] | None = None,
) -> RankAgreement:
    """
    Spearman and Kendall correlation of a metric with the human ranking of models.

    The human writer is left out of the metric's ranking; the resulting gap in the human positions
    does not matter.

    Args:
        metric_ranking (`Sequence[str]`):
            Models, best first.
        human_ranking (`Sequence[str]`, *optional*):
            Models, best first; CapArena's by default.
        scores (`Mapping[str, float]`, *optional*):
            The metric's score of each model, higher is better. Equal scores are then ties; without
            scores, there are no ties.

    Returns:
        [`RankAgreement`]

    Raises:
        `ValueError`: if a model is not in the human ranking.

    Example:

    ```python
    >>> models = ["LLaVA-1.5-7B", "InternVL2-26B", "GPT-4o-0806"]
    >>> model_agreement(models).spearman
    -1.0
    >>> model_agreement(models, scores=dict.fromkeys(models, 7.0)).spearman is None
    True

    ```
    """
    models = [model for model in metric_ranking if model != HUMAN]
    unknown = [model for model in models if model not in human_ranking]
    if unknown:
        raise ValueError(
            f"{unknown[0]!r} is not in the human ranking. Leave it out, or use one of "
            f"{', '.join(name for name in human_ranking if name != HUMAN)}."
        )
    human = [list(human_ranking).index(model) + 1 for model in models]
    metric: list[float] = list(range(1, len(models) + 1))
    if scores is not None:
        metric = [-scores[model] for model in models]
        if len(set(metric)) == 1:
            return RankAgreement(None, None, human)
    from scipy.stats import kendalltau, spearmanr

    spearman, kendall = spearmanr(human, metric), kendalltau(human, metric)
    rho, rho_p = (float(value) for value in np.asarray(spearman))
    tau, tau_p = (float(value) for value in np.asarray(kendall))
    return RankAgreement(rho, tau, human, rho_p, tau_p)


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None

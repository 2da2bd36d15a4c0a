"""
CapArena's human arena: whether a metric ranks captioners, and captions, the way people do.

Battles of two models' captions of one image, judged by people (`winner`) and by a metric (`judge`).
Rules as measured on njucckevin/CapArena at c251cdd.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from trl_balcap.evals.ranks import RankAgreement, rank_agreement
from trl_balcap.evals.rules.caparena import verdict_of

__all__ = [
    "HUMAN_RANKING",
    "CaptionAgreement",
    "EloRanking",
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

K, SCALE, INITIAL = 4, 400, 1000
"""Of Elo, as the official script has them."""

Fight = tuple[str, str, float]
"""First model, second model, and the first one's result: 1 won, 0 lost, 0.5 tie."""


class EloRanking(NamedTuple):
    """
    Bootstrapped Elo, best model first; `low` and `high` are the 2.5% and 97.5% quantiles; `rounds`
    the ratings in each resample, shape (R, M), NaN where a model was not drawn.
    """

    models: list[str]
    median: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    rounds: np.ndarray

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


def elo_ratings(fights: Sequence[Fight]) -> dict[str, float]:
    """
    Elo after the fights. Their order matters.

    `e = 1 / (1 + 10 ** ((r_b - r_a) / 400))`; the first gains `4 (s - e)`, the second the opposite;
    all begin at 1000.

    Example:

    ```python
    >>> elo_ratings([("A", "B", 1.0)])
    {'A': 1002.0, 'B': 998.0}

    ```
    """
    if not fights:
        return {}
    names = list(dict.fromkeys(model for fight in fights for model in fight[:2]))
    fought = np.array([[names.index(model) for model in fight[:2]] for fight in fights])
    in_order = np.arange(len(fights))[None]  # (1, N)
    ratings = _ratings_of_rounds(fought, np.array([score for *_, score in fights]), in_order)
    return dict(zip(names, map(float, ratings[0]), strict=True))


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
    n = len(fights)
    generator = np.random.RandomState(seed)
    drawn = np.stack([generator.choice(n, n, replace=True) for _ in range(rounds)])  # (R, N)
    sides = [model for fight in fights for model in fight[:2]]
    names = list(dict.fromkeys(sides[2 * place + side] for place in drawn[0] for side in (0, 1)))
    names = list(dict.fromkeys([*names, *sides]))
    numbers = {name: number for number, name in enumerate(names)}
    fought = np.array([[numbers[first], numbers[second]] for first, second, _ in fights])  # (N, 2)
    ratings = _ratings_of_rounds(fought, np.array([score for *_, score in fights]), drawn)
    there = np.flatnonzero(~np.isnan(ratings).all(axis=0))  # a model that no round drew has none
    names, ratings = [names[number] for number in there], ratings[:, there]
    low, median, high = np.nanquantile(ratings, (0.025, 0.5, 0.975), axis=0)
    order = np.argsort(-median, kind="stable")
    models = [names[number] for number in order]
    by_name = [
        dict(zip(models, map(float, row[order]), strict=True)) for row in (median, low, high)
    ]
    return EloRanking(models, *by_name, rounds=ratings[:, order])


def _ratings_of_rounds(fought: np.ndarray, scores: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """[`elo_ratings`] of all rounds at once, shape (R, M)."""
    n_rounds, n_fights = drawn.shape
    every = np.arange(n_rounds)
    ratings = np.full((n_rounds, fought.max() + 1), float(INITIAL))  # (R, M)
    seen = np.zeros(ratings.shape, dtype=bool)
    for place in range(n_fights):
        first, second = fought[drawn[:, place]].T  # (R,) each
        score = scores[drawn[:, place]]
        r_a, r_b = ratings[every, first], ratings[every, second]
        ratings[every, first] += K * (score - 1 / (1 + 10 ** ((r_b - r_a) / SCALE)))
        ratings[every, second] += K * (1 - score - 1 / (1 + 10 ** ((r_a - r_b) / SCALE)))
        seen[every, first] = seen[every, second] = True
    return np.where(seen, ratings, np.nan)


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
        low, high = _wilson(sum(everything), len(everything))
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
    rounds: np.ndarray | None = None,
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
        rounds (`np.ndarray`, *optional*):
            The score of each model of the ranking in R resamples of battles, shape (R, M), to take
            intervals from; without it models are resampled.

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
    if rounds is not None:
        of_models = [place for place, model in enumerate(metric_ranking) if model != HUMAN]
        rounds = -rounds[:, of_models]
    return rank_agreement(human, metric, rounds=rounds)


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share."""
    share, z = hits / n, 1.959964
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return middle - half, middle + half

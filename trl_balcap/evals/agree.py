"""`trl-balcap agree`: does a metric rank captioners as people do?"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trl_balcap.evals.arena import (
    HUMAN,
    HUMAN_RANKING,
    bootstrap_ranking,
    caption_agreement,
    model_agreement,
    winners,
)

__all__ = ["add_parser", "agreement", "run"]


def add_parser(subparsers: Any) -> None:
    """Add `agree` to the command line."""
    parser = subparsers.add_parser(
        "agree",
        help="rank correlation of a metric with CapArena's human ranking",
        description="Spearman's and Kendall's correlation of a metric with the human ranking of "
        "captioners, and for judged battles the share of battles in which it agrees with people.",
    )
    parser.add_argument(
        "metric",
        type=Path,
        help="JSON: {model: score}, a list of models (best first), or CapArena's list of battles with a "
        '"judge" in each',
    )
    parser.add_argument(
        "--human-ranking",
        type=Path,
        help="JSON list of models, best first (default: CapArena's 15)",
    )
    parser.add_argument(
        "--lower-is-better", action="store_true", help="{model: score} where a low score is good"
    )
    parser.add_argument("--out", type=Path, help="write the result here as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Print the agreement.

    Raises:
        ValueError: If the file is of none of the three forms, or names a model that people did not rank.
    """
    human = HUMAN_RANKING if args.human_ranking is None else _read(args.human_ranking)
    if not isinstance(human, list | tuple) or not all(isinstance(name, str) for name in human):
        raise ValueError(f"{args.human_ranking} must be a JSON list of model names, best first.")
    found = agreement(
        _read(args.metric), human, lower_is_better=args.lower_is_better, name=args.metric
    )
    console = Console()
    table = Table(title=str(args.metric), title_justify="left")
    for column in ("model", "metric", "human", "score"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for place, model in enumerate(found["ranking"], start=1):
        score = found["scores"].get(model)
        position = str(found["human_positions"][place - 1])
        table.add_row(model, str(place), position, "-" if score is None else f"{score:.6g}")
    console.print(table)
    console.print(
        f"Spearman {found['spearman']:.4f}, Kendall {found['kendall']:.4f} "
        f"over {len(found['ranking'])} models.",
        highlight=False,
        soft_wrap=True,
    )
    if found["captions"] is not None:
        captions = found["captions"]
        console.print(
            f"Agreement on captions: {captions['overall']:.3f} over {captions['n']} battles, ties "
            "included.",
            highlight=False,
            soft_wrap=True,
        )
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0


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
        `dict`: "ranking", "human_positions", "spearman", "kendall", "scores", and "captions" (`None` without battles).

    Raises:
        ValueError: If the metric has another form, or fewer than 2 models, or one that people did not rank.

    Example:

    ```python
    >>> agreement({"GPT-4o-0806": 50.1, "LLaVA-1.5-7B": 23.0, "InternVL2-26B": 44.0})["kendall"]
    1.0

    ```
    """
    captions = None
    scores: dict[str, float] = {}
    if isinstance(metric, dict):
        if not all(_is_number(value) for value in metric.values()):
            raise ValueError(f"{name} must give one number for each model.")
        scores = {model: float(value) for model, value in metric.items()}
        ranking = sorted(scores, key=scores.__getitem__, reverse=not lower_is_better)
    elif isinstance(metric, list) and all(isinstance(entry, str) for entry in metric):
        ranking = list(metric)
    elif isinstance(metric, list) and all(
        isinstance(entry, dict) and {"source1", "source2"} <= entry.keys() for entry in metric
    ):
        elo = bootstrap_ranking(winners(metric))
        ranking, scores = elo.models, elo.median
        if all("winner" in battle and "cluster" in battle for battle in metric):
            captions = caption_agreement(metric)._asdict()
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
    found = model_agreement(ranking, human_ranking)
    return {
        "ranking": ranking,
        "human_positions": found.human_positions,
        "spearman": found.spearman,
        "kendall": found.kendall,
        "scores": scores,
        "captions": captions if captions and captions["n"] else None,
    }


def _read(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}).") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

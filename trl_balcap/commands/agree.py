"""`trl-balcap agree`: whether a metric ranks captioners the way people do."""

import argparse
import json
from pathlib import Path
from typing import Any

from trl_balcap.commands.score import pairs_of
from trl_balcap.commands.showing import make_console, make_table, say

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add `agree` to the command line."""
    parser = subparsers.add_parser(
        "agree",
        help="rank correlation of a metric with CapArena's human ranking",
        description="Spearman and Kendall correlation of a metric with the human ranking of "
        "captioners and, for judged battles, the share in which it agrees with people.",
    )
    parser.add_argument(
        "metric",
        nargs="+",
        help="JSON file with {model: score}, a list of models (best first), or CapArena's list of "
        'battles with a "judge" in each; or MODEL=ROWS per model, with rows written by score',
    )
    parser.add_argument(
        "--battles",
        type=Path,
        help="with MODEL=ROWS: CapArena's battles, to also compare single captions by score",
    )
    parser.add_argument(
        "--human-ranking",
        type=Path,
        help="JSON list of models, best first (default: CapArena's 15 captioners)",
    )
    parser.add_argument(
        "--lower-is-better", action="store_true", help="for {model: score}: low scores are good"
    )
    parser.add_argument("--out", type=Path, help="output JSON file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Print the agreement.

    Raises:
        `ValueError`: if the file has none of the three forms, or contains a model that people did
            not rank.
    """
    from trl_balcap.evals.agree import agreement, agreement_of_rows
    from trl_balcap.evals.arena import HUMAN_RANKING
    from trl_balcap.evals.results import read_rows

    human = HUMAN_RANKING if args.human_ranking is None else _read(args.human_ranking)
    if not isinstance(human, list | tuple) or not all(isinstance(name, str) for name in human):
        raise ValueError(f"{args.human_ranking} must be a JSON list of model names, best first.")
    title = args.metric[0]
    if all("=" in given for given in args.metric):
        pairs = pairs_of("agree", args.metric)
        rows = {model: read_rows(path) for model, path in pairs.items()}
        battles = None if args.battles is None else _read(args.battles)
        found = agreement_of_rows(rows, human, battles=battles)
        title = next(iter(rows.values()))[0]["metric"]
    elif len(args.metric) == 1 and args.battles is None:
        path = Path(args.metric[0])
        found = agreement(_read(path), human, lower_is_better=args.lower_is_better, name=path)
    else:
        raise ValueError(
            "agree takes either one file, or MODEL=ROWS per model (optionally with --battles FILE)."
        )
    console = make_console()
    table = make_table(title, ("model", "metric", "human", "score"))
    for place, model in enumerate(found["ranking"], start=1):
        score = found["scores"].get(model)
        position = str(found["human_positions"][place - 1])
        table.add_row(model, str(place), position, "-" if score is None else f"{score:.6g}")
    console.print(table)
    if found["spearman"] is None:
        say(console, "All models have the same score, so there is no ranking to correlate.")
    else:
        say(
            console,
            f"Spearman {found['spearman']:.4f} (p {found['spearman_p']:.2g}), "
            f"Kendall {found['kendall']:.4f} (p {found['kendall_p']:.2g}) "
            f"over {len(found['ranking'])} models.",
        )
    for key, ties in (("captions", "ties included"), ("captions_without_ties", "without ties")):
        captions = found[key]
        if captions is not None:
            say(
                console,
                f"Caption-level agreement: {captions['overall']:.3f} ({captions['low']:.3f} to "
                f"{captions['high']:.3f}) over {captions['n']} battles, {ties}.",
            )
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0


def _read(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"File not found: {path}.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}).") from error

"""`trl-balcap references`: check reference captions, and write a cleaned file."""

import argparse
import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from trl_balcap.commands.judging import add_judge_flags, judge_from
from trl_balcap.commands.showing import confirm, make_console, make_progress, make_table, say

if TYPE_CHECKING:
    from collections import Counter

    from trl_balcap.captioning.judged import JudgedReference
    from trl_balcap.captioning.run import ImageRow

__all__ = ["add_parser", "run"]

_WORST = 20
_DROPPED = ("bad image", "empty", "refusal", "duplicate", "language", "too long")
_TOKENS_PER_WORD = 1.35


def add_parser(subparsers: Any) -> None:
    """Add `references` to the command line."""
    parser = subparsers.add_parser(
        "references",
        help="check reference captions, and write a cleaned file",
        description="Looks for refusals, openers such as 'in this image', duplicates, other "
        "languages and lengths that the gate cannot match and, with --judge, for units that are "
        "wrong or cannot be pointed at.",
    )
    parser.add_argument("file", help="JSONL, CSV or JSON with images and references, or a folder")
    parser.add_argument("--out", type=Path, help="output JSONL file for the good rows")
    parser.add_argument(
        "--tokenizer", help="model whose tokenizer counts tokens (default: estimate from words)"
    )
    parser.add_argument(
        "--max-completion-length", type=int, default=512, help="as in the recipe (default: 512)"
    )
    parser.add_argument(
        "--length-gate-lower", type=float, default=0.5, help="as in the recipe (default: 0.5)"
    )
    parser.add_argument(
        "--sample", type=int, default=100, help="references to judge, 0 for none (default: 100)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (default: 0)")
    parser.add_argument(
        "--max-unsound",
        type=float,
        default=0.5,
        help="leave out judged references with a larger share of unsound units (default: 0.5)",
    )
    parser.add_argument(
        "--split",
        action="store_true",
        help="have --judge split all references (those of --out, if given) into --cache, so that "
        "training with this judge and cache asks for none; continues where it was interrupted",
    )
    parser.add_argument("--image-folder", help="folder that listed image paths are relative to")
    parser.add_argument("--yes", action="store_true", help="skip the cost confirmation")
    add_judge_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """
    Check the references.

    Returns:
        `int`: 0; 1 if references could not be split; 2 if the cost was declined.

    Raises:
        `ValueError`: if there are no references to check, or no cache to split them into.
    """
    from trl_balcap.captioning.judged import unit_share
    from trl_balcap.captioning.run import list_images
    from trl_balcap.data.folders import check_out_folder, list_of
    from trl_balcap.data.images import image_problem
    from trl_balcap.data.references import LengthGate, find_problems

    console = make_console()
    if not 0 <= args.max_unsound <= 1:
        raise ValueError(f"--max-unsound must be from 0 to 1, got {args.max_unsound}.")
    if args.sample < 0:
        raise ValueError(f"--sample must be 0 or more, got {args.sample}.")
    if args.out is not None:
        check_out_folder(args.out.parent)
        if args.out.is_dir():
            raise ValueError(f"{args.out} is a folder. Pass a file, such as {args.out}/kept.jsonl.")
    if args.split and args.judge_cache is None:
        raise ValueError("--split keeps its work in the judge's cache. Pass --cache FOLDER.")
    gate = LengthGate(args.max_completion_length, args.length_gate_lower)
    count_tokens = _counter(args.tokenizer)
    rows = list_images(args.file, image_folder=args.image_folder, columns=True)
    source = Path(args.file)
    listed = list_of(source) if source.is_dir() else source
    if args.out is not None and args.out.exists() and listed and args.out.samefile(listed):
        raise ValueError(f"--out {args.out} is the file to check. Choose another.")
    references = [row.reference or "" for row in rows]
    if not any(text.strip() for text in references):
        raise ValueError(f"{args.file} has no references. Write some with `trl-balcap recaption`.")
    found = find_problems(
        references,
        [str(row.paths) for row in rows],
        count_tokens=count_tokens,
        gate=gate,
        bad_images={p for p, row in enumerate(rows) if any(map(image_problem, row.paths))},
    )
    judged: dict[int, JudgedReference] = {}
    if args.judge_model is not None and args.sample > 0:
        agreed = _judge(args, rows, console)
        if agreed is None:
            return 2
        judged = agreed

    counts = [(name, str(found.counts.get(name, 0))) for name in (*_DROPPED, "opener")]
    lengths = sorted(found.tokens)
    over = sum(tokens > gate.max_completion_length for tokens in lengths)
    counts.append((f"longer than {gate.max_completion_length} tokens", str(over)))
    console.print(make_table(f"{len(rows)} references", ("problem", "rows"), counts))
    shown = [lengths[int(share * (len(lengths) - 1))] for share in (0.0, 0.05, 0.5, 0.95, 1.0)]
    estimated = "" if args.tokenizer else " (estimated; pass --tokenizer to count them)"
    say(
        console,
        "Tokens: min {}, 5% {}, median {}, 95% {}, max {}".format(*shown) + f"{estimated}.",
    )
    spoken = sorted(found.languages.items(), key=lambda item: -item[1])
    say(
        console,
        "Languages: " + (", ".join(f"{name} {n}" for name, n in spoken) or "unknown") + ".",
    )
    if judged:
        verdicts = list(judged.values())
        wrong, vague = unit_share(verdicts, "wrong"), unit_share(verdicts, "not pointable")
        failed = sum(one.problem is not None for one in verdicts)
        say(
            console,
            f"Judged {len(verdicts) - failed} of {len(verdicts)}: units wrong {_percent(wrong)}, "
            f"not pointable {_percent(vague)}.",
        )
    worst = _worst(found.problems, judged)
    if worst:
        table = make_table(f"The worst {len(worst)}", ("id", "problem", "reference"), left=3)
        for place in worst:
            table.add_row(
                rows[place].id,
                ", ".join(_said(place, found.problems, judged)),
                " ".join(references[place].split())[:100],
            )
        console.print(table)
    if args.out is not None:
        dropped = {p for p, said in found.problems.items() if set(said) & set(_DROPPED)}
        dropped |= {p for p, one in judged.items() if one.unsound > args.max_unsound}
        references = _write(args.out, rows, dropped)
        say(console, f"{args.out}: {len(references)} rows kept, {len(dropped)} left out.")
    return _split(args, references, console) if args.split else 0


def _counter(tokenizer: str | None):
    if tokenizer is None:
        return lambda text: round(len(text.split()) * _TOKENS_PER_WORD)
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:
        why = str(error).partition("\n")[0].rstrip(".")
        raise FileNotFoundError(
            f"--tokenizer: no folder {tokenizer}, and no such model on the Hub ({why}). Pass a "
            "model's folder or its name on the Hub (owner/name), or leave it out."
        ) from error
    return lambda text: len(loaded(text, add_special_tokens=False)["input_ids"])


def _judge(
    args: argparse.Namespace, rows: "Sequence[ImageRow]", console: Console
) -> "dict[int, JudgedReference] | None":
    """Verdicts on a sample of the rows, by row index; `None` if the cost was declined."""
    from trl_balcap.captioning.judged import judge_references
    from trl_balcap.judge.cost import estimate_calls_and_cost
    from trl_balcap.judge.prices import price_of

    judge = judge_from(args)
    places = [place for place, row in enumerate(rows) if (row.reference or "").strip()]
    if len(places) > args.sample:
        places = sorted(random.Random(args.seed).sample(places, args.sample))
    cost = estimate_calls_and_cost(
        [rows[place].reference or "" for place in places],
        rollouts=len(places),
        distinct_references=0,
        rewards=("precision_reward",),
        price=judge.settings.price or price_of(judge.settings.text[0]),
        vision_price=judge.settings.price or price_of(judge.settings.vision[0]),
    )
    price = "price unknown" if cost.usd is None else f"about ${cost.usd:.2f}"
    say(console, f"{len(places)} references to judge: {cost.calls} questions, {price}.")
    if not confirm("Ask the judge?", usd=cost.usd, yes=args.yes, console=console):
        return None

    async def judging() -> "list[JudgedReference]":
        await judge.preflight()
        sample = [rows[place] for place in places]
        return await judge_references(sample, judge, on_row=lambda: progress.advance(bar))

    with make_progress(console) as progress:
        bar = progress.add_task("judging", total=len(places))
        return dict(zip(places, asyncio.run(judging()), strict=True))


def _split(args: argparse.Namespace, references: "Sequence[str]", console: Console) -> int:
    """Have the references split; the command's exit status."""
    from trl_balcap.captioning.judged import split_references
    from trl_balcap.data.completions import is_empty
    from trl_balcap.judge.cost import estimate_calls_and_cost
    from trl_balcap.judge.prices import price_of

    judge = judge_from(args)
    distinct = [text for text in dict.fromkeys(references) if not is_empty(text)]
    if not distinct:
        return 0
    cost = estimate_calls_and_cost(
        distinct,
        rollouts=0,
        distinct_references=len(distinct),
        profile=judge.settings.profile,
        price=judge.settings.price or price_of(judge.settings.text[0]),
    )
    price = "price unknown" if cost.usd is None else f"at most about ${cost.usd:.2f}"
    say(console, f"{len(distinct)} references to split, {price}; cached ones are free.")
    if not confirm("Ask the judge?", usd=cost.usd, yes=args.yes, console=console):
        return 2

    async def splitting() -> "Counter[str]":
        await judge.preflight(vision=False)
        return await split_references(distinct, judge, on_reference=lambda: progress.advance(bar))

    with make_progress(console) as progress:
        bar = progress.add_task("splitting", total=len(distinct))
        failed = asyncio.run(splitting())
    done = len(distinct) - failed.total()
    say(
        console, f"Split {done} of {len(distinct)} references, {judge.stats.cache_hits} from cache."
    )
    if failed:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in failed.most_common())
        say(console, f"Not split: {reasons}. Run the command again to retry them.")
    return 1 if failed else 0


def _said(place: int, problems: Any, judged: "dict[int, JudgedReference]") -> list[str]:
    said = list(problems.get(place, ()))
    one = judged.get(place)
    if one is not None:
        counts = {word: list(one.units.values()).count(word) for word in ("wrong", "not pointable")}
        said += [f"{n} of {len(one.units)} units {word}" for word, n in counts.items() if n]
        said += [one.problem] if one.problem else []
    return said


def _worst(problems: Any, judged: "dict[int, JudgedReference]") -> list[int]:
    """Indices of the worst rows: by problems that drop a row, then the judge's, then others."""

    def badness(place: int) -> tuple[float, float, int]:
        said = problems.get(place, ())
        unsound = judged[place].unsound if place in judged else 0.0
        return (-sum(word in _DROPPED for word in said), -unsound, -len(said))

    bad = {place for place in judged if judged[place].unsound or judged[place].problem}
    return sorted({*problems, *bad}, key=lambda place: (*badness(place), place))[:_WORST]


def _write(out: Path, rows: "Sequence[ImageRow]", dropped: set[int]) -> list[str]:
    """Write the rows that are kept; returns their references as written."""
    from trl_balcap.captioning.listing import written_columns
    from trl_balcap.data.references import without_opener
    from trl_balcap.data.rows import json_line

    out.parent.mkdir(parents=True, exist_ok=True)
    kept = [row for place, row in enumerate(rows) if place not in dropped]
    references = [without_opener(row.reference or "") for row in kept]
    with out.open("w", encoding="utf-8") as file:
        for row, reference in zip(kept, references, strict=True):
            line = {**written_columns(row, out), **row.columns, "reference": reference}
            file.write(json_line(line))
    return references


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"

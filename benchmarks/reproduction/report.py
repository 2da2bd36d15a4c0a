"""docs/reproduction.md, written from the results that exist."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.reproduction.arms import ARMS, BETTER, TIERS, WHICH_REWARD
from benchmarks.reproduction.claims import (
    CLAIMS,
    Interval,
    Part,
    Results,
    answer,
    difference,
    interval,
    judge,
    margin,
)
from benchmarks.reproduction.runs import read_runs

__all__ = ["read_results", "write_page"]

FULL_SEEDS = 5
REWARDS = ("precision", "recall", "linguistic")


def read_results(file: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Results by arm and seed: those of the settings that most of them share."""
    found = [result for result in read_runs(file) if result["arm"] in ARMS]
    if not found:
        return {}
    settings = Counter(json.dumps(result["settings"], sort_keys=True) for result in found)
    kept = settings.most_common(1)[0][0]
    results: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for result in found:
        if json.dumps(result["settings"], sort_keys=True) == kept:
            results[result["arm"]][result["seed"]] = result
    return {name: results[name] for name in ARMS if name in results}


def read_horizons(file: Path) -> dict[int, dict[str, dict[int, dict[str, Any]]]]:
    """Results of the longest runs at each step at which they were measured, by arm and seed."""
    longest = max((run["settings"]["steps"] for run in read_runs(file)), default=0)
    horizons: dict[int, Any] = defaultdict(lambda: defaultdict(dict))
    for run in read_runs(file):
        if run["arm"] in ARMS and run["settings"]["steps"] == longest and run.get("on_the_way"):
            for step, measures in run["on_the_way"].items():
                horizons[int(step)][run["arm"]][run["seed"]] = {"measures": measures}
            horizons[longest][run["arm"]][run["seed"]] = run
    return dict(sorted(horizons.items()))


def write_page(file: Path, docs: Path) -> Path:
    """
    Write `reproduction.md` and its pictures.

    Args:
        file (`Path`): The runs, one JSON object a line.
        docs (`Path`): Where the page goes; the pictures go into `reproduction/` beside it.

    Returns:
        `Path`: The page.
    """
    from benchmarks.reproduction.plots import plot_all

    results = read_results(file)
    pictures = plot_all(results, docs / "reproduction")
    page = docs / "reproduction.md"
    where = os.path.relpath(file, docs)
    page.write_text(page_text(results, pictures, where, read_horizons(file)))
    return page


def page_text(
    results: Results,
    pictures: Sequence[str],
    where: str,
    horizons: Mapping[int, Results] | None = None,
) -> str:
    """The page as Markdown."""
    notes = Path(__file__).with_name("notes.md").read_text()
    parts = [
        "# The paper in miniature",
        "Written by `benchmarks/reproduce.py`; edit its `reproduction/notes.md` or the script, not "
        "this page.",
        _what_ran(results, where),
        "## Claims\n\n" + _claims_table(results),
        "The rule: a difference between two arms is taken seed by seed, with a 95% t interval over "
        "seeds. *Yes*: the interval lies above 0. *No*: it lies below the margin (0.01; 0.05 of a "
        "length ratio, 3 points of the arena), so an effect worth the name is excluded. "
        "*Undecided*: neither, or fewer than 3 seeds. A claim is *yes* where all its parts are, "
        "*no* where one of them is. *Undecided* is no tie: nothing here shows that two arms are as "
        "good as each other. Claims marked *ours* are not in the paper.",
        _picture(pictures, "claims.png", "Intervals of all parts of all claims"),
        "## The differences behind the answers\n\n" + _differences_table(results),
        _horizons_table(horizons or {}),
        _better_table(horizons or {}),
        "## Which reward buys what\n\n" + _which_reward(results),
        notes.strip(),
        "## Arms\n\n" + _arms_tables(results),
        _picture(pictures, "views.png", "Precision, recall, linguistic and b-CapScore per arm"),
        "## Training\n\n"
        + _picture(pictures, "reward-curves.png", "Reward curves per arm")
        + "\n\nLines are means over seeds (their number in brackets), bands the range, smoothed "
        "over 7 steps. Each panel shows the reward as the arm's judge gave it: gated, and by the "
        "arm's own rule for precision.",
        _picture(pictures, "length.png", "Length of captions over steps"),
        "## What the advantages are made of\n\n" + _advantages_table(results),
        "### Figure 2: what a rollout gets for its two rewards\n\n"
        + _picture(pictures, "advantage-maps.png", "Advantage maps of GRPO and c-GDPO")
        + "\n\nDrawn from our own `advantages.py`: one rollout moves over the plane, the other "
        "seven of its group (dots) stay. GRPO sees the sum only: parallel bands along r1 + r2, "
        "in which the narrow reward hardly counts. c-GDPO measures each reward in its own "
        "spread, so a good first reward is worth something at any second one.",
        "## Captions\n\n" + _captions(results),
        "## How to run it\n\n"
        "```\npython -m benchmarks.reproduce          # base, full, vanilla; 2 seeds\n"
        "python -m benchmarks.reproduce --full   # everything; start it again to go on\n"
        "python -m benchmarks.reproduce --report # this page from the results there are\n```\n\n"
        "A finished arm and seed is never trained again. Killed at any time, a run loses the arms "
        "under way. On a machine with more cores, raise `--processes`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what_ran(results: Results, where: str) -> str:
    if not results:
        return f"No results in `{where}` yet."
    runs = [result for seeds in results.values() for result in seeds.values()]
    trained = [run for run in runs if run["steps"]]
    one = runs[0]
    settings = one["settings"]
    expected = {name: FULL_SEEDS for tier in TIERS for name in tier}
    short = {
        name: len(results.get(name, {}))
        for name, seeds in expected.items()
        if len(results.get(name, {})) < seeds
    }
    lines = [
        f"{len(results)} arms, {len(runs)} runs, each from the same base (`{settings['base']}`): "
        f"{settings['steps']} steps of {settings['prompts_per_step']} scenes x "
        f"{settings['num_generations']} captions, learning rate {settings['learning_rate']:g}, at "
        f"most {settings['max_completion_length']} tokens; measured on {settings['test_scenes']} "
        "scenes that no arm trains on.",
    ]
    if trained:
        seconds = sorted(run["seconds"]["all"] for run in trained)
        lines.append(
            f"One run took {seconds[len(seconds) // 2] / 60:.1f} minutes in the median "
            f"({seconds[0] / 60:.1f} to {seconds[-1] / 60:.1f}; other work shared the machine)."
        )
    lines.append(
        f"Hardware: {', '.join(sorted({run['hardware'] for run in runs}))}. Commits: "
        f"{', '.join(sorted({run['commit'] for run in runs}))}. Results: `{where}`, one line a run."
    )
    if short:
        listed = ", ".join(f"{name} {n}" for name, n in short.items())
        lines.append(
            f"**Not complete.** A full run has {FULL_SEEDS} seeds of every arm; fewer so far: "
            f"{listed}. `--full` goes on from here."
        )
    return "\n\n".join(lines)


def _claims_table(results: Results) -> str:
    rows = []
    for claim in CLAIMS:
        seeds = [difference(part, results, "sampled").n for part in claim.parts]
        rows.append(
            (
                claim.number,
                claim.text + (" *(ours)*" if claim.ours else ""),
                *(f"**{judge(claim, results, decoding)}**" for decoding in ("sampled", "greedy")),
                "; ".join(_told(part, results) for part in claim.parts),
                str(min(seeds)),
            )
        )
    return table(("", "claim", "sampled", "greedy", "the figures, sampled", "seeds"), rows)


def _told(part: Part, results: Results) -> str:
    found = difference(part, results, "sampled")
    return f"{part.why or part.measure} {_interval(found)}"


def _differences_table(results: Results) -> str:
    rows = []
    for claim in CLAIMS:
        for part, counted in [(p, True) for p in claim.parts] + [(p, False) for p in claim.beside]:
            found = {kind: difference(part, results, kind) for kind in ("sampled", "greedy")}
            if not found["sampled"].n:
                continue
            rows.append(
                (
                    claim.number + ("" if counted else " (beside)"),
                    f"{part.measure}: {part.more} - {part.less}",
                    *(
                        f"{_interval(each)} {answer(each, margin(part.measure))}"
                        for each in found.values()
                    ),
                    str(found["sampled"].n),
                )
            )
    return table(("claim", "difference", "sampled", "greedy", "seeds"), rows)


def _horizons_table(horizons: Mapping[int, Results]) -> str:
    """Every part of every claim that the longer runs have both arms of, by step."""
    rows = []
    for claim in CLAIMS:
        for part in claim.parts:
            found = [difference(part, results, "sampled") for results in horizons.values()]
            if found and all(one.n for one in found):
                cells = [f"{_interval(one)} {answer(one, margin(part.measure))}" for one in found]
                told = f"{part.measure}: {part.more} - {part.less}"
                rows.append((claim.number, told, *cells, str(found[-1].n)))
    if not rows:
        return ""
    return "## The same differences later\n\nOne set of longer runs, sampled.\n\n" + table(
        ("claim", "difference", *(f"step {step}" for step in horizons), "seeds"), rows
    )


def _better_table(horizons: Mapping[int, Results]) -> str:
    """What was tried to beat the full method: differences in b-CapScore, by step."""
    rows = []
    for name in BETTER:
        for decoding in ("sampled", "greedy"):
            part = Part("b_capscore", name, "full")
            found = [difference(part, results, decoding) for results in horizons.values()]
            if found and all(one.n for one in found):
                title = f"{name}: {ARMS[name].title}"
                rows.append((title, decoding, *map(_interval, found), str(found[-1].n)))
    if not rows:
        return ""
    return "## Better than the paper?\n\nb-CapScore minus the full method's.\n\n" + table(
        ("arm", "", *(f"step {step}" for step in horizons), "seeds"), rows
    )


def _arms_tables(results: Results) -> str:
    keys = (
        *("precision", "recall", "linguistic", "b_capscore", "qa", "arena"),
        *("length", "length_ratio", "meta", "repetition"),
    )
    texts = []
    for decoding in ("sampled", "greedy"):
        rows = []
        for name, seeds in results.items():
            values = [result["measures"][decoding] for result in seeds.values()]
            cells = [_spread(interval([v[key] for v in values]), key) for key in keys]
            rows.append((f"{name}: {ARMS[name].title}", *cells, str(len(values))))
        texts.append(f"### {decoding.capitalize()}\n\n" + table(("arm", *keys, "seeds"), rows))
    told = (
        "Mean over seeds +- half the 95% t interval. `qa` is in CaptionQA's manner, `arena` in "
        "CapArena's (-100 to 100): `benchmarks/reproduction/measure.py` has the rules. `length` "
        "is in tokens, `meta` the share of sentences that are commentary, `repetition` the share "
        "about what was said before. The base's greedy captions do not depend on the seed."
    )
    return "\n\n".join([told, *texts])


def _which_reward(results: Results) -> str:
    keys = {
        **{"b_capscore": "b-CapScore", "qa": "QA", "arena": "arena", "length": "length"},
        **{"precision": "precision", "recall": "recall", "linguistic": "linguistic"},
        **{"meta": "commentary", "repetition": "repetition"},
    }
    rows = []
    for name in WHICH_REWARD:
        values = [run["measures"]["sampled"] for run in results.get(name, {}).values()]
        if values:
            cells = [_spread(interval([v[key] for v in values]), key) for key in keys]
            rows.append((f"{name}: {ARMS[name].title}", *cells, str(len(values))))
    told = (
        "Each trained captioner, measured by what it was not trained on, sampled; mean over seeds "
        "+- half the 95% t interval. Each reward of the field stands alone, without a gate, as its "
        "paper has it; the exact judge answers its questions. The questions of `qa` are about "
        "scenes that no arm trains on, and ask for sizes and empty places besides the colours, "
        "shapes and numbers that the utility reward asks for."
    )
    return told + "\n\n" + table(("arm", *keys.values(), "seeds"), rows)


def _advantages_table(results: Results) -> str:
    chosen = ("full", "vanilla", "vanilla_skewed", "full_skewed", "no_gate", "noise_large")
    rows = []
    for name in chosen:
        steps = [step for result in results.get(name, {}).values() for step in result["steps"]]
        early = [step for result in results.get(name, {}).values() for step in result["steps"][:10]]
        if not steps:
            continue
        for kind, told, over in (
            ("group_std", "spread in a group, first 10 steps", early),
            ("dead", "share of dead groups", steps),
            ("correlation", "correlation with the advantage", steps),
        ):
            cells = [
                f"{fmean(step[f'{reward}/{kind}'] for step in over):.3f}" for reward in REWARDS
            ]
            rows.append((name, told, *cells))
    told = (
        "The correlation is that of a reward's normalised score with the advantage that was "
        "trained on, over all rollouts of a step. A dead group has no spread in that reward."
    )
    return told + "\n\n" + table(("arm", "", *REWARDS), rows)


def _captions(results: Results) -> str:
    shown = (
        "base",
        "full",
        "vanilla",
        "no_precision",
        "no_recall",
        "no_linguistic",
        "no_pointability",
    )
    lines = []
    reference = ""
    for name in shown:
        for result in list(results.get(name, {}).values())[:1]:
            sample = result["captions"]["sampled"][0]
            reference = sample["reference"]
            lines.append(f"- **{name}**: {sample['caption']}")
    head = f"The first test scene, sampled, seed 0. Reference: {reference}"
    return head + "\n\n" + "\n".join(lines) if lines else ""


def _picture(pictures: Iterable[str], name: str, text: str) -> str:
    return f"![{text}](reproduction/{name})" if name in pictures else ""


def _interval(found: Interval) -> str:
    if not found.n:
        return "not run"
    ends = f" [{found.low:+.3f}, {found.high:+.3f}]" if found.n > 1 else ""
    return f"{found.mean:+.3f}{ends}"


def _spread(found: Interval, key: str) -> str:
    digits = 1 if key in ("arena", "length") else 3
    half = f" ±{(found.high - found.low) / 2:.{digits}f}" if found.n > 1 else ""
    return f"{found.mean:.{digits}f}{half}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    A Markdown table.

    ```python
    >>> print(table(("a", "b"), [("1", "2")]))
    | a | b |
    |---|---|
    | 1 | 2 |

    ```
    """
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    lines.insert(1, "|" + "---|" * len(head))
    return "\n".join(lines)

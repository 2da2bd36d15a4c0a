"""The tables of docs/reproduction.md."""

import math
from collections.abc import Mapping, Sequence
from statistics import StatisticsError, correlation, fmean

from benchmarks.reproduction.arms import ARMS, BETTER, WEIGHTS, WHICH_REWARD
from benchmarks.reproduction.claims import (
    CLAIMS,
    Claim,
    Part,
    all_runs,
    bootstrap,
    by_steps,
    difference,
    said,
    weigh,
)
from benchmarks.reproduction.experiments import Experiment
from benchmarks.reproduction.horizons import Results, last_of, latest
from benchmarks.reproduction.inference import (
    LEAST_SEEDS,
    Evidence,
    Interval,
    corrected,
    interval,
)
from benchmarks.reproduction.paper import STATEMENTS, answered
from benchmarks.reproduction.plateau import NEAR, speed

__all__ = [
    "arms_table",
    "better_table",
    "claims_table",
    "greedy_differs",
    "not_run",
    "pairing",
    "progress",
    "reward_table",
    "statements_table",
    "table",
    "weights_table",
    "winners",
]

WORTH = 0.03
"""By how much b-CapScore must rise for a variant to become a setting of the trainer."""


FEWER = 1.5
"""How many times fewer steps to the full method's plateau are worth one, too."""

ENOUGH = 8
"""Pairs that a correlation needs."""


def claims_table(experiment: Experiment) -> str:
    """Every counted part of every claim, by horizon and by area, with all tests at the last."""
    rows, p_values = [], []
    for claim in CLAIMS:
        for place, part in enumerate(claim.parts):
            looks = [difference(part, found, "sampled") for found in experiment.horizons.values()]
            step = last_of(experiment.horizons, (part.more, part.less), LEAST_SEEDS)
            if step is None:
                continue
            found, results = _weighed(part, experiment), experiment.horizons[step]
            crossed = bootstrap(part, results)
            # A claimed tie is tested by equivalence.
            p_values.append(found[step].p_equivalent if part.tie else found[step].p_t)
            rows.append(
                (
                    f"{claim.number} {_told(claim)}" if not place else "",
                    part.why or f"{part.measure}: {part.more} - {part.less}",
                    *(with_n(look) for look in looks),
                    with_n(difference(part, experiment.areas, "sampled")),
                    with_ends(all_runs(part, results, "sampled")),
                    "" if crossed is None else f"[{crossed[0]:+.3f}, {crossed[1]:+.3f}]",
                    _p(p_values[-1]),
                    _p(found[step].p_flip),
                    {at: said(part, one) for at, one in found.items()},
                )
            )
    rows = [
        (*cells, _p(holm), _p(bh), _answer(words, holm))
        for (*cells, words), (holm, bh) in zip(rows, corrected(p_values), strict=True)
    ]
    steps = (f"step {step}" for step in experiment.horizons)
    tests = ("all runs", "scenes too", "t", "signs", "Holm", "BH")
    return table(("claim", "difference", *steps, "area", *tests, "answer"), rows) if rows else ""


def _weighed(part: Part, experiment: Experiment) -> dict[int, Evidence]:
    """The tests of a part at each step that enough pairs have reached."""
    found = {step: weigh(part, results, "sampled") for step, results in experiment.horizons.items()}
    return {step: one for step, one in found.items() if one.interval.n >= LEAST_SEEDS}


def _answer(words: Mapping[int, str], holm: float) -> str:
    """
    ```python
    >>> _answer({40: "undecided within 0.05", 120: "yes"}, 0.001), _answer({40: "no"}, 0.2)
    ('**undecided** (40), **yes** (120)', '**no** (40), not after Holm')

    ```
    """
    decided = words[max(words)] in ("yes", "no")
    return by_steps(words) + (", not after Holm" if decided and holm >= 0.05 else "")


def _told(claim: Claim) -> str:
    return claim.text + (" *(ours)*" if claim.ours else "")


def not_run(experiment: Experiment) -> str:
    """The claims that lack runs, as a sentence."""
    lacking = [
        claim.number
        for claim in CLAIMS
        if any(
            last_of(experiment.horizons, (part.more, part.less), LEAST_SEEDS) is None
            for part in claim.parts
        )
    ]
    return (
        f"Not run, or in part, or with fewer than three pairs: {', '.join(lacking)}."
        if lacking
        else ""
    )


def greedy_differs(experiment: Experiment) -> str:
    """The claims that greedy captions answer otherwise, as a sentence."""
    other = []
    for claim in CLAIMS:
        for part in claim.parts:
            step = last_of(experiment.horizons, (part.more, part.less), LEAST_SEEDS)
            if step is None:
                continue
            sampled, greedy = (
                said(part, weigh(part, experiment.horizons[step], kind)).split(" within")[0]
                for kind in ("sampled", "greedy")
            )
            if sampled != greedy:
                why = f" {part.why}" if part.why else ""
                found = with_ends(difference(part, experiment.horizons[step], "greedy"))
                other.append(f"{claim.number}{why} ({greedy}, {found}; sampled {sampled})")
    return f"Greedy captions answer otherwise in: {', '.join(other)}." if other else ""


def pairing(experiment: Experiment) -> str:
    """How alike partners are beyond their arms, as a sentence: the mean correlation of pairs."""
    found = []
    for claim in CLAIMS:
        for part in claim.parts:
            for results in experiment.horizons.values():
                one, other = results.get(part.more, {}), results.get(part.less, {})
                pairs = sorted(one.keys() & other.keys())
                if "base" in (part.more, part.less) or len(pairs) < ENOUGH:
                    continue
                values = (
                    [side[pair]["measures"]["sampled"][part.measure] for pair in pairs]
                    for side in (one, other)
                )
                try:
                    found.append(correlation(*values))
                except StatisticsError:  # an arm whose runs are all alike
                    continue
    if not found:
        return ""
    return (
        f"Partners correlate by {fmean(found):.2f}, on average over {len(found)} differences with "
        f"{ENOUGH} pairs or more."
    )


def statements_table(experiments: Sequence[Experiment]) -> str:
    """Every statement of the paper with its answer in each experiment."""
    rows = []
    for statement in STATEMENTS:
        found = [answered(statement, experiment.horizons) for experiment in experiments]
        whys = [why for _, why in found]
        told = (
            [f"{one.short}: {why}" for one, why in zip(experiments, whys, strict=True) if why]
            if len(set(whys)) > 1
            else whys[:1]
        )
        cells = [answer for answer, _ in found]
        rows.append((statement.where, statement.text, *cells, "; ".join(told)))
    head = ("in the paper", "statement", *(one.short for one in experiments), "because")
    return table(head, rows)


def better_table(experiment: Experiment) -> str:
    """Attempts to beat the full method: differences in b-CapScore, by horizon and by area."""
    rows = []
    for name in BETTER:
        for decoding in ("sampled", "greedy"):
            part = Part("b_capscore", name, "full")
            step = last_of(experiment.horizons, (name, "full"), LEAST_SEEDS)
            if step is None:
                continue
            looks = [difference(part, found, decoding) for found in experiment.horizons.values()]
            area = difference(part, experiment.areas, decoding)
            word = said(part, weigh(part, experiment.horizons[step], decoding))
            first = decoding == "sampled"
            title = f"`{name}`: {ARMS[name].title}" if first else ""
            sooner = _sooner(experiment, name) if first else ""
            rows.append((title, decoding, *map(with_n, looks), with_n(area), word, sooner))
    steps = (f"step {step}" for step in experiment.horizons)
    head = ("arm", "", *steps, "area", "ahead?", "steps to the plateau")
    return table(head, rows) if rows else ""


def _sooner(experiment: Experiment, name: str) -> str:
    """Steps to the full method's plateau, for an arm whose training rewards are the full
    method's."""
    found = None if ARMS[name].noise else speed(experiment.runs, name)
    if found is None:
        return ""
    steps, full_steps, ratio, low, high, n = found
    times = f": {ratio:.2f} x fewer [{low:.2f}, {high:.2f}] {n}" if ratio else f" {n}"
    return f"{steps or 'never'} against {full_steps or 'never'}{times}"


def progress(experiment: Experiment) -> str:
    """What the full method has reached by each step, and what it gains from one to the next."""
    known = {
        step: found["full"] for step, found in experiment.horizons.items() if found.get("full")
    }
    told, before = [], None
    for step, runs in known.items():
        scores = {pair: run["measures"]["sampled"]["b_capscore"] for pair, run in runs.items()}
        said = f"{spread(interval([*scores.values()]), 'b_capscore')} at step {step}"
        if before is not None:
            gains = [scores[pair] - before[pair] for pair in scores if pair in before]
            said += f" (gaining {with_n(interval(gains))} of the same runs)" if gains else ""
        told.append(said)
        before = scores
    return f"The full method's b-CapScore is {', '.join(told)}." if told else ""


def winners(experiment: Experiment) -> list[str]:
    """The arms that beat the full method: at their last step by `WORTH`, with an interval above 0,
    or by `FEWER` times fewer steps to its plateau, with an interval above 1, if its last
    interval goes no further than `NEAR` below."""
    found = []
    for name in BETTER:
        step = last_of(experiment.horizons, (name, "full"), LEAST_SEEDS)
        if step is not None:
            part = Part("b_capscore", name, "full")
            ahead = difference(part, experiment.horizons[step], "sampled")
            sooner = None if ARMS[name].noise else speed(experiment.runs, name)
            faster = sooner is not None and sooner.ratio >= FEWER and sooner.low > 1
            if (ahead.mean >= WORTH and ahead.low > 0) or (faster and ahead.low > -NEAR):
                found.append(name)
    return found


def weights_table(experiment: Experiment) -> str:
    """The sweep of weights, by c-GDPO and by vanilla GRPO, against the full method, at the last
    step that all of them have reached."""
    sweep = {
        "all weighted 1": ("full", "vanilla"),
        **{title: (name, f"vanilla_{name}") for name, (title, _) in WEIGHTS.items()},
    }
    names = [name for both in sweep.values() for name in both]
    step = last_of(experiment.horizons, names, LEAST_SEEDS)
    if step is None:
        return ""
    rows = [
        (
            title,
            *(
                "reference"
                if arm == "full"
                else with_n(
                    difference(
                        Part("b_capscore", arm, "full"), experiment.horizons[step], "sampled"
                    )
                )
                for arm in both
            ),
        )
        for title, both in sweep.items()
    ]
    told = f"b-CapScore minus the full method's, sampled, at step {step}."
    return f"{told}\n\n{table(('weights', 'c-GDPO', 'vanilla GRPO'), rows)}"


def reward_table(experiment: Experiment) -> str:
    """What each reward of the field improves, and what it costs."""
    keys = {
        **{"b_capscore": "b-CapScore", "qa": "QA", "arena": "arena", "length": "length"},
        **{"precision": "precision", "recall": "recall", "linguistic": "linguistic"},
        **{"meta": "commentary", "repetition": "repetition"},
    }
    step = last_of(experiment.horizons, ("full", "utility"), LEAST_SEEDS)
    return _means(experiment.horizons[step], WHICH_REWARD, keys) if step else ""


def arms_table(experiment: Experiment) -> str:
    """Every arm at the last step that enough of its runs have reached."""
    keys = (
        "b_capscore",
        "precision",
        "recall",
        "linguistic",
        "qa",
        "arena",
        "length_ratio",
        "meta",
    )
    results = latest(experiment.horizons)
    at = {
        name: max(step for step, found in experiment.horizons.items() if runs is found.get(name))
        for name, runs in results.items()
    }
    return _means(results, tuple(results), {key: key for key in keys}, at)


def _means(
    results: Results,
    names: Sequence[str],
    keys: Mapping[str, str],
    at: Mapping[str, int] | None = None,
) -> str:
    rows = []
    for name in names:
        # The base stands in for every length of run: each of its own runs counts once.
        runs = {id(run): run for run in results.get(name, {}).values()}
        values = [run["measures"]["sampled"] for run in runs.values()]
        if values:
            cells = [spread(interval([v[key] for v in values]), key) for key in keys]
            step = (str(at[name]),) if at else ()
            rows.append((f"`{name}`: {ARMS[name].title}", *cells, *step, str(len(values))))
    return table(("arm", *keys.values(), *(("step",) if at else ()), "runs"), rows)


def with_n(found: Interval) -> str:
    """
    ```python
    >>> with_n(Interval(0.1, 0.05, 0.15, 5))
    '+0.100 [+0.050, +0.150] 5'

    ```
    """
    return f"{with_ends(found)} {found.n}" if found.n else ""


def with_ends(found: Interval) -> str:
    """
    ```python
    >>> with_ends(Interval(0.1, 0.05, 0.15, 5))
    '+0.100 [+0.050, +0.150]'

    ```
    """
    if not found.n:
        return ""
    ends = f" [{found.low:+.3f}, {found.high:+.3f}]" if found.n > 1 else ""
    return f"{found.mean:+.3f}{ends}"


def spread(found: Interval, key: str) -> str:
    """Mean and half the interval, with one digit for the arena and lengths."""
    digits = 1 if key in ("arena", "length") else 3
    half = f" ±{(found.high - found.low) / 2:.{digits}f}" if found.n > 1 else ""
    return f"{found.mean:.{digits}f}{half}"


def _p(value: float) -> str:
    return "" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


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

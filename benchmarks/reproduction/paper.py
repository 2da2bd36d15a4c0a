"""What the paper states, one by one in our words, and what the runs say to it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.reproduction.claims import Part, by_steps, said, weigh
from benchmarks.reproduction.horizons import Results
from benchmarks.reproduction.inference import LEAST_SEEDS, Interval, agreement
from trl_balcap.advantages import cgdpo_advantages, grpo_advantages

__all__ = ["ALIKE", "STATEMENTS", "Statement", "answered", "arena_agreement"]


@dataclass(frozen=True)
class Statement:
    """
    One statement of the paper.

    Args:
        where (`str`): The part of the paper.
        text (`str`): The statement.
        parts (`tuple[Part, ...]`, *optional*): Differences that must all show for it to hold.
        check (`Callable`, *optional*):
            Answers it in another way, from the results at the step that most arms have reached.
        untested (`str`, *optional*): Why it cannot be tested here.
    """

    where: str
    text: str
    parts: tuple[Part, ...] = ()
    check: Callable[[Results], tuple[str, str]] | None = None
    untested: str = ""


def answered(statement: Statement, horizons: dict[int, Results]) -> tuple[str, str]:
    """
    The answers in one world by step, and what the last one rests on.

    `"shows"`: all its differences lie on the stated side. `"contradicted"`: one of them lies on the
    other. `"does not show"`: neither. A step counts if at least three pairs of runs have reached it
    in each difference.
    """
    if statement.untested:
        return "**cannot be tested here**", statement.untested
    if statement.check:
        word, why = statement.check(_most_arms(horizons))
        return word if word == "not run" else f"**{word}**", why
    words, reasons = {}, ""
    for step, results in sorted(horizons.items()):
        found = [weigh(part, results, "sampled") for part in statement.parts]
        if any(one.interval.n < LEAST_SEEDS for one in found):
            continue
        answers = [said(part, one) for part, one in zip(statement.parts, found, strict=True)]
        words[step] = (
            "contradicted"
            if "no" in answers
            else "shows"
            if all(answer == "yes" for answer in answers)
            else "does not show"
        )
        reasons = "; ".join(
            _measured(part, one.interval, step)
            for part, one in zip(statement.parts, found, strict=True)
        )
    return by_steps(words) or "not run", reasons


def _measured(part: Part, found: Interval, step: int) -> str:
    digits = 1 if part.measure in ("arena", "length") else 3
    mean, low, high, n = (round(value, digits) for value in found)
    return (
        f"{part.measure}, {part.more} - {part.less}: {mean:+} [{low:+}, {high:+}] ({n} at {step})"
    )


def _most_arms(horizons: dict[int, Results]) -> Results:
    """The arms that three runs have brought to one step: the step with most of them."""
    found = [
        {name: runs for name, runs in results.items() if len(runs) >= LEAST_SEEDS}
        for _, results in sorted(horizons.items())
    ]
    return max(found, key=len, default={})


def _all(measures: str, more: str, less: str) -> tuple[Part, ...]:
    return tuple(Part(measure, more, less) for measure in measures.split())


def _collapse(results: Results) -> tuple[str, str]:
    """Two rollouts whose rewards differ and add up to the same, in a group of four."""
    rewards = torch.tensor([[0.5, 0.3], [0.3, 0.5], [0.4, 0.9], [0.5, 0.1]])
    grpo, cgdpo = (
        (advantages[0] - advantages[1]).abs().item()
        for advantages in (
            grpo_advantages(rewards, num_generations=4),
            cgdpo_advantages(rewards, num_generations=4),
        )
    )
    held = grpo < 1e-6 < cgdpo
    told = f"rewards (0.5, 0.3) and (0.3, 0.5): advantages differ by {grpo:.2f} and {cgdpo:.2f}"
    return "shows" if held else "contradicted", told


def _saturates(results: Results) -> tuple[str, str]:
    """Whether a narrow reward counts beside a wide one: the share of an advantage that it moves."""
    others = torch.tensor([[0.45, 0.2], [0.5, 0.8], [0.55, 0.5], [0.5, 0.3], [0.47, 0.7]])
    moved = []
    for normalise in (grpo_advantages, cgdpo_advantages):
        low, high = (
            normalise(torch.cat([torch.tensor([[narrow, 0.5]]), others]), num_generations=6)[0]
            for narrow in (0.45, 0.55)
        )
        moved.append((high - low).item())
    told = f"a narrow reward from worst to best moves the advantage by {moved[0]:.2f} (GRPO) and "
    return (
        "shows" if moved[1] > 2 * moved[0] else "contradicted"
    ), f"{told}{moved[1]:.2f} (c-GDPO)"


def arena_agreement(results: Results, measure: str = "b_capscore"):
    """How alike a measure and the arena rank the arms, sampled; `None` with fewer than five."""
    means = [
        tuple(
            sum(run["measures"]["sampled"][key] for run in runs.values()) / len(runs)
            for key in (measure, "arena")
        )
        for runs in results.values()
    ]
    return agreement(*zip(*means, strict=True)) if len(means) >= 5 else None


ALIKE = 0.8
"""What the interval of a rank correlation must exceed for two scores to rank alike."""


def _agrees(results: Results) -> tuple[str, str]:
    keys = ("b_capscore", "precision", "recall", "linguistic", "qa")
    found = {key: arena_agreement(results, key) for key in keys}
    ours = found["b_capscore"]
    if ours is None:
        return "not run", ""
    told = ", ".join(
        f"{key} {one.spearman.mean:.3f} [{one.spearman.low:.3f}, {one.spearman.high:.3f}]"
        for key, one in found.items()
        if one
    )
    shown = "shows" if ours.spearman.low > ALIKE else "does not show"
    return shown, (
        f"Spearman with the arena over {ours.spearman.n} arms: {told}; Pearson of b_capscore "
        f"{ours.pearson.mean:.3f} [{ours.pearson.low:.3f}, {ours.pearson.high:.3f}]; arms are "
        "taken for independent, and some are alike"
    )


_MAIN = "caption benchmarks"
_LEFT_OUT = "ablations"
_LENGTH = "length"

STATEMENTS: tuple[Statement, ...] = (
    Statement(
        _MAIN,
        "The full method raises what each view of quality measures above the base.",
        _all("precision recall qa arena b_capscore", "full", "base"),
    ),
    Statement(
        _MAIN,
        "It is more correct and complete than a reward for correct assertions alone (FEEDQUILL).",
        _all("precision recall", "full", "feedquill"),
    ),
    Statement(
        _MAIN,
        "A utility reward (CapRL) answers more questions.",
        _all("qa", "utility", "full"),
    ),
    Statement(
        _MAIN,
        "Its captions lose in the arena, and are (much) longer.",
        (*_all("arena", "full", "utility"), *_all("length_ratio", "utility", "full")),
    ),
    Statement(
        _MAIN,
        "A rubric reward (RubiCap) is below on all three views.",
        _all("recall qa arena", "full", "rubric"),
    ),
    Statement(
        _MAIN,
        "The gains hold for two families of models of 3B and 7B parameters.",
        untested="one tiny architecture",
    ),
    Statement(
        "general vision",
        "Other vision tasks keep their scores, while SFT and single rewards lose some.",
        untested="the captioner knows no other task",
    ),
    Statement(
        _LEFT_OUT,
        "Vanilla GRPO is (far) worse on every view.",
        _all("precision recall qa arena", "full", "vanilla"),
    ),
    Statement(
        _LEFT_OUT,
        "Without precision, correctness drops.",
        _all("precision", "full", "no_precision"),
    ),
    Statement(
        _LEFT_OUT,
        "Without precision, the arena's score stays.",
        (Part("arena", "no_precision", "full", tie=True),),
    ),
    Statement(
        _LEFT_OUT,
        "Without recall, everything stays above the base.",
        _all("precision recall qa arena", "no_recall", "base"),
    ),
    Statement(
        _LEFT_OUT,
        "Without recall, the balance is below the full method's.",
        _all("b_capscore", "full", "no_recall"),
    ),
    Statement(
        _LEFT_OUT,
        "Without the linguistic reward, recall and answers rise above the full method's.",
        _all("recall qa", "no_linguistic", "full"),
    ),
    Statement(
        _LEFT_OUT,
        "Without it, the arena's score falls and captions grow (there, to three times the length).",
        (*_all("arena", "full", "no_linguistic"), *_all("length_ratio", "no_linguistic", "full")),
    ),
    Statement(
        _LEFT_OUT,
        "Without pointability, commentary comes in.",
        _all("meta", "no_pointability", "base"),
    ),
    Statement(
        _LEFT_OUT,
        "Without pointability, answers and the arena's score fall.",
        _all("qa arena", "full", "no_pointability"),
    ),
    Statement(
        _LEFT_OUT,
        "Poorer references make it worse.",
        _all("b_capscore", "full", "poor_references"),
    ),
    Statement(
        _LEFT_OUT,
        "Poorer references are worse than no recall reward.",
        _all("b_capscore", "no_recall", "poor_references"),
    ),
    Statement(
        _LENGTH,
        "Without a gate, captions can get shorter than the base's, and cover less.",
        (*_all("length", "base", "no_gate"), *_all("recall", "full", "no_gate")),
    ),
    Statement(
        _LENGTH,
        "A linear penalty covers more than no gate.",
        _all("recall", "linear_gate", "no_gate"),
    ),
    Statement(
        _LENGTH,
        "A linear penalty is less balanced than the mask.",
        _all("b_capscore", "full", "linear_gate"),
    ),
    Statement(
        _LENGTH,
        "A wider gate answers and covers more.",
        _all("qa recall", "tau_4", "tau_1.25"),
    ),
    Statement(
        _LENGTH,
        "A wider gate can lose in the arena.",
        _all("arena", "full", "tau_4"),
    ),
    Statement(
        "Proposition 1",
        "Summed before they are normalised, rewards of equal sum look the same; normalised first, "
        "they do not.",
        check=_collapse,
    ),
    Statement(
        "Figure 2",
        "GRPO's advantage is flat along the sum, where c-GDPO's tells rewards apart.",
        check=_saturates,
    ),
    Statement(
        "A.5: b-CapScore",
        "b-CapScore ranks captioners as the arena does.",
        check=_agrees,
    ),
    Statement(
        "A.5: b-CapScore",
        "It does so better than DCScore, against people's choices.",
        untested="no people, and the arena is a rule",
    ),
    Statement(
        "judges (appendix)",
        "The better the judge in training, the better the captioner.",
        (
            *_all("b_capscore", "noise_small", "noise_large"),
            *_all("b_capscore", "noise_medium", "noise_large"),
        ),
    ),
    Statement(
        "A.6, A.7",
        "What else these appendices state.",
        untested="we know of them only what stands in the row on judges",
    ),
)

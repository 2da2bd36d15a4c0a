"""The arms: one trained captioner each, all from the same base, all by [`BalCapTrainer`].

An arm states only how it differs from the full method. `TIERS` is the order of a `--full` run: the
arms that most claims depend on come first, over all seeds, then the rest.
"""

from dataclasses import asdict, dataclass
from typing import Any

from trl_balcap.scenes.noise import Noise

__all__ = [
    "ARMS",
    "BAND",
    "BETTER",
    "LEVELS",
    "NOISE",
    "QUICK",
    "RICH",
    "TIERS",
    "WEIGHTS",
    "WHICH_REWARD",
    "Arm",
]

LEVELS = {"small": (0.5, 0.02), "medium": (1.5, 0.06), "large": (3.0, 0.15)}
"""Standard deviation of a grade, and probability that a verdict is flipped."""

NOISE = {
    name: noise
    for level, (grades, flip) in LEVELS.items()
    for name, noise in {
        level: Noise(grades, flip, every_call=True),
        f"correct_{level}": Noise(flip=flip, turned=("correct",), every_call=True),
        f"pointable_{level}": Noise(flip=flip, turned=("pointable",), every_call=True),
        f"covered_{level}": Noise(flip=flip, turned=("covered",), every_call=True),
        f"grades_{level}": Noise(grades, every_call=True),
    }.items()
}
"""Noisy judges: with all kinds of errors at three levels, and with each kind alone."""

BIASED = {
    "likes_long": ("adds 3 points of 10 to each grade per 100 words", Noise(long_bonus=3.0)),
    "lenient": ("lets 7 of 10 wrong claims pass if they are hedged", Noise(lenience=0.7)),
    "misses_small": (
        "misjudges 3 of 10 claims about small things",
        Noise(small_flip=0.3, turned=("correct",)),
    ),
    "fails_when_long": (
        "gives no reply to a text of 100 words in 3 of 10 cases",
        Noise(failures=0.3),
    ),
}
"""Judges with the weaknesses of real ones. They err in the same way on every call."""

NOISE |= {name: noise for name, (_, noise) in BIASED.items()}

BAND = (20, 80)
"""Caption lengths, in tokens, that pass the length gate when there are no references."""

SKEW = (0.2, 1.0, 2.0)  # precision, recall, linguistic: the unequal spreads of claim 2
REVERSED = (2.0, 1.0, 0.2)

WEIGHTS = {
    "precision_x2": ("precision weighted 2", (2.0, 1.0, 1.0)),
    "recall_x2": ("recall weighted 2", (1.0, 2.0, 1.0)),
    "linguistic_x2": ("linguistic weighted 2", (1.0, 1.0, 2.0)),
    "precision_half": ("precision weighted 1/2", (0.5, 1.0, 1.0)),
    "recall_half": ("recall weighted 1/2", (1.0, 0.5, 1.0)),
    "linguistic_half": ("linguistic weighted 1/2", (1.0, 1.0, 0.5)),
}
"""The sweep of weights, for the full method and for vanilla GRPO."""


@dataclass(frozen=True)
class Arm:
    """
    One way to train the base.

    Args:
        name (`str`): Its name in file names and tables.
        title (`str`): A short description for readers.
        trained (`bool`, *optional*, defaults to `True`): `False` for the untrained base.
        weights (`tuple`, *optional*): Weights of precision, recall and linguistic.
        aggregation (`str`, *optional*): TRL's `multi_objective_aggregation`.
        gate (`str` or `None`, *optional*), upper (`float`, *optional*): The length gate.
        tokens (`tuple` or `None`, *optional*): Bounds of the gate in tokens, instead of ratios.
        recall (`str`, *optional*): What recall has to cover: the `"reference"`, or the units
            that most rollouts `"agreed"` on.
        pointable (`bool`, *optional*): Whether a true positive must be pointable.
        references (`str`, *optional*):
            `"perfect"`, `"poor"` (captions by a faulty author), `"base"` (greedy captions by the
            base itself) or `"none"`.
        scales (`tuple`, *optional*): Factors on the three rewards.
        failures (`float`, *optional*): Probability that one reward of one completion is missing.
        failed_as (`float` or `None`, *optional*): Replacement for a missing reward; `None` leaves
            it missing.
        noise (`str`, *optional*): A key of `NOISE`.
        advantages (`str`, *optional*): A key of `VARIANTS`, instead of the config's aggregation.
        credit (`float`, *optional*): Factor of the [`token_credit`] added to the advantages.
        judged (`bool`, *optional*): Whether it is the trainer's `credit="assertion"`, by the
            judge's verdicts instead of the scene. Its factor is the trainer's, 1/2.
        recalled (`float`, *optional*): Factor of credit for the recall that each sentence brings.
        rate (`float`, *optional*): Factor on the learning rate.
        rewards (`str` or `None`, *optional*):
            `"balanced"` for the three rewards, or a single reward of `field.FIELD`, without a gate;
            `None` for no RL.
        fine_tuned (`bool`, *optional*): Whether training starts with SFT on the references.
        lag (`int`, *optional*): `judge_lag`, the updates since a completion was generated.
    """

    name: str
    title: str
    trained: bool = True
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    aggregation: str = "normalize_then_sum"
    gate: str | None = "mask"
    upper: float = 2.0
    tokens: tuple[int, int] | None = None
    recall: str = "reference"
    pointable: bool = True
    references: str = "perfect"
    scales: tuple[float, float, float] = (1.0, 1.0, 1.0)
    failures: float = 0.0
    failed_as: float | None = None
    noise: str | None = None
    advantages: str | None = None
    credit: float = 0.0
    judged: bool = False
    recalled: float = 0.0
    rate: float = 1.0
    rewards: str | None = "balanced"
    fine_tuned: bool = False
    lag: int = 0

    def changes(self) -> dict[str, Any]:
        """How the arm differs from the full method."""
        full = asdict(Arm("", ""))
        return {
            key: value
            for key, value in asdict(self).items()
            if key not in ("name", "title") and value != full[key]
        }


_GRPO = "sum_then_normalize"
_CORE = [
    Arm("base", "the base, not trained", trained=False),
    Arm("full", "the full method: c-GDPO, three rewards, mask gate at 2"),
    Arm("vanilla", "vanilla GRPO: sum, then normalise", aggregation=_GRPO),
    Arm("no_linguistic", "no linguistic reward (weight 0)", weights=(1.0, 1.0, 0.0)),
    Arm("no_precision", "no precision reward (weight 0)", weights=(0.0, 1.0, 1.0)),
    Arm("no_recall", "no recall reward (weight 0)", weights=(1.0, 0.0, 1.0)),
    Arm("no_pointability", "verifiable alone counts as precise", pointable=False),
    Arm("none_30", "30% of rewards fail, left missing", failures=0.3),
    Arm("zero_30", "30% of rewards fail, filled with 0", failures=0.3, failed_as=0.0),
]
_CLAIMED = [
    Arm("vanilla_skewed", "vanilla GRPO, rewards x0.2, x1, x2", aggregation=_GRPO, scales=SKEW),
    Arm("no_gate", "no length gate", gate=None),
    Arm("linear_gate", "linear length penalty", gate="linear"),
    Arm("poor_references", "faulty captions as references", references="poor"),
    Arm("noise_large", "judge noise, large", noise="large"),
]
_FURTHER = [
    Arm("tau_1.25", "gate closes at 1.25", upper=1.25),
    Arm("tau_4", "gate closes at 4", upper=4.0),
    Arm(
        "no_references",
        "no references: precision and linguistic, an absolute length band",
        weights=(1.0, 0.0, 1.0),
        tokens=BAND,
        references="none",
    ),
    Arm(
        "agreed_recall",
        "no references: recall of what most rollouts agree on, an absolute length band",
        tokens=BAND,
        recall="agreed",
        references="none",
    ),
    Arm(
        "agreed_base",
        "the base's captions as references: recall of what it and most rollouts agree on",
        recall="agreed",
        references="base",
    ),
    Arm("full_skewed", "the full method, rewards x0.2, x1, x2", scales=SKEW),
    Arm("none_10", "10% of rewards fail, left missing", failures=0.1),
    Arm("zero_10", "10% of rewards fail, filled with 0", failures=0.1, failed_as=0.0),
    Arm("noise_medium", "judge noise, medium", noise="medium"),
    Arm("noise_small", "judge noise, small", noise="small"),
    Arm("one_step_off", "completions one update old (judge_lag=1)", lag=1),
    *(Arm(name, title, weights=weights) for name, (title, weights) in WEIGHTS.items()),
]
_NOISES = [
    Arm(f"noise_{kind}_{level}", f"judge noise, {level}, {said}", noise=f"{kind}_{level}")
    for level in reversed(LEVELS)
    for kind, said in (
        ("correct", "in `correct` alone"),
        ("pointable", "in `pointable` alone"),
        ("covered", "in `covered` alone"),
        ("grades", "in the three grades alone"),
    )
]

_BIASED = [
    Arm(f"judge_{name}", f"a judge that {title}", noise=name) for name, (title, _) in BIASED.items()
]

_CONTROLS = [
    Arm(
        "vanilla_noise_large",
        "vanilla GRPO under large judge noise",
        aggregation=_GRPO,
        noise="large",
    ),
    Arm("weights_skewed", "c-GDPO, weights 0.2, 1, 2", weights=SKEW),
    Arm(
        "vanilla_reversed", "vanilla GRPO, rewards x2, x1, x0.2", aggregation=_GRPO, scales=REVERSED
    ),
    Arm("weights_reversed", "c-GDPO, weights 2, 1, 0.2", weights=REVERSED),
    *(
        Arm(f"vanilla_{name}", f"vanilla GRPO, {title}", aggregation=_GRPO, weights=weights)
        for name, (title, weights) in WEIGHTS.items()
    ),
]

_BETTER = [
    Arm("assertion", "credit for each assertion, 1/2", credit=0.5, judged=True),
    Arm(
        "assertion_noise_large",
        "credit for each assertion, 1/2, under large judge noise",
        credit=0.5,
        judged=True,
        noise="large",
    ),
    Arm(
        "assertion_half_rate",
        "credit for each assertion, 1/2, at half the learning rate",
        credit=0.5,
        judged=True,
        rate=0.5,
    ),
    Arm("credit", "credit for each sentence by the scene, 1/2", credit=0.5),
    Arm("credit_one", "credit for each sentence by the scene, 1", credit=1.0),
    Arm(
        "credit_recall",
        "credit for each sentence by the scene, 1/2, and for the recall it brings, 1/2",
        credit=0.5,
        recalled=0.5,
    ),
    Arm(
        "credit_half_rate",
        "credit for each sentence by the scene, 1/2, at half the learning rate",
        credit=0.5,
        rate=0.5,
    ),
    Arm("half_rate", "the full method at half the learning rate", rate=0.5),
    Arm("double_rate", "the full method at twice the learning rate", rate=2.0),
    Arm("no_batch_step", "c-GDPO without the batch step", advantages="no_batch_step"),
    Arm("no_group_std", "rewards centred, not divided", advantages="no_group_std"),
    Arm("log_mean", "mean of log rewards", advantages="log_mean"),
    Arm("weakest_weighted", "weights follow the weakest reward", advantages="weakest_weighted"),
    Arm("rdpo", "normal quantiles, whitened across rewards", advantages="rdpo"),
]

_FIELD = [
    Arm("utility", "utility reward alone (CapRL)", gate=None, rewards="utility"),
    Arm("rubric", "rubric reward alone (RubiCap)", gate=None, rewards="rubric"),
    Arm("feedquill", "precision and count alone (FEEDQUILL)", gate=None, rewards="feedquill"),
    Arm("sft", "SFT on the references, no RL", rewards=None, fine_tuned=True),
    Arm("sft_full", "SFT, then the full method", fine_tuned=True),
    Arm("group", "rank within the group alone", gate=None, rewards="group"),
]

ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (*_CORE, *_CLAIMED, *_FURTHER, *_FIELD, *_CONTROLS, *_BIASED, *_NOISES, *_BETTER)
}
"""All arms by name. The gate with an upper ratio of 2 is the full method itself."""

BETTER = tuple(arm.name for arm in _BETTER)
"""Names of the arms that may beat the paper's method, and their controls."""

TIERS: tuple[tuple[str, ...], ...] = (
    tuple(arm.name for arm in _CORE),
    tuple(arm.name for arm in _CLAIMED),
    tuple(arm.name for arm in (*_CONTROLS, *_BIASED, *_FIELD)),
    tuple(arm.name for arm in (*_FURTHER, *_NOISES)),
    BETTER,
)
"""Names of the arms that most claims depend on, those that the other claims depend on, their
controls and those with other published rewards, the rest, and those that may beat the paper's
method."""

WHICH_REWARD = ("base", "full", *(arm.name for arm in _FIELD))
"""The arms in the table that compares rewards."""

RICH = (
    *("base", "full", "vanilla", "no_gate", "linear_gate", "tau_1.25", "tau_4", "no_precision"),
    *("no_recall", "no_linguistic", "no_pointability", "feedquill", "utility", "sft"),
    *("assertion", "credit", "half_rate", "assertion_half_rate", "noise_large"),
    *("assertion_noise_large",),
)
"""The arms of the rich world: those whose question the small world cannot answer, and those that
may beat the paper's method."""

QUICK = (
    *("base", "full", "vanilla", "no_precision", "no_recall", "no_linguistic", "no_pointability"),
    "no_gate",
)
"""The arms of `--quick`: the main ones."""

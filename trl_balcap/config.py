"""The few settings that BalCapRL adds to GRPO."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, make_dataclass
from typing import Any

from trl import GRPOConfig

from trl_balcap.judge.settings import SETTINGS, JudgeSettings, may_be_none, read_setting, rule_of
from trl_balcap.length import check_band

__all__ = ["BalCapConfig", "CaptioningArguments"]


@dataclass
class BalCapConfig(GRPOConfig):
    r"""
    Configuration of [`BalCapTrainer`]: [`~trl.GRPOConfig`] with a length gate and c-GDPO.

    Only what differs from [`~trl.GRPOConfig`] is listed. Learning rate, group size, KL and batch
    size of the paper are not known; TRL's defaults stand.

    Parameters:
        multi_objective_aggregation (`str`, *optional*, defaults to `"normalize_then_sum"`):
            `"normalize_then_sum"` is c-GDPO (see [`cgdpo_advantages`]), `"sum_then_normalize"` is
            GRPO as TRL computes it, for ablations.
        length_gate (`str` or `None`, *optional*, defaults to `"mask"`):
            `"mask"` makes a gated reward 0 outside the bounds (see [`length_gate`]), `"linear"`
            lets it fall linearly to 0 there, `None` (or `"none"`) leaves rewards as they are.
        length_gate_lower (`float`, *optional*, defaults to `0.5`):
            Least ratio of caption to reference length, in tokens, that keeps the reward.
        length_gate_upper (`float`, *optional*, defaults to `2.0`):
            Greatest ratio that keeps the reward.
        length_gate_tokens (`list[int]` or `None`, *optional*):
            Fewest and most tokens of a caption that keeps the reward, such as `[60, 200]`: bounds
            of its own length, in place of the two ratios, for data without references. Goes with
            the mask alone.
        length_gated_rewards (`list[str]` or `None`, *optional*):
            Names of the reward functions behind the gate. `None` gates `linguistic_reward` where it
            is among them, and nothing otherwise.
        max_unscored_rows (`int`, *optional*, defaults to `16`):
            Completions that a dead judge must have left unscored before it ends the run.
        outage_patience (`int`, *optional*, defaults to `3`):
            Batches in a row of which a judge must have left more than its `max_unscored` unscored,
            for reasons that no caption can cause, before it ends the run (see [`OutageRule`]).
        judge_lookahead (`bool`, *optional*, defaults to `True`):
            Where one update takes several generation batches (`steps_per_generation` below
            `gradient_accumulation_steps`), whether the later ones are generated while the judge
            reads the first (see [`LookAhead`]). The policy is the same in both orders.
        judge_lag (`int`, *optional*, defaults to `0`):
            `1` writes the next update's completions while the judge reads this one's, so that a
            judge slower than generation costs less time. They are one update old when they train:
            the importance ratio is taken over the policy that wrote them, clipped by `epsilon`, and
            by `delta`, which is `vllm_importance_sampling_clip_max` where it is not set. The first
            update of an epoch is on-policy. Completions held by a run that ends are written again
            when it is resumed.
        log_verdicts (`int`, *optional*, defaults to `8`):
            Images a logged step whose rollouts are kept in `output_dir/verdicts`, with what the
            judge saw, for `trl-balcap report`. `0` (or `False`) keeps nothing, `True` is the
            default.

    Example:

    ```python
    >>> from trl_balcap import BalCapConfig
    >>> BalCapConfig("out", bf16=False, length_gate_upper=1.5).length_gate_upper
    1.5

    ```
    """

    multi_objective_aggregation: str = field(
        default="normalize_then_sum",
        metadata={
            "help": "'normalize_then_sum' is c-GDPO, 'sum_then_normalize' is GRPO as TRL "
            "computes it.",
            "choices": ["sum_then_normalize", "normalize_then_sum"],
        },
    )
    length_gate: str | None = field(
        default="mask",
        metadata={
            "help": "'mask' makes a gated reward 0 outside the length bounds, 'linear' lets it "
            "fall linearly to 0 there, 'none' is no gate."
        },
    )
    length_gate_lower: float = field(
        default=0.5,
        metadata={
            "help": "Least ratio of caption to reference length (tokens) that keeps the reward."
        },
    )
    length_gate_upper: float = field(
        default=2.0, metadata={"help": "Greatest length ratio that keeps the reward."}
    )
    length_gate_tokens: list[int] | None = field(
        default=None,
        metadata={
            "help": "Fewest and most tokens of a caption that keeps the reward, such as 60 200, in "
            "place of the two ratios: for data without references."
        },
    )
    length_gated_rewards: list[str] | None = field(
        default=None,
        metadata={
            "help": "Names of the reward functions behind the gate; by default linguistic_reward "
            "where it is among them."
        },
    )
    max_unscored_rows: int = field(
        default=16,
        metadata={"help": "Completions that a dead judge must leave unscored to end the run."},
    )
    outage_patience: int = field(
        default=3,
        metadata={"help": "Batches in a row that a dead judge must spoil to end the run."},
    )

    judge_lookahead: bool = field(
        default=True,
        metadata={
            "help": "Generate an update's later batches while the judge reads the first one."
        },
    )

    judge_lag: int = field(
        default=0,
        metadata={
            "help": "1 writes the next update's completions while the judge reads this one's; they "
            "are one update old when they train.",
            "choices": [0, 1],
        },
    )

    log_verdicts: int = field(
        default=8,
        metadata={
            "help": "Images a logged step whose rollouts and verdicts are kept in "
            "output_dir/verdicts; 0 keeps nothing."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.log_verdicts is True:
            self.log_verdicts = 8
        for name in ("log_verdicts", "max_unscored_rows", "outage_patience"):
            value, least = getattr(self, name), 0 if name == "log_verdicts" else 1
            if not isinstance(value, int) or value < least:
                raise ValueError(
                    f"{name} must be a whole number of {least} or more, got {value!r}."
                )
        self._check_lag()
        if self.length_gate == "none":  # how YAML-less command lines write None
            self.length_gate = None
        if self.length_gate not in (None, "mask", "linear"):
            raise ValueError(
                f"length_gate must be 'mask', 'linear' or None, got {self.length_gate!r}."
            )
        for name in ("length_gate_lower", "length_gate_upper"):
            if not isinstance(getattr(self, name), int | float):
                raise ValueError(f"{name} must be a number, got {getattr(self, name)!r}.")
        if not 0.0 <= self.length_gate_lower <= self.length_gate_upper:
            raise ValueError(
                "The length gate needs 0 <= length_gate_lower <= length_gate_upper, got "
                f"{self.length_gate_lower} and {self.length_gate_upper}. Swap them, or set "
                "length_gate=None."
            )
        if self.length_gate_tokens is not None:
            self.length_gate_tokens = self._checked_band(self.length_gate_tokens)
        if isinstance(self.length_gated_rewards, str):
            raise ValueError(
                "length_gated_rewards is a list of names, got the text "
                f"{self.length_gated_rewards!r}. Write [{self.length_gated_rewards!r}]."
            )

    def _checked_band(self, tokens: Any) -> list[int]:
        """The token band as a list, the only bounds that are set."""
        check_band(tokens, name="length_gate_tokens")
        if self.length_gate != "mask":
            raise ValueError(
                f"length_gate_tokens={list(tokens)} bounds the mask, and length_gate is "
                f"{self.length_gate!r}. Leave one of the two out."
            )
        ratios = (self.length_gate_lower, self.length_gate_upper)
        if ratios != (BalCapConfig.length_gate_lower, BalCapConfig.length_gate_upper):
            raise ValueError(
                f"length_gate_tokens={list(tokens)} and the ratios length_gate_lower and "
                f"length_gate_upper ({ratios[0]:g}, {ratios[1]:g}) are two gates. Leave one out."
            )
        return list(tokens)

    def _check_lag(self) -> None:
        if self.judge_lag not in (0, 1):
            raise ValueError(f"judge_lag must be 0 or 1, got {self.judge_lag!r}.")
        if not self.judge_lag:
            return
        accumulated, per_generation = self.gradient_accumulation_steps, self.steps_per_generation
        if self.num_iterations != 1 or accumulated % (per_generation or 1):
            raise ValueError(
                "judge_lag=1 needs generation batches that each serve one update, got "
                f"num_iterations={self.num_iterations} and steps_per_generation={per_generation} "
                f"with gradient_accumulation_steps={accumulated}. Set num_iterations=1 and a "
                "steps_per_generation that divides gradient_accumulation_steps."
            )
        if not self.judge_lookahead:
            raise ValueError(
                "judge_lag=1 looks ahead, which judge_lookahead=False forbids. Leave one out."
            )
        if self.delta is None:
            self.delta = self.vllm_importance_sampling_clip_max


def _judge_fields() -> list[tuple[str, Any, Any]]:
    """Each setting of the judge as a field that `HfArgumentParser` understands, with its
    default."""
    made = []
    for one in SETTINGS.values():
        rule = rule_of(one)
        kind: Any = list[rule.kind] if rule.several else rule.kind
        default: Any = "scenes/oracle" if one.default is MISSING else one.default
        metadata: dict[str, Any] = {
            "help": one.metadata["help"][0].upper() + one.metadata["help"][1:] + "."
        }
        if rule.choices:
            metadata["choices"] = list(rule.choices)
        optional = may_be_none(one)
        made.append(
            (
                f"judge_{one.name}",
                kind | None if optional else kind,
                field(default=default, metadata=metadata),
            )
        )
    return made


_JudgeArguments: Any = make_dataclass("_JudgeArguments", _judge_fields())


@dataclass
class CaptioningArguments(_JudgeArguments):
    r"""
    What the example scripts and `trl-balcap plan` take besides [`BalCapConfig`] and TRL's
    `ModelConfig`: the captions and the judge.

    Parameters:
        dataset (`str`, *optional*):
            What [`load_captions`] loads: a JSONL file, a folder, a name on the Hub. `None` draws
            scenes, the embedded default.
        dataset_split (`str`, *optional*):
            Split of the dataset.
        eval_dataset (`str`, *optional*):
            Captions to evaluate on.
        prompt (`str`, *optional*):
            The user's message; see [`load_captions`].
        max_pixels (`int`, *optional*, defaults to `401408`):
            Bound on an image's pixels (512 visual tokens of Qwen2.5-VL).
        rewards (`list[str]`, *optional*, defaults to `["precision", "recall", "linguistic"]`):
            Which rewards to train under, by their names without "_reward".
        judge_* (*optional*):
            Each setting of [`Judge`], with its default: `judge_model` (`"scenes/oracle"`, the exact
            judge of the scenes), `judge_timeout`, `judge_price`, …
        accelerate_config (`str`, *optional*):
            The accelerate file that the recipe is launched with. `trl-balcap plan` reads the number
            of processes and the ZeRO stage from it; `accelerate launch` takes it by
            `--config_file`.
    """

    dataset: str | None = field(
        default=None,
        metadata={"help": "JSONL file, folder or Hub name of the captions; none draws scenes."},
    )
    dataset_split: str | None = field(default=None, metadata={"help": "Split of the dataset."})
    eval_dataset: str | None = field(default=None, metadata={"help": "Captions to evaluate on."})
    prompt: str | None = field(default=None, metadata={"help": "The user's message."})
    max_pixels: int = field(
        default=512 * 28 * 28,
        metadata={"help": "Bound on an image's pixels (512 visual tokens of Qwen2.5-VL)."},
    )
    rewards: list[str] = field(
        default_factory=lambda: ["precision", "recall", "linguistic"],
        metadata={"help": "Which rewards to train under, such as precision linguistic."},
    )
    accelerate_config: str | None = field(
        default=None,
        metadata={
            "help": "The accelerate file that the recipe is launched with (`accelerate launch "
            "--config_file`); read by `trl-balcap plan`."
        },
    )

    def __post_init__(self):
        JudgeSettings(**self.judge_options())  # a wrong setting is an error before anything slow

    def needs_references(self, args: BalCapConfig) -> bool:
        """
        Whether the captions must have references: for the recall reward, or a length gate that
        compares with them.

        Example:

        ```python
        >>> args = BalCapConfig("out", bf16=False, length_gate_tokens=(60, 200))
        >>> CaptioningArguments(rewards=["precision", "linguistic"]).needs_references(args)
        False

        ```
        """
        return needs_references(self.rewards, args)

    def judge_options(self) -> dict[str, Any]:
        """
        What [`Judge`] is to be called with: the model, and the settings that are not the default.

        Example:

        ```python
        >>> CaptioningArguments(judge_model="openai/gpt-4o-mini", judge_timeout=30).judge_options()
        {'model': 'openai/gpt-4o-mini', 'timeout': 30}

        ```
        """
        return judge_options(self)


def needs_references(rewards: Sequence[str], recipe: Any) -> bool:
    """[`CaptioningArguments.needs_references`] of anything that has [`BalCapConfig`]'s
    attributes."""
    by_ratio = recipe.length_gate not in (None, "none") and recipe.length_gate_tokens is None
    return "recall" in rewards or by_ratio


def judge_options(recipe: Any) -> dict[str, Any]:
    """[`CaptioningArguments.judge_options`] of anything that has its `judge_*` attributes."""
    options = {}
    for one in SETTINGS.values():
        value = getattr(recipe, f"judge_{one.name}")
        if isinstance(value, str):  # of a command line, where all is text
            value = read_setting(one.name, value)
        if value != one.default:
            options[one.name] = value
    return options

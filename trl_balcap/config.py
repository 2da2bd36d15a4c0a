"""The settings that BalCapRL adds to GRPO."""

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

    Only parameters that differ from [`~trl.GRPOConfig`] are listed. The paper's learning rate,
    group size, KL coefficient and batch size are unknown, so TRL's defaults are used.

    Parameters:
        multi_objective_aggregation (`str`, *optional*, defaults to `"normalize_then_sum"`):
            `"normalize_then_sum"` is c-GDPO (see [`cgdpo_advantages`]), `"sum_then_normalize"` is
            TRL's GRPO, for ablations.
        length_gate (`str` or `None`, *optional*, defaults to `"mask"`):
            `"mask"` sets gated rewards to 0 outside the bounds (see [`length_gate`]), `"linear"`
            reduces them linearly to 0 at the bounds, `None` (or `"none"`) leaves them unchanged.
        length_gate_lower (`float`, *optional*, defaults to `0.5`):
            Smallest ratio of caption to reference length, in tokens, that keeps the reward.
        length_gate_upper (`float`, *optional*, defaults to `2.0`):
            Largest ratio that keeps the reward.
        length_gate_tokens (`list[int]` or `None`, *optional*):
            Smallest and largest caption length in tokens that keeps the reward, such as
            `[60, 200]`. Replaces the two ratios, for data without references. Only for
            `length_gate="mask"`.
        length_gated_rewards (`list[str]` or `None`, *optional*):
            Names of the length-gated reward functions. `None` gates `linguistic_reward`, if it is
            used.
        credit (`str` or `None`, *optional*):
            `"assertion"` adds to the advantage of each token what the judge says of the assertions
            in its sentence (see [`token_credit`]), without further questions. It needs a reward
            that judges assertions, such as [`PrecisionReward`]. `None` (or `"none"`) is the paper's
            method: all tokens of a caption share its advantage.
        max_unscored_rows (`int`, *optional*, defaults to `16`):
            Minimum number of completions that a judge outage leaves unscored before it stops the
            run.
        outage_patience (`int`, *optional*, defaults to `3`):
            Stop the run after this many batches in a row in which a judge left more than its
            `max_unscored` unscored, for reasons that no caption can cause (see [`OutageRule`]).
        judge_lookahead (`bool`, *optional*, defaults to `True`):
            If one update uses several generation batches (`steps_per_generation` is less than
            `gradient_accumulation_steps`), whether to generate the later ones while the judge
            reads the first (see [`LookAhead`]). Both orders train the same policy.
        judge_lag (`int`, *optional*, defaults to `0`):
            `1` generates the next update's completions while the judge reads the current ones, so
            that a judge slower than generation costs less time. They are one update old when they
            are trained on: the importance ratio is relative to the policy that generated them,
            clipped by `epsilon` and by `delta`, which defaults to
            `vllm_importance_sampling_clip_max`. The first update of an epoch is on-policy. When a
            run is resumed, completions it had generated ahead are generated again.
        log_verdicts (`int`, *optional*, defaults to `8`):
            Images per logged step whose rollouts and verdicts are kept in `output_dir/verdicts` for
            `trl-balcap report`. `0` (or `False`) keeps nothing, `True` is the default.

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
            "help": "'mask' sets gated rewards to 0 outside the length bounds, 'linear' reduces "
            "them linearly to 0 at the bounds, 'none' turns the gate off."
        },
    )
    length_gate_lower: float = field(
        default=0.5,
        metadata={
            "help": "Smallest ratio of caption to reference length (tokens) that keeps the reward."
        },
    )
    length_gate_upper: float = field(
        default=2.0, metadata={"help": "Largest length ratio that keeps the reward."}
    )
    length_gate_tokens: list[int] | None = field(
        default=None,
        metadata={
            "help": "Smallest and largest caption length (tokens) that keeps the reward, such as "
            "60 200. Replaces the two ratios, for data without references."
        },
    )
    length_gated_rewards: list[str] | None = field(
        default=None,
        metadata={
            "help": "Names of the length-gated reward functions (default: linguistic_reward, if "
            "used)."
        },
    )
    credit: str | None = field(
        default=None,
        metadata={
            "help": "'assertion' adds to each token's advantage what the judge says of its "
            "sentence; 'none' is the paper's method."
        },
    )
    max_unscored_rows: int = field(
        default=16,
        metadata={"help": "Unscored completions needed for a judge outage to stop the run."},
    )
    outage_patience: int = field(
        default=3,
        metadata={"help": "Lost batches in a row needed for a judge outage to stop the run."},
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
            "help": "Images per logged step whose rollouts and verdicts are kept in "
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
                raise ValueError(f"{name} must be a whole number, {least} or more, got {value!r}.")
        self._check_lag()
        for name in ("length_gate", "credit"):
            if getattr(self, name) == "none":  # None, on a command line
                setattr(self, name, None)
        if self.credit not in (None, "assertion"):
            raise ValueError(f"credit must be 'assertion' or None, got {self.credit!r}.")
        by_token = self.importance_sampling_level == "token"
        if self.credit and not by_token and self.loss_type not in ("cispo", "vespo"):
            raise ValueError(
                f"credit={self.credit!r} needs importance_sampling_level='token', got "
                f"{self.importance_sampling_level!r}: loss_type={self.loss_type!r} gives the "
                "tokens of a caption one weight. Change it, or use the loss cispo or vespo."
            )
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
                "length_gated_rewards must be a list of names, got the string "
                f"{self.length_gated_rewards!r}. Use [{self.length_gated_rewards!r}]."
            )

    def _checked_band(self, tokens: Any) -> list[int]:
        """The token band as a list, if no other bounds are set."""
        check_band(tokens, name="length_gate_tokens")
        if self.length_gate != "mask":
            raise ValueError(
                f"length_gate_tokens={list(tokens)} needs length_gate='mask', got "
                f"{self.length_gate!r}. Leave one of the two out."
            )
        ratios = (self.length_gate_lower, self.length_gate_upper)
        if ratios != (BalCapConfig.length_gate_lower, BalCapConfig.length_gate_upper):
            raise ValueError(
                f"length_gate_tokens={list(tokens)} cannot be combined with length_gate_lower and "
                f"length_gate_upper ({ratios[0]:g}, {ratios[1]:g}). Leave one of the two out."
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
                "judge_lag=1 needs generation batches that are used for one update only, got "
                f"num_iterations={self.num_iterations} and steps_per_generation={per_generation} "
                f"with gradient_accumulation_steps={accumulated}. Set num_iterations=1 and a "
                "steps_per_generation that divides gradient_accumulation_steps."
            )
        if not self.judge_lookahead:
            raise ValueError(
                "judge_lag=1 needs judge_lookahead, which is False. Leave one of the two out."
            )
        if self.delta is None:
            self.delta = self.vllm_importance_sampling_clip_max


_OF_SCENES = "scenes/oracle"


def _judge_fields() -> list[tuple[str, Any, Any]]:
    """The judge's settings as fields that `HfArgumentParser` understands, with their defaults."""
    made = []
    for one in SETTINGS.values():
        rule = rule_of(one)
        kind: Any = list[rule.kind] if rule.several else rule.kind
        required = one.default is MISSING  # the model; see `judge_options`
        default: Any = None if required else one.default
        metadata: dict[str, Any] = {
            "help": one.metadata["help"][0].upper() + one.metadata["help"][1:] + "."
        }
        if rule.choices:
            metadata["choices"] = list(rule.choices)
        optional = required or may_be_none(one)
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
    Arguments of the example scripts and `trl-balcap plan` besides [`BalCapConfig`] and TRL's
    `ModelConfig`: the captions and the judge.

    Parameters:
        dataset (`str`, *optional*):
            Captions for [`load_captions`]: a JSONL file, a folder, or a dataset on the Hub. `None`
            draws scenes.
        dataset_split (`str`, *optional*):
            Split of the dataset.
        eval_dataset (`str`, *optional*):
            Captions to evaluate on.
        prompt (`str`, *optional*):
            The user's message; see [`load_captions`].
        max_pixels (`int`, *optional*, defaults to `401408`):
            Maximum pixels of an image (the default is 512 visual tokens of Qwen2.5-VL).
        rewards (`list[str]`, *optional*, defaults to `["precision", "recall", "linguistic"]`):
            Rewards to train with, by name without "_reward".
        judge_* (*optional*):
            The settings of [`Judge`], with their defaults: `judge_timeout`, `judge_price`, …
            `judge_model` must be named, except where scenes are drawn: those have an exact judge,
            `"scenes/oracle"`.
        accelerate_config (`str`, *optional*):
            The accelerate config to launch the recipe with, passed to `accelerate launch` as
            `--config_file`. `trl-balcap plan` reads the number of processes and the ZeRO stage
            from it.
    """

    dataset: str | None = field(
        default=None,
        metadata={
            "help": "Captions: a JSONL file, a folder, or a dataset on the Hub (default: drawn "
            "scenes)."
        },
    )
    dataset_split: str | None = field(default=None, metadata={"help": "Split of the dataset."})
    eval_dataset: str | None = field(default=None, metadata={"help": "Captions to evaluate on."})
    prompt: str | None = field(default=None, metadata={"help": "The user's message."})
    max_pixels: int = field(
        default=512 * 28 * 28,
        metadata={"help": "Maximum pixels of an image (default: 512 visual tokens of Qwen2.5-VL)."},
    )
    rewards: list[str] = field(
        default_factory=lambda: ["precision", "recall", "linguistic"],
        metadata={"help": "Rewards to train with, such as precision linguistic."},
    )
    accelerate_config: str | None = field(
        default=None,
        metadata={
            "help": "The accelerate config to launch the recipe with (`accelerate launch "
            "--config_file`); read by `trl-balcap plan`."
        },
    )

    def __post_init__(self):
        # Report wrong settings before anything slow. SFT reads these arguments without a judge.
        JudgeSettings(**{"model": _OF_SCENES, **_given_options(self)})

    def needs_references(self, args: BalCapConfig) -> bool:
        """
        Whether the captions need references: for the recall reward, or for a reward that is
        gated by the ratio of lengths.

        Example:

        ```python
        >>> args = BalCapConfig("out", bf16=False, length_gate_tokens=(60, 200))
        >>> CaptioningArguments(rewards=["precision", "linguistic"]).needs_references(args)
        False
        >>> args = BalCapConfig("out", bf16=False)  # gates the linguistic reward alone
        >>> CaptioningArguments(rewards=["utility"]).needs_references(args)
        False

        ```
        """
        return needs_references(self.rewards, args)

    def judge_options(self) -> dict[str, Any]:
        """
        The arguments for [`Judge`]: the model, and the settings that differ from the default.

        Raises:
            `ValueError`: if there is a dataset and no judge is named.

        Example:

        ```python
        >>> CaptioningArguments(judge_model="openai/gpt-4o-mini", judge_timeout=30).judge_options()
        {'model': 'openai/gpt-4o-mini', 'timeout': 30}

        ```
        """
        return judge_options(self)


def needs_references(rewards: Sequence[str], recipe: Any) -> bool:
    """[`CaptioningArguments.needs_references`] of any object with [`BalCapConfig`]'s attributes."""
    gated = recipe.length_gated_rewards
    if gated is None:
        gated = [name for name in rewards if name == "linguistic"]
    by_ratio = recipe.length_gate not in (None, "none") and recipe.length_gate_tokens is None
    return "recall" in rewards or (by_ratio and bool(gated))


def judge_options(recipe: Any) -> dict[str, Any]:
    """[`CaptioningArguments.judge_options`] of any object with the same attributes."""
    options = _given_options(recipe)
    if "model" in options:
        return options
    for name in ("dataset", "eval_dataset"):
        if (own := getattr(recipe, name)) is not None:
            raise ValueError(
                f"{name}={own} needs a judge, and judge_model is not set: the default, "
                f"{_OF_SCENES}, knows drawn scenes only. Name a model (--judge_model "
                "openai/gpt-4o-mini), or a recipe with one (--config). For drawn scenes, use "
                f"--judge_model {_OF_SCENES}."
            )
    return {"model": _OF_SCENES, **options}


def _given_options(recipe: Any) -> dict[str, Any]:
    """The judge's settings that differ from the default, without a model that is not named."""
    options = {}
    for one in SETTINGS.values():
        value = getattr(recipe, f"judge_{one.name}")
        if one.default is MISSING and value is None:
            continue
        if isinstance(value, str):  # from a command line, where everything is text
            value = read_setting(one.name, value)
        if value != one.default:
            options[one.name] = value
    return options

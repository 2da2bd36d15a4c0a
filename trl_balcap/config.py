"""The few settings that BalCapRL adds to GRPO."""

from dataclasses import dataclass, field

from trl import GRPOConfig

__all__ = ["BalCapConfig"]


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
            `"mask"` makes a gated reward 0 outside the bounds (see [`length_gate`]), `"linear"` lets
            it fall linearly to 0 there, `None` (or `"none"`) leaves rewards as they are.
        length_gate_lower (`float`, *optional*, defaults to `0.5`):
            Least ratio of caption to reference length, in tokens, that keeps the reward.
        length_gate_upper (`float`, *optional*, defaults to `2.0`):
            Greatest ratio that keeps the reward.
        length_gated_rewards (`list[str]` or `None`, *optional*):
            Names of the reward functions behind the gate. `None` gates `linguistic_reward` where it
            is among them, and nothing otherwise.
        std_floor (`list[float]` or `None`, *optional*):
            Least standard deviation that c-GDPO divides each reward by, one per reward function:
            the judge's own test-retest spread, as `trl-balcap calibrate` measures it. `None` is off.

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
            "help": "'normalize_then_sum' is c-GDPO, 'sum_then_normalize' is GRPO as TRL computes it.",
            "choices": ["sum_then_normalize", "normalize_then_sum"],
        },
    )
    length_gate: str | None = field(
        default="mask",
        metadata={
            "help": "'mask' makes a gated reward 0 outside the length bounds, 'linear' lets it fall "
            "linearly to 0 there, 'none' is no gate."
        },
    )
    length_gate_lower: float = field(
        default=0.5,
        metadata={"help": "Least ratio of caption to reference length (tokens) that keeps the reward."},
    )
    length_gate_upper: float = field(
        default=2.0, metadata={"help": "Greatest length ratio that keeps the reward."}
    )
    length_gated_rewards: list[str] | None = field(
        default=None,
        metadata={
            "help": "Names of the reward functions behind the gate; by default linguistic_reward "
            "where it is among them."
        },
    )
    std_floor: list[float] | None = field(
        default=None,
        metadata={
            "help": "Least standard deviation that c-GDPO divides each reward by, one value per "
            "reward function: the judge's own test-retest spread."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.length_gate == "none":  # how YAML-less command lines write None
            self.length_gate = None
        if self.length_gate not in (None, "mask", "linear"):
            raise ValueError(
                f"length_gate must be 'mask', 'linear' or None, got {self.length_gate!r}."
            )
        if not 0.0 <= self.length_gate_lower <= self.length_gate_upper:
            raise ValueError(
                "The length gate needs 0 <= length_gate_lower <= length_gate_upper, got "
                f"{self.length_gate_lower} and {self.length_gate_upper}. Swap them, or set "
                "length_gate=None."
            )
        if self.std_floor is not None and min(self.std_floor) < 0.0:
            raise ValueError(f"std_floor must not be negative, got {self.std_floor}.")
        if self.std_floor and self.multi_objective_aggregation != "normalize_then_sum":
            raise ValueError(
                "std_floor belongs to multi_objective_aggregation='normalize_then_sum', got "
                f"{self.multi_objective_aggregation!r}. Remove one of the two."
            )

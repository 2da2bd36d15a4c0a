"""The length gate and the c-GDPO advantages, wired into TRL's GRPO loop."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer

from trl_balcap.advantages import cgdpo_advantages, dead_groups, group_normalize
from trl_balcap.checkpoints import load_renamed_weights
from trl_balcap.config import BalCapConfig
from trl_balcap.data import check_columns
from trl_balcap.gating import gate_reward

__all__ = ["BalCapTrainer", "JudgeOutageError"]

logger = logging.getLogger(__name__)


class JudgeOutageError(RuntimeError):
    """Too many completions of a batch could not be scored; raised on all ranks together."""


class BalCapTrainer(GRPOTrainer):
    """
    Trainer for balanced captioning RL (BalCapRL, https://huggingface.co/papers/2605.07394).

    The only changes w.r.t. [`~trl.GRPOTrainer`] are the length gate around the rewards that the
    config names, and the advantages, which are [`cgdpo_advantages`] of the gathered rewards. The
    model, the data, generation, the loss and the logs are TRL's. Besides, rewards that judge over a
    network are used well where they offer it: they start as soon as completions exist, are asked
    one question before training, and a judge that is down stops all ranks together behind a
    checkpoint.

    With `multi_objective_aggregation="sum_then_normalize"` the advantages are TRL's own.

    Logged besides TRL's metrics, per reward function: `rewards/<name>/frac_zero_std` (share of
    groups whose rewards for it do not differ) and `advantages/<name>/std` (spread of its weighted
    share of the advantage before the batch step). `frac_reward_zero_std` is the share of groups
    that are dead in every reward.

    Args:
        model (`str` or `PreTrainedModel` or `PeftModel`):
            As in [`~trl.GRPOTrainer`].
        reward_funcs (`Callable` or `str` or `list`, *optional*):
            As in [`~trl.GRPOTrainer`]. A reward function may also offer any of these, which
            [`PrecisionReward`], [`RecallReward`] and [`LinguisticReward`] do: `needs` (names of
            dataset columns, checked before the model is loaded), `preflight()` (raises where it
            cannot work), `start(completions=, completion_ids=, **columns)` (begins early),
            `take_report()` and `max_unscored` (what failed since the last report, and how much may).
        args ([`BalCapConfig`], *optional*):
            Configuration. A plain [`~trl.GRPOConfig`] keeps all it says and has no length gate.
        train_dataset, eval_dataset, *positional, **kwargs:
            As in [`~trl.GRPOTrainer`], in its order.

    Raises:
        `ValueError`: before the model is loaded, for a name in `length_gated_rewards` that no
            reward function bears, weights of the wrong number, or a dataset without a column that a
            reward or the gate needs.
        [`JudgeOutageError`]: in training, after a checkpoint.

    Example:

    ```python
    from trl_balcap import BalCapConfig, BalCapTrainer, Judge, PrecisionReward, RecallReward
    from trl_balcap import LinguisticReward
    from trl_balcap.data import load_captions

    judge = Judge("gpt-4o-mini")
    trainer = BalCapTrainer(
        model="Qwen/Qwen2.5-VL-3B-Instruct",
        reward_funcs=[PrecisionReward(judge), RecallReward(judge), LinguisticReward(judge)],
        args=BalCapConfig("balcap-qwen"),
        train_dataset=load_captions("captions.jsonl"),
    )
    trainer.train()
    ```
    """

    _tag_names = ["trl", "grpo", "balcap"]  # noqa: RUF012 (TRL's attribute)
    _name = "BalCapRL"

    _starting: Sequence[Any] = ()  # reward functions that can begin early
    _reporting: Sequence[Any] = ()  # reward functions that say what failed
    _std_floor: list[float] | None = None
    _inputs: list[dict[str, Any]]  # rows of the batch under way, on this rank
    _rewards_per_func: torch.Tensor  # (B, K), of all ranks

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *positional: Any,
        **kwargs: Any,
    ):
        if args is None:
            name = model if isinstance(model, str) else model.config._name_or_path
            args = BalCapConfig(f"{name.split('/')[-1]}-BalCapRL")
        config = args if isinstance(args, BalCapConfig) else None
        funcs = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        gated = _gated_names(config, funcs)
        _check_one_each("reward_weights", args.reward_weights, funcs)
        self._std_floor = config.std_floor if config else None
        _check_one_each("std_floor", self._std_floor, funcs)
        needs = {_reward_name(f): tuple(getattr(f, "needs", ())) for f in funcs if callable(f)}
        for name in gated:
            needs[name] = tuple(dict.fromkeys((*needs[name], "reference")))
        needs = {name: columns for name, columns in needs.items() if columns}
        if needs:
            for dataset in _splits(train_dataset) + _splits(eval_dataset):
                check_columns(dataset, needs)
        _preflight(args, funcs)

        super().__init__(
            model, reward_funcs, args, train_dataset, eval_dataset, *positional, **kwargs
        )
        if config:
            ungated: list[Any] = self.reward_funcs
            self.reward_funcs = [  # a new list: TRL keeps the caller's
                gate_reward(
                    func,
                    self.processing_class,
                    lower=config.length_gate_lower,
                    upper=config.length_gate_upper,
                    kind=config.length_gate,  # type: ignore[arg-type] (checked in the config)
                )
                if name in gated
                else func
                for func, name in zip(ungated, self.reward_func_names, strict=True)
            ]
        self._starting = [f for f in self.reward_funcs if hasattr(f, "start")]
        self._reporting = [f for f in self.reward_funcs if hasattr(f, "take_report")]

    def _generate(self, prompts: list):
        output = super()._generate(prompts)
        # Indices, not unpacking: the tuple's length changes between TRL releases, these two do not.
        completion_ids, completions = output[1], output[3]
        for reward_func in self._starting:
            columns = {
                key: [row[key] for row in self._inputs]
                for key in self._inputs[0]
                if key != "prompt"
            }
            reward_func.start(completions=completions, completion_ids=completion_ids, **columns)
        return output

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards_per_func = super()._calculate_rewards(
            inputs, prompts, completions, completion_ids_list
        )
        self._rewards_per_func = rewards_per_func  # (B, K), gathered, the same on every rank
        self._stop_where_judges_cannot_go_on()
        return rewards_per_func

    def _generate_and_score_completions(self, inputs):
        self._inputs = inputs
        output = super()._generate_and_score_completions(inputs)
        mode = "train" if self._is_training() else "eval"
        num_generations: Any = (
            self.num_generations if mode == "train" else self.num_generations_eval
        )
        rewards_per_func = self._rewards_per_func  # (B, K)
        dead = dead_groups(rewards_per_func, num_generations=num_generations)  # (P, K)
        normalized = group_normalize(
            rewards_per_func, num_generations=num_generations, std_floor=self._std_floor
        )  # (B, K)
        weighted = normalized * self.reward_weights.to(normalized)  # (B, K)
        metrics = self._metrics[mode]
        for k, name in enumerate(self.reward_func_names):
            metrics[f"rewards/{name}/frac_zero_std"].append(dead[:, k].double().mean().item())
            metrics[f"advantages/{name}/std"].append(weighted[:, k].std(correction=0).item())

        if self.multi_objective_aggregation == "normalize_then_sum":
            advantages = cgdpo_advantages(
                rewards_per_func,
                num_generations=num_generations,
                reward_weights=self.reward_weights,
                std_floor=self._std_floor,
            )  # (B,)
            rank, rows = self.accelerator.process_index, len(inputs)
            output["advantages"] = advantages[rank * rows : (rank + 1) * rows]
            # TRL has logged its own numbers by now; what is logged must be what is trained on.
            logged = self._logs["advantages"]
            for _ in range(min(len(advantages), len(logged))):
                logged.pop()
            logged.extend(advantages.tolist())
            metrics["frac_reward_zero_std"][-1] = dead.all(dim=1).double().mean().item()
        return output

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        # Not under FSDP (DeepSpeed does not come here), whose checkpoints have the names in memory.
        if not self.is_fsdp_enabled:
            load_renamed_weights(model or self.model, resume_from_checkpoint)

    def _load_best_model(self):
        super()._load_best_model()
        best = self.state.best_model_checkpoint
        if best and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            load_renamed_weights(self.model, best)

    def _stop_where_judges_cannot_go_on(self) -> None:
        if not self._reporting:
            return
        # Decided from gathered reports, so that every rank comes to the same end.
        reports = [report for func in self._reporting if (report := func.take_report()) is not None]
        reports = gather_object(reports)
        spent = [report.budget_spent for report in reports if report.budget_spent]
        if spent:
            logger.warning("Training ends after this step: %s A checkpoint is saved.", spent[0])
            self.control.should_save = True
            self.control.should_training_stop = True
            return
        for func in self._reporting:
            name = _reward_name(func)
            mine = [report for report in reports if report.reward == name]
            asked = sum(report.asked for report in mine)
            reasons = sum((Counter(report.unscored) for report in mine), Counter())
            if asked and reasons.total() > func.max_unscored * asked:
                replies = [report.failing_reply for report in mine if report.failing_reply]
                raise JudgeOutageError(
                    f"{reasons.total()} of {asked} completions could not be scored by {name} "
                    f"({', '.join(f'{reason}: {n}' for reason, n in reasons.most_common())}), more "
                    f"than max_unscored={func.max_unscored}. "
                    + (f"One failing reply: {replies[0]!r}. " if replies else "")
                    + self._checkpoint_for_resuming()
                )

    def _checkpoint_for_resuming(self) -> str:
        if not self._is_training():
            return "Mend the judge and evaluate again."
        self._save_checkpoint(self.model, trial=None)  # type: ignore[arg-type]
        return (
            f"A checkpoint of step {self.state.global_step} is in {self.args.output_dir}. Mend the "
            "judge, then go on with trainer.train(resume_from_checkpoint=True)."
        )

    def _is_training(self) -> bool:
        model: Any = self.model
        return model.training


def _reward_name(reward_func: Any) -> str:
    return getattr(reward_func, "__name__", type(reward_func).__name__)


def _gated_names(config: BalCapConfig | None, reward_funcs: list) -> list[str]:
    """Names of the rewards to gate; checked before anything is loaded."""
    if config is None or config.length_gate is None:
        return []
    names = [
        _reward_name(func)
        for func in reward_funcs
        if callable(func) and not isinstance(func, (nn.Module, PreTrainedModel))
    ]
    if config.length_gated_rewards is None:
        return [name for name in names if name == "linguistic_reward"]
    for name in config.length_gated_rewards:
        if name not in names:
            raise ValueError(
                f"length_gated_rewards names {name!r}, which no reward function bears. The reward "
                f"functions are {names}."
            )
    return config.length_gated_rewards


def _check_one_each(name: str, values: list[float] | None, reward_funcs: list) -> None:
    if values is not None and len(values) != len(reward_funcs):
        raise ValueError(
            f"{name} has {len(values)} values for {len(reward_funcs)} reward functions. Give one per "
            "reward function, in their order."
        )


def _splits(dataset: Any) -> list:
    if dataset is None:
        return []
    return list(dataset.values()) if isinstance(dataset, dict) else [dataset]


def _preflight(args: GRPOConfig, reward_funcs: list) -> None:
    """Ask each judge one question on the main process; all ranks raise what it raised."""
    asking = [func for func in reward_funcs if hasattr(func, "preflight")]
    if not asking:
        return
    failure: list[BaseException | None] = [None]
    if args.process_index == 0:
        try:
            for func in asking:
                func.preflight()
        except (RuntimeError, ValueError) as error:  # JudgeConfigError is one
            failure[0] = error
    if args.world_size > 1:
        broadcast_object_list(failure)
    if failure[0] is not None:
        raise failure[0]

"""The length gate and the c-GDPO advantages, wired into TRL's GRPO loop."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from trl import GRPOConfig

from trl_balcap import inputs as given
from trl_balcap.advantages import advantage_shares, cgdpo_advantages, dead_groups, group_normalize
from trl_balcap.ahead import AheadTrainer
from trl_balcap.batch_numbers import batch_numbers
from trl_balcap.callbacks import attach_callbacks, say
from trl_balcap.callbacks.console import completion_lines
from trl_balcap.callbacks.keeping import by_name
from trl_balcap.card import trainer_facts
from trl_balcap.config import BalCapConfig
from trl_balcap.credit import (
    CREDIT_WEIGHT,
    batch_values,
    group_means,
    token_credit,
    tokenizer_backend,
)
from trl_balcap.data.completions import completion_text, user_text
from trl_balcap.gating import LengthMeter, gate_reward
from trl_balcap.rewards.hooks import JudgingReport, RewardHooks, reward_name
from trl_balcap.rewards.outage import OutageRule

__all__ = ["BalCapTrainer", "JudgeOutageError", "RewardInternalError"]

logger = logging.getLogger(__name__)


class JudgeOutageError(RuntimeError):
    """A judge is down; raised on all ranks together, after saving a checkpoint."""


class RewardInternalError(RuntimeError):
    """A bug in a reward, with its traceback; raised on all ranks together, after a checkpoint."""


class BalCapTrainer(AheadTrainer):
    """
    Trainer for balanced captioning RL (BalCapRL, https://huggingface.co/papers/2605.07394).

    The only changes w.r.t. [`~trl.GRPOTrainer`] are the length gate around the rewards named in the
    config, and the advantages, which are [`cgdpo_advantages`] of the gathered rewards. The model,
    the data, generation, the loss and the logs are TRL's. In addition, rewards with
    [`RewardHooks`] start as soon as completions exist and are tried with one question before
    training, and a judge outage stops all ranks together after saving a checkpoint.

    With `multi_objective_aggregation="sum_then_normalize"` the advantages are TRL's own.

    Logged besides TRL's metrics, for each reward function: `rewards/<name>/frac_zero_std` (share of
    groups without spread in this reward), `advantages/<name>/std` (spread of its weighted
    contribution to the advantage, before the batch step), and the rest of [`batch_numbers`].
    `frac_reward_zero_std` is the share of groups without spread in any reward.

    Args:
        model (`str` or `PreTrainedModel` or `PeftModel`):
            As in [`~trl.GRPOTrainer`].
        reward_funcs (`Callable` or `str` or `list`, *optional*):
            As in [`~trl.GRPOTrainer`]. A reward with [`RewardHooks`], such as a [`JudgeReward`], is
            tried with one question before the model is loaded, starts as soon as completions exist,
            and reports what it could not score.
        args ([`BalCapConfig`], *optional*):
            Configuration. A plain [`~trl.GRPOConfig`] is used unchanged, without a length gate.
        train_dataset, eval_dataset:
            As in [`~trl.GRPOTrainer`], or an argument for [`load_captions`]: a file, a folder, or
            the name of a dataset on the Hub.
        *positional, **kwargs:
            As in [`~trl.GRPOTrainer`], in the same order.

    Raises:
        `ValueError`: before the model is loaded, if `length_gated_rewards` has an unknown name,
            there is the wrong number of weights, or a dataset lacks a column that a reward or the
            gate needs or is smaller than a generation batch.
        [`JudgeOutageError`]: in training, after a checkpoint, if a judge is down (see
            [`OutageRule`]). Evaluations continue, with missing metrics and a warning.
        [`RewardInternalError`]: on all ranks, after a checkpoint, if a [`JudgeReward`] raises an
            exception that is neither the judge's nor the row's fault.

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

    _unscored: set[tuple[str, str]]  # rewards and reasons already warned about
    _rewards_per_func: torch.Tensor  # (B, K), from all ranks
    _completions: list[Any]  # scored last, on this rank
    _completion_ids: list[list[int]]
    _meter: LengthMeter | None = None  # logs the length ratio where no gate does

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
        funcs = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        given.check_rewards(funcs, args)
        environments = kwargs.get("environment_factory") is not None
        given.check_lag(funcs, args, environments=environments)
        tools = environments or bool(kwargs.get("tools"))
        self._credited = given.credited_reward(args, funcs, tools=tools)
        gated = given.gated_names(args, funcs)
        with args.main_process_first():
            train_dataset, eval_dataset = given.loaded(train_dataset), given.loaded(eval_dataset)
        given.check_datasets(
            args, train_dataset, eval_dataset, funcs, gated, prompts=not environments
        )
        given.preflight(args, funcs)
        self._unscored = set()
        self._outage = OutageRule()
        if isinstance(args, BalCapConfig):
            self._outage = OutageRule(
                min_rows=args.max_unscored_rows, patience=args.outage_patience
            )

        super().__init__(
            model, reward_funcs, args, train_dataset, eval_dataset, *positional, **kwargs
        )
        if isinstance(args, BalCapConfig):
            self._gate(gated, args)
        if self._credited is not None:
            self._credited = given.credited_reward(args, self.reward_funcs)  # perhaps gated by now
            self._backend = tokenizer_backend(self.processing_class)
        self._prepare_ahead()
        self._waited = 0.0  # seconds of training that waited for rewards since the last log
        self._stopping = False  # a judge's budget is spent
        self.facts = trainer_facts(self, gated)
        self._keeper = attach_callbacks(self, self._hooks, self.facts)

    def train(self, *args: Any, **kwargs: Any):
        self._outage.reset()  # of what an earlier call saw
        self._waited, self._stopping = 0.0, False
        return super().train(*args, **kwargs)

    def _gate(self, names: Sequence[str], args: BalCapConfig) -> None:
        loaded: Any = self.model
        ends = loaded.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        if not names or args.length_gate_tokens is not None:  # no gate that looks at references
            self._meter = LengthMeter(self.processing_class, ends)
        ungated: list[Any] = self.reward_funcs
        self.reward_funcs = [  # a new list, since TRL keeps the caller's
            gate_reward(
                func,
                self.processing_class,
                lower=args.length_gate_lower,
                upper=args.length_gate_upper,
                kind=args.length_gate,  # type: ignore[arg-type] (checked in the config)
                tokens=args.length_gate_tokens,  # type: ignore[arg-type]
                end_token_ids=ends,
            )
            if name in names
            else func
            for func, name in zip(ungated, self.reward_func_names, strict=True)
        ]

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        self._generate_later(inputs)
        begin = time.perf_counter()
        rewards_per_func = super()._calculate_rewards(
            inputs, prompts, completions, completion_ids_list
        )
        if self._is_training():
            self._waited += time.perf_counter() - begin
        self._completions, self._completion_ids = completions, completion_ids_list
        self._rewards_per_func = rewards_per_func  # (B, K), gathered, the same on every rank
        if self._hooks:
            # Gathered, so that every rank decides the same.
            taken = (hooks.take_report() for hooks in self._hooks)
            reports = gather_object([report for report in taken if report is not None])
            self._say_what_is_unscored(reports, len(rewards_per_func))
            self._stop_where_rewards_cannot_go_on(reports)
        return rewards_per_func

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        mode = "train" if self._is_training() else "eval"
        num_generations: Any = (
            self.num_generations if mode == "train" else self.num_generations_eval
        )
        rewards_per_func = self._rewards_per_func  # (B, K)
        dead = dead_groups(rewards_per_func, num_generations=num_generations)  # (P, K)
        normalized = group_normalize(rewards_per_func, num_generations=num_generations)  # (B, K)
        weighted = normalized * self.reward_weights.to(normalized)  # (B, K)
        metrics = self._metrics[mode]
        texts = list(self._logs["completion"])[-len(rewards_per_func) :]
        if len(texts) < len(rewards_per_func):  # the log is as long as a generation batch
            texts = gather_object(self._completions)
        texts = list(map(completion_text, texts))
        numbers = batch_numbers(
            rewards_per_func, self.reward_func_names, dead, weighted, texts, num_generations
        )
        for name, value in numbers.items():
            metrics[name].append(value)
        if self._meter is not None and "reference" in inputs[0]:
            ratios = self._meter.ratios(self._completion_ids, [row["reference"] for row in inputs])
            known = [ratio for ratio in gather_object(ratios.tolist()) if ratio == ratio]
            if known:
                metrics["length_gate/ratio"].append(sum(known) / len(known))

        if self.multi_objective_aggregation == "normalize_then_sum":
            advantages = cgdpo_advantages(
                rewards_per_func,
                num_generations=num_generations,
                reward_weights=self.reward_weights,
            )  # (B,)
            rank, rows = self.accelerator.process_index, len(inputs)
            output["advantages"] = advantages[rank * rows : (rank + 1) * rows]
            # TRL has already logged its own numbers; the log must show what is trained on.
            logged = self._logs["advantages"]
            for _ in range(min(len(advantages), len(logged))):
                logged.pop()
            logged.extend(advantages.tolist())
            counting = (self.reward_weights != 0).to(dead.device)  # (K,)
            metrics["frac_reward_zero_std"][-1] = (
                dead[:, counting].all(dim=1).double().mean().item()
            )
        if self._keeper is not None and self._keeper.wants(mode, self.state):
            self._keep_verdicts(inputs, mode, num_generations, output["advantages"], weighted)
        if self._credited is not None and mode == "train":
            credit = self._credit(self._credited, output, num_generations)  # (B_local, T)
            output["advantages"] = output["advantages"][:, None] + CREDIT_WEIGHT * credit
        return output

    def _credit(
        self, judged: RewardHooks, output: dict[str, Any], num_generations: int
    ) -> torch.Tensor:
        """[`token_credit`] by a reward's verdicts on this rank's completions, of shape (B, T)."""
        mask = output["completion_mask"]  # (B, T)
        values, known, counts = (
            found.to(mask.device)
            for found in batch_values(
                self._backend,
                self._completion_ids,
                [seen.get("assertions", ()) for seen in judged.observations()],
                length=mask.shape[1],
            )
        )
        known = known & mask.bool()  # (B, T)
        sums = torch.stack([(values * known).sum(1), known.sum(1), mask.sum(1)], dim=1)  # (B, 3)
        every: Any = self.accelerator.gather(
            torch.cat([sums, counts], dim=1)
        )  # (B of all ranks, 6)
        means = group_means(every[:, 0], every[:, 1], num_generations)  # (B of all ranks,)
        _, scored, tokens, made, placed, undecoded = every.sum(0).tolist()
        self._metrics["train"]["credit/tokens"].append(scored / max(1.0, tokens))
        self._metrics["train"]["credit/placed"].append(placed / max(1.0, made))
        self._metrics["train"]["credit/undecoded"].append(undecoded / len(every))
        first = self.accelerator.process_index * len(values)
        return token_credit(values, known, means[first : first + len(values)])

    def _keep_verdicts(
        self,
        inputs: list[dict[str, Any]],
        mode: str,
        num_generations: int,
        advantages: torch.Tensor,
        weighted: torch.Tensor,
    ) -> None:
        """Send a few groups of the batch, with their verdicts, to the main process."""
        assert self._keeper is not None
        count, first = len(inputs), self.accelerator.process_index * len(inputs)
        mine = slice(first, first + count)
        shares = advantage_shares(weighted, self._rewards_per_func)[mine]  # (B_local, K)
        kept = self._keeper.sample(
            self._columns(),
            step=self.state.global_step + (mode == "train"),
            split=mode,
            num_generations=num_generations,
            completions=self._completions,
            rewards=by_name(self._rewards_per_func[mine], self.reward_func_names),
            observations={reward_name(hooks): hooks.observations() for hooks in self._hooks},
            advantages=advantages.tolist(),
            advantage_shares=by_name(shares, self.reward_func_names),
            prompts=[user_text(row.get("prompt")) for row in inputs],
            tokens=[len(ids) for ids in self._completion_ids],
            first=first,
        )
        rows = gather_object(kept)
        if self.accelerator.is_main_process:
            self._keeper.keep(rows)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        steps = len(self._metrics["train"].get("step_time", ())) if self._is_training() else 0
        if steps:
            self._metrics["train"]["judge/wait_time"] = [self._waited / steps]
            self._waited = 0.0
        # TRL's table shows 9 characters of a caption in 80 columns, so its printing is turned off.
        show, self.num_completions_to_print = self.num_completions_to_print, 0
        super().log(logs, start_time)
        self.num_completions_to_print = show
        done = "train_runtime" in logs  # the summary of the run, not of a step
        if self.log_completions and not done and self.accelerator.is_main_process:
            say(self, completion_lines(self._logs, count=3 if show is None else show))

    def _say_what_is_unscored(self, reports: Sequence[JudgingReport], rows: int) -> None:
        metrics = self._metrics["train" if self._is_training() else "eval"]
        counted: Counter[tuple[str, str]] = Counter()
        for report in reports:
            counted.update({(report.reward, reason): n for reason, n in report.unscored.items()})
        for name, reason in sorted(counted.keys() - self._unscored):
            replies = [
                r.failing_reply for r in reports if r.reward == name and reason in r.unscored
            ]
            logger.warning(
                "%s left %d of %d completions unscored (%s: %s). They count as their group's mean. "
                "See judge/%s/unscored/%s for the share in later batches.",
                *(name, counted[name, reason], rows, reason),
                *(next(filter(None, replies), "no reply"), name, reason),
            )
        self._unscored |= counted.keys()
        for name, reason in sorted(self._unscored):  # log zeros too, or the mean would be wrong
            metrics[f"judge/{name}/unscored/{reason}"].append(counted[name, reason] / rows)

    def _stop_where_rewards_cannot_go_on(self, reports: Sequence[JudgingReport]) -> None:
        bugs = [report for report in reports if report.internal_error]
        if bugs:
            self._forget()
            raise RewardInternalError(
                f"{bugs[0].reward} failed with an internal error. "
                f"{self._checkpoint_for_resuming()}\n{bugs[0].internal_error}"
            )
        spent = [report.budget_spent for report in reports if report.budget_spent]
        if spent and self.is_in_train:
            if not self._stopping:
                logger.warning("Stopping after this step, with a checkpoint: %s", spent[0])
            self._stopping = True
            if not self._is_training():
                self._stop()  # the step that is evaluated is done
            return
        if not self._is_training():
            return  # warned; the metrics are missing, and the run continues
        shares = {reward_name(hooks): hooks.max_unscored for hooks in self._hooks}
        if (out := self._outage.observe(reports, shares)) is not None:
            replies = [r.failing_reply for r in reports if r.failing_reply]
            self._forget()
            raise JudgeOutageError(
                f"{out}. "
                + (f"One failing reply: {replies[0]!r}. " if replies else "")
                + self._checkpoint_for_resuming()
            )

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        # At the step's last micro-batch: stopped at another, it would end without an update.
        if self._stopping and self.accelerator.sync_gradients:
            self._stop()
        return loss

    def _stop(self) -> None:
        self.control.should_save = self.control.should_training_stop = True

    def _determine_best_metric(self, metrics, trial):
        # With save_strategy="best", this also decides whether there is a checkpoint.
        return super()._determine_best_metric(metrics, trial) or self._stopping

    def _checkpoint_for_resuming(self) -> str:
        if not self.is_in_train:
            return "Fix it and evaluate again."
        self._save_checkpoint(self.model, trial=None)  # type: ignore[arg-type]
        return (
            f"A checkpoint of step {self.state.global_step} is in {self.args.output_dir}. Fix the "
            "cause, then resume with trainer.train(resume_from_checkpoint=True)."
        )

    def _is_training(self) -> bool:
        model: Any = self.model
        return model.training

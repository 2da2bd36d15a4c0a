"""Decides when completions are generated and judged: the layer between TRL and the rewards."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from accelerate.utils import gather_object, is_peft_model

from trl_balcap.checkpoints import CaptionerTrainer
from trl_balcap.config import BalCapConfig
from trl_balcap.lookahead import LookAhead, Peekable, Written
from trl_balcap.rewards.hooks import RewardHooks, reward_hooks, start_early
from trl_balcap.sampled_logps import SampledLogps

__all__ = ["AheadTrainer"]

logger = logging.getLogger(__name__)


class AheadTrainer(CaptionerTrainer):
    """
    Differs from [`~trl.GRPOTrainer`] only in when a batch is generated and when its judging starts.

    Judging starts as soon as completions exist. With `judge_lookahead`, the later generation
    batches of an update are generated while the judge reads the first one. With `judge_lag=1`, so
    are those of the next update, by the policy before this update. TRL asks for their
    log-probabilities right away, as it does when generation and updates are not aligned, and gets
    the same values back when it trains on them. So its importance ratio compares the policy being
    trained with the policy that generated them. They are noted while transformers generates; with
    another engine, or several turns, they take a forward pass.
    """

    _hooks: Sequence[RewardHooks] = ()  # of the reward functions that define them
    _inputs: list[dict[str, Any]]  # rows of the current batch, on this rank
    _looks_ahead = False
    _batches: Peekable | None = None  # of the current epoch
    _next_update: Sequence[Any] = ()  # its generation batches, with judge_lag=1
    _written: Written | None = None  # the batch being generated one update early
    _noted: SampledLogps  # while it was generated
    _replay: Any = None  # log-probabilities that TRL asks for next, if already known

    def _prepare_ahead(self) -> None:
        """Set up lookahead. Call this once the reward functions are final."""
        self._hooks = [hooks for f in self.reward_funcs if (hooks := reward_hooks(f)) is not None]
        self._lookahead = LookAhead()
        # Environments are reset for a batch and then give its rewards, so they cannot serve two.
        self._looks_ahead = (
            bool(self._hooks)
            and self.environment_factories is None
            and isinstance(self.args, BalCapConfig)
            and self.args.judge_lookahead
        )

    @property
    def _lags(self) -> bool:
        return self._looks_ahead and bool(self.args.judge_lag)  # type: ignore[attr-defined]

    def train(self, *args: Any, **kwargs: Any):
        try:
            return super().train(*args, **kwargs)
        finally:
            self._begin_update([])  # even if a judge outage or a callback ended the run
            self._forget()
            self._batches, self._next_update = None, ()  # and the data loader's workers end
            self._written = self._replay = None  # they belong to a batch of this run

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        if self._batches is None or self._batches.source is not epoch_iterator:
            self._batches = Peekable(epoch_iterator)
            self._forget()
        elif not self._lags:
            self._forget()
        samples, items = super().get_batch_samples(self._batches, num_batches, device)  # type: ignore[arg-type]
        if self._looks_ahead:
            args: Any = self.args
            upcoming = []
            if self._lags and self.state.global_step + 1 < self.state.max_steps:
                upcoming = self._batches.peek(args.gradient_accumulation_steps)
            every = args.steps_per_generation * self.num_iterations
            generating = [
                (place, batch)
                for place, batch in enumerate([*samples, *upcoming])
                if (self._step + place) % every == 0
                or (place == 0 and self._buffered_inputs is None)  # resumed
            ]
            self._next_update = [batch for place, batch in generating if place >= len(samples)]
            self._begin_update([batch for _, batch in generating])
        return samples, items

    def _begin_update(self, batches: Sequence[Any]) -> None:
        if given_up := self._lookahead.begin(batches):
            logger.warning(
                "Dropping %d generation batches generated ahead, because training ended before "
                "their turn. They are generated again when resuming from a checkpoint.",
                given_up,
            )

    def _generate(self, prompts: list):
        if (written := self._lookahead.take(self._inputs)) is not None:
            return self._train_on(written)
        columns = self._columns()
        for hooks in self._hooks:
            hooks.before_generation(**columns)
        early = any(batch is self._inputs for batch in self._next_update)
        with self._noting() if early else nullcontext():
            output = super()._generate(prompts)
        # Indices, not unpacking: the tuple's length depends on the TRL release, the indices do not.
        completion_ids, completions = output[1], output[3]
        for reward_func in self.reward_funcs:
            start_early(
                reward_func, completions=completions, completion_ids=completion_ids, **columns
            )
        if early:
            self._written = Written(output)
            return output  # TRL continues with the log-probabilities
        return self._lookahead.keep(self._inputs, Written(output)).output

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Note the log-probabilities of what is generated."""
        model: Any = self.accelerator.unwrap_model(self.model)
        self._noted = SampledLogps(self.temperature)
        with self._noted.watching(model.get_base_model() if is_peft_model(model) else model):
            yield

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, *args: Any, **kwargs: Any
    ):
        if (known := self._replay) is not None:
            self._replay = None
            return known
        inputs = (model, input_ids, attention_mask, logits_to_keep)
        if (written := self._written) is None:
            return super()._get_per_token_logps_and_entropies(*inputs, *args, **kwargs)
        logps = self._noted.of(input_ids[:, -logits_to_keep:], attention_mask[:, -logits_to_keep:])
        written.logps = (
            (logps, None, None)  # log-probabilities, entropies and the loss of a mixture of experts
            if self._is_noted_by_all(logps is not None)
            else super()._get_per_token_logps_and_entropies(*inputs, *args, **kwargs)
        )
        self._written = None
        return self._lookahead.keep(self._inputs, written).logps  # leaves TRL's generate-and-score

    def _is_noted_by_all(self, noted: bool) -> bool:
        """Whether each rank that takes part in a forward pass can go without one."""
        plugin = self.accelerator.state.deepspeed_plugin
        sharded = self.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3)
        return all(gather_object([noted])) if sharded else noted

    def _generate_and_score_completions(self, inputs):
        self._inputs = inputs
        written = self._lookahead.held(inputs)
        held = written is not None and written.logps is not None
        with self._off_policy() if held else nullcontext():
            output = super()._generate_and_score_completions(inputs)
        if self._replay is not None:
            raise RuntimeError(
                "TRL did not ask for the log-probabilities of a batch generated by an earlier "
                "policy, so this release of TRL does not support judge_lag=1. Set judge_lag=0."
            )
        for values in self._logs["extra"].values():  # a column logged from this batch on
            values.extendleft([None] * (len(self._logs["prompt"]) - len(values)))
        return output

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards_per_func = super()._calculate_rewards(
            inputs, prompts, completions, completion_ids_list
        )
        # TRL's table of completions needs a value for each, also behind a gate that stays closed.
        for column in self._logs["extra"]:
            self._pending_extra_logs.setdefault(column, [None] * len(prompts))
        return rewards_per_func

    def _generate_later(self, inputs: list[dict[str, Any]]) -> None:
        """Generate what is needed after `inputs`, while the judge reads them."""
        if self._looks_ahead:
            self._lookahead.generate_later(inputs, self._generate_ahead)

    def _generate_ahead(self, inputs: list[dict[str, Any]]) -> None:
        mine, self._inputs = self._inputs, inputs
        try:
            if any(batch is inputs for batch in self._next_update):
                with self._off_policy(), self._logged_later(inputs):
                    super()._generate_and_score_completions(
                        inputs
                    )  # raises at the log-probabilities
            else:
                super()._generate_and_score_completions(inputs)  # raises in `_generate`
        finally:
            self._inputs, self._written = mine, None

    @contextmanager
    def _off_policy(self) -> Iterator[None]:
        """TRL computes old log-probabilities if generation and updates are not aligned. Here they
        are not, and setting `num_iterations` makes TRL compute them."""
        mine = self.num_iterations
        self.num_iterations = self.args.gradient_accumulation_steps + 1
        try:
            yield
        finally:
            self.num_iterations = mine

    @contextmanager
    def _logged_later(self, inputs: list[dict[str, Any]]) -> Iterator[None]:
        """Move what TRL logs for a batch to the step that trains on it."""
        shown, seen = self._metrics["train"], self.state.num_input_tokens_seen
        self._metrics["train"] = defaultdict(list)
        try:
            yield
        finally:
            if (written := self._lookahead.held(inputs)) is not None:
                written.metrics = dict(self._metrics["train"])
                written.tokens = self.state.num_input_tokens_seen - seen
            self._metrics["train"], self.state.num_input_tokens_seen = shown, seen

    def _train_on(self, written: Written) -> Any:
        """The output of TRL's `_generate` for the batch to train on now."""
        if written.logps is not None:
            self._replay = written.logps
            metrics = self._metrics["train"]
            for name, values in written.metrics.items():
                metrics[name].extend(values)
            self.state.num_input_tokens_seen += written.tokens  # type: ignore[assignment]
            metrics["num_tokens"] = [self.state.num_input_tokens_seen]
        return written.output

    def _columns(self) -> dict[str, list[Any]]:
        """The dataset's columns of the current batch, as TRL passes them to reward functions."""
        names = [key for key in self._inputs[0] if key != "prompt"]
        return {name: [row[name] for row in self._inputs] for name in names}

    def _forget(self) -> None:
        """Cancel the judging of abandoned batches."""
        for hooks in self._hooks:
            hooks.forget()

"""When completions are written and judged: the part of the trainer between TRL and the rewards."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from trl_balcap.checkpoints import CaptionerTrainer
from trl_balcap.config import BalCapConfig
from trl_balcap.lookahead import LookAhead, Peekable, Written
from trl_balcap.rewards.hooks import RewardHooks, reward_hooks, start_early

__all__ = ["AheadTrainer"]

logger = logging.getLogger(__name__)


class AheadTrainer(CaptionerTrainer):
    """
    The changes w.r.t. [`~trl.GRPOTrainer`] are when a batch is generated and when its judging
    begins.

    Judging begins as soon as completions exist. With `judge_lookahead` the later generation batches
    of an update are written while the judge reads the first. With `judge_lag=1` those of the next
    update are written then too, by the policy before this update: TRL is made to compute their
    log-probabilities at once, as it does where generation and updates are out of step, and gets the
    same back when it trains on them. Its importance ratio is thus that of the policy that trains
    over the policy that wrote.
    """

    _hooks: Sequence[RewardHooks] = ()  # of the reward functions that have any
    _inputs: list[dict[str, Any]]  # rows of the batch under way, on this rank
    _looks_ahead = False
    _batches: Peekable | None = None  # of the epoch under way
    _next_update: Sequence[Any] = ()  # its generation batches, with judge_lag=1
    _written: Written | None = None  # by the batch that is written one update early
    _replay: Any = None  # log-probabilities that TRL asks for next, where they are known

    def _prepare_ahead(self) -> None:
        """To be called once the reward functions are what they stay."""
        self._hooks = [hooks for f in self.reward_funcs if (hooks := reward_hooks(f)) is not None]
        self._lookahead = LookAhead()
        # Environments are reset for a batch and asked for its rewards: they cannot serve two.
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
            self._begin_update([])  # also where a judge's outage or a callback ended the run
            self._forget()

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
                "%d generation batches that were written ahead are given up: training ended before "
                "their turn. Resumed from a checkpoint, it writes them again.",
                given_up,
            )

    def _generate(self, prompts: list):
        if (written := self._lookahead.take(self._inputs)) is not None:
            return self._train_on(written)
        columns = self._columns()
        for hooks in self._hooks:
            hooks.before_generation(**columns)
        output = super()._generate(prompts)
        # Indices, not unpacking: the tuple's length changes between TRL releases, these two do not.
        completion_ids, completions = output[1], output[3]
        for reward_func in self.reward_funcs:
            start_early(
                reward_func, completions=completions, completion_ids=completion_ids, **columns
            )
        if any(batch is self._inputs for batch in self._next_update):
            self._written = Written(output)
            return output  # TRL goes on to the log-probabilities
        return self._lookahead.keep(self._inputs, Written(output)).output

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any):
        if (known := self._replay) is not None:
            self._replay = None
            return known
        found = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if (written := self._written) is not None:
            self._written, written.logps = None, found
            self._lookahead.keep(self._inputs, written)  # leaves TRL's generate-and-score
        return found

    def _generate_and_score_completions(self, inputs):
        self._inputs = inputs
        written = self._lookahead.held(inputs)
        if written is None or written.logps is None:
            return super()._generate_and_score_completions(inputs)
        with self._off_policy():
            output = super()._generate_and_score_completions(inputs)
        if self._replay is not None:
            raise RuntimeError(
                "TRL did not ask for the log-probabilities of a batch that an earlier policy "
                "wrote. This release of TRL does not fit judge_lag=1: set judge_lag=0."
            )
        return output

    def _generate_later(self, inputs: list[dict[str, Any]]) -> None:
        """Write what is needed after `inputs`, while the judge reads them."""
        if self._looks_ahead:
            self._lookahead.generate_later(inputs, self._generate_ahead)

    def _generate_ahead(self, inputs: list[dict[str, Any]]) -> None:
        mine, self._inputs = self._inputs, inputs
        try:
            if any(batch is inputs for batch in self._next_update):
                with self._off_policy(), self._logged_later(inputs):
                    super()._generate_and_score_completions(inputs)  # left from the logps
            else:
                super()._generate_and_score_completions(inputs)  # left from `_generate`
        finally:
            self._inputs, self._written = mine, None

    @contextmanager
    def _off_policy(self) -> Iterator[None]:
        """TRL computes old log-probabilities where generation and updates are out of step: here
        they are, and `num_iterations` is where it looks."""
        mine = self.num_iterations
        self.num_iterations = self.args.gradient_accumulation_steps + 1
        try:
            yield
        finally:
            self.num_iterations = mine

    @contextmanager
    def _logged_later(self, inputs: list[dict[str, Any]]) -> Iterator[None]:
        """What TRL logs of a batch belongs to the step that trains on it."""
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
        """What TRL's `_generate` is to return for a batch whose turn has come."""
        if written.logps is not None:
            self._replay = written.logps
            metrics = self._metrics["train"]
            for name, values in written.metrics.items():
                metrics[name].extend(values)
            self.state.num_input_tokens_seen += written.tokens  # type: ignore[assignment]
            metrics["num_tokens"] = [self.state.num_input_tokens_seen]
        return written.output

    def _columns(self) -> dict[str, list[Any]]:
        """The dataset's columns of the batch under way, as TRL passes them to reward functions."""
        names = [key for key in self._inputs[0] if key != "prompt"]
        return {name: [row[name] for row in self._inputs] for name in names}

    def _forget(self) -> None:
        """Call off the judging of batches that were given up."""
        for hooks in self._hooks:
            hooks.forget()

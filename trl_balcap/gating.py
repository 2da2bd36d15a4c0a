"""The length gate: which completions keep a reward, by relative length or by tokens.

[`gate_reward`] applies the two formulas to any reward function of any TRL trainer.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from trl_balcap.data.completions import completion_text, is_empty
from trl_balcap.length import check_band, length_gate, linear_length_penalty
from trl_balcap.rewards.base import JudgeReward
from trl_balcap.rewards.hooks import (
    JudgingReport,
    RewardHooks,
    is_async_reward,
    reward_hooks,
    reward_name,
    start_early,
)

__all__ = ["GateKind", "LengthMeter", "gate_reward", "length_gate", "linear_length_penalty"]

GateKind = Literal["mask", "linear"]


def gate_reward(
    reward_func: Callable[..., Any],
    processing_class: Any,
    *,
    lower: float = 0.5,
    upper: float = 2.0,
    kind: GateKind = "mask",
    tokens: tuple[int, int] | None = None,
    end_token_ids: Iterable[int] = (),
) -> Callable[..., Any]:
    """
    Put a reward function behind a length gate, for any TRL trainer that calls reward functions.

    The length of a completion is its number of tokens without special ones (no EOS, no padding).
    The reference is counted with the same tokenizer, also without special tokens. Behind a closed
    gate the reward function is not called, so a judge costs nothing there. Each gated reward has
    its own gate. A row without a reference has no length ratio, so its reward is `None`.

    Logged through TRL's `log_metric`, if the trainer passes it: `length_gate/ratio` (mean rho),
    `length_gate/too_short` and `length_gate/too_long` (shares of the batch). Logged through
    `log_extra`, for each completion: `<reward>/length_ratio`.

    Args:
        reward_func (`Callable`):
            A TRL reward function, sync or async. Its `__name__` is kept, so that weights and metric
            names do not change.
        processing_class (`PreTrainedTokenizerBase` or `ProcessorMixin`):
            The trainer's processor or tokenizer.
        lower (`float`, *optional*, defaults to `0.5`):
            Smallest length ratio that keeps the reward.
        upper (`float`, *optional*, defaults to `2.0`):
            Largest length ratio that keeps the reward.
        kind (`str`, *optional*, defaults to `"mask"`):
            `"mask"` for [`length_gate`], `"linear"` for [`linear_length_penalty`].
        tokens (`tuple[int, int]`, *optional*):
            Smallest and largest number of tokens that keep the reward. Replaces `lower` and
            `upper`. No references are needed, and no ratio is logged.
        end_token_ids (`Iterable[int]`, *optional*):
            Additional tokens that end a completion but are not special tokens of the tokenizer.
            They are not counted.

    Returns:
        `Callable`: picklable if `reward_func` is, async if it is. It needs the `reference` column,
        unless `tokens` is given.

    Example:

    ```python
    >>> class Words:  # a tokenizer's two methods, a token a word
    ...     all_special_ids = [0]
    ...     def __call__(self, texts, add_special_tokens):
    ...         return {"input_ids": [text.split() for text in texts]}
    >>> def fluent(completions, **kwargs):
    ...     return [0.9 for _ in completions]
    >>> gated = gate_reward(fluent, Words())
    >>> gated(prompts=["", ""], completions=["", ""], completion_ids=[[7, 8, 0], [7, 0]],
    ...       reference=["a red circle", "a red circle"])
    [0.9, 0.0]

    ```
    """
    if isinstance(reward_func, torch.nn.Module) or not callable(reward_func):
        raise ValueError(
            f"Only reward functions can be length-gated, got {type(reward_func).__name__}. Remove "
            "reward models from length_gated_rewards, or wrap the model in a function."
        )
    gated_class = _AsyncGatedReward if is_async_reward(reward_func) else _GatedReward
    return gated_class(
        reward_func,
        processing_class,
        lower=lower,
        upper=upper,
        kind=kind,
        tokens=tokens,
        end_token_ids=end_token_ids,
    )


class LengthMeter:
    """
    Measures completions in tokens, without special ones, and relative to their references.

    Args:
        processing_class (`PreTrainedTokenizerBase` or `ProcessorMixin`):
            The trainer's processor or tokenizer.
        end_token_ids (`Iterable[int]`, *optional*):
            Additional tokens that are not counted, see [`gate_reward`].
    """

    def __init__(self, processing_class: Any, end_token_ids: Iterable[int] = ()):
        self.tokenizer = getattr(processing_class, "tokenizer", processing_class)
        self.not_counted = _special_ids(self.tokenizer) | set(end_token_ids)

    def tokens(self, completion_ids: Iterable[list[int]]) -> list[int]:
        """Number of tokens of each completion."""
        return [sum(token not in self.not_counted for token in ids) for ids in completion_ids]

    def ratios(self, completion_ids: Iterable[list[int]], references: Iterable[Any]) -> Tensor:
        """Rho of each completion, float64 of shape `(B,)`; NaN if its reference has no tokens."""
        return torch.tensor(
            [
                count / length if (length := self._reference_length(text)) else torch.nan
                for count, text in zip(self.tokens(completion_ids), references, strict=True)
            ],
            dtype=torch.float64,
        )

    def _reference_length(self, text: Any) -> int:
        if not isinstance(text, str) or is_empty(text):
            return 0
        return _token_count(self.tokenizer, text)


class _Gate(RewardHooks):
    """The parts shared by sync and async gated rewards: measure lengths, select rows, gate."""

    def __init__(
        self,
        reward_func: Callable[..., Any],
        processing_class: Any,
        *,
        lower: float,
        upper: float,
        kind: GateKind,
        tokens: tuple[int, int] | None,
        end_token_ids: Iterable[int],
    ):
        if kind not in ("mask", "linear"):
            raise ValueError(f"kind must be 'mask' or 'linear', got {kind!r}.")
        if tokens is not None:
            check_band(tokens)
            if kind != "mask":
                raise ValueError(
                    f"tokens needs kind='mask', got {kind!r}. Leave one of the two out."
                )
            lower, upper = tokens
        self.formula = length_gate if kind == "mask" else linear_length_penalty
        self.formula(torch.ones(1), torch.ones(1), lower=lower, upper=upper)  # raises on bad bounds
        self.reward_func = reward_func
        self.meter = LengthMeter(processing_class, end_token_ids)
        self.lower, self.upper, self.kind = lower, upper, kind
        self.is_ratio = tokens is None  # `lower` and `upper` bound the ratio, otherwise the tokens
        self.hooks = reward_hooks(reward_func) or RewardHooks()
        self.__name__ = reward_name(reward_func)
        self.needs = tuple(dict.fromkeys((*self.hooks.needs, *["reference"] * self.is_ratio)))
        self.sees = self.hooks.sees
        # Columns that the reward logs for its completions; those of others are known once logged.
        judged = isinstance(self.hooks, JudgeReward)
        self._columns = {f"{self.__name__}/{key}" for key in self.sees if judged}
        self._without_reference = 0  # since the last report
        self._observations: list[dict[str, Any]] = []

    @property
    def max_unscored(self) -> float:  # type: ignore[override] (the gated reward's own)
        return self.hooks.max_unscored

    def about(self) -> str:
        return self.hooks.about()

    def budgets(self) -> dict[str, float]:
        return self.hooks.budgets()

    def preflight(self) -> None:
        self.hooks.preflight()

    def before_generation(self, **columns: list[Any]) -> None:
        self.hooks.before_generation(**columns)

    def start(self, *, completions: list, completion_ids: list[list[int]], **columns: Any) -> None:
        """Start the wrapped reward early, for the rows whose gate is open."""
        rows = self.open_rows(self.lengths(completions, completion_ids, columns.get("reference")))
        if rows:
            arguments = {"completions": completions, "completion_ids": completion_ids, **columns}
            start_early(self.reward_func, **_take_rows(arguments, rows, len(completions)))

    def forget(self) -> None:
        self.hooks.forget()

    def take_report(self) -> JudgingReport | None:
        report, without = self.hooks.take_report(), self._without_reference
        self._without_reference = 0
        if without:
            report = report or JudgingReport(self.__name__)
            report.unscored = dict(Counter(report.unscored) + Counter(no_reference=without))
        return report

    def observations(self) -> list[dict[str, Any]]:
        return self._observations

    def lengths(
        self,
        completions: list,
        completion_ids: list[list[int]] | None,
        reference: list[str] | None,
    ) -> Tensor:
        """
        The length that the gate checks, float64 of shape `(B,)`: rho of each completion, NaN if the
        reference has no tokens. With bounds in tokens, the number of tokens.
        """
        token_ids: list[list[int]] = completion_ids or []
        if completion_ids is None:  # trainers that only pass texts
            texts = [completion_text(completion) for completion in completions]
            token_ids = self.meter.tokenizer(texts, add_special_tokens=False)["input_ids"]
        if not self.is_ratio:
            return torch.tensor(self.meter.tokens(token_ids), dtype=torch.float64)
        if reference is None:
            raise ValueError(
                f"The length gate on {self.__name__} needs a reference caption for every row, but "
                "the dataset has no column 'reference'. Add it, set bounds in tokens "
                "(length_gate_tokens=[60, 200]), or set length_gate=None."
            )
        if len(reference) != len(token_ids):
            raise ValueError(
                f"The length gate on {self.__name__} got {len(token_ids)} completions but "
                f"{len(reference)} references. Pass one reference per completion."
            )
        return self.meter.ratios(token_ids, reference)

    def open_rows(self, lengths: Tensor) -> list[int]:
        ones = torch.ones_like(lengths)
        kept = self.formula(ones, lengths, lower=self.lower, upper=self.upper) > 0
        return kept.nonzero()[:, 0].tolist()

    def before(self, kwargs: dict[str, Any]) -> tuple[Tensor, list[int], dict[str, Any]]:
        completions = kwargs["completions"]
        lengths = self.lengths(completions, kwargs.get("completion_ids"), kwargs.get("reference"))
        known = lengths[~lengths.isnan()]
        log_metric = kwargs.get("log_metric")
        if log_metric is not None and len(known):
            if self.is_ratio:
                log_metric("length_gate/ratio", known.mean().item())
            log_metric("length_gate/too_short", (known < self.lower).double().mean().item())
            log_metric("length_gate/too_long", (known > self.upper).double().mean().item())
        rows = self.open_rows(lengths)
        inner = _take_rows(kwargs, rows, len(completions))
        log_extra = kwargs.get("log_extra")
        if log_extra is not None:

            def log_open(column: str, values: list) -> None:
                self._columns.add(column)
                log_extra(column, _put_rows(values, rows, len(completions)))

            inner["log_extra"] = log_open  # TRL wants one value per row of the whole batch
            if self.is_ratio:
                log_extra(f"{self.__name__}/length_ratio", _listed(lengths))
            if not rows:  # otherwise these completions would get the last batch's values
                for column in self._columns:
                    log_extra(column, [None] * len(completions))
        return lengths, rows, inner

    def after(
        self, rewards: list[float | None], rows: list[int], lengths: Tensor
    ) -> list[float | None]:
        given = torch.tensor(
            [torch.nan if reward is None else reward for reward in rewards], dtype=torch.float64
        )
        gated = self.formula(given, lengths[rows], lower=self.lower, upper=self.upper)  # (open,)
        placed = _put_rows(_listed(gated), rows, len(lengths), empty=0.0)
        self._observe(rewards, rows, lengths)
        self._without_reference += int(lengths.isnan().sum())
        return [
            None if unknown else reward
            for reward, unknown in zip(placed, lengths.isnan().tolist(), strict=True)
        ]

    def _observe(self, rewards: list[float | None], rows: list[int], lengths: Tensor) -> None:
        seen = self.hooks.observations()
        if len(seen) != len(rows):  # the reward was not called, or has no hooks
            seen = [{} if reward is None else {"reward": reward} for reward in rewards]
        is_open = set(rows)
        inner = iter(seen)
        self._observations = []
        for row, length in enumerate(_listed(lengths)):
            ratio = {"length_ratio": length} if self.is_ratio else {}
            if length is None:
                what = {"reason": "no_reference"}
            elif row in is_open:
                what = {**next(inner), **ratio, "gated": False}
            else:
                what = {"reason": "length_gate", **ratio, "gated": True}
            self._observations.append(what)


class _GatedReward(_Gate):
    def __call__(self, **kwargs: Any) -> list[float | None]:
        lengths, rows, inner = self.before(kwargs)
        return self.after(self.reward_func(**inner) if rows else [], rows, lengths)


class _AsyncGatedReward(_Gate):
    reward_func: Callable[..., Awaitable[list[float | None]]]

    async def __call__(self, **kwargs: Any) -> list[float | None]:
        lengths, rows, inner = self.before(kwargs)
        return self.after(await self.reward_func(**inner) if rows else [], rows, lengths)


@lru_cache(maxsize=65536)  # a reference recurs in every rollout and epoch
def _token_count(tokenizer: Any, text: str) -> int:
    return len(tokenizer([text], add_special_tokens=False)["input_ids"][0])


def _take_rows(kwargs: dict[str, Any], rows: list[int], size: int) -> dict[str, Any]:
    return {
        key: [value[row] for row in rows]
        if isinstance(value, list) and len(value) == size
        else value
        for key, value in kwargs.items()
    }


def _put_rows(values: list, rows: list[int], size: int, empty: Any = None) -> list:
    placed = [empty] * size
    for row, value in zip(rows, values, strict=True):
        placed[row] = value
    return placed


def _listed(values: Tensor) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]


def _special_ids(tokenizer: Any) -> set[int]:
    """Special tokens, including added ones that `all_special_ids` does not list."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {token_id for token_id, token in added.items() if token.special}
    return special | set(tokenizer.all_special_ids)

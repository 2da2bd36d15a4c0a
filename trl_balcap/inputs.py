"""Checks the arguments of [`BalCapTrainer`] before anything slow starts."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch import nn
from trl import GRPOConfig

from trl_balcap.config import BalCapConfig
from trl_balcap.data import check_columns, load_captions
from trl_balcap.data.checks import check_size
from trl_balcap.rewards.hooks import RewardHooks, reward_hooks, reward_name

__all__ = [
    "check_datasets",
    "check_lag",
    "check_rewards",
    "check_weights",
    "credited_reward",
    "gated_names",
    "loaded",
    "preflight",
]

logger = logging.getLogger(__name__)


def check_rewards(reward_funcs: Sequence[Any], args: GRPOConfig) -> None:
    """
    Reject anything that is not a reward function, and warn about rewards without effect.

    Raises:
        `ValueError`: if there is a class instead of an instance, or the wrong number of weights.
    """
    for place, func in enumerate(reward_funcs):
        if isinstance(func, type):
            raise ValueError(
                f"reward_funcs[{place}] is the class {func.__name__}, but must be an instance. Use "
                f"{func.__name__}(...)."
            )
    weights = args.reward_weights
    check_weights(weights, len(reward_funcs))
    if weights is not None and not any(weights):
        logger.warning("All reward_weights are 0, so nothing is trained. Set at least one above 0.")
    names = Counter(reward_name(func) for func in reward_funcs if _is_function(func))
    for name, times in names.items():
        if times > 1:
            logger.warning(
                "%d reward functions are called %r, so their metrics and logged rewards mix. "
                "Remove one, or give each its own __name__.",
                times,
                name,
            )


def check_weights(weights: Sequence[float] | None, count: int) -> None:
    """
    Check `reward_weights`, whose default is 1.0 for each of `count` reward functions.

    Raises:
        `ValueError`: if there are not as many as reward functions.
    """
    if weights is not None and len(weights) != count:
        raise ValueError(
            f"reward_weights has {len(weights)} values for {count} reward functions. Pass one per "
            "reward function, in the same order, or leave it out for 1.0 each."
        )


def check_lag(reward_funcs: Sequence[Any], args: GRPOConfig, *, environments: bool) -> None:
    """
    Refuse `judge_lag=1` where nothing would be judged while the next completions are written.

    Raises:
        `ValueError`: without a reward that judges in the background, or with TRL's environments,
            which serve one batch at a time.
    """
    if not isinstance(args, BalCapConfig) or not args.judge_lag:
        return
    if environments:
        raise ValueError(
            "judge_lag=1 needs two batches at once, and environments serve one. Set judge_lag=0."
        )
    if not any(reward_hooks(func) is not None for func in reward_funcs):
        raise ValueError(
            "judge_lag=1 trains on older completions to save waiting for a judge, and no reward "
            f"function of {[reward_name(func) for func in reward_funcs]} judges in the background. "
            "Set judge_lag=0, or use a JudgeReward."
        )


def credited_reward(
    args: GRPOConfig, reward_funcs: Sequence[Any], *, tools: bool = False
) -> RewardHooks | None:
    """
    The reward whose verdicts on assertions become credit; `None` without `credit="assertion"`.

    Raises:
        `ValueError`: if no reward judges assertions, or completions are not captions alone.
    """
    if not isinstance(args, BalCapConfig) or args.credit is None:
        return None
    if tools:
        raise ValueError(
            f"credit={args.credit!r} needs completions that are captions, and tools and "
            "environments write into them. Leave one of the two out."
        )
    for hooks in filter(None, map(reward_hooks, reward_funcs)):
        if "assertions" in hooks.sees:
            return hooks
    names = [reward_name(func) for func in reward_funcs]
    raise ValueError(
        f"credit={args.credit!r} needs a reward that judges assertions, such as PrecisionReward, "
        f"but the reward functions are {names}. Add one, or leave credit out."
    )


def gated_names(args: GRPOConfig, reward_funcs: Sequence[Any]) -> list[str]:
    """
    Names of the length-gated rewards.

    Raises:
        `ValueError`: if no reward function has one of the names.
    """
    if not isinstance(args, BalCapConfig) or args.length_gate is None:
        return []
    names = [reward_name(func) for func in reward_funcs if _is_function(func)]
    if args.length_gated_rewards is None:
        return [name for name in names if name == "linguistic_reward"]
    for name in args.length_gated_rewards:
        if name not in names:
            raise ValueError(
                f"length_gated_rewards contains {name!r}, but the reward functions are {names}."
            )
    return args.length_gated_rewards


def loaded(dataset: Any) -> Any:
    """Load a dataset given as a path (or as a dict of splits with paths) as captions."""
    if isinstance(dataset, str | PathLike):
        return load_captions(Path(dataset) if Path(dataset).exists() else str(dataset))
    if isinstance(dataset, dict):
        return {name: loaded(split) for name, split in dataset.items()}
    return dataset


def check_datasets(
    args: GRPOConfig,
    train_dataset: Any,
    eval_dataset: Any,
    reward_funcs: Sequence[Any],
    gated: Sequence[str],
    *,
    prompts: bool = True,
) -> None:
    """
    Reject a dataset without the columns that TRL, the rewards or the gate need, and a training set
    that is smaller than one generation batch.

    Args:
        args (`GRPOConfig`):
            The trainer's configuration.
        train_dataset, eval_dataset (`Dataset`, `IterableDataset`, `dict` of them or `None`):
            The trainer's datasets.
        reward_funcs (`Sequence`):
            The reward functions.
        gated (`Sequence[str]`):
            Names of the length-gated rewards.
        prompts (`bool`, *optional*, defaults to `True`):
            Whether each row must have a prompt; TRL's environments bring their own.

    Raises:
        `ValueError`: with the dataset, the column or row, and what needs it.
    """
    needs: dict[str, tuple[str, ...]] = {}
    ratio = isinstance(args, BalCapConfig) and args.length_gate_tokens is None
    for func in filter(_is_function, reward_funcs):
        hooks, name = reward_hooks(func), reward_name(func)
        needed = (*(hooks.needs if hooks else ()), *["reference"] * (ratio and name in gated))
        if needed:
            needs[name] = tuple(dict.fromkeys(needed))
    if isinstance(train_dataset, Dataset):
        size, group = args.generation_batch_size, args.num_generations
        assert size is not None  # GRPOConfig has set both
        assert group is not None
        check_size(
            len(train_dataset),
            generation_batch_size=size,
            num_generations=group,
            global_batch_size=args.per_device_train_batch_size * args.world_size,
        )
    for name, dataset in _named(train_dataset, eval_dataset):
        if isinstance(dataset, Dataset) and not len(dataset):
            raise ValueError(f"{name} has no rows. Pass a dataset with rows, or leave it out.")
        if prompts:
            _check_prompts(name, dataset)
        if needs:
            check_columns(dataset, needs, name=name)


def preflight(args: GRPOConfig, reward_funcs: Sequence[Any]) -> None:
    """
    Let each reward ask one question on the main process; an error is raised on all ranks.

    Raises:
        `RuntimeError` or `ValueError`: if a reward cannot work.
    """
    asking = [hooks for func in reward_funcs if (hooks := reward_hooks(func)) is not None]
    if not asking:
        return
    failure: list[Exception | None] = [None]
    if args.process_index == 0:
        try:
            for hooks in asking:
                hooks.preflight()
        except (RuntimeError, ValueError) as error:  # JudgeConfigError is one
            failure[0] = error
        except Exception as error:  # noqa: BLE001 - handed on: all ranks raise it together
            failure[0] = RuntimeError(f"The judge cannot work: {type(error).__name__}: {error}")
            failure[0].__cause__ = error
    if args.world_size > 1:
        broadcast_object_list(failure)
    if failure[0] is not None:
        raise failure[0]


def _is_function(reward_func: Any) -> bool:
    return callable(reward_func) and not isinstance(reward_func, nn.Module)


def _named(train_dataset: Any, eval_dataset: Any) -> Iterator[tuple[str, Any]]:
    for name, dataset in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset)):
        if isinstance(dataset, Mapping):
            yield from ((f"{name}[{split!r}]", part) for split, part in dataset.items())
        elif dataset is not None:
            yield name, dataset


def _check_prompts(name: str, dataset: Any) -> None:
    columns = getattr(dataset, "column_names", None)
    lazy = (
        getattr(dataset, "format", {}).get("type") == "custom"
    )  # its columns are computed when read
    if columns is None or lazy:
        return
    if "prompt" not in columns:
        raise ValueError(
            f"{name} has the columns {columns}, but no `prompt`. Load it with load_captions, which "
            "adds one, or add a column of conversations: [{'role': 'user', 'content': '...'}]."
        )
    if not isinstance(dataset, Dataset):
        return
    prompt = dataset.select_columns(["prompt"])[0]["prompt"]
    conversation = isinstance(prompt, list) and all(
        isinstance(message, dict) and "role" in message for message in prompt
    )
    if not isinstance(prompt, str) and not (prompt and conversation):
        raise ValueError(
            f"The prompt of row 0 of {name} is {prompt!r}, but must be a string or a conversation "
            "such as [{'role': 'user', 'content': 'Describe the image.'}]."
        )

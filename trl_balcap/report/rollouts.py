"""Verdict rows of a batch of rollouts: the verdicts of each reward, and the advantages."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from trl_balcap.data.completions import completion_text
from trl_balcap.report.verdicts import VERDICT_SCHEMA, as_kept

__all__ = ["rollout_rows"]

logger = logging.getLogger(__name__)

_SEEN = ("assertions", "units", "clarity", "fluency", "coherency", "length_ratio", "gated")
_TYPES = {name: VERDICT_SCHEMA.field(name).type for name in (*_SEEN, "latency", "usd", "reference")}
_TYPES |= {name: VERDICT_SCHEMA.field(f"{name}s").type.item_type for name in ("reward", "reason")}
_warned: set[tuple[str, str]] = set()  # or every row would


def rollout_rows(
    *,
    step: int,
    split: str,
    num_generations: int,
    completions: Sequence[Any],
    rewards: Mapping[str, Sequence[float | None]],
    observations: Mapping[str, Sequence[Mapping[str, Any]]],
    advantages: Sequence[float] | None = None,
    advantage_shares: Mapping[str, Sequence[float]] | None = None,
    prompts: Sequence[Any] | None = None,
    images: Sequence[Any] | None = None,
    references: Sequence[str | None] | None = None,
    tokens: Sequence[int] | None = None,
    first: int = 0,
) -> list[dict[str, Any]]:
    """
    One row for each completion of a batch, for [`VerdictWriter.write`].

    Args:
        step (`int`), split (`str`):
            Step and split of the batch, `"train"` or `"eval"`.
        num_generations (`int`):
            Rollouts per prompt, which are adjacent.
        completions (`Sequence`):
            Completions as in TRL, text or messages.
        rewards (`Mapping[str, Sequence[float or None]]`):
            Rewards by reward function, as used in the advantages: after the gate.
        observations (`Mapping[str, Sequence[Mapping]]`):
            Observations by reward function, see [`JudgeReward.observations`]. Functions without any
            can be left out. Keys that are not columns go into `extra`, and so do values that do not
            fit their column, with one warning.
        advantages (`Sequence[float]`, *optional*):
            One per completion.
        advantage_shares (`Mapping[str, Sequence[float]]`, *optional*):
            What each reward adds to the advantage.
        prompts, images, references, tokens (`Sequence`, *optional*):
            One entry per completion: its prompt, image, reference, and length in tokens.
        first (`int`, *optional*, defaults to `0`):
            Index of the batch's first completion within the step.

    Returns:
        `list[dict]`: rows with the columns of [`VERDICT_SCHEMA`].

    Example: a gate closed, so that the judge was not asked and the reward is 0.

    ```python
    >>> row, = rollout_rows(
    ...     step=3, split="train", num_generations=1, completions=["A dog."],
    ...     rewards={"linguistic_reward": [0.0]},
    ...     observations={"linguistic_reward": [{"reason": "length_gate", "gated": True}]},
    ... )
    >>> row["rewards"], row["gated_rewards"], row["reasons"], row["gated"]
    ({'linguistic_reward': None}, {'linguistic_reward': 0.0}, {'linguistic_reward': 'length_gate'}, True)

    ```
    """  # noqa: E501
    rows = []
    for place, completion in enumerate(completions):
        group = f"{(first + place) // num_generations}"
        row: dict[str, Any] = {
            "step": step,
            "split": split,
            "id": f"{group}-{(first + place) % num_generations}",
            "group": group,
            "completion": completion_text(completion),
            "prompt": None if prompts is None else _prompt_text(prompts[place]),
            "image": None if images is None else _first(images[place]),
            "reference": None,
            "tokens": None if tokens is None else tokens[place],
            "advantage": None if advantages is None else advantages[place],
            "advantage_shares": {k: v[place] for k, v in (advantage_shares or {}).items()},
            "rewards": {},
            "gated_rewards": {},
            "reasons": {},
            "extra": {},
        }
        if references is not None:
            row["reference"] = _told(row, "The dataset", "reference", references[place])
        for name, values in rewards.items():
            told = observations.get(name)
            _add(row, name, values[place], told[place] if told else {})
        rows.append(row)
    return rows


def _add(row: dict[str, Any], name: str, trained_on: float | None, seen: Mapping[str, Any]) -> None:
    told = {key: _told(row, name, key, value) for key, value in seen.items()}
    row["rewards"][name] = told.get("reward") if seen else trained_on
    if told.get("gated") is not None:
        row["gated_rewards"][name] = trained_on
    if told.get("reason"):
        row["reasons"][name] = told["reason"]
    for key, value in told.items():
        if value is None and key != "usd":
            continue
        if key == "latency":  # the caption's is that of its last verdict
            row[key] = max(value, row.get(key, 0.0))
        elif key == "usd":  # of all its rewards; not known where one of them is not
            known = row.get(key, 0.0)
            row[key] = None if value is None or known is None else known + value
        elif key in _SEEN:
            row[key] = value


def _told(row: dict[str, Any], name: str, key: str, value: Any) -> Any:
    """The value, if it fits its column; otherwise `None`, and it goes into `extra`."""
    if key in _TYPES:
        try:
            return as_kept(key, value, _TYPES[key])
        except ValueError as error:
            if (name, key) not in _warned:
                _warned.add((name, key))
                logger.warning(
                    "%s gave the report a value that does not fit its column: %s. The report shows "
                    "such values among a row's details. Correct them, or use a key of your own.",
                    *(name, error),
                )
    row["extra"][str(key)] = _as_json(value)
    return None


def _as_json(value: Any) -> Any:
    """What JSON, and other processes, can be given; the rest as text."""
    try:
        return json.loads(json.dumps(value, default=str))
    except (TypeError, ValueError, RecursionError):  # keys of another type, a circle
        return str(value)


def _prompt_text(prompt: Any) -> str:
    """The text of a prompt, which may be messages with text and images."""
    if isinstance(prompt, str):
        return prompt
    parts = [message.get("content") or "" for message in prompt]
    texts = [
        part if isinstance(part, str) else " ".join(one["text"] for one in part if one.get("text"))
        for part in parts
    ]
    return "\n".join(filter(None, texts))


def _first(image: Any) -> Any:
    return image[0] if isinstance(image, list | tuple) and image else image or None

"""What a judge is: plain data, checked once, picklable."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trl_balcap.judge.client import Deployment
from trl_balcap.judge.errors import JudgeConfigError
from trl_balcap.judge.images import MAX_PIXELS

Profile = Literal["questions", "fused"]
Model = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]


@dataclass(frozen=True)
class JudgeSettings:
    """The settings of a [`Judge`], with models resolved to deployments."""

    text: tuple[Deployment, ...]
    vision: tuple[Deployment, ...]
    temperature: float | None = 0.0
    max_tokens: int | None = None
    structured: bool | None = None
    profile: Profile = "questions"
    max_concurrency: int = 256
    timeout: float = 60.0
    max_retries: int = 8
    batch_deadline: float = 600.0
    max_unscored: float = 0.5
    budget_usd: float | None = None
    budget_calls: int | None = None
    price: tuple[float, float] | None = None
    cache: str | None = None
    cache_size: int = 2**30
    max_pixels: int = MAX_PIXELS
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        for name in ("timeout", "batch_deadline", "max_concurrency", "cache_size", "max_pixels"):
            value = getattr(self, name)
            if not value > 0 or not math.isfinite(value):
                raise JudgeConfigError(f"Judge({name}=...) must be positive, got {value}")
        if self.max_retries < 0:
            raise JudgeConfigError(f"Judge(max_retries=...) must be 0 or more: {self.max_retries}")
        if not 0 <= self.max_unscored <= 1:
            raise JudgeConfigError(
                f"Judge(max_unscored=...) is a share of a batch, 0 to 1, got {self.max_unscored}"
            )
        if self.profile not in ("questions", "fused"):
            raise JudgeConfigError(
                f"Judge(profile=...) must be 'questions' or 'fused', got {self.profile!r}"
            )
        for name in ("budget_usd", "budget_calls"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise JudgeConfigError(f"Judge({name}=...) must be 0 or more, or None: {value}")


def deployments(
    model: Model,
    *,
    api_base: str | None = None,
    api_key: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> tuple[Deployment, ...]:
    """The deployments that a model setting names.

    Args:
        model (`str`, `dict`, or a list of them):
            A litellm model string; a dict with `model` and other litellm parameters (`api_base`,
            `api_key`, …); an entry of a litellm Router's `model_list`; or several of these, which
            are then deployments of one judge.

    Example:

    ```python
    >>> [d.where() for d in deployments(["openai/a", {"model": "openai/a", "api_base": "http://b"}])]
    ['openai/a', 'openai/a at http://b']

    ```
    """
    given = [model] if isinstance(model, str | Mapping) else list(model)
    if not given:
        raise JudgeConfigError("Judge(model=[]) names no model: give at least one deployment")
    found = []
    for one in given:
        entry: Mapping[str, Any] = {"model": one} if isinstance(one, str) else one
        parameters: dict[str, Any] = dict(entry.get("litellm_params", entry))
        name = parameters.pop("model", None)
        if not isinstance(name, str) or not name:
            raise JudgeConfigError(
                f"a deployment needs a 'model', a litellm model string such as "
                f"'openai/gpt-4o-mini'; got keys {sorted(entry)}"
            )
        found.append(
            Deployment(
                name,
                parameters.pop("api_base", api_base),
                parameters.pop("api_key", api_key),
                {**(extra or {}), **parameters},
            )
        )
    return tuple(found)

"""The table of a judge's settings: each one's name, type, default, rule and help text.

[`Judge`]'s arguments, the environment variables `TRL_BALCAP_JUDGE_*`, the `judge_*` keys of a
recipe and the flags of every command are generated from it. A new setting is one field here and the
line that uses it.
"""

import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, MISSING, Field, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, get_args

from trl_balcap.data.images import MIN_MAX_PIXELS
from trl_balcap.judge import rules
from trl_balcap.judge.deployments import Deployment, deployments, without_secrets
from trl_balcap.judge.errors import JudgeConfigError
from trl_balcap.judge.images import MAX_PIXELS

Profile = Literal["questions", "fused", "united"]
Model = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]
Price = tuple[float, float] | tuple[float, float, float]

ENVIRONMENT_PREFIX = "TRL_BALCAP_JUDGE_"


def _about(rule: rules.Rule, help: str) -> dict[str, Any]:
    return {"help": help, "rule": rule}


@dataclass(frozen=True)
class JudgeSettings:
    """The validated settings of a [`Judge`]: its arguments with their defaults.

    Raises:
        `JudgeConfigError`: if a setting is invalid. The message gives the value, the rule and a
            fix.

    Example:

    ```python
    >>> JudgeSettings("openai/gpt-4o-mini", timeout=30).timeout
    30
    >>> JudgeSettings("openai/gpt-4o-mini", timeout="60")
    Traceback (most recent call last):
    trl_balcap.judge.errors.JudgeConfigError: Judge(timeout='60'): timeout must be a number above 0. \
Or leave it out: the default is 60.0

    ```
    """  # noqa: E501

    model: Model = field(
        repr=False,
        metadata=_about(
            rules.MODEL,
            "litellm model string of the judge, such as 'openai/gpt-4o-mini' or 'scenes/oracle'. "
            "A list gives several deployments of the same judge: load is spread over those that "
            "work",
        ),
    )
    _: KW_ONLY
    vision_model: Model | None = field(
        default=None,
        repr=False,
        metadata=_about(
            rules.MODEL, "model for questions with an image; by default the same model"
        ),
    )
    api_base: str | None = field(
        default=None, repr=False, metadata=_about(rules.URL, "base URL of your own endpoint")
    )
    api_key: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            rules.TEXT,
            "API key of the endpoint, never logged, cached or shown; by default litellm reads it "
            "from the environment, which also keeps it out of process listings",
        ),
    )
    temperature: float | None = field(
        default=0.0,
        metadata=_about(
            rules.TEMPERATURE, "sampling temperature of the judge; None for the provider's default"
        ),
    )
    max_tokens: int | None = field(
        default=2048,
        metadata=_about(
            rules.whole(1),
            "maximum tokens of a reply, raised for long questions; None for the provider's limit, "
            "which judges that think at length may need",
        ),
    )
    structured: bool | None = field(
        default=None,
        metadata=_about(
            rules.FLAG,
            "whether to constrain replies to a JSON schema; by default if litellm's table lists "
            "the model as supporting it",
        ),
    )
    profile: Profile = field(
        default="questions",
        metadata=_about(
            rules.one_of(get_args(Profile)),
            "'questions' asks four questions per rollout; 'fused' asks two (decompose and verify "
            "in one look at the image, cover and linguistic in one reading); 'united' asks once "
            "about everything the rollouts of an image assert. Both are cheaper; compared in "
            "docs/judge.md",
        ),
    )
    prefix_first: bool = field(
        default=False,
        metadata=_about(
            rules.FLAG,
            "whether to wait for an answer to the first question about an image before sending the "
            "others, so that a judge that caches prefixes has read it: cheaper, but one latency "
            "slower",
        ),
    )
    max_concurrency: int = field(
        default=256,
        metadata=_about(
            rules.whole(1),
            "maximum concurrent questions per deployment; the actual limit adapts below this",
        ),
    )
    timeout: float = field(
        default=60.0, metadata=_about(rules.ABOVE_ZERO, "seconds for one answer")
    )
    max_retries: int = field(
        default=8,
        metadata=_about(
            rules.whole(0), "retries after a timeout, a 429, a 5xx or a lost connection"
        ),
    )
    batch_deadline: float = field(
        default=600.0,
        metadata=_about(
            rules.ABOVE_ZERO,
            "seconds to judge one batch; never more than 0.45 of the process group's timeout",
        ),
    )
    max_unscored: float = field(
        default=0.5,
        metadata=_about(
            rules.SHARE,
            "share of a batch that may be left without a verdict before the trainer stops the run",
        ),
    )
    budget_usd: float | None = field(
        default=None,
        metadata=_about(rules.DOLLARS, "dollars to spend before the run ends, with a checkpoint"),
    )
    budget_calls: int | None = field(
        default=None,
        metadata=_about(rules.whole(0), "calls to make before the run ends, with a checkpoint"),
    )
    price: Price | None = field(
        default=None,
        metadata=_about(
            rules.PRICE,
            "dollars per million prompt tokens, per million completion tokens and, if cheaper, "
            "per million cached prompt tokens; by default from litellm's price table",
        ),
    )
    cache: str | os.PathLike[str] | None = field(
        default=None,
        metadata=_about(
            rules.FOLDER,
            "folder to store verdicts in, shared by all processes and runs; by default memory only",
        ),
    )
    cache_size: int = field(
        default=2**30,
        metadata=_about(
            rules.whole(1), "maximum size of that folder in bytes; least recently used goes first"
        ),
    )
    max_pixels: int = field(
        default=MAX_PIXELS,
        metadata=_about(
            rules.whole(MIN_MAX_PIXELS), "larger images are scaled down before they are sent"
        ),
    )
    extra: Mapping[str, Any] | None = field(
        default=None,
        repr=False,
        metadata=_about(
            rules.PARAMETERS,
            "other parameters of litellm.acompletion, such as {'reasoning_effort': 'low'}",
        ),
    )

    def __post_init__(self):
        for one in SETTINGS.values():
            value, rule = getattr(self, one.name), rule_of(one)
            if value is None and may_be_none(one):
                continue
            if not rule.holds(value):
                raise JudgeConfigError(_broken(one, value))
        if self.price is not None:
            object.__setattr__(self, "price", tuple(self.price))  # YAML has no tuples
        if self.cache is not None:
            object.__setattr__(self, "cache", os.fspath(self.cache))
        assert self.text  # reports invalid deployments now rather than later
        assert self.vision

    @cached_property
    def text(self) -> tuple[Deployment, ...]:
        """The deployments for questions about text."""
        return self._deployments(self.model)

    @cached_property
    def vision(self) -> tuple[Deployment, ...]:
        """The deployments for questions about images."""
        return self.text if self.vision_model is None else self._deployments(self.vision_model)

    @property
    def has_budget(self) -> bool:
        return self.budget_usd is not None or self.budget_calls is not None

    def _deployments(self, model: Model) -> tuple[Deployment, ...]:
        return deployments(model, api_base=self.api_base, api_key=self.api_key, extra=self.extra)


SETTINGS: Mapping[str, Field[Any]] = {one.name: one for one in fields(JudgeSettings)}
"""The table: each setting's field by name, with `help` and `rule` in its metadata."""


def rule_of(one: Field[Any]) -> rules.Rule:
    return one.metadata["rule"]


def may_be_none(one: Field[Any]) -> bool:
    return one.default is None or one.name in ("temperature", "max_tokens")


def read_setting(name: str, text: str) -> Any:
    """Parse a setting given as text, in the environment or on the command line.

    Raises:
        `JudgeConfigError`: if the text is not a valid value.

    Example:

    ```python
    >>> read_setting("price", "0.15,0.6"), read_setting("max_tokens", "none")
    ((0.15, 0.6), None)

    ```
    """
    one = SETTINGS[name]
    if text.lower() in ("none", "null") and one.default is not MISSING:
        return None
    try:
        return rule_of(one).read(text)
    except ValueError as error:
        raise JudgeConfigError(_broken(one, text)) from error


def settings_from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read the settings from the environment variables `TRL_BALCAP_JUDGE_*`.

    Raises:
        `JudgeConfigError`: if the model is not set, or a variable is unknown or invalid.

    Example:

    ```python
    >>> settings_from_environment({"TRL_BALCAP_JUDGE_MODEL": "openai/m", "HOME": "/root"})
    {'model': 'openai/m'}

    ```
    """
    prefix = ENVIRONMENT_PREFIX
    given = {
        name.removeprefix(prefix).lower(): text
        for name, text in environ.items()
        if name.startswith(prefix)
    }
    if not given.get("model"):
        raise JudgeConfigError(
            f"{prefix}MODEL is not set. Set it to a litellm model string such as "
            "'openai/gpt-4o-mini' or 'scenes/oracle', or build the reward with a Judge(...)"
        )
    for name in given:
        if name not in SETTINGS:
            known = ", ".join(f"{prefix}{known.upper()}" for known in SETTINGS)
            raise JudgeConfigError(
                f"unknown variable {prefix}{name.upper()}, must be one of: {known}"
            )
    return {name: read_setting(name, text) for name, text in given.items()}


def settings_help() -> str:
    """Format the table as the "Args" section of a docstring."""
    lines = []
    for one in SETTINGS.values():
        kind = _MODULES.sub("", one.type.__name__ if isinstance(one.type, type) else str(one.type))
        kind = kind.replace(_MODEL_TYPE, "Model")
        default = "" if one.default is MISSING else f", *optional*, defaults to `{one.default!r}`"
        lines.append(f"{one.name} (`{kind}`{default}):")
        lines += textwrap.wrap(
            f"{_sentence(one)}.", 84, initial_indent=" " * 4, subsequent_indent=" " * 4
        )
    return "\n".join(lines)


_MODULES = re.compile(r"[a-z_]+\.(?=[A-Za-z])")
_MODEL_TYPE = _MODULES.sub("", str(Model))


def _sentence(one: Field[Any]) -> str:
    text = one.metadata["help"]
    return text[0].upper() + text[1:]


def _broken(one: Field[Any], value: Any) -> str:
    way_out = "Name a model" if one.default is MISSING else "Or leave it out"
    if one.default is not None and one.default is not MISSING:
        way_out += f": the default is {one.default!r}"
    shown = repr(value)
    if one.name == "api_base" and isinstance(value, str):
        shown = repr(without_secrets(value))
    elif one.name in ("api_key", "extra") or (not one.repr and isinstance(value, Mapping | list)):
        shown = "..."  # a deployment may hold a key
    return f"Judge({one.name}={shown}): {one.name} must be {rule_of(one).says}. {way_out}"

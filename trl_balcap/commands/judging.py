"""The judge's flags, generated from the table of settings, the same in every command."""

import argparse
from collections.abc import Collection
from dataclasses import MISSING
from functools import partial
from typing import Any

from trl_balcap.judge import Judge, JudgeConfigError
from trl_balcap.judge.settings import SETTINGS, read_setting, rule_of

__all__ = ["add_judge_flags", "judge_from", "judge_settings"]

_FLAGS = {"model": "--judge", "vision_model": "--vision-judge"}


def add_judge_flags(
    parser: argparse.ArgumentParser, *, required: bool = False, without: Collection[str] = ()
) -> None:
    """Add a flag for each setting of a [`Judge`] to a command.

    Args:
        parser (`argparse.ArgumentParser`):
            The command's parser.
        required (`bool`, *optional*, defaults to `False`):
            Whether `--judge` must be given.
        without (`Collection[str]`, *optional*):
            Settings that get no flag because the command sets them itself.
    """
    group = parser.add_argument_group("judge")
    for one in SETTINGS.values():
        if one.name in without:
            continue
        rule = rule_of(one)
        kind = rule.kind if rule.several else partial(_read, one.name)
        options: dict[str, Any] = {"dest": f"judge_{one.name}", "type": kind}
        if rule.several:
            options["nargs"] = 2
        if rule.choices:
            options["choices"] = rule.choices
        else:
            options["metavar"] = ("IN", "OUT") if rule.several else one.name.upper()
        text = one.metadata["help"]
        if one.default is MISSING:
            options["required"] = required
        elif one.default is not None:
            text += f" (default: {one.default})"
        group.add_argument(
            _FLAGS.get(one.name, "--" + one.name.replace("_", "-")),
            help=text.replace("%", "%%"),
            default=None if one.default is MISSING else one.default,
            **options,
        )


def judge_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings from the flags of [`add_judge_flags`], as keyword arguments of [`Judge`]."""
    given = {name: getattr(args, f"judge_{name}", None) for name in SETTINGS}
    return {name: given[name] for name in given if hasattr(args, f"judge_{name}")}


def judge_from(args: argparse.Namespace, **settings: Any) -> Judge:
    """Build the judge that the flags describe; `settings` override them.

    Raises:
        `JudgeConfigError`: if no model is given, or a setting is invalid.

    Example:

    ```python
    >>> parser = argparse.ArgumentParser()
    >>> add_judge_flags(parser)
    >>> judge_from(parser.parse_args(["--judge", "scenes/oracle"]), max_concurrency=8)
    Judge('scenes/oracle')

    ```
    """
    given = judge_settings(args) | settings
    if given.get("model") is None:
        raise JudgeConfigError("no judge given: pass --judge MODEL, such as openai/gpt-4o-mini")
    return Judge(**given)


def _read(name: str, text: str) -> Any:
    try:
        return read_setting(name, text)
    except JudgeConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error

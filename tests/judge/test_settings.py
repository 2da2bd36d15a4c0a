"""One table of settings: four ways to the engine, the same defaults, one line for a wrong value."""

import argparse
import dataclasses
import inspect
import os
from typing import Any, cast

import pytest
from trl import TrlParser

from trl_balcap import Judge
from trl_balcap.commands.judging import add_judge_flags, judge_from
from trl_balcap.config import CaptioningArguments
from trl_balcap.judge import JudgeConfigError
from trl_balcap.judge.settings import SETTINGS, JudgeSettings

# For each setting a value that is not its default, as Python, and as text for the other three ways.
GIVEN: dict[str, tuple[Any, str]] = {
    "model": (["openai/a", {"model": "openai/b"}], '["openai/a", {"model": "openai/b"}]'),
    "vision_model": ("openai/eyes", "openai/eyes"),
    "api_base": ("http://judge:8000/v1", "http://judge:8000/v1"),
    "api_key": ("sk-0123456789", "sk-0123456789"),
    "temperature": (None, "none"),
    "max_tokens": (None, "none"),
    "structured": (False, "false"),
    "profile": ("fused", "fused"),
    "prefix_first": (True, "true"),
    "max_concurrency": (7, "7"),
    "timeout": (2.5, "2.5"),
    "max_retries": (0, "0"),
    "batch_deadline": (90.0, "90"),
    "max_unscored": (0.25, "0.25"),
    "budget_usd": (1.5, "1.5"),
    "budget_calls": (10, "10"),
    "price": ((0.15, 0.6), "0.15 0.6"),
    "cache": ("verdicts", "verdicts"),
    "cache_size": (1000, "1000"),
    "max_pixels": (3136, "3136"),
    "extra": ({"seed": 1}, '{"seed": 1}'),
}


def with_model(name) -> dict[str, Any]:
    return {} if name == "model" else {"model": "openai/m"}


def from_arguments(name, value, text):
    return Judge(**(with_model(name) | {name: value}))


def from_environment(name, value, text):
    model = {} if name == "model" else {"TRL_BALCAP_JUDGE_MODEL": "openai/m"}
    return Judge.from_env(model | {f"TRL_BALCAP_JUDGE_{name.upper()}": text})


def recipe_parser() -> TrlParser:
    return TrlParser(cast(Any, CaptioningArguments))


def from_yaml(name, value, text):
    # What YAML gives: lists for tuples.
    value = list(value) if isinstance(value, tuple) else value
    parser = recipe_parser()
    model = {} if name == "model" else {"judge_model": "openai/m"}
    unknown = parser.set_defaults_with_config(**model, **{f"judge_{name}": value})
    assert not unknown
    (arguments,) = parser.parse_args_into_dataclasses(args=[])
    return Judge(**arguments.judge_options())


def from_flags(name, value, text: str):
    parser = argparse.ArgumentParser()
    add_judge_flags(parser)
    named = {"model": "--judge", "vision_model": "--vision-judge"}
    flag = named.get(name) or "--" + name.replace("_", "-")
    model = [] if name == "model" else ["--judge", "openai/m"]
    words = text.split() if name == "price" else [text]
    return judge_from(parser.parse_args([*model, flag, *words]))


@pytest.mark.parametrize("way", [from_arguments, from_environment, from_yaml, from_flags])
@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_reaches_the_engine_on_each_way(name, way):
    value, text = GIVEN[name]
    expected = JudgeSettings(**(with_model(name) | {name: value}))

    engine = way(name, value, text).engine()

    assert engine.settings == expected
    assert engine.settings != JudgeSettings("openai/m")


def test_a_setting_of_a_recipe_may_be_text_of_a_command_line():
    parser = recipe_parser()
    words = ["--judge_extra", '{"seed": 1}', "--judge_price", "1", "2", "--judge_timeout", "5"]
    (arguments,) = parser.parse_args_into_dataclasses(args=words)

    assert arguments.judge_options() == {
        "model": "scenes/oracle",
        "timeout": 5.0,
        "price": [1.0, 2.0],
        "extra": {"seed": 1},
    }


def test_all_ways_have_the_same_defaults():
    parser = argparse.ArgumentParser()
    add_judge_flags(parser)
    by_flags = judge_from(parser.parse_args(["--judge", "scenes/oracle"]))
    by_recipe = Judge(**CaptioningArguments().judge_options())
    by_environment = Judge.from_env({"TRL_BALCAP_JUDGE_MODEL": "scenes/oracle"})

    assert by_flags.settings == Judge("scenes/oracle").settings
    assert by_recipe.settings == Judge("scenes/oracle").settings
    assert by_environment.settings == Judge("scenes/oracle").settings
    signature = inspect.signature(Judge).parameters
    assert {name: signature[name].default for name in ("timeout", "max_concurrency")} == {
        "timeout": 60.0,
        "max_concurrency": 256,
    }


def test_what_a_command_chooses_itself_is_no_flag():
    parser = argparse.ArgumentParser()
    add_judge_flags(parser, without=("temperature",))

    with pytest.raises(SystemExit):
        parser.parse_args(["--judge", "openai/m", "--temperature", "1"])
    args = parser.parse_args(["--judge", "openai/m"])
    assert judge_from(args, temperature=1.0).settings.temperature == 1.0


def test_every_setting_has_help_and_the_judge_shows_it():
    for name, one in SETTINGS.items():
        assert one.metadata["help"], name
        assert f"{name} (`" in (Judge.__doc__ or "")
    assert list(inspect.signature(Judge).parameters) == [
        field.name for field in dataclasses.fields(JudgeSettings)
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": None}, r"model must be a litellm model string .*\. Name a model"),
        ({"model": ""}, r"model=''\): model must be a litellm model string"),
        ({"model": []}, r"Judge\(model=\[\]\) is empty"),
        ({"model": [{"api_base": "http://a"}]}, "a deployment needs a 'model'"),
        ({"model": 5}, r"model=5\): model must be"),
        ({"temperature": -2}, r"temperature=-2\): .* from 0 to 2.* the default is 0\.0"),
        ({"temperature": "hot"}, "temperature='hot'"),
        ({"max_tokens": -5}, r"max_tokens must be a whole number, 1 or more\. Or leave it out"),
        ({"max_concurrency": 2.5}, "max_concurrency=2.5.*a whole number, 1 or more"),
        ({"max_concurrency": 0.5}, "max_concurrency=0.5.*a whole number, 1 or more"),
        ({"max_concurrency": True}, "a whole number"),
        ({"price": (1,)}, r"price=\(1,\)\): price must be two numbers"),
        ({"price": (-1, 2)}, r"price=\(-1, 2\)\): price must be two numbers, 0 or more"),
        ({"price": (float("nan"), 2)}, "price must be two numbers"),
        ({"budget_usd": -1}, "budget_usd must be a number, 0 or more"),
        ({"budget_usd": float("nan")}, "budget_usd=nan"),
        ({"budget_calls": -1}, "budget_calls must be a whole number, 0 or more"),
        ({"timeout": "60"}, r"timeout='60'\): timeout must be a number above 0"),
        ({"timeout": 0}, "timeout must be a number above 0"),
        ({"timeout": None}, "timeout must be a number above 0"),
        ({"max_pixels": "401408"}, "max_pixels='401408'"),
        ({"max_unscored": 1.5}, "max_unscored must be a share of a batch, 0 to 1"),
        ({"profile": "three"}, "profile must be 'questions' or 'fused'"),
        ({"structured": "yes"}, "structured must be True or False"),
        ({"cache": ""}, "cache must be a folder"),
        ({"api_base": "localhost:8000"}, "api_base must be a URL that begins with http"),
        ({"api_base": ""}, "api_base='' *.*must be a URL"),
        ({"extra": "seed"}, "extra must be a dict"),
    ],
)
def test_a_wrong_setting_is_one_line_with_value_rule_and_way_out(wrong, message):
    with pytest.raises(JudgeConfigError, match=message) as caught:
        Judge(**({"model": "scenes/oracle"} | wrong))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "TRL_BALCAP_JUDGE_MODEL is not set"),
        ({"MODEL": "m", "MODLE": "m"}, "unknown variable TRL_BALCAP_JUDGE_MODLE, must be one of: "),
        ({"MODEL": "m", "TIMEOUT": "soon"}, r"timeout='soon'\): timeout must be a number above 0"),
        ({"MODEL": "m", "TIMEOUT": "-1"}, "timeout must be a number above 0"),
        ({"MODEL": "m", "API_BASE": ""}, "api_base must be a URL"),
        ({"MODEL": "m", "PRICE": "1"}, "price must be two numbers"),
    ],
)
def test_a_wrong_variable_is_named(variables, message):
    given = {f"TRL_BALCAP_JUDGE_{name}": value for name, value in variables.items()}
    with pytest.raises(JudgeConfigError, match=message):
        Judge.from_env(given)


def test_a_wrong_setting_of_a_recipe_is_an_error_before_anything_slow():
    with pytest.raises(JudgeConfigError, match="max_tokens must be a whole number"):
        CaptioningArguments(judge_max_tokens=-5)


def test_a_wrong_flag_is_an_error_of_the_command(capsys):
    parser = argparse.ArgumentParser()
    add_judge_flags(parser, required=True)
    with pytest.raises(SystemExit):
        parser.parse_args(["--judge", "openai/m", "--timeout", "soon"])
    assert "timeout must be a number above 0" in capsys.readouterr().err


def test_the_environment_of_this_process_is_not_read_by_the_arguments(monkeypatch):
    monkeypatch.setitem(os.environ, "TRL_BALCAP_JUDGE_TIMEOUT", "1")
    assert Judge("scenes/oracle").settings.timeout == 60.0

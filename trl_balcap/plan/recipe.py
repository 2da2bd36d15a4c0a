"""Reads a training recipe: the YAML file, and the accelerate config it names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import yaml
from trl import ModelConfig, TrlParser

from trl_balcap.config import BalCapConfig, CaptioningArguments
from trl_balcap.data.rows import read_text

__all__ = ["Launch", "Recipe", "read_launch", "read_recipe"]

Recipe = SimpleNamespace
"""Settings by name, from `CaptioningArguments`, [`BalCapConfig`] and TRL's `ModelConfig`."""


@dataclass(frozen=True)
class Launch:
    """How `accelerate launch` will start the run."""

    processes: int = 1
    machines: int = 1
    zero_stage: int = 0
    offload_optimizer: bool = False
    offload_param: bool = False
    source: str = "one process, no accelerate config"


def read_recipe(config: str | Path | None, flags: list[str]) -> Recipe:
    """
    Read the settings of a recipe, the way the example scripts parse them.

    The training arguments are not instantiated, since that would look for this machine's GPUs and
    plan the run for them.

    Args:
        config (`str` or `Path`, *optional*): YAML file, as for the scripts' `--config`.
        flags (`list[str]`): Flags that override it.

    Raises:
        `FileNotFoundError`: if there is no such file.
        `ValueError`: if a key or flag is unknown to the scripts.
    """
    kinds: Any = (CaptioningArguments, BalCapConfig, ModelConfig)
    parser = TrlParser(kinds)
    where = "" if config is None else f"{config}: "

    def refuse(message: str) -> NoReturn:
        raise ValueError(f"{where}{message}. See `examples/train_qwen.py --help`.")

    parser.error = refuse  # type: ignore[method-assign]
    if config is not None:
        values = _yaml(Path(config))
        values.pop("env", None)
        _check_kinds(parser, values, refuse)
        unknown = parser.set_defaults_with_config(**values)
        if unknown:
            keys = ", ".join(word[2:] for word in unknown[::2])
            raise ValueError(
                f"{config} has unknown keys: {keys}. See `examples/train_qwen.py --help`."
            )
    settings, unknown = parser.parse_known_args(flags)
    if unknown:
        raise ValueError(f"Unknown flags: {' '.join(unknown)}.")
    return Recipe(**vars(settings))


def _check_kinds(
    parser: TrlParser, values: Mapping[str, Any], refuse: Callable[[str], NoReturn]
) -> None:
    """Check the types of a file's values, since argparse only checks those of flags."""
    for action in parser._actions:
        value = values.get(action.dest)
        if value is None or isinstance(value, str):
            continue
        if action.dest in ("judge_model", "judge_vision_model"):
            continue  # may be a list of deployments
        if (action.nargs == "+") != isinstance(value, list):
            refuse(f"{action.dest} takes {'a list' if action.nargs else 'one value'}, got {value}")
        if action.type is int and (isinstance(value, bool) or not isinstance(value, int)):
            refuse(f"{action.dest} takes a whole number, got {value}")
        if action.type is float and isinstance(value, bool | dict):
            refuse(f"{action.dest} takes a number, got {value}")


def read_launch(file: str | Path | None, recipe: str | Path | None = None) -> Launch:
    """
    Read the number of processes and the ZeRO stage from an accelerate config.

    Args:
        file (`str` or `Path`, *optional*): The accelerate config; `None` is one process.
        recipe (`str` or `Path`, *optional*): The recipe that names it. A path that does not exist
            is also tried relative to the recipe.

    Raises:
        `FileNotFoundError`: if there is no such file.
        `ValueError`: if the distributed type is not supported.

    Example:

    ```python
    >>> read_launch(None)
    Launch(processes=1, machines=1, zero_stage=0, offload_optimizer=False, offload_param=False, source='one process, no accelerate config')

    ```
    """  # noqa: E501
    if file is None:
        return Launch()
    path = Path(file)
    if not path.is_file() and recipe is not None:
        path = Path(recipe).parent / file
    values = _yaml(path)
    kind = str(values.get("distributed_type", "NO"))
    counts = {}
    for name in ("num_processes", "num_machines"):
        counts[name] = values.get(name, 1)
        if not isinstance(counts[name], int) or counts[name] < 1:
            raise ValueError(f"{path}: {name} must be 1 or more, got {counts[name]!r}.")
    plain = {
        "processes": counts["num_processes"],
        "machines": counts["num_machines"],
        "source": str(path),
    }
    if kind in ("NO", "MULTI_GPU", "MULTI_CPU"):
        return Launch(**plain)
    if kind != "DEEPSPEED":
        raise ValueError(
            f"{path} has distributed_type {kind}, but must have DEEPSPEED, MULTI_GPU or NO."
        )
    deepspeed = values.get("deepspeed_config", {})
    if "deepspeed_config_file" in deepspeed:
        json_file = path.parent / deepspeed["deepspeed_config_file"]
        zero = _yaml(json_file).get("zero_optimization", {})  # JSON is YAML
        stage = zero.get("stage", 0)
        offloads = [
            zero.get(f"offload_{what}", {}).get("device") for what in ("optimizer", "param")
        ]
    else:
        stage = deepspeed.get("zero_stage", 0)
        offloads = [deepspeed.get(f"offload_{what}_device") for what in ("optimizer", "param")]
    return Launch(
        **plain,
        zero_stage=int(stage),
        offload_optimizer=offloads[0] in ("cpu", "nvme"),
        offload_param=offloads[1] in ("cpu", "nvme"),
    )


def _yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"File not found: {path}.")
    try:
        values = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        problem = getattr(error, "problem", None) or error
        raise ValueError(f"{path}{line}: not YAML: {problem}. Write `key: value` lines.") from error
    if not isinstance(values, dict):
        what = "nothing" if values is None else f"a {type(values).__name__}"
        raise ValueError(f"{path} contains {what}, not settings (`key: value` lines).")
    return values

"""A training recipe as the plan reads it: the YAML file, and the accelerate file it names."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from trl import ModelConfig, TrlParser

from trl_balcap.config import BalCapConfig, CaptioningArguments

__all__ = ["Launch", "Recipe", "read_launch", "read_recipe"]

Recipe = SimpleNamespace
"""Settings by their names, those of `CaptioningArguments`, [`BalCapConfig`] and TRL's `ModelConfig`."""


@dataclass(frozen=True)
class Launch:
    """How `accelerate launch` will start the run."""

    processes: int = 1
    machines: int = 1
    zero_stage: int = 0
    offload_optimizer: bool = False
    offload_param: bool = False
    source: str = "one process, no accelerate file"


def read_recipe(config: str | Path | None, flags: list[str]) -> Recipe:
    """
    The settings of a recipe, as the example scripts would parse them.

    The training arguments are not instantiated: that would look for the GPUs of this machine, and
    plan the run for them.

    Args:
        config (`str` or `Path`, *optional*): YAML file, as `--config` of the scripts.
        flags (`list[str]`): Flags that override it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A key or flag that no script knows.
    """
    kinds: Any = (CaptioningArguments, BalCapConfig, ModelConfig)
    parser = TrlParser(kinds)
    if config is not None:
        values = _yaml(Path(config))
        values.pop("env", None)
        unknown = parser.set_defaults_with_config(**values)
        if unknown:
            keys = ", ".join(word[2:] for word in unknown[::2])
            raise ValueError(
                f"{config} has keys that no argument bears: {keys}. See `examples/train_qwen.py --help`."
            )
    settings, unknown = parser.parse_known_args(flags)
    if unknown:
        raise ValueError(f"There are no flags {' '.join(unknown)}.")
    return Recipe(**vars(settings))


def read_launch(file: str | Path | None, recipe: str | Path | None = None) -> Launch:
    """
    Number of processes and ZeRO stage of an accelerate file.

    Args:
        file (`str` or `Path`, *optional*): The accelerate file; `None` is one process.
        recipe (`str` or `Path`, *optional*): The recipe that names it: a path that does not exist
            here is tried beside the recipe.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A kind of distribution that the plan does not know.

    Example:

    ```python
    >>> read_launch(None)
    Launch(processes=1, machines=1, zero_stage=0, offload_optimizer=False, offload_param=False, source='one process, no accelerate file')

    ```
    """
    if file is None:
        return Launch()
    path = Path(file)
    if not path.is_file() and recipe is not None:
        path = Path(recipe).parent / file
    values = _yaml(path)
    kind = str(values.get("distributed_type", "NO"))
    plain = {
        "processes": int(values.get("num_processes", 1)),
        "machines": int(values.get("num_machines", 1)),
        "source": str(path),
    }
    if kind in ("NO", "MULTI_GPU", "MULTI_CPU"):
        return Launch(**plain)
    if kind != "DEEPSPEED":
        raise ValueError(
            f"{path} has distributed_type {kind}; the plan knows DEEPSPEED, MULTI_GPU and NO."
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
        raise FileNotFoundError(f"There is no file {path}.")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, not settings (key: value).")
    return values

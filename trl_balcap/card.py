"""The facts about a run, and the model card and captioning settings written from them."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from trl import GRPOConfig

from trl_balcap.config import BalCapConfig
from trl_balcap.rewards.hooks import reward_hooks

__all__ = [
    "CITATION",
    "card_text",
    "run_facts",
    "trainer_facts",
    "write_captioning_settings",
]

CITATION = """\
@article{ye2026balcaprl,
  title   = {{BalCapRL}: A Balanced Framework for {RL}-Based {MLLM} Image Captioning},
  author  = {Ye and Saveris and Qian and Hu and Amirloo and Grasch},
  journal = {arXiv preprint arXiv:2605.07394},
  year    = {2026},
}
@software{vonwerra2020trl,
  title   = {{TRL}: Transformers Reinforcement Learning},
  author  = {von Werra, Leandro and others},
  license = {Apache-2.0},
  url     = {https://github.com/huggingface/trl},
  year    = {2020},
}"""

# Where the log has the scores of an evaluation, by how its captions were written.
_VIEWS = ("precision", "recall", "linguistic")
_EVALUATED = {
    "greedy": {name: f"eval_greedy_{name}" for name in ("b_capscore", *_VIEWS)},
    "sampled": {
        "b_capscore": "eval_b_capscore",
        **{name: f"eval_rewards/{name}_reward/mean" for name in _VIEWS},
    },
}

_PACKAGES = ("trl-balcap", "trl", "transformers", "torch", "datasets", "litellm")


def run_facts(
    args: GRPOConfig, rewards: Mapping[str, Mapping[str, Any]], **more: Any
) -> dict[str, Any]:
    """
    The facts about a run before it begins, for [`RunLog.facts`] and the model card.

    Args:
        args (`GRPOConfig`):
            The configuration; only settings that differ from TRL's defaults are kept.
        rewards (`Mapping[str, Mapping]`):
            For each reward function: its `weight`, whether it is `gated`, and what scores it
            (`by`).
        more:
            Other facts: the `model`, `rows`, `advantages`, and where known, the `name`, `dataset`
            and `license` of the card.

    Example:

    ```python
    >>> args = BalCapConfig("out", bf16=False, use_cpu=True, learning_rate=1e-5)
    >>> facts = run_facts(args, {"recall_reward": {"weight": 1.0, "gated": False, "by": "a judge"}})
    >>> facts["settings"]["learning_rate"], facts["length_gate"]
    (1e-05, [0.5, 2.0])

    ```
    """
    gate, band = None, None
    if isinstance(args, BalCapConfig) and args.length_gate is not None:
        band = args.length_gate_tokens
        gate = None if band else [args.length_gate_lower, args.length_gate_upper]
    return {
        "title": Path(str(args.output_dir)).name,
        "settings": _changed(args),
        "versions": _versions(),
        "command": shlex.join(sys.argv),
        "rewards": dict(rewards),
        "length_gate": gate,
        **({"length_gate_tokens": band} if band else {}),
        **more,
    }


def trainer_facts(trainer: Any, gated: Sequence[str]) -> dict[str, Any]:
    """[`run_facts`] of a [`BalCapTrainer`], given the names of its length-gated rewards."""
    rewards = {}
    for name, weight, func in zip(
        trainer.reward_func_names,
        trainer.reward_weights.tolist(),
        trainer.reward_funcs,
        strict=True,
    ):
        hooks = reward_hooks(func)
        by = "a function" if hooks is None else hooks.about()
        rewards[name] = {"weight": weight, "gated": name in gated, "by": by}
    rows = trainer.train_dataset
    c_gdpo = trainer.multi_objective_aggregation == "normalize_then_sum"
    return run_facts(
        trainer.args,
        rewards,
        model=_model_name(trainer.model.config._name_or_path),
        rows=len(rows) if hasattr(rows, "__len__") else None,
        advantages="c-GDPO" if c_gdpo else "GRPO's sum of rewards",
    )


def card_text(
    facts: Mapping[str, Any],
    *,
    name: str,
    where: str,
    prompt: str | None,
    history: Sequence[Mapping[str, Any]],
    dataset: str | None = None,
) -> str:
    """
    The text of a model card: use, method, rewards, judge, cost, before and after, citation.

    Args:
        facts (`Mapping`):
            From [`run_facts`].
        name (`str`), where (`str`):
            The model's name, and where to load it from.
        prompt (`str`, *optional*):
            The user's message in training.
        history (`Sequence[Mapping]`):
            The trainer's log.
        dataset (`str`, *optional*):
            Name of the dataset.

    Returns:
        `str`: Markdown without the metadata header.
    """
    message = prompt or "Describe the image in detail."
    gate, band = facts["length_gate"], facts.get("length_gate_tokens")
    rewards = "\n".join(
        f"| `{reward}` | {what['weight']:g} | {'yes' if what['gated'] else 'no'} | {what['by']} |"
        for reward, what in facts["rewards"].items()
    )
    data = dataset or facts.get("dataset") or "see the settings"
    bounds = f"{gate[0]:g} to {gate[1]:g} times the reference's tokens" if gate else "none"
    bounds = f"{band[0]} to {band[1]} tokens" if band else bounds
    versions = "\n".join(f"- {package}: {number}" for package, number in facts["versions"].items())
    settings = "\n".join(f"- `{k}`: {v}" for k, v in facts["settings"].items())
    return f"""\
# {name}

An image captioner: {facts.get("model") or "a model"} trained by reinforcement learning with several
judge rewards, following [BalCapRL](https://huggingface.co/papers/2605.07394), with trl-balcap and
[TRL](https://github.com/huggingface/trl).

## Use

```python
from transformers import pipeline

captioner = pipeline("image-text-to-text", model={where!r})
content = [{{"type": "image", "image": "photo.jpg"}}, {{"type": "text", "text": {message!r}}}]
said = captioner(text=[{{"role": "user", "content": content}}], return_full_text=False)
print(said[0]["generated_text"])
```

## Training

Advantages: {facts["advantages"]}. Length gate: {bounds}. Data: {data}
({facts.get("rows") or "an unknown number of"} rows). {_cost(history)}

| reward | weight | gated | by |
|---|---|---|---|
{rewards}

{_before_and_after(history)}

The command: `{facts["command"]}`

Settings other than TRL's defaults:

{settings}

### Versions

{versions}

## Citation

```bibtex
{CITATION}
```
"""


def write_captioning_settings(folder: str | Path, prompt: str | None, max_new_tokens: int) -> None:
    """
    Save what captioning needs with the weights: the training prompt (`captioning.json`), and the
    caption length as the generation default, which would otherwise be 20 tokens.

    Args:
        folder (`str` or `Path`):
            Where the model was saved.
        prompt (`str`, *optional*):
            The user's message in training, if there was a single one.
        max_new_tokens (`int`):
            Maximum tokens of a caption.
    """
    folder = Path(folder)
    settings = {"prompt": prompt, "max_new_tokens": max_new_tokens}
    (folder / "captioning.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    if (folder / "generation_config.json").is_file():  # an adapter has none
        generation = GenerationConfig.from_pretrained(folder)
        generation.max_new_tokens = max_new_tokens
        generation.save_pretrained(folder)


def _model_name(name_or_path: str) -> str:
    """A Hub name unchanged; for a folder, only its own name."""
    folder = Path(name_or_path)
    return folder.resolve().name if folder.is_dir() else name_or_path


def _changed(args: GRPOConfig) -> dict[str, Any]:
    changed = {}
    for field in fields(args):
        value = getattr(args, field.name)
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        plain = value is None or isinstance(value, bool | int | float | str | list)
        secret = "token" in field.name and "max" not in field.name
        if plain and field.init and not secret and value != default:
            changed[field.name] = value
    return changed


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except ModuleNotFoundError:  # running from a clone without installing it
            continue
    return found


def _cost(history: Sequence[Mapping[str, Any]]) -> str:
    spent = [row["judge/usd_total"] for row in history if row.get("judge/usd_total") is not None]
    calls = [row["judge/calls_total"] for row in history if row.get("judge/calls_total")]
    asked = f" over {int(calls[-1])} calls" if calls else ""
    return f"Judging cost ${spent[-1]:.2f}{asked}." if spent else ""


def _before_and_after(history: Sequence[Mapping[str, Any]]) -> str:
    """A table of the evaluation scores, or of the first and last training steps."""
    for captions, keys in _EVALUATED.items():
        rows = [row for row in history if row.get(keys["b_capscore"]) is not None]
        if len(rows) >= 2:
            what = f"On the evaluation set, {captions} captions (percent)"
            return _first_and_last(what, rows, keys, "{:.1f}", 100)
    rows = [row for row in history if "loss" in row]
    means = [k for row in rows[-1:] for k in row if k.startswith("rewards/")]
    names = (*(key for key in means if key.endswith("/mean")), "b_capscore")
    what = "In training (one batch each)"
    return _first_and_last(what, rows, {name: name for name in names}, "{:.3f}")


def _first_and_last(
    what: str,
    rows: Sequence[Mapping[str, Any]],
    keys: Mapping[str, str],
    number: str,
    times: int = 1,
) -> str:
    lines = [
        f"| {name} | {number.format(times * first)} | {number.format(times * last)} |"
        for name, key in keys.items()
        if rows and (first := rows[0].get(key)) is not None
        if (last := rows[-1].get(key)) is not None
    ]
    if not lines:
        return "No step was logged."
    return "\n".join([f"{what}:", "", "| | first | last |", "|---|---|---|", *lines])

"""The demo's recipe: its scenes and settings."""

import warnings
from pathlib import Path

from datasets import Dataset

from trl_balcap.config import BalCapConfig
from trl_balcap.data import load_captions
from trl_balcap.scenes.captioner import MAX_NEW_TOKENS, PROMPT
from trl_balcap.scenes.make import write_scenes

__all__ = ["demo_config", "demo_scenes"]

TRAIN_SCENES = 1000


def demo_config(output_dir: str | Path, *, seed: int = 0, max_steps: int = 120) -> BalCapConfig:
    """
    The demo's recipe: 8 scenes x 8 captions per step, which takes minutes on two CPU cores.

    Args:
        output_dir (`str` or `Path`):
            Where to save checkpoints.
        seed (`int`, *optional*, defaults to `0`):
            Seed for data order and sampling.
        max_steps (`int`, *optional*, defaults to `120`):
            Optimizer steps.

    Returns:
        [`BalCapConfig`].

    Example:

    ```python
    >>> demo_config("out").num_generations
    8

    ```
    """
    with warnings.catch_warnings():
        # transformers 5.23 renames gradient_checkpointing; earlier releases do not know the new
        # name.
        warnings.simplefilter("ignore", FutureWarning)
        return BalCapConfig(
            output_dir=str(output_dir),
            seed=seed,
            max_steps=max_steps,
            learning_rate=1e-4,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=3,
            per_device_train_batch_size=64,
            num_generations=8,
            max_completion_length=MAX_NEW_TOKENS,
            temperature=1.0,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            model_init_kwargs={"dtype": "float32"},
        )


def demo_scenes(output_dir: str | Path, *, rows: int = TRAIN_SCENES, seed: int = 0) -> Dataset:
    """
    The demo's training data: scenes drawn into `output_dir/scenes/train`, loaded like user data.

    Args:
        output_dir (`str` or `Path`):
            The run folder. Scenes drawn there by an earlier run with the same seed are reused.
        rows (`int`, *optional*, defaults to `1000`):
            Number of scenes.
        seed (`int`, *optional*, defaults to `0`):
            Seed for the scenes.

    Returns:
        `Dataset`: With columns `prompt`, `image` and `reference`.
    """
    folder = Path(output_dir) / "scenes" / f"train_{rows}_{seed}"
    captions = folder / "captions.jsonl"
    # Written last, so if it exists, the images do too.
    return load_captions(
        captions if captions.exists() else write_scenes(folder, rows, seed=seed), prompt=PROMPT
    )

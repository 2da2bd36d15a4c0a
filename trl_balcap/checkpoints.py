"""Saving and loading captioners: weights under their Hub names, processor, training prompt,
generation settings, a model card, and the best checkpoint."""

import contextlib
import inspect
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers.trainer
from datasets import Dataset
from huggingface_hub import ModelCard
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from trl import GRPOTrainer

from trl_balcap.card import CITATION, card_text, write_captioning_settings
from trl_balcap.data.completions import user_text
from trl_balcap.rewards.hooks import reward_hooks, reward_name

__all__ = ["NOT_PUSHED", "CaptionerTrainer", "load_renamed_weights"]

logger = logging.getLogger(__name__)

NOT_PUSHED = ("verdicts/*", "caption_eval/*", "completions/*", "best-b-capscore/*", "report.html")
"""What a run writes into `output_dir` about the user's images, or as a second model."""


def load_renamed_weights(model: Any, checkpoint: str | Path) -> bool:
    """
    Load the weights of a checkpoint whose names differ from the model's own; do nothing for any
    other checkpoint.

    `save_pretrained` saves Qwen2.5-VL, LLaVA and other vision-language models under the names of
    their Hub checkpoints (`visual.*` for `model.visual.*`). When the Trainer resumes, it looks for
    the model's own names, finds none, warns, and continues with its initial weights
    (https://github.com/huggingface/transformers/issues/43701). `from_pretrained` maps the names.

    Args:
        model (`PreTrainedModel`): The model to load into, in place.
        checkpoint (`str` or `Path`): Folder written by `save_pretrained`.

    Returns:
        `bool`: Whether the names differed and the weights were loaded.

    Example:

    ```python
    >>> import tempfile
    >>> from transformers import AutoModelForImageTextToText
    >>> from trl_balcap.scenes.captioner import build_qwen
    >>> checkpoint = build_qwen(tempfile.mkdtemp())
    >>> model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    >>> load_renamed_weights(model, checkpoint)  # written as visual.*, held as model.visual.*
    True

    ```
    """
    written = _names(Path(checkpoint))
    if written <= model.state_dict().keys():
        return False
    dtypes = {parameter.dtype for parameter in model.parameters()}
    # float32 can represent bfloat16 and float16, so nothing is rounded in a mixed model.
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    loaded = type(model).from_pretrained(checkpoint, dtype=dtype)
    model.load_state_dict(loaded.state_dict())
    logger.warning(
        "Loaded the weights of %s by their Hub names. You can ignore the Trainer's warning about "
        "missing and unexpected keys.",
        checkpoint,
    )
    return True


@contextlib.contextmanager
def _leaving_out(patterns: tuple[str, ...]) -> Iterator[None]:
    """
    Uploads that the Trainer begins in this block also ignore `patterns`.

    The Trainer's own patterns are written into its methods, and nothing can be added to them.
    """
    module: Any = transformers.trainer
    # Older releases of transformers call huggingface_hub's function instead of a client's method.
    holder = module.hf_api() if hasattr(module, "hf_api") else module
    upload = holder.upload_folder

    def upload_folder(*, ignore_patterns: Any = None, **kwargs: Any) -> Any:
        return upload(ignore_patterns=[*(ignore_patterns or []), *patterns], **kwargs)

    holder.upload_folder = upload_folder
    try:
        yield
    finally:
        holder.upload_folder = upload


def _names(checkpoint: Path) -> set[str]:
    index, weights = checkpoint / SAFE_WEIGHTS_INDEX_NAME, checkpoint / SAFE_WEIGHTS_NAME
    if index.is_file():
        return set(json.loads(index.read_text())["weight_map"])
    if weights.is_file():
        with safe_open(weights, framework="pt") as file:
            return set(file.keys())
    return set()  # an adapter, or files of DeepSpeed or FSDP, which have their own loaders


class CaptionerTrainer(GRPOTrainer):
    """
    [`~trl.GRPOTrainer`] whose checkpoints are captioners that can be loaded and published.

    The only changes w.r.t. [`~trl.GRPOTrainer`] are in saving and loading: full weights can be
    loaded by their Hub names ([`load_renamed_weights`]), and the training prompt, generation
    settings and a model card are saved along with the weights and the processor. A push to the Hub
    leaves out [`NOT_PUSHED`]: the verdicts, whose thumbnails are the user's images. If the judge
    was down in an evaluation, that evaluation selects no best checkpoint, and the run continues.
    """

    _tag_names = ["trl", "grpo", "balcap"]  # noqa: RUF012 (TRL's attribute)
    _name = "BalCapRL"
    _paper = {  # noqa: RUF012 (TRL's attribute)
        "title": "BalCapRL: A Balanced Framework for RL-Based MLLM Image Captioning",
        "id": "2605.07394",
        "citation": CITATION,
    }

    facts: Mapping[str, Any]  # the facts about the run, see `run_facts`

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            args: Any = self.args
            folder = Path(output_dir or args.output_dir)
            write_captioning_settings(folder, self._prompt(), args.max_completion_length)
            # With save_on_each_node several ranks save, but TRL writes its card on one alone.
            if self.is_world_process_zero():
                self.create_model_card(model_name=folder.name)
                self._write_card(folder)

    def create_model_card(self, model_name=None, dataset_name=None, tags=None):
        folder = Path(str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        super().create_model_card(model_name, dataset_name, tags)
        if self.is_world_process_zero():
            self._write_card(folder, dataset_name)

    def push_to_hub(self, *args, **kwargs):
        with _leaving_out(NOT_PUSHED):
            return super().push_to_hub(*args, **kwargs)

    def _push_from_checkpoint(self, checkpoint_folder):
        with _leaving_out(NOT_PUSHED):
            super()._push_from_checkpoint(checkpoint_folder)

    def _write_card(self, folder: Path, dataset_name: str | None = None) -> None:
        # TRL's card, for its metadata header
        card = ModelCard.load(Path(str(self.args.output_dir)) / "README.md")
        name = (self.hub_model_id or self.facts.get("name") or folder.resolve().name).split("/")[-1]
        card.data["model_name"] = name
        card.data.pop("licence", None)  # TRL's is a blank to be filled in
        if "license" in self.facts:
            card.data["license"] = self.facts["license"]
        card.text = card_text(
            self.facts,
            name=name,
            where=self.hub_model_id or str(folder),
            prompt=self._prompt(),
            history=self.state.log_history,
            dataset=dataset_name,
        )
        card.save(folder / "README.md")

    def _prompt(self) -> str | None:
        """The user's message of the training set's first row, if the dataset can be indexed."""
        dataset: Any = self.train_dataset
        if not isinstance(dataset, Dataset) or "prompt" not in dataset.column_names:
            return None
        return user_text(dataset.with_format(None).select_columns(["prompt"])[0]["prompt"]) or None

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        # Not with FSDP, whose checkpoints use the in-memory names (DeepSpeed does not get here).
        if not self.is_fsdp_enabled:
            load_renamed_weights(model or self.model, resume_from_checkpoint)

    def _evaluate(self, trial, ignore_keys_for_eval, skip_scheduler=False):
        metrics = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler=True)
        # A schedule that waits for a plateau is stepped by the same metric as the best checkpoint.
        step = getattr(self.lr_scheduler, "step", None)  # DeepSpeed's own has none
        if step is None or skip_scheduler or self._why_no_measure(metrics) is not None:
            return metrics
        if "metrics" in inspect.signature(step).parameters:
            step(metrics[self._measure()])
        return metrics

    def _determine_best_metric(self, metrics, trial):
        why = self._why_no_measure(metrics)
        if why is not None:
            step = self.state.global_step
            logger.warning("The evaluation at step %d names no best checkpoint: %s.", step, why)
            return False
        return super()._determine_best_metric(metrics, trial)

    def _measure(self) -> str:
        """Name of the metric that tells the best checkpoint."""
        return f"eval_{str(self.args.metric_for_best_model).removeprefix('eval_')}"

    def _why_no_measure(self, metrics: Mapping[str, Any]) -> str | None:
        """Why an evaluation says nothing of the model, or `None`; the same on all ranks."""
        if self.args.metric_for_best_model is None:
            return None
        for func in self.reward_funcs:
            hooks, name = reward_hooks(func), reward_name(func)
            unscored = metrics.get(f"eval_judge/{name}/unscored") or 0.0
            if hooks is not None and unscored > hooks.max_unscored:
                return (
                    f"{name} left {unscored:.0%} of the completions unscored, more than "
                    f"max_unscored={hooks.max_unscored:g}"
                )
        if metrics.get(self._measure(), 0.0) is None:
            return f"{self._measure()} has no value, for nothing was scored"
        return None

    def _load_best_model(self):
        super()._load_best_model()
        best = self.state.best_model_checkpoint
        if best and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            load_renamed_weights(self.model, best)

# /// script
# dependencies = ["trl-balcap"]
# ///
"""Fine-tune a vision-language model on the reference captions, as a baseline or a start for RL.

Without arguments, this trains a tiny Qwen2.5-VL on the demo's drawn scenes, on CPU.

    python examples/train_sft.py

With the same data and recipe as RL, the model goes to the recipe's `output_dir` plus "-sft":

    accelerate launch --config_file examples/accelerate/zero3.yaml examples/train_sft.py \\
        --config examples/configs/qwen2.5-vl-3b.yaml

For SFT, then RL, start RL from the trained folder (or from the base with the adapter merged in).

    accelerate launch --config_file examples/accelerate/zero3.yaml examples/train_qwen.py \\
        --config examples/configs/qwen2.5-vl-3b.yaml \\
        --model_name_or_path runs/qwen2.5-vl-3b-sft --output_dir runs/qwen2.5-vl-3b-sft-rl

Recipe keys that only apply to RL are skipped and listed: rollouts, rewards, the gate, the judge,
and the learning rate, which is 20 times smaller in RL. SFT uses TRL's 2e-5, or your
`--learning_rate`. Any flag of TRL's `SFTConfig`, `ModelConfig` and `CaptioningArguments` can follow
the recipe.
"""

import sys
from dataclasses import fields
from typing import Any

import torch
from transformers import set_seed
from trl import (
    ModelConfig,
    SFTConfig,
    SFTTrainer,
    TrlParser,
    get_peft_config,
    get_quantization_config,
)

from trl_balcap import BalCapConfig, load_captions
from trl_balcap.config import CaptioningArguments
from trl_balcap.demo import demo_scenes
from trl_balcap.quiet import hush
from trl_balcap.scenes.captioner import captioner_path

OF_RL = {field.name for field in fields(BalCapConfig)} - {field.name for field in fields(SFTConfig)}
OF_RL |= {"learning_rate", "rewards"}


class RecipeParser(TrlParser):
    """Reads an RL recipe; skips and lists the keys that do not apply to SFT."""

    def set_defaults_with_config(self, **values: Any) -> list[str]:
        left_out = [key for key in values if key in OF_RL or key.startswith("judge_")]
        if left_out:
            print(f"Skipped, for RL only: {', '.join(left_out)}.")
        kept = {key: value for key, value in values.items() if key not in left_out}
        if kept.get("output_dir"):
            kept["output_dir"] = f"{kept['output_dir']}-sft"
        return super().set_defaults_with_config(**kept)


class Completions:
    """Opens the images of a batch, and completes each prompt with its reference."""

    def __init__(self, opened: Any):
        self.opened = opened

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        batch = self.opened(batch)
        references = batch.pop("reference")
        answers = [[{"role": "assistant", "content": text}] for text in references]
        return {**batch, "completion": answers}


def main(captioning: CaptioningArguments, args: SFTConfig, model_args: ModelConfig) -> None:
    set_seed(args.seed)
    args.max_length = None  # a truncated sequence would lose image tokens
    args.remove_unused_columns = False  # the columns are created when a row is read
    with args.main_process_first():
        if captioning.dataset is None:
            train_dataset = demo_scenes(args.output_dir or "runs", seed=args.seed)
        else:
            train_dataset = load(captioning.dataset, captioning, captioning.dataset_split)
    eval_dataset = None
    if captioning.eval_dataset is not None:
        eval_dataset = answered(load(captioning.eval_dataset, captioning, None))

    args.model_init_kwargs = args.model_init_kwargs or {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
    }
    trainer = SFTTrainer(
        model=model_args.model_name_or_path or str(captioner_path()),
        args=args,
        train_dataset=answered(train_dataset),
        eval_dataset=eval_dataset,
        peft_config=get_peft_config(model_args),
        quantization_config=get_quantization_config(model_args),
    )
    resume = args.resume_from_checkpoint  # a folder, or True (a string on the command line)
    trainer.train(resume_from_checkpoint=True if str(resume).lower() == "true" else resume)
    trainer.save_model(args.output_dir)
    if args.push_to_hub:
        trainer.push_to_hub(dataset_name=captioning.dataset)


def load(path: str, captioning: CaptioningArguments, split: str | None):
    return load_captions(
        path, split=split, prompt=captioning.prompt, max_pixels=captioning.max_pixels
    )


def answered(dataset: Any):
    """RL rows as SFT reads them: the reference is the completion."""
    kept = dataset.select_columns(["prompt", "image", "reference"])
    return kept.with_transform(Completions(dataset.format["format_kwargs"]["transform"]))


if __name__ == "__main__":
    hush()
    parser = RecipeParser((CaptioningArguments, SFTConfig, ModelConfig))
    parser.set_defaults(output_dir="runs/train_sft")
    if not torch.cuda.is_available():
        parser.set_defaults(bf16=False)  # TRL's default is for GPUs
    if len(sys.argv) == 1:
        parser.set_defaults(max_steps=60, per_device_train_batch_size=16, learning_rate=1e-4)
        parser.set_defaults(dtype="float32", report_to="none", logging_steps=1)
    main(*parser.parse_args_and_config())

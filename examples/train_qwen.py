# /// script
# dependencies = ["trl-balcap"]
# ///
"""Train a vision-language model to caption images with three judge rewards: Qwen-VL, LLaVA, or any
other that TRL supports.

Without arguments, this is the demo's training run: drawn scenes, the exact judge and a tiny
Qwen2.5-VL on CPU.

    accelerate launch examples/train_qwen.py

A dataset of your own needs a judge: `--judge_model`, or a recipe that names one.

The paper's recipe on 8 GPUs, with a judge behind an API:

    accelerate launch --config_file examples/accelerate/zero3.yaml examples/train_qwen.py \\
        --config examples/configs/qwen2.5-vl-3b.yaml --dataset captions.jsonl

For images without references, write some (`trl-balcap recaption`), or train without them with
`--rewards precision agreed_recall linguistic --length_gate_tokens 60 200`.

Other rewards: `--rewards utility`, `rubric`, `feedquill` or `group`, alone or together with the
three (docs/your-own-reward.md says which columns they need).

For LLaVA-1.5, run the same script with `--config examples/configs/llava-1.5-7b.yaml`. Any flag of
`BalCapConfig` (TRL's `GRPOConfig` and a few more), `ModelConfig` and `CaptioningArguments` can
follow: `--use_peft`, `--use_vllm`, `--report_to wandb`, `--resume_from_checkpoint`, ...
"""

import sys

import torch
from transformers import set_seed
from trl import ModelConfig, TrlParser, get_peft_config, get_quantization_config

from trl_balcap import (
    BalCapConfig,
    BalCapTrainer,
    FeedQuillReward,
    GroupReward,
    Judge,
    LinguisticReward,
    PrecisionReward,
    RecallReward,
    RubricReward,
    UtilityReward,
    load_captions,
)
from trl_balcap.config import CaptioningArguments
from trl_balcap.demo import demo_config, demo_scenes
from trl_balcap.quiet import hush
from trl_balcap.rewards import AgreedRecallReward
from trl_balcap.scenes.captioner import captioner_path

REWARDS = {
    "precision": PrecisionReward,
    "recall": RecallReward,
    "agreed_recall": AgreedRecallReward,
    "linguistic": LinguisticReward,
    "utility": UtilityReward,
    "rubric": RubricReward,
    "feedquill": FeedQuillReward,
    "group": GroupReward,
}


def main(captioning: CaptioningArguments, args: BalCapConfig, model_args: ModelConfig) -> None:
    set_seed(args.seed)
    rewards = captioning.rewards
    if not rewards or not set(rewards) <= set(REWARDS):
        raise ValueError(f"rewards must be among {list(REWARDS)}, got {rewards}.")
    judge = Judge(**captioning.judge_options())
    references = captioning.needs_references(args)
    with args.main_process_first():
        if captioning.dataset is None:
            train_dataset = demo_scenes(args.output_dir or "runs", seed=args.seed)
        else:
            train_dataset = load(
                captioning.dataset, captioning, captioning.dataset_split, references
            )
    eval_dataset = None
    if captioning.eval_dataset is not None:
        eval_dataset = load(captioning.eval_dataset, captioning, None, references)

    if args.model_init_kwargs is None:
        args.model_init_kwargs = {
            "revision": model_args.model_revision,
            "attn_implementation": model_args.attn_implementation,
            "dtype": model_args.dtype,
        }
    trainer = BalCapTrainer(
        model=model_args.model_name_or_path or str(captioner_path()),
        reward_funcs=[REWARDS[name](judge) for name in rewards],
        args=args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        peft_config=get_peft_config(model_args),
        quantization_config=get_quantization_config(model_args),
    )
    resume = args.resume_from_checkpoint  # a folder, or True (a string on the command line)
    trainer.train(resume_from_checkpoint=True if str(resume).lower() == "true" else resume)
    trainer.save_model(args.output_dir)
    if args.push_to_hub:
        trainer.push_to_hub(dataset_name=captioning.dataset)


def load(path: str, captioning: CaptioningArguments, split: str | None, references: bool):
    return load_captions(
        path,
        split=split,
        references=references,
        prompt=captioning.prompt,
        max_pixels=captioning.max_pixels,
    )


if __name__ == "__main__":
    hush()
    if len(sys.argv) == 1:
        main(CaptioningArguments(), demo_config("runs/train_qwen"), ModelConfig())
    else:
        parser = TrlParser((CaptioningArguments, BalCapConfig, ModelConfig))
        if not torch.cuda.is_available():
            parser.set_defaults(bf16=False)  # TRL's default is for GPUs
        main(*parser.parse_args_and_config())

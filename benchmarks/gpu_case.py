"""One case of [`benchmarks.gpu`]: times and peak memory of one trainer over a few steps."""

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import GRPOConfig, GRPOTrainer

from benchmarks.stopwatch import PHASES, Clock, StepClock, timed
from trl_balcap import BalCapConfig, BalCapTrainer, Judge
from trl_balcap.plan import GenerationBatch, Setup, memory_plan, model_shape
from trl_balcap.plan.images import image_tokens
from trl_balcap.plan.memory import GIB
from trl_balcap.plan.model import load_config
from trl_balcap.plan.ways_out import LANGUAGE_LORA
from trl_balcap.rewards import LinguisticReward, PrecisionReward, RecallReward
from trl_balcap.scenes.captioner import build_qwen
from trl_balcap.scenes.make import scene_rows
from trl_balcap.scenes.server import serve

ONE_BATCH = "one batch"  # per update, TRL's default: nothing to look ahead to
ORDERS = ("TRL's order", "look-ahead", "one step off")


@dataclasses.dataclass(frozen=True)
class Shape:
    """The model and the sizes to run."""

    name: str
    model: str | None  # Hub id of a shipped configuration; None for the tiny captioner's
    image_side: int
    completion: int
    micro_batch: int
    accumulation: int
    num_generations: int
    steps: int  # the first is not timed


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table."""

    trainer: str  # "GRPOTrainer" or "BalCapTrainer"
    weights: str  # "lora", "full" or "offload"
    judge_seconds: float | None  # None: rewards that cost nothing
    order: str = ONE_BATCH  # or one of ORDERS


SHAPES = {
    "qwen2.5-vl-3b": Shape(
        "qwen2.5-vl-3b", "Qwen/Qwen2.5-VL-3B-Instruct", 448, 512, 4, 4, num_generations=8, steps=4
    ),
    "tiny": Shape("tiny", None, 84, 16, 4, 2, num_generations=4, steps=2),
}


def length_like(completion_ids, **kwargs):
    return [len(set(ids)) / len(ids) for ids in completion_ids]


def even_like(completion_ids, **kwargs):
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


def linguistic_reward(completion_ids, **kwargs):
    return [ids[0] % 7 / 7 for ids in completion_ids]


def run_case(shape: Shape, case: Case, folder: Path) -> dict[str, Any]:
    """Trains a few steps; returns the median of each phase, and peak memory against the plan's."""
    torch.manual_seed(0)
    cuda = torch.cuda.is_available()
    model, processor = model_and_processor(shape, folder)
    deepspeed = None
    if case.weights == "offload" and cuda:
        deepspeed = {
            "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}},
            "bf16": {"enabled": True},
            "train_batch_size": "auto",
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
        }
    server = nullcontext()
    if case.judge_seconds is not None:
        server = serve(latency=case.judge_seconds, process=True)  # with its own CPU time
    with server as handle:
        rewards: list[Any] = [length_like, even_like, linguistic_reward]
        if handle is not None:
            judge = Judge("openai/oracle", api_base=handle.url, api_key="none")
            rewards = [PrecisionReward(judge), RecallReward(judge), LinguisticReward(judge)]
        balcap = case.trainer == "BalCapTrainer"
        settings: dict[str, Any] = {
            "output_dir": str(folder / "run"),
            "multi_objective_aggregation": "normalize_then_sum",
            "per_device_train_batch_size": shape.micro_batch,
            "gradient_accumulation_steps": shape.accumulation,
            "num_generations": shape.num_generations,
            "max_completion_length": shape.completion,
            "generation_kwargs": {
                # Full-length captions made of words the tokenizer knows (the vocabulary is larger),
                # so that the judge has something to read.
                "min_new_tokens": shape.completion,
                "suppress_tokens": unwritable(processor.tokenizer, model.config),
            },
            "max_steps": shape.steps,
            "learning_rate": 1e-6,
            "bf16": cuda,
            "use_cpu": not cuda,
            "gradient_checkpointing": True,
            "deepspeed": deepspeed,
            "report_to": "none",
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
            "dataloader_pin_memory": cuda,
        }
        if balcap:
            # Open: captions of 512 tokens would fail any gate, and the judge would be skipped.
            settings["length_gate"] = None
            settings["judge_lookahead"] = case.order != "TRL's order"
            settings["judge_lag"] = int(case.order == "one step off")
        if case.order in ("TRL's order", "look-ahead"):
            settings["steps_per_generation"] = shape.accumulation // 2
        clock = Clock()
        trainer = timed(BalCapTrainer if balcap else GRPOTrainer)(
            model=model,
            reward_funcs=rewards,
            args=(BalCapConfig if balcap else GRPOConfig)(**settings),
            train_dataset=dataset(shape),
            processing_class=processor,
            peft_config=LoraConfig(r=16, target_modules=LANGUAGE_LORA)
            if case.weights == "lora"
            else None,
            callbacks=[StepClock(clock)],
        )
        trainer.clock = clock  # type: ignore[attr-defined]
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    later = clock.steps[1:]
    unscored = [
        value
        for row in trainer.state.log_history
        for key, value in row.items()
        if key.startswith("judge/") and key.endswith("/unscored")
    ]
    return {
        **dataclasses.asdict(case),
        "seconds": {
            name: sorted(step[name] for step in later)[len(later) // 2]
            for name in ("step", *PHASES)
        },
        "peak_gib": torch.cuda.max_memory_allocated() / GIB if cuda else None,
        "reserved_gib": torch.cuda.max_memory_reserved() / GIB if cuda else None,
        "planned_gib": planned(shape, case, model.config),
        "unscored": max(unscored, default=0.0),
    }


def model_and_processor(shape: Shape, folder: Path) -> tuple[Any, Any]:
    """The architecture with random weights, and a real processor with its image tokens."""
    tiny = build_qwen(folder / "tiny")
    processor = AutoProcessor.from_pretrained(tiny)
    if shape.model is None:
        config = load_config(str(tiny))
    else:
        config = load_config(shape.model)
        ids = processor.tokenizer.get_vocab()
        config.image_token_id = ids["<|image_pad|>"]
        config.video_token_id = ids["<|video_pad|>"]
        config.vision_start_token_id = ids["<|vision_start|>"]
        config.vision_end_token_id = ids["<|vision_end|>"]
        for part in (config, config.get_text_config()):
            part.bos_token_id = None
            part.eos_token_id = processor.tokenizer.eos_token_id
            part.pad_token_id = processor.tokenizer.pad_token_id
        bounds = {"shortest_edge": 56**2, "longest_edge": shape.image_side**2}
        processor.image_processor.size = bounds
    cuda = torch.cuda.is_available()
    with torch.device("cuda" if cuda else "cpu"):
        model = AutoModelForImageTextToText.from_config(
            config, dtype=torch.bfloat16 if cuda else torch.float32
        )
    return model, processor


def unwritable(tokenizer: Any, config: Any) -> list[int]:
    """Token ids that decode to no text: special tokens, and those the tokenizer lacks."""
    vocabulary = config.get_text_config().vocab_size
    return [*tokenizer.all_special_ids, *range(len(tokenizer), vocabulary)]


def dataset(shape: Shape) -> Dataset:
    prompt = [{"role": "user", "content": "Describe the image in detail."}]
    side = (shape.image_side, shape.image_side)
    rows = [
        {"prompt": prompt, "image": row["image"].resize(side), "reference": row["reference"]}
        for row in scene_rows(16)
    ]
    return Dataset.from_list(rows).cast_column("image", Image())


def planned(shape: Shape, case: Case, config: Any) -> float | None:
    """GiB that `trl-balcap plan` predicts for the case, if the plan covers it."""
    if case.weights == "offload":
        return None
    lora = case.weights == "lora"
    adapter = LoraConfig(r=16, target_modules=LANGUAGE_LORA) if lora else None
    plan = memory_plan(
        model_shape(shape.name, config, adapter),
        Setup(peft=lora),
        GenerationBatch(shape.micro_batch, 1, shape.accumulation, shape.num_generations),
        image=image_tokens(config, shape.image_side, shape.image_side),
        prompt_tokens=47,
        completion_tokens=shape.completion,
        gpu_memory=80.0,
    )
    return plan.peak / GIB

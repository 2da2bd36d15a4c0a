"""Real shapes on one GPU: where a step's time and memory go, beside TRL's own GRPOTrainer.

    python -m benchmarks.gpu                  # Qwen2.5-VL-3B's architecture, random weights
    python -m benchmarks.gpu --shape tiny     # the same path on CPU, in seconds

Nothing is downloaded: the weights are random, the tokenizer is the tiny captioner's. bf16, G = 8,
captions of exactly 512 tokens, images of 448 x 448 px, LoRA, and all weights under ZeRO-3 with the
optimizer on the host. Each case runs in a process of its own, so that its peak memory is its own:
GRPOTrainer and BalCapTrainer with rewards that cost nothing (goal: 1.02 in time and memory), then
BalCapTrainer under a loopback judge that answers in 0, 1 and 3 s.

A step is split into generation, waiting for the rewards, log-probabilities (old, reference and the
loss's own forward), and the rest (backward and optimizer). The plan's memory estimate stands beside
what was measured. Without a GPU the full shape is not run, and the table says so.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image
from peft import LoraConfig
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import GRPOConfig, GRPOTrainer

from benchmarks.results_file import write_results
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

GOAL = 1.02
CASE_SECONDS = 420  # of one case, so that a run can be made in pieces of 8 minutes


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is run."""

    name: str
    model: str | None  # Hub id of a shipped configuration; None is the tiny captioner's
    image_side: int
    completion: int
    micro_batch: int
    accumulation: int
    num_generations: int
    steps: int  # the first is left out of the times


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table."""

    trainer: str  # "GRPOTrainer" or "BalCapTrainer"
    weights: str  # "lora" or "full"
    judge_seconds: float | None  # None: rewards that cost nothing


SHAPES = {
    "qwen2.5-vl-3b": Shape(
        "qwen2.5-vl-3b", "Qwen/Qwen2.5-VL-3B-Instruct", 448, 512, 4, 4, num_generations=8, steps=4
    ),
    "tiny": Shape("tiny", None, 84, 16, 4, 2, num_generations=4, steps=2),
}


def cases(weights: list[str], judge_seconds: list[float]) -> list[Case]:
    rows = []
    for kind in weights:
        rows += [Case("GRPOTrainer", kind, None), Case("BalCapTrainer", kind, None)]
        rows += [Case("BalCapTrainer", kind, seconds) for seconds in judge_seconds]
    return rows


# --- one case ---


def length_like(completion_ids, **kwargs):
    return [len(set(ids)) / len(ids) for ids in completion_ids]


def even_like(completion_ids, **kwargs):
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


def linguistic_reward(completion_ids, **kwargs):
    return [ids[0] % 7 / 7 for ids in completion_ids]


def run_case(shape: Shape, case: Case, folder: Path) -> dict[str, Any]:
    """Trains a few steps; the median of each phase, and the peak memory beside the plan's."""
    torch.manual_seed(0)
    cuda = torch.cuda.is_available()
    model, processor = model_and_processor(shape, folder)
    deepspeed = None
    if case.weights == "full" and cuda:
        deepspeed = {
            "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}},
            "bf16": {"enabled": True},
            "train_batch_size": "auto",
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
        }
    server = nullcontext() if case.judge_seconds is None else serve(latency=case.judge_seconds)
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
                # Full-length captions of words that the tokenizer has, from a vocabulary that is
                # larger: so that a judge has something to read.
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
            # Open: captions of 512 tokens are beyond any gate, and would spare the judge.
            settings["length_gate"] = None
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
        "planned_gib": planned(shape, case, model.config) / GIB,
        "unscored": max(unscored, default=0.0),
    }


def model_and_processor(shape: Shape, folder: Path) -> tuple[Any, Any]:
    """The architecture with random weights, and a real processor that knows its image tokens."""
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
    """Token ids that would leave no text: special ones, and those that the tokenizer lacks."""
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


def planned(shape: Shape, case: Case, config: Any) -> float:
    """Bytes that `trl-balcap plan` foresees for the case."""
    lora = case.weights == "lora"
    adapter = LoraConfig(r=16, target_modules=LANGUAGE_LORA) if lora else None
    zero = {"zero_stage": 3, "offload_optimizer": True}
    return memory_plan(
        model_shape(shape.name, config, adapter),
        Setup(peft=lora, **({} if lora else zero)),
        GenerationBatch(shape.micro_batch, 1, shape.accumulation, shape.num_generations),
        image=image_tokens(config, shape.image_side, shape.image_side),
        prompt_tokens=47,
        completion_tokens=shape.completion,
        gpu_memory=80.0,
    ).peak


# --- all cases ---


def main(shape: Shape, rows: list[Case]) -> dict[str, Any]:
    """Runs the cases, prints the table, and returns what is to be kept."""
    found: list[dict[str, Any]] = []
    missing: list[str] = []
    cuda = torch.cuda.is_available()
    if not cuda and shape.model is not None:
        missing.append(
            f"all of {shape.name}: no CUDA device was at hand. Step time, peak memory, their "
            "ratios to GRPOTrainer's, and the plan's error are not known."
        )
    else:
        for case in rows:
            with tempfile.TemporaryDirectory() as folder:
                found.append(
                    run_apart(shape, case) if cuda else run_case(shape, case, Path(folder))
                )
        if not cuda:
            missing.append("peak memory: the run was on CPU")
            missing.append("ZeRO-3 with offload: the run was on CPU, all weights without DeepSpeed")
    missing.append("weight sync and vLLM: generation is transformers'")
    console = Console(width=120)
    if found:
        console.print(table(found))
    for what in missing:
        console.print(f"not measured: {what}", highlight=False, soft_wrap=True)
    device = torch.cuda.get_device_name() if cuda else "none"
    return {
        "gpu": device,
        "shape": dataclasses.asdict(shape),
        "goal": GOAL,
        "cases": found,
        "ratios": ratios(found),
        "not_measured": missing,
    }


def run_apart(shape: Shape, case: Case) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "case.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--shape", shape.name]
        command += ["--case", json.dumps(dataclasses.asdict(case)), "--out", str(result)]
        command += ["--steps", str(shape.steps)]
        # DeepSpeed without a launcher would look for these by mpi4py.
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        alone |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
        subprocess.run(command, check=True, env={**os.environ, **alone}, timeout=CASE_SECONDS)
        return json.loads(result.read_text())


def ratios(found: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """BalCapTrainer over GRPOTrainer with free rewards, for each kind of weights."""
    free = {(row["weights"], row["trainer"]): row for row in found if row["judge_seconds"] is None}
    result = {}
    for kind in sorted({kind for kind, _ in free}):
        trl, ours = free[kind, "GRPOTrainer"], free[kind, "BalCapTrainer"]
        memory = None
        if trl["peak_gib"] is not None:
            memory = ours["peak_gib"] / trl["peak_gib"]
        result[kind] = {
            "step_time": ours["seconds"]["step"] / trl["seconds"]["step"],
            "peak_memory": memory,
        }
    return result


def table(found: list[dict[str, Any]]) -> Table:
    view = Table(title="one step, seconds (median)", title_justify="left")
    for name in ("weights", "trainer", "judge", "step", *PHASES, "peak GiB", "plan GiB"):
        view.add_column(name, justify="left" if name in ("weights", "trainer") else "right")
    for row in found:
        judge = "free" if row["judge_seconds"] is None else f"{row['judge_seconds']:g} s"
        peak = "-" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
        times = [f"{row['seconds'][name]:.2f}" for name in ("step", *PHASES)]
        view.add_row(
            row["weights"], row["trainer"], judge, *times, peak, f"{row['planned_gib']:.1f}"
        )
    return view


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-vl-3b")
    parser.add_argument("--steps", type=int, help="steps a case; the first is not timed")
    parser.add_argument("--weights", nargs="+", choices=["lora", "full"], default=["lora", "full"])
    parser.add_argument("--judge_seconds", nargs="*", type=float, default=[0.0, 1.0, 3.0])
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = SHAPES[options.shape]
    if options.steps is not None:
        chosen = dataclasses.replace(chosen, steps=options.steps)
    if options.case is not None:
        with tempfile.TemporaryDirectory() as scratch:
            figures = run_case(chosen, Case(**json.loads(options.case)), Path(scratch))
        Path(options.out).write_text(json.dumps(figures))
    else:
        kept = main(chosen, cases(options.weights, options.judge_seconds))
        name = "gpu" if chosen.model is not None else f"gpu_{chosen.name}"
        sys.stdout.write(f"Kept in {write_results(name, kept)}\n")

"""The overhead of BalCapTrainer over a step of TRL's GRPOTrainer, with rewards that cost nothing.

    python -m benchmarks.overhead

Both trainers train the tiny captioner in one process, alternating step by step, so that a slowdown
of the machine affects both. The same seed gives both the same completions. It prints the median of
each, and the median ratio over pairs of steps with its interquartile range. Goal: 1.02. It also
prints what `credit="assertion"` takes for the same completions, as a share of a step. Goal: 1%.
"""

import argparse
import statistics
import tempfile
import threading
import time

import torch
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.results_file import write_results
from trl_balcap import BalCapConfig, BalCapTrainer
from trl_balcap.credit import batch_values, tokenizer_backend
from trl_balcap.data.completions import completion_text
from trl_balcap.demo import demo_scenes
from trl_balcap.scenes.captioner import captioner_path
from trl_balcap.scenes.rules import decompose


def precision_like(completion_ids, **kwargs):
    return [len(set(ids)) / len(ids) for ids in completion_ids]


def recall_like(completion_ids, **kwargs):
    return [len(ids) / 64 for ids in completion_ids]


def linguistic_reward(completion_ids, **kwargs):
    return [ids[0] % 7 / 7 for ids in completion_ids]


REWARDS = [precision_like, recall_like, linguistic_reward]


class TakingTurns(TrainerCallback):
    """Lets one trainer at a time run a step, and times it."""

    def __init__(self, mine: threading.Semaphore, other: threading.Semaphore):
        self.mine, self.other = mine, other
        self.seconds: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.mine.acquire()
        torch.manual_seed(state.global_step)  # the same completions for both
        self.begun = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(time.perf_counter() - self.begun)
        self.other.release()


def main(steps: int, warmup: int, out: str) -> None:
    torch.set_num_threads(1)
    turns = {
        name: threading.Semaphore(name == "GRPOTrainer")
        for name in ("GRPOTrainer", "BalCapTrainer")
    }
    names = list(turns)
    train = demo_scenes(out, rows=256)
    callbacks = {
        name: TakingTurns(turns[name], turns[names[1 - i]]) for i, name in enumerate(names)
    }
    trainers = []
    for trainer_class, config_class in [(GRPOTrainer, GRPOConfig), (BalCapTrainer, BalCapConfig)]:
        name = trainer_class.__name__
        trainers.append(
            trainer_class(
                model=str(captioner_path()),
                reward_funcs=REWARDS,
                args=config_class(
                    output_dir=f"{out}/{name}",
                    multi_objective_aggregation="normalize_then_sum",
                    max_steps=warmup + steps,
                    per_device_train_batch_size=64,
                    num_generations=8,
                    max_completion_length=48,
                    learning_rate=0.0,  # the captioners do not change, so that steps are comparable
                    bf16=False,
                    gradient_checkpointing=False,
                    dataloader_pin_memory=False,
                    report_to="none",
                    disable_tqdm=True,
                    save_strategy="no",
                    logging_steps=1000,
                    model_init_kwargs={"dtype": "float32"},
                ),
                train_dataset=train,
                callbacks=[callbacks[name]],
            )
        )
    threads = [threading.Thread(target=trainer.train) for trainer in trainers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    seconds = {name: callbacks[name].seconds[warmup:] for name in names}
    ratios = sorted(
        b / a for a, b in zip(seconds["GRPOTrainer"], seconds["BalCapTrainer"], strict=True)
    )
    quartiles = statistics.quantiles(ratios, n=4)
    median = statistics.median(seconds["GRPOTrainer"])
    figures = {
        "steps": steps,
        "median_step_seconds": {
            name: statistics.median(values) for name, values in seconds.items()
        },
        "ratio_median": statistics.median(ratios),
        "ratio_quartiles": [quartiles[0], quartiles[2]],
        "goal": 1.02,
        "credit_share_of_step": credit_seconds(trainers[1]) / median,
    }
    for name, value in figures["median_step_seconds"].items():
        print(f"{name:14} {value:.3f} s a step (median of {steps})")
    print(
        f"BalCapTrainer / GRPOTrainer, step by step: {figures['ratio_median']:.3f} "
        f"(quartiles {quartiles[0]:.3f} to {quartiles[2]:.3f}; goal {figures['goal']})"
    )
    print(f"Credit for assertions: {figures['credit_share_of_step']:.2%} of a step (goal 1%)")
    print(f"Kept in {write_results('overhead', figures)}")


def credit_seconds(trainer: BalCapTrainer) -> float:
    """What it takes to bring verdicts to the tokens of the last completions: median of 20 times."""
    backend, ids = tokenizer_backend(trainer.processing_class), trainer._completion_ids
    said = [
        [
            {"text": text, "correct": True, "pointable": True}
            for text in decompose(completion_text(completion))
        ]
        for completion in trainer._completions
    ]
    taken = []
    for _ in range(20):
        begun = time.perf_counter()
        batch_values(backend, ids, said, length=max(map(len, ids)))
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(options.steps, options.warmup, folder)

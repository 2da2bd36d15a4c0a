"""The cost of keeping verdicts, as a share of a training step.

    python -m benchmarks.verdicts

Runs the demo's training: 8 scenes with 8 rollouts per step, every step logged and kept, with the
exact judge (it answers at once, so steps are as short as possible). It times choosing and gathering
the rows, which the step waits for, and writing them, which happens in a thread. For the thread, CPU
time counts, because that is what it can take from a step. Its wall time, which includes waiting for
the disk, the interpreter and cores, is also given. Goal: 0.01.
"""

import argparse
import statistics
import tempfile
import time
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.results_file import write_results
from trl_balcap import BalCapTrainer, Judge, LinguisticReward, PrecisionReward, RecallReward
from trl_balcap.callbacks import KeepVerdictsCallback
from trl_balcap.demo import demo_config, demo_scenes
from trl_balcap.scenes.captioner import captioner_path


class Timer(TrainerCallback):
    """Wall seconds of each step, of what it waits for, and of the writing in the background."""

    def __init__(self, trainer: Any, keeper: KeepVerdictsCallback):
        self.steps: list[float] = []
        self.waited: list[float] = []
        self.written: list[float] = []
        self.written_cpu: list[float] = []
        trainer._keep_verdicts = self._timed(trainer._keep_verdicts, self.waited, [])
        keeper._try = self._timed(keeper._try, self.written, self.written_cpu)

    def on_step_begin(self, args, state, control, **kwargs):
        self._begun = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append(time.perf_counter() - self._begun)

    @staticmethod
    def _timed(function: Any, seconds: list[float], cpu: list[float]) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun, worked = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds.append(time.perf_counter() - begun)
                cpu.append(time.thread_time() - worked)

        return timed


def main(steps: int, warmup: int, out: str) -> None:
    torch.set_num_threads(1)
    judge = Judge("scenes/oracle")
    trainer = BalCapTrainer(
        str(captioner_path()),
        [PrecisionReward(judge), RecallReward(judge), LinguisticReward(judge)],
        demo_config(f"{out}/run", max_steps=warmup + steps),
        train_dataset=demo_scenes(out, rows=256),
    )
    keeper = trainer._keeper
    assert keeper is not None
    timer = Timer(trainer, keeper)
    trainer.add_callback(timer)
    trainer.train()
    step = statistics.mean(timer.steps[warmup:])
    waited = statistics.mean(timer.waited[warmup:])
    # Rows and log lines, including those from the start of the run.
    written = sum(timer.written) / len(timer.steps)
    cpu = sum(timer.written_cpu) / len(timer.steps)
    figures = {
        "steps": steps,
        "images_kept": keeper.images,
        "rollouts_kept": 64,
        "step_seconds": step,
        "waited_seconds": waited,
        "written_beside_seconds": written,
        "written_beside_cpu_seconds": cpu,
        "ratio_waited": waited / step,
        "ratio": (waited + cpu) / step,
        "ratio_as_if_waited_for": (waited + written) / step,
        "goal": 0.01,
    }
    print(
        f"a step {step:.3f} s, of which {waited * 1000:.1f} ms choosing rows; beside it "
        f"{cpu * 1000:.1f} ms of work and {written * 1000:.1f} ms of time writing: "
        f"{figures['ratio']:.2%} (goal {figures['goal']:.0%})"
    )
    print(f"Kept in {write_results('verdicts', figures)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(options.steps, options.warmup, folder)

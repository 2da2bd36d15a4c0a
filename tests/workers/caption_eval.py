"""One rank of `tests/evals/test_callback`: trains with caption evaluations, writes what it saw.

torchrun --nproc_per_node 2 tests/workers/caption_eval.py MODEL OUT
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed.ops
from trl import GRPOConfig, GRPOTrainer

from tests.conftest import scene_dataset
from trl_balcap.evals.callback import CaptionEvalCallback
from trl_balcap.judge import Judge
from trl_balcap.scenes.make import scene_rows


class Broken(Judge):
    async def preflight(self, *, vision: bool = True) -> None:
        raise OSError("no certificates on this machine")


def main(model: str, out: str) -> None:
    # DeepSpeed would compile collectives of its own for a minute; gloo is there.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [float(i) for i in range(len(completions))],
        args=GRPOConfig(
            out,
            max_steps=2,
            per_device_train_batch_size=2,
            per_device_eval_batch_size=1,
            num_generations=2,
            max_completion_length=6,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=scene_dataset(4),
    )
    held_out = scene_rows(5, seed=5)  # batches of one: three for one rank, two for the other
    broken = CaptionEvalCallback(trainer, held_out, Broken("scenes/oracle"), every_n_steps=1)
    raised = ""
    try:
        broken.on_train_begin(trainer.args, trainer.state, trainer.control)
    except RuntimeError as error:
        raised = str(error)
    callback = CaptionEvalCallback(trainer, held_out, Judge("scenes/oracle"), every_n_steps=1)
    trainer.add_callback(callback)
    trainer.train()
    plugin = trainer.accelerator.state.deepspeed_plugin
    seen = {
        "zero_stage": 0 if plugin is None else plugin.zero_stage,
        "raised": raised,
        "best": callback.best,
        "steps": [
            row["step"] for row in trainer.state.log_history if "eval_greedy_b_capscore" in row
        ],
    }
    Path(out, f"rank-{trainer.accelerator.process_index}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One rank of `tests/test_lookahead`: the same training in TRL's order, looking ahead, and one
step off.

torchrun --nproc_per_node 2 tests/workers/lookahead.py MODEL OUT
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed.ops
import torch

from tests.conftest import scene_dataset
from tests.test_lag import Remembering
from tests.test_lookahead import build, logs
from tests.workers.matrix import weights_of

ORDERS = {"trl": {"judge_lookahead": False}, "ahead": {}, "lag": {"judge_lag": 1}}


def main(model: str, out: str) -> None:
    # DeepSpeed would compile collectives of its own for a minute; gloo is there.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    seen = {}
    for name, config in ORDERS.items():
        # Groups of 4 on batches of 2 a rank: every group is split across the ranks.
        trainer = build(
            model,
            Path(out, name),
            scene_dataset(8),
            kind=Remembering,
            per_device_train_batch_size=2,
            num_generations=4,
            save_strategy="no",
            max_steps=2,
            **config,
        )
        trainer.train()
        plugin = trainer.accelerator.state.deepspeed_plugin
        seen["zero_stage"] = 0 if plugin is None else plugin.zero_stage
        seen[name] = {
            "logs": logs(trainer),
            "weights": weights_of(trainer.model),
            "order": trainer.order,
            "references": trainer.references,
            "off_policy": ["old_per_token_logps" in one["inputs"] for one in trainer.losses],
        }
    torch.save(seen, Path(out, f"rank-{os.environ['RANK']}.pt"))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One rank of `tests/test_lookahead`: the same training in TRL's order and looking ahead.

torchrun --nproc_per_node 2 tests/workers/lookahead.py MODEL OUT
"""

import os
import sys
from pathlib import Path

import torch

from tests.conftest import scene_dataset
from tests.test_lookahead import build, logs, weights


def main(model: str, out: str) -> None:
    seen = {}
    for name, looks_ahead in (("trl", False), ("ahead", True)):
        # Groups of 4 on batches of 2 a rank: every group is split across the ranks.
        trainer = build(
            model,
            Path(out, name),
            scene_dataset(8),
            judge_lookahead=looks_ahead,
            per_device_train_batch_size=2,
            num_generations=4,
            save_strategy="no",
            max_steps=2,
        )
        trainer.train()
        seen[name] = {"logs": logs(trainer), "weights": weights(trainer), "order": trainer.order}
    torch.save(seen, Path(out, f"rank-{os.environ['RANK']}.pt"))


if __name__ == "__main__":
    main(*sys.argv[1:])

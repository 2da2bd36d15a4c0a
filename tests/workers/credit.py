"""One rank of `tests/test_credit`: a group of 4 captions, two on each rank.

torchrun --nproc_per_node 2 tests/workers/credit.py OUT
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch

from tests.test_credit import trained


def main(out: str) -> None:
    trainer = trained(Path(out, "run"), per_device_train_batch_size=2, max_steps=1)
    batch, rank = trainer.batches[0], trainer.accelerator.process_index
    mine = torch.tensor(list(trainer._logs["advantages"])[2 * rank : 2 * rank + 2])  # (2,)
    torch.save((batch["advantages"] - mine[:, None]).sum(), Path(out, f"rank-{rank}.pt"))


if __name__ == "__main__":
    main(*sys.argv[1:])

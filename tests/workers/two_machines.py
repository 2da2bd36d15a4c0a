"""One of the two machines of `tests/test_checkpoints`, with one process and a disk of its own.

RANK=0 python tests/workers/two_machines.py MODEL OUT
"""

import os
import sys

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from tests.conftest import scene_dataset
from tests.test_trainer import CPU, even_reward
from trl_balcap import BalCapConfig, BalCapTrainer


def main(model: str, out: str) -> None:
    config = {**CPU, "max_steps": 1, "save_steps": 1, "save_on_each_node": True}
    args = BalCapConfig(out, **config)
    assert args.should_save
    BalCapTrainer(model, [even_reward], args, train_dataset=scene_dataset(8)).train()


if __name__ == "__main__":
    main(*sys.argv[1:])

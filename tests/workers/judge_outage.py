"""One rank of `test_judge_distributed`: trains with a judge that may die, writes how it ended.

torchrun --nproc_per_node 2 tests/workers/judge_outage.py MODEL OUT URL_OF_RANK_0 URL_OF_RANK_1
"""

import json
import os
import sys
import time
from pathlib import Path

from tests.conftest import scene_dataset
from trl_balcap import (
    BalCapConfig,
    BalCapTrainer,
    Judge,
    LinguisticReward,
    PrecisionReward,
    RecallReward,
)
from trl_balcap.judge.ranks import batch_deadline, process_group_timeout, world_size
from trl_balcap.trainer import JudgeOutageError


def main(model: str, out: str, *urls: str) -> None:
    rank = int(os.environ["RANK"])
    # One of two ranks without a judge is half of the batch, so less than half must be enough.
    judge = Judge(
        "openai/oracle",
        api_base=urls[rank],
        max_retries=1,
        batch_deadline=30.0,
        max_unscored=0.4,
    )
    rewards = [PrecisionReward(judge), RecallReward(judge), LinguisticReward(judge)]
    trainer = BalCapTrainer(
        model,
        rewards,
        BalCapConfig(
            out,
            use_cpu=True,
            bf16=False,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            logging_steps=1,
            max_steps=8,
            length_gate=None,
            per_device_train_batch_size=4,
            num_generations=2,
            max_completion_length=8,
        ),
        train_dataset=scene_dataset(8),
    )
    ended: dict[str, object] = {
        "ranks": trainer.accelerator.num_processes,
        "judge_ranks": world_size(),
        "timeout": process_group_timeout(),
        "deadline": batch_deadline(10_000.0),
    }
    begin = time.monotonic()
    try:
        trainer.train()
    except JudgeOutageError as error:
        ended["message"] = str(error)
    ended["seconds"] = time.monotonic() - begin
    ended["step"] = trainer.state.global_step
    ended["log"] = trainer.state.log_history
    ended["stats"] = {"calls": judge.stats.calls}
    Path(out, f"rank{rank}.json").write_text(json.dumps(ended))


if __name__ == "__main__":
    main(*sys.argv[1:])

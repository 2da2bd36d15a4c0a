"""One rank of `tests/judge/test_distributed`: trains as its case says, writes how it ended.

torchrun --nproc_per_node 2 tests/workers/judge_outage.py CASE MODEL OUT URL_OF_RANK_0 URL_OF_RANK_1

CASE is `healthy` (the judges decide how it ends), `bug` (rank 1's reward has one), `bad_rows`
(rank 1's rows cannot be scored), or `evaluation` (rank 1's judge is down during evaluations).
"""

import json
import os
import sys
import time
import urllib.request
from pathlib import Path

from transformers import TrainerCallback

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
from trl_balcap.trainer import JudgeOutageError, RewardInternalError

RANK = int(os.environ["RANK"])


class Buggy(RecallReward):
    async def score(self, row):
        if RANK == 1:
            raise KeyError("a bug of ours")
        return await super().score(row)


class Damaged(BalCapTrainer):
    """Rank 1 gets rows whose image and reference are none, past all checks of the dataset."""

    def _generate_and_score_completions(self, inputs):
        if RANK == 1:
            inputs = [{**row, "reference": None} for row in inputs]
        return super()._generate_and_score_completions(inputs)


class Switch(TrainerCallback):
    """Tells the judge of rank 1 to be down as long as an evaluation takes."""

    def __init__(self, url: str):
        self.url = url

    def on_step_end(self, args, state, control, **kwargs):
        self.tell(control.should_evaluate)

    def on_evaluate(self, args, state, control, **kwargs):
        self.tell(False)

    def tell(self, down: bool) -> None:
        if RANK == 1:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            opener.open(self.url, json.dumps({"down": down}).encode(), timeout=30).read()


def main(case: str, model: str, out: str, *urls: str) -> None:
    # One of two ranks without a judge is half of the batch, so less than half must be enough.
    judge = Judge(
        "openai/oracle",
        api_base=urls[RANK],
        max_retries=1,
        batch_deadline=30.0,
        max_unscored=0.4,
    )
    evaluation = {}
    if case == "evaluation":
        evaluation = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 2}
        evaluation |= {"save_strategy": "best", "metric_for_best_model": "reward", "max_steps": 2}
    recall = Buggy(judge) if case == "bug" else RecallReward(judge)
    trainer = (Damaged if case == "bad_rows" else BalCapTrainer)(
        model,
        [PrecisionReward(judge), recall, LinguisticReward(judge)],
        BalCapConfig(
            out,
            use_cpu=True,
            bf16=False,
            report_to="none",
            disable_tqdm=True,
            logging_steps=1,
            **{"save_strategy": "no", "max_steps": 8, **evaluation},
            length_gate="mask" if case == "bad_rows" else None,
            length_gate_lower=0.0,
            per_device_train_batch_size=4,
            num_generations=2,
            max_completion_length=8,
            max_unscored_rows=8,
            outage_patience=2,
        ),
        train_dataset=scene_dataset(8),
        eval_dataset=scene_dataset(4, seed=1) if evaluation else None,
        callbacks=[Switch(urls[RANK])] if evaluation else None,
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
    except (JudgeOutageError, RewardInternalError) as error:
        ended["message"] = str(error)
    ended["seconds"] = time.monotonic() - begin
    ended["step"] = trainer.state.global_step
    ended["log"] = trainer.state.log_history
    ended["stats"] = {"calls": judge.stats.calls}
    Path(out, f"rank{RANK}.json").write_text(json.dumps(ended))


if __name__ == "__main__":
    main(*sys.argv[1:])

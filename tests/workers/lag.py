"""One rank of `tests/test_sampled_logps`: `judge_lag=1` where one rank's completions are special.

accelerate launch tests/workers/lag.py MODEL OUT
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed.ops

from tests.conftest import scene_dataset
from tests.test_lag import ONE_BATCH, Remembering
from tests.test_lookahead import build

OTHER = 300  # a token that is no end


class Editing(Remembering):
    """The second rank does not train on the first token that it sampled, but on another."""

    def _generate_single_turn(self, *args, **kwargs):
        completions, logps = super()._generate_single_turn(*args, **kwargs)
        if self.accelerator.process_index == 1:
            completions = [[OTHER, *ids[1:]] for ids in completions]
        return completions, logps


def main(model: str, out: str) -> None:
    # DeepSpeed would compile collectives of its own for a minute; gloo is there.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    for kind, masks in ((Remembering, True), (Editing, False)):
        trainer = build(
            model,
            Path(out, kind.__name__),
            scene_dataset(12),
            kind=kind,
            per_device_train_batch_size=2,
            save_strategy="no",
            max_steps=2,
            mask_truncated_completions=masks,
            generation_kwargs={"min_new_tokens": 8},  # no completion ends by itself
            **ONE_BATCH,
        )
        assert trainer.accelerator.state.deepspeed_plugin.zero_stage == 3
        if masks and trainer.accelerator.process_index == 0:
            trainer.eos_token_ids = list(range(len(trainer._tokenizer)))  # here, all have ended
        trainer.train()
        assert "old_per_token_logps" in trainer.losses[1]["inputs"]
        if masks:
            lengths = trainer.losses[1]["inputs"]["completion_mask"].sum(1).tolist()
            assert lengths == ([0, 0] if trainer.accelerator.process_index else [1, 1])


if __name__ == "__main__":
    main(*sys.argv[1:])

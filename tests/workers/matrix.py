"""
One case of the matrix, in every process that the launcher starts: train, save, resume, write down.

    accelerate launch --config_file tests/accelerate/zero3.yaml tests/workers/matrix.py case.json

`case.json`: {"model": folder, "out": folder, "config": {...}, "lora": bool}. Each rank writes
`rank-<r>.pt` with what it saw; `straight/` and `resumed/` hold the checkpoints.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch
from datasets import Dataset, Image
from peft import LoraConfig

from trl_balcap import BalCapConfig, BalCapTrainer
from trl_balcap.scenes.make import scene_rows

CONFIG: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
    "report_to": "none",
    "disable_tqdm": True,
    "logging_steps": 1,
    "learning_rate": 1e-2,
    "num_generations": 4,
    "num_generations_eval": 2,
    "max_completion_length": 8,
    "max_steps": 2,
    "save_steps": 1,
    # Captions of at most 8 tokens for references of 20 to 60: some ratios lie above, some below.
    "length_gate_lower": 0.1,
    "length_gate_upper": 0.22,
}
LORA = LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)")


def even_reward(completion_ids, **kwargs):
    """Share of even token ids: differs from one random completion to the next."""
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


def sometimes_reward(completion_ids, **kwargs):
    """A judge that fails for some completions, by what they say and not by where they are."""
    return [None if ids[0] % 3 == 0 else ids[-1] / 100 for ids in completion_ids]


def linguistic_reward(completion_ids, **kwargs):
    """Bears the name that the length gate looks for."""
    return [1.0 - ids[0] / 1000 for ids in completion_ids]


REWARDS = [even_reward, sometimes_reward, linguistic_reward]


class Watched(BalCapTrainer):
    """Keeps what the first generation batch was, and what each loss was computed from."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.batches: list[dict[str, Any]] = []
        self.trained_on: list[float] = []

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        ids, mask = output["completion_ids"], output["completion_mask"].bool()
        self.batches.append(
            {
                "references": [row["reference"] for row in inputs],
                "completion_ids": [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)],
                "rewards_per_func": self._rewards_per_func.clone(),
                "advantages": output["advantages"].clone(),
            }
        )
        self.trained_on = []
        return output

    def _compute_loss(self, model, inputs):
        self.trained_on.extend(inputs["advantages"].tolist())
        return super()._compute_loss(model, inputs)


def dataset(rows: int) -> Dataset:
    prompt = [{"role": "user", "content": "Describe the image."}]
    scenes = [{"prompt": prompt, **row} for row in scene_rows(rows)]
    return Dataset.from_list(scenes).cast_column("image", Image())


def build(case: dict[str, Any], out: str, kind: type[Watched] = Watched, **changes) -> Watched:
    return kind(
        case["model"],
        list(REWARDS),
        BalCapConfig(str(Path(case["out"]) / out), **{**CONFIG, **case["config"], **changes}),
        # 4 batches of 3 prompts and an uneven rest, so that 4 steps are less than an epoch: resumed
        # in a later one, TRL deals the prompts in the order of the first (docs/scale.md).
        train_dataset=dataset(13),
        eval_dataset=dataset(3),
        peft_config=LORA if case.get("lora") else None,
    )


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights in memory, put together from all ranks, by the names that they have without
    PEFT."""
    named = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): parameter
        for name, parameter in model.named_parameters()
        if "lora_" not in name
    }
    if not any(hasattr(parameter, "ds_id") for parameter in named.values()):
        return {name: parameter.detach().clone() for name, parameter in named.items()}
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(named.values())):
        return {name: parameter.detach().cpu().clone() for name, parameter in named.items()}


def run(case: dict[str, Any]) -> None:
    straight = build(case, "straight")
    assert straight.model is not None
    loaded = weights_of(straight.model)
    straight.train()
    steps = straight.args.max_steps
    logged = list(straight._logs["advantages"])
    trained_on = list(straight.trained_on)
    evaluated = straight.evaluate() if case.get("evaluate") else None

    # A case whose config has set_seed-dependent state resumes it from the checkpoint alone.
    torch.manual_seed(99)
    resumed = build(case, "resumed")
    middle = Path(case["out"]) / "straight" / f"checkpoint-{steps // 2}"
    resumed.train(resume_from_checkpoint=str(middle))

    plugin = straight.accelerator.state.deepspeed_plugin
    torch.save(
        {
            "processes": straight.accelerator.num_processes,
            "zero_stage": 0 if plugin is None else plugin.zero_stage,
            "loaded": loaded,
            "batches": straight.batches,
            "logged": logged,
            "trained_on": trained_on,
            "history": straight.state.log_history,
            "resumed_history": resumed.state.log_history,
            "evaluated": evaluated,
        },
        Path(case["out"]) / f"rank-{straight.accelerator.process_index}.pt",
    )
    straight.accelerator.end_training()


def main() -> None:
    import deepspeed.ops

    # DeepSpeed would compile collectives of its own for a minute; gloo is there.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    run(json.loads(Path(sys.argv[1]).read_text()))


if __name__ == "__main__":
    main()

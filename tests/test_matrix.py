"""
Every way that TRL runs: processes, ZeRO stages, adapters and model families, on tiny real models.

Each case trains, saves, resumes from its middle checkpoint in a new trainer and must end in the
same state; its advantages must be those that one process computes from the same completions.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from tests.tiny_models import build_gemma3, build_llava_next, build_qwen3_vl
from tests.two_ranks import on_two_ranks
from tests.workers.matrix import Watched, build, run
from trl_balcap.advantages import cgdpo_advantages, group_normalize

# 6 completions on each of 2 ranks, in groups of 4: the second group is split across them.
SPLIT = {"per_device_train_batch_size": 6, "per_device_eval_batch_size": 2}
ALONE = {"per_device_train_batch_size": 12, "per_device_eval_batch_size": 4}


def launch(case: dict, kind: str, seconds: float = 280) -> list[dict]:
    """Runs a case in 2 processes; what each rank wrote."""
    out = Path(case["out"])
    out.mkdir(parents=True, exist_ok=True)
    (out / "case.json").write_text(json.dumps(case))
    on_two_ranks(kind, "matrix", out / "case.json", seconds=seconds)
    return [torch.load(out / f"rank-{rank}.pt", weights_only=False) for rank in range(2)]


def weights(folder: Path, lora: bool = False) -> dict[str, torch.Tensor]:
    """As a user would load them: ZeRO-3 writes other names than one process does."""
    if lora:
        return load_file(folder / "adapter_model.safetensors")
    loaded: Any = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    model, report = loaded
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return model.state_dict()


def check(case: dict, ranks: list[dict], steps: int) -> None:
    """What holds in every cell of the matrix."""
    out, lora = Path(case["out"]), case.get("lora", False)

    # Loaded: every rank began with the weights of the checkpoint, and not with random ones.
    first = weights(Path(case["model"]))
    for rank in ranks:
        assert len(rank["loaded"]) >= 40
        for name, weight in rank["loaded"].items():
            assert torch.equal(weight, first[name].to(weight.dtype)), name

    # Parameters moved: adapters from their zeros, full weights from the checkpoint they began as.
    final = weights(out / "straight" / f"checkpoint-{steps}", lora)
    if lora:
        moved = [name for name, weight in final.items() if "lora_B" in name and weight.any()]
    else:
        moved = [name for name, weight in first.items() if not torch.equal(weight, final[name])]
    assert len(moved) >= 4

    # Resumed to the same state: the same weights and the same log as the straight run's end.
    resumed = weights(out / "resumed" / f"checkpoint-{steps}", lora)
    assert final.keys() == resumed.keys()
    for name, weight in final.items():
        # The softmax does not see a bias of the keys: its gradient is rounding, which Adam scales
        # up.
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(resumed[name], weight, rtol=1e-4, atol=1e-6, msg=name)
    for rank in ranks:
        straight, again = (
            [row for row in rank[key] if "loss" in row] for key in ("history", "resumed_history")
        )
        assert len(straight) == len(again) == steps
        for expected, found in zip(straight, again, strict=True):
            assert expected.keys() == found.keys()
            # num_iterations 2: no rewards are logged where a batch is used again.
            for key in {"loss", "grad_norm", "reward"} & expected.keys():
                assert found[key] == pytest.approx(expected[key], rel=1e-3, abs=1e-6)

    # Logs truthful: the advantages in the log are those that the losses were computed from.
    trained_on = [value for rank in ranks for value in rank["trained_on"]]
    passes = case["config"].get("num_iterations", 1)
    assert sorted(ranks[0]["logged"] * passes) == sorted(trained_on)
    assert max(map(abs, trained_on)) > 0.1
    assert all(math.isfinite(row["loss"]) for row in ranks[0]["history"] if "loss" in row)
    first_log = ranks[0]["history"][0]
    rewards = ranks[0]["batches"][0]["rewards_per_func"]  # (B, K)
    assert first_log["rewards/even_reward/mean"] == pytest.approx(rewards[:, 0].mean().item())


class Replayed(Watched):
    """One process that is handed the completions which several had generated."""

    completion_ids: list[list[int]]

    def _generate_single_turn(self, *args, **kwargs):
        return self.completion_ids, None


def check_against_one_process(case: dict, ranks: list[dict], tmp_path: Path) -> None:
    """Rewards and advantages of the first batch, bit for bit."""
    parts = [rank["batches"][0] for rank in ranks]
    alone = build({**case, "out": str(tmp_path)}, "alone", Replayed, **ALONE, max_steps=1)
    assert isinstance(alone, Replayed)
    alone.completion_ids = [ids for part in parts for ids in part["completion_ids"]]
    alone.train()
    [batch] = alone.batches

    assert batch["references"] == [text for part in parts for text in part["references"]]
    assert batch["completion_ids"] == alone.completion_ids
    for part in parts:  # every rank has gathered the same table, gaps included
        assert torch.equal(part["rewards_per_func"].isnan(), batch["rewards_per_func"].isnan())
        torch.testing.assert_close(
            part["rewards_per_func"], batch["rewards_per_func"], rtol=0, atol=0, equal_nan=True
        )
    gathered = torch.cat([part["advantages"] for part in parts])
    torch.testing.assert_close(gathered, batch["advantages"], rtol=0, atol=0)
    # The float64 statistics that the advantages were rounded from.
    exact = [group_normalize(part["rewards_per_func"], num_generations=4) for part in parts]
    assert exact[0].dtype == torch.float64
    assert torch.equal(exact[0], exact[1])
    expected = cgdpo_advantages(batch["rewards_per_func"], num_generations=4)
    assert torch.equal(gathered, expected)
    # Worth comparing: the gate is closed for some and open for others, and a judge has failed.
    gated = batch["rewards_per_func"][:, 2]
    assert gated.eq(0).any()
    assert gated.gt(0).any()
    assert batch["rewards_per_func"][:, 1].isnan().any()


def check_evaluated(ranks: list[dict]) -> None:
    """3 prompts x 2 completions in batches of 4: the last is half full, and all ranks log alike."""
    for rank in ranks:
        evaluated = rank["evaluated"]
        assert 0.0 < evaluated["eval_rewards/even_reward/mean"] < 1.0
        for key in ("eval_rewards/even_reward/mean", "eval_reward", "eval_length_gate/ratio"):
            assert evaluated[key] == ranks[0]["evaluated"][key]


# --- in the fast suite ---


def test_zero_3_trains_saves_resumes_and_has_one_process_advantages(tiny_qwen, tmp_path):
    case = {"model": str(tiny_qwen), "out": str(tmp_path), "config": SPLIT, "evaluate": True}
    ranks = launch(case, "zero3")
    assert [(rank["processes"], rank["zero_stage"]) for rank in ranks] == [(2, 3)] * 2
    check(case, ranks, steps=2)
    check_against_one_process(case, ranks, tmp_path)
    check_evaluated(ranks)


@pytest.mark.slow
def test_ddp_with_an_adapter_on_llava(tiny_llava, tmp_path):
    case = {"model": str(tiny_llava), "out": str(tmp_path), "config": SPLIT, "lora": True}
    ranks = launch(case, "ddp")
    assert [(rank["processes"], rank["zero_stage"]) for rank in ranks] == [(2, 0)] * 2
    check(case, ranks, steps=2)
    check_against_one_process(case, ranks, tmp_path)


def check_one_process(case: dict, steps: int) -> dict:
    run(case)
    rank = torch.load(Path(case["out"]) / "rank-0.pt", weights_only=False)
    check(case, [rank], steps)
    return rank


def test_one_process_resumes_to_the_same_state(tiny_qwen, tmp_path):
    case = {"model": str(tiny_qwen), "out": str(tmp_path), "config": ALONE}
    assert check_one_process(case, steps=2)["processes"] == 1


# --- the rest of the matrix, in make test-all ---

STAGES = {"ddp": 0, "zero2": 2, "zero3": 3, "zero3-offload": 3}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("model", ["tiny_qwen", "tiny_llava"])
@pytest.mark.parametrize("kind", STAGES)
def test_two_processes(kind, model, lora, tmp_path, request):
    case = {
        "model": str(request.getfixturevalue(model)),
        "out": str(tmp_path),
        "config": {**SPLIT, "max_steps": 4, "save_steps": 2},
        "lora": lora,
        "evaluate": True,
    }
    ranks = launch(case, kind, seconds=560)  # offloading compiles DeepSpeed's CPU Adam, once
    assert [(rank["processes"], rank["zero_stage"]) for rank in ranks] == [(2, STAGES[kind])] * 2
    check(case, ranks, steps=4)
    check_against_one_process(case, ranks, tmp_path)
    check_evaluated(ranks)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["ddp", "zero3"])
@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"num_iterations": 2, "beta": 0.04}, id="iterations-kl"),
        pytest.param({"gradient_checkpointing": True, "bf16": True}, id="checkpointing-bf16"),
        pytest.param(
            {
                "per_device_train_batch_size": 2,
                "gradient_accumulation_steps": 3,
                "steps_per_generation": 3,
            },
            id="accumulation",
        ),
    ],
)
def test_two_processes_with(kind, config, tiny_qwen, tmp_path):
    case = {
        "model": str(tiny_qwen),
        "out": str(tmp_path),
        "config": {**SPLIT, "max_steps": 4, "save_steps": 2, **config},
    }
    ranks = launch(case, kind, seconds=560)
    check(case, ranks, steps=4)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("model", ["tiny_qwen", "tiny_llava"])
def test_one_process(model, lora, tmp_path, request):
    case = {
        "model": str(request.getfixturevalue(model)),
        "out": str(tmp_path),
        "config": {**ALONE, "max_steps": 4, "save_steps": 2},
        "lora": lora,
        "evaluate": True,
    }
    check_one_process(case, steps=4)


@pytest.mark.slow
@pytest.mark.parametrize("builder", [build_qwen3_vl, build_llava_next, build_gemma3])
def test_other_families_in_one_process(builder, tmp_path):
    model = builder(tmp_path / "model")
    case = {"model": str(model), "out": str(tmp_path / "out"), "config": ALONE}
    check_one_process(case, steps=2)

"""benchmarks/gpu.py walks its whole path on a tiny shape, and says what it did not measure."""

import dataclasses

import pytest

from benchmarks import gpu


def test_every_kind_of_case_runs_on_a_tiny_shape():
    rows = [
        gpu.Case("GRPOTrainer", "lora", None),
        gpu.Case("BalCapTrainer", "lora", None),
        gpu.Case("BalCapTrainer", "full", 0.3),
    ]
    kept = gpu.main(gpu.SHAPES["tiny"], rows)

    assert [row["weights"] for row in kept["cases"]] == ["lora", "lora", "full"]
    for row in kept["cases"]:
        seconds = row["seconds"]
        assert all(seconds[phase] > 0 for phase in gpu.PHASES)
        assert sum(seconds[phase] for phase in gpu.PHASES) == pytest.approx(seconds["step"])
        assert row["peak_gib"] is None
    # Decompose, then verify and cover: two round trips of 0.3 s, and every completion is scored.
    judged = kept["cases"][2]
    assert judged["seconds"]["wait for rewards"] > 0.5
    assert judged["unscored"] == 0.0
    assert kept["ratios"]["lora"]["step_time"] > 0
    assert "peak memory: the run was on CPU" in kept["not_measured"]


def test_without_a_gpu_the_real_shape_is_not_pretended(capsys):
    kept = gpu.main(gpu.SHAPES["qwen2.5-vl-3b"], gpu.cases(["lora", "full"], [0.0, 1.0, 3.0]))
    assert kept["cases"] == []
    assert kept["gpu"] == "none"
    assert "not measured: all of qwen2.5-vl-3b: no CUDA device" in capsys.readouterr().out


def test_the_real_shape_is_the_issues():
    """G = 8, 512-token captions, 448 px, two generations of 8 a step; the plan knows its memory."""
    shape = gpu.SHAPES["qwen2.5-vl-3b"]
    assert (shape.num_generations, shape.completion, shape.image_side) == (8, 512, 448)
    assert shape.model is not None
    config = gpu.load_config(shape.model)
    lora = gpu.planned(shape, gpu.Case("BalCapTrainer", "lora", None), config)
    full = gpu.planned(shape, gpu.Case("BalCapTrainer", "full", None), config)
    assert 7.0 < lora / gpu.GIB < full / gpu.GIB < 40.0
    assert len(gpu.cases(["lora", "full"], [0.0, 1.0, 3.0])) == 10
    assert dataclasses.replace(shape, steps=2).steps == 2

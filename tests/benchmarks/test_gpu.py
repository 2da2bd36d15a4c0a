"""benchmarks/gpu.py walks its whole path on a tiny shape, and says what it did not measure."""

import dataclasses
import json

import pytest

from benchmarks import gpu, gpu_case
from benchmarks.stopwatch import PHASES, Clock
from trl_balcap.plan.model import load_config

TINY = gpu_case.SHAPES["tiny"]
FREE = gpu_case.Case("GRPOTrainer", "lora", None)
OURS = gpu_case.Case("BalCapTrainer", "lora", None)


@pytest.fixture(autouse=True)
def out(tmp_path, monkeypatch):
    """The folder that results are written to."""
    monkeypatch.setenv("OUT", str(tmp_path))
    return tmp_path


def test_every_kind_of_case_runs_on_a_tiny_shape():
    ahead = gpu_case.Case("BalCapTrainer", "full", 0.3, "look-ahead")
    rows = [FREE, OURS, gpu_case.Case("BalCapTrainer", "full", 0.3), ahead]
    kept = gpu.main(TINY, rows)

    assert [row["weights"] for row in kept["cases"]] == ["lora", "lora", "full", "full"]
    for row in kept["cases"]:
        seconds = row["seconds"]
        assert all(seconds[phase] > 0 for phase in PHASES)
        assert sum(seconds[phase] for phase in PHASES) == pytest.approx(seconds["step"])
        assert row["peak_gib"] is None
    # Decompose, then verify and cover: two round trips of 0.3 s, and every completion is scored.
    judged = kept["cases"][2]
    assert judged["seconds"]["wait for rewards"] > 0.5
    assert judged["unscored"] == 0.0
    assert kept["ratios"]["lora"]["step_time"] > 0
    assert "peak memory: the run was on CPU" in kept["not_measured"]


def test_without_a_gpu_the_real_shape_is_not_pretended(capsys):
    kept = gpu.main(gpu_case.SHAPES["qwen2.5-vl-3b"], gpu.cases(["lora", "full"], [0.0, 1.0, 3.0]))
    assert kept["cases"] == []
    assert kept["gpu"] == "none"
    assert "not measured: all of qwen2.5-vl-3b: no CUDA device" in capsys.readouterr().out


def test_the_real_shape_is_the_issues():
    """G = 8, 512-token captions, 448 px, two generations of 8 a step; the plan knows its memory."""
    shape = gpu_case.SHAPES["qwen2.5-vl-3b"]
    assert (shape.num_generations, shape.completion, shape.image_side) == (8, 512, 448)
    assert shape.model is not None
    config = load_config(shape.model)
    lora, full, offload = (
        gpu_case.planned(shape, gpu_case.Case("BalCapTrainer", kind, None), config)
        for kind in ("lora", "full", "offload")
    )
    assert lora is not None
    assert full is not None
    assert offload is None  # with one process ZeRO-3's gather is a view, which is not planned
    assert 7.0 < lora < full < 60.0
    # Two with free rewards for each kind; with the adapter three judges and three orders besides.
    assert len(gpu.cases(["lora", "full", "offload"], [0.0, 1.0, 3.0])) == 2 + 6 + 2 + 2
    assert dataclasses.replace(shape, steps=2).steps == 2


def test_a_run_goes_on_where_it_was_left(out):
    gpu.main(TINY, [FREE])
    file = out / "gpu_tiny.json"
    written = json.loads(file.read_text())
    written["cases"][0]["seconds"]["step"] = 123.0
    file.write_text(json.dumps(written))
    kept = gpu.main(TINY, [FREE, OURS])
    assert [row["trainer"] for row in kept["cases"]] == ["GRPOTrainer", "BalCapTrainer"]
    assert kept["cases"][0]["seconds"]["step"] == 123.0  # not run again
    assert json.loads(file.read_text())["cases"] == kept["cases"]
    # A step more is another shape, of which nothing is kept; no time, so nothing is run.
    other = dataclasses.replace(TINY, steps=3)
    assert gpu.main(other, [FREE], piece_seconds=0.0)["cases"] == []


def test_a_case_is_bounded_and_so_is_a_run(out, capsys):
    kept = gpu.main(TINY, [FREE, OURS], apart=True, case_seconds=0.2)
    assert [row["failed"] for row in kept["cases"]] == ["not done within 0.2 s"] * 2
    assert kept["ratios"] == {}
    said = capsys.readouterr().out
    assert "failed: lora BalCapTrainer, one batch, None: not done within 0.2 s" in said

    (out / "gpu_tiny.json").unlink()
    kept = gpu.main(TINY, [FREE, OURS], apart=True, piece_seconds=0.2)
    assert kept["cases"] == []  # cut short by the piece and not by its own bound
    assert "2 cases are left. Start it again to go on." in capsys.readouterr().out


def test_a_phase_inside_another_counts_for_itself_alone(monkeypatch):
    ticks = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr(Clock, "now", lambda self: next(ticks))
    clock = Clock()
    with clock.phase("wait for rewards"), pytest.raises(KeyError), clock.phase("generate"):
        raise KeyError
    assert clock.seconds == {"generate": 3.0, "wait for rewards": 7.0}

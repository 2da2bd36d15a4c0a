"""The reproduction's runner and its files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import reproduce
from benchmarks.reproduction import arms, experiments, report, runs, tables, train
from benchmarks.reproduction import settings as settings_module
from tests.benchmarks.tiny_runs import TINY
from trl_balcap.scenes.captioner import captioner_path

ROOT = Path(__file__).resolve().parents[2]


def test_results_of_other_settings_do_not_count(tmp_path):
    settings = {"world": "small", "steps": 2, "base": "abc"}
    result = {"arm": "full", "seed": 0, "settings": settings}
    file = tmp_path / "runs.jsonl"
    reproduce.write_result(file, result)
    assert reproduce.is_done(file, "full", 0, settings)
    assert not reproduce.is_done(file, "full", 0, settings | {"steps": 3})
    assert not reproduce.is_done(file, "full", 1, settings)
    assert not reproduce.is_done(file, "full", 0, settings | {"world": "rich"})


def test_a_run_from_before_there_were_worlds_is_one_of_the_small_world(tmp_path):
    file = tmp_path / "runs.jsonl"
    reproduce.write_result(file, {"arm": "full", "seed": 0, "settings": {"steps": 2}})
    assert reproduce.is_done(file, "full", 0, {"world": "small", "steps": 2})
    assert not reproduce.is_done(file, "full", 0, {"world": "rich", "steps": 2})


def test_steps_are_kept_in_columns_and_read_in_rows(tmp_path):
    """As they were recorded, also where a step lacks a number; older lines have rows."""
    file, rows = tmp_path / "runs.jsonl", [{"length": 30.0}, {"length": 31.5, "dead": 0.25}]
    run = {"arm": "full", "settings": {}}
    reproduce.write_result(file, {**run, "seed": 0, "steps": runs.in_columns(rows)})
    reproduce.write_result(file, {**run, "seed": 1, "steps": rows})
    assert [run["steps"] for run in runs.read_runs(file)] == [rows, rows]


def test_the_base_is_named_by_its_world(tmp_path, monkeypatch):
    monkeypatch.setattr(settings_module, "CAPTIONERS", tmp_path)
    assert settings_module.base_folder("small") == captioner_path()
    with pytest.raises(SystemExit, match="There is no captioner in right"):
        settings_module.base_folder("rich")
    (tmp_path / "long").mkdir()
    (tmp_path / "long" / "model.safetensors").write_bytes(b"weights")
    assert settings_module.base_folder("rich", "long") == tmp_path / "long"
    assert list(settings_module.rich_bases().values()) == ["long"]
    with pytest.raises(SystemExit, match="one of: long"):
        settings_module.base_folder("rich", "longer")


def test_a_torn_line_is_a_run_to_make_again(tmp_path):
    file, settings = tmp_path / "runs.jsonl", {"world": "small", "steps": 2}
    reproduce.write_result(file, {"arm": "full", "seed": 0, "settings": settings})
    file.write_text(file.read_text() + '{"arm": "full", "seed": 1, "set')  # killed while writing
    assert not reproduce.is_done(file, "full", 1, settings)
    reproduce.write_result(file, {"arm": "full", "seed": 1, "settings": settings})
    assert reproduce.is_done(file, "full", 0, settings)
    assert reproduce.is_done(file, "full", 1, settings)


def test_full_order_is_claims_first_then_seeds():
    """Twenty seeds of the arms that the claims depend on, five of the others."""
    jobs = reproduce.planned(reproduce._parse(["--full"]))
    main, rest = arms.TIERS[0] + arms.TIERS[1], len(arms.ARMS) - len(arms.TIERS[0] + arms.TIERS[1])
    assert len(jobs) == 20 * len(main) + 5 * rest == len(set(jobs))
    assert [name for name, seed in jobs[: len(arms.TIERS[0])]] == list(arms.TIERS[0])
    assert {seed for _, seed in jobs[: len(arms.TIERS[0])]} == {0}
    rich = reproduce.planned(reproduce._parse(["--full", "--world", "rich", "--seeds", "2"]))
    assert rich == [(name, seed) for seed in (0, 1) for name in arms.RICH]


def test_quick_is_three_seeds_of_the_main_arms_for_answers_in_minutes():
    jobs = reproduce.planned(reproduce._parse([]))
    assert jobs == [(name, seed) for seed in range(3) for name in arms.QUICK]


def test_runs_in_the_archive_are_finished_too(tmp_path):
    file = tmp_path / "runs.jsonl"
    settings = {"world": "small", "steps": 2}
    archive = tmp_path / "archive"
    kept = archive / "runs.jsonl", archive / "runs-120.jsonl", archive / "others.jsonl", file
    for seed, where in enumerate(kept):
        reproduce.write_result(where, {"arm": "full", "seed": seed, "settings": settings})
    assert [run["seed"] for run in runs.read_runs(file)] == [0, 1, 3]
    assert reproduce.is_done(file, "full", 0, settings)


def test_page_of_no_results_and_of_some(tmp_path, tiny_qwen):
    file = tmp_path / "runs.jsonl"
    assert "No results" in report.write_page(file, tmp_path).read_text()
    for name in ("base", "full", "vanilla"):
        result = train.train_arm(arms.ARMS[name], 0, TINY, tiny_qwen)
        for seed in range(3):
            line = {**result, "seed": seed, "commit": "c", "hardware": "h"}
            reproduce.write_result(file, line)
    page = report.write_page(file, tmp_path).read_text()
    assert "| 2a c-GDPO beats vanilla GRPO" in page
    assert "(3 at 2)" in page  # three pairs, at step 2
    assert "fewer than three pairs: 2b, 2c" in page
    for picture in ("curves", "claims", "calls"):
        assert f"reproduction/{picture}.png" in page
        assert (tmp_path / "reproduction" / f"{picture}.png").stat().st_size < 150_000


def test_each_base_of_the_rich_world_is_an_experiment(tmp_path, monkeypatch):
    """The small world first, then the captioners in their order, then a base of one's own."""
    monkeypatch.setattr(settings_module, "CAPTIONERS", tmp_path / "captioners")
    digests = {}
    for name in ("long", "right"):
        folder = tmp_path / "captioners" / name
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(name)
        digests[name] = settings_module.base_digest(folder)
    file = tmp_path / "runs.jsonl"
    measures = {kind: {"qa": 0.5} for kind in ("sampled", "greedy")}
    for world, base in (("rich", "0wn"), *(("rich", d) for d in digests.values()), ("small", "s")):
        settings = {"world": world, "base": base, "steps": 40}
        run = {"arm": "full", "seed": 0, "settings": settings, "measures": measures, "steps": {}}
        reproduce.write_result(file, run)
    found = [one.short for one in experiments.read_experiments(file)]
    assert found == ["small", "rich, right base", "rich, long base", "rich, 0wn base"]


def test_a_better_arm_wins_if_it_is_ahead_by_enough():
    """Three seeds of `credit` at +0.1 and of `rdpo` at +0.01, each with the same gain."""
    looks = {
        name: {(120, s): {"measures": {k: {"b_capscore": v} for k in ("sampled", "greedy")}}
               for s in range(3)}
        for name, v in (("full", 0.8), ("credit", 0.9), ("rdpo", 0.81))
    }  # fmt: skip
    found = experiments.Experiment("small", "The small world", [], {120: looks}, {})
    assert tables.winners(found) == ["credit"]
    row = tables.better_table(found).splitlines()[2]
    assert "| sampled | +0.100 [+0.100, +0.100] 3 |" in row


@pytest.mark.slow
def test_killed_runner_goes_on_where_it_stopped(tmp_path, tiny_qwen):
    """SIGKILL after the first result: the second run trains what is missing, and nothing again."""
    file = tmp_path / "runs.jsonl"
    command = [
        sys.executable,
        *("-m", "benchmarks.reproduce"),
        *("--arms", "base", "full", "vanilla", "--seeds", "1", "--steps", "3"),
        *("--processes", "1", "--base", str(tiny_qwen), "--results", str(file)),
    ]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    before = file.read_text()
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert second.returncode == 0, second.stderr[-2000:]
    assert file.read_text().startswith(before)
    arms_run = [run["arm"] for run in runs.read_runs(file)]
    assert sorted(arms_run) == ["base", "full", "vanilla"]
    assert (tmp_path / "reproduction.md").exists()

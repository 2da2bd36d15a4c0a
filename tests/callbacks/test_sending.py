"""The kept sample in the loggers that `report_to` names, read back from what they wrote."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.callbacks.test_keeping import train
from trl_balcap.callbacks.sending import VerdictSender
from trl_balcap.report import read_verdicts
from trl_balcap.report.sample import sample_markdown

HOSTILE = "<script>alert(1)</script> | **bold** [link](http://x)\nsecond line"
ROWS = [
    {
        "step": 3, "split": "train", "id": f"0-{k}", "group": "0",
        "image": Image.new("RGB", (84, 56), "red") if k == 0 else None,
        "completion": HOSTILE if k else "A red star.", "reference": "There is a red star.",
        "assertions": [{"text": "There is a star.", "correct": True, "pointable": True}],
        "units": [{"text": "There is a red star.", "covered": bool(k)}],
        "rewards": {"precision_reward": 1.0, "recall_reward": None},
        "reasons": {"recall_reward": "timeout"}, "advantage": 0.5,
    }
    for k in range(2)
]  # fmt: skip


def test_tensorboard_gets_the_sample_as_text_and_images(tiny_qwen, tmp_path, monkeypatch, caplog):
    pytest.importorskip("tensorboard", reason="tensorboard is in the dev group")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    train(tiny_qwen, tmp_path / "run", report_to="tensorboard", max_steps=2, log_verdicts=2)
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    [event] = events.Tensors("verdicts/text_summary")  # what was kept up to the first log
    lines = event.tensor_proto.string_val[0].decode().splitlines()
    assert lines[0].startswith("| step | split | id | completion | reference | assertions |")
    kept = read_verdicts(tmp_path / "run" / "verdicts")
    assert [line.split(" | ")[:3] for line in lines[2:]] == [
        [f"| {row['step']}", row["split"], row["id"]] for row in kept
    ]
    for group in ("0", "1"):
        [shown] = events.Images(f"verdicts/{group}")
        assert (shown.width, shown.height) == (84, 84)
    assert "to log a value" not in caplog.text  # a logger takes numbers alone


def test_what_captions_say_is_no_markup():
    [head, _, _, hostile] = sample_markdown(ROWS).splitlines()
    assert head.count("|") == hostile.count("|")
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &#124; &#42;&#42;bold&#42;&#42;" in hostile
    assert "<br>second line" in hostile


def send(name: str) -> None:
    sender = VerdictSender([name], [])
    sender.take(ROWS)
    sender.send(3)
    sender.send(4)  # nothing is left to send


def sent_to(name: str, start: str, folder: Path, **environ: str) -> None:
    """A run of a logger that sends the rows, in a process of its own: loggers read the environment
    when they are imported."""
    pytest.importorskip(name, reason=f"{name} is not installed: it is no part of the dev group")
    lines = ["from tests.callbacks.test_sending import send", f"import {name}"]
    code = "; ".join([*lines, f"{name}.{start}", f"send({name!r})", f"{name}.finish()"])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environ},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_wandb_gets_a_table_with_images(tmp_path):
    places = {name: str(tmp_path / name) for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR")}
    sent_to("wandb", "init(project='test')", tmp_path, WANDB_MODE="offline", **places)
    [table] = tmp_path.rglob("verdicts_*.table.json")
    kept = json.loads(table.read_text())
    row = dict(zip(kept["columns"], kept["data"][1], strict=True))
    assert (row["completion"], row["image"]) == (HOSTILE, "Image")
    staged = (
        file.read_bytes() for file in (tmp_path / "WANDB_DATA_DIR").rglob("*") if file.is_file()
    )
    assert any(data.startswith(b"\x89PNG") for data in staged)


def test_trackio_gets_a_table_with_images(tmp_path):
    sent_to("trackio", "init(project='test')", tmp_path, TRACKIO_DIR=str(tmp_path / "kept"))
    [picture] = (tmp_path / "kept").rglob("*.png")
    assert Image.open(picture).size == (84, 56)
    with sqlite3.connect(tmp_path / "kept" / "test.db") as database:
        [(kept,)] = database.execute("select metrics from metrics").fetchall()
    rows = json.loads(kept)["verdicts"]["_value"]
    assert [row["completion"] for row in rows] == ["A red star.", HOSTILE]
    assert rows[1]["image"]["file_path"].endswith(picture.name)


def test_nothing_is_kept_for_loggers_that_are_not_named():
    sender = VerdictSender([], [])
    sender.take(ROWS)
    assert sender._waiting == []

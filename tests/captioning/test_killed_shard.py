"""A shard that is killed in the middle of its work, and started twice at once."""

import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from trl_balcap.captioning.shards import merge_shards
from trl_balcap.data.rows import read_jsonl
from trl_balcap.scenes.server import serve

N = 120


@pytest.mark.slow
def test_a_killed_shard_loses_and_doubles_nothing(tmp_path):
    """Killed with half of its rows written; then started twice: one of the two is refused."""
    images = tmp_path / "images"
    images.mkdir()
    for place in range(2 * N):
        Image.new("RGB", (16, 16), (place, 0, 0)).save(images / f"{place:03}.png")
    outs = [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]

    def start(number: int, url: str) -> subprocess.Popen:
        words = ["caption", "openai/x", str(images), "--out", str(outs[number - 1])]
        words += ["--api-base", url, "--shard", f"{number}/2", "--batch-size", "2"]
        command = [sys.executable, "-m", "trl_balcap.cli", *words]
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def written(number: int) -> int:
        out = outs[number - 1]
        return out.read_bytes().count(b"\n") if out.is_file() else 0

    with serve(answer=lambda messages: "Red.", latency=0.05) as server:
        first = start(1, server.url)
        while written(1) < N // 2:
            assert first.poll() is None, first.communicate()
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
        assert N // 2 <= written(1) < N
        both = [start(1, server.url), start(1, server.url)]
        other = start(2, server.url)
        said = [one.communicate(timeout=300)[1] for one in both]
        assert sorted(one.returncode for one in both) == [0, 1], said
        assert "Another run is writing to" in "".join(said)
        assert (other.communicate(timeout=300), other.returncode)[1] == 0
    merged = merge_shards(outs, tmp_path / "all.jsonl")
    ids = [row["id"] for _, row in read_jsonl(merged.out)]
    assert ids == [f"{place:03}.png" for place in range(2 * N)]

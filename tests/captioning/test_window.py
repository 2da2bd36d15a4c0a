"""Many images at once: none waits for another, each is written as it comes."""

import asyncio
import json
from pathlib import Path

import pytest
from PIL import Image

from trl_balcap.captioning.listing import ImageRow
from trl_balcap.captioning.run import caption_images
from trl_balcap.captioning.window import append_rows
from trl_balcap.cli import main
from trl_balcap.scenes.server import serve

ROWS = [ImageRow(name, Path(f"{name}.png")) for name in ("slow", "b", "c", "d", "e")]


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def line(row, found):
    return {"id": row.id, **found}


def test_no_image_waits_for_the_slowest_and_no_more_are_begun_than_the_window_holds(tmp_path):
    """In batches of two, "c" would wait for "slow", which waits here for "e": for ever."""
    out = tmp_path / "out.jsonl"
    begun, most = set(), []

    async def run():
        last_done = asyncio.Event()

        async def make(row):
            begun.add(row.id)
            most.append(len(begun))
            await (last_done.wait() if row.id == "slow" else asyncio.sleep(0))
            begun.remove(row.id)
            if row.id == "e":
                last_done.set()
            return "it is broken." if row.id == "c" else {"caption": row.id.upper()}

        return await asyncio.wait_for(append_rows(ROWS, out, make, line, name="x", width=2), 10)

    assert asyncio.run(run()) == (4, ["c.png: it is broken."])
    assert ids(out) == ["b", "d", "e", "slow"]
    assert max(most) == 2


def test_what_is_done_when_a_run_dies_is_in_the_file(tmp_path):
    async def make(row):
        await asyncio.sleep(0)
        if row.id == "d":
            raise RuntimeError("a bug")
        return {}

    with pytest.raises(RuntimeError, match="a bug"):
        asyncio.run(append_rows(ROWS, tmp_path / "out.jsonl", make, line, name="x", width=1))
    assert ids(tmp_path / "out.jsonl") == ["slow", "b", "c"]


def test_several_servers_share_the_images_the_faster_one_takes_more(tmp_path):
    """Two in flight and two in wait for each: 8 of 12 are given out evenly, the last 4 to the one
    that has answered by then."""
    images = tmp_path / "images"
    images.mkdir()
    for place in range(12):
        Image.new("RGB", (16, 16), (20 * place, 0, 0)).save(images / f"{place}.png")
    out = tmp_path / "out.jsonl"
    command = ["caption", "openai/x", str(images), "--out", str(out), "--batch-size", "2"]
    with (
        serve(answer=lambda messages: "Red.") as fast,
        serve(answer=lambda messages: "Red.", latency=1.0) as slow,
    ):
        assert main([*command, "--api-base", fast.url, "--api-base", slow.url]) == 0
        of_fast, of_slow = fast.stats(), slow.stats()
    assert sorted(ids(out)) == sorted(f"{place}.png" for place in range(12))
    assert of_fast["total"] + of_slow["total"] == 12 + 2  # and one check of each
    assert of_slow["total"] - 1 <= 4
    assert max(of_fast["max_in_flight"], of_slow["max_in_flight"]) <= 2


def test_each_server_must_work_before_anything_is_asked(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    with (
        serve(answer=lambda messages: "Black.") as works,
        pytest.raises(ValueError, match=r"captioner openai/x at http://127\.0\.0\.1:9/v1 does not"),
    ):
        caption_images(
            "openai/x",
            tmp_path / "a.png",
            tmp_path / "out.jsonl",
            api_base=[works.url, "http://127.0.0.1:9/v1"],
        )

"""Captions on a Ray cluster: real Ray, two workers, two servers, and a worker that is killed."""

import asyncio
import base64
import functools
import io
import json
import os
import runpy
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from PIL import Image
from ray.llm._internal.batch.stages.http_request_stage import HttpRequestUDF
from transformers import AutoModelForImageTextToText, AutoProcessor

from trl_balcap.captioning.run import caption_images, list_images
from trl_balcap.captioning.transformers import generate_captions
from trl_balcap.cli import main
from trl_balcap.data.rows import read_jsonl
from trl_balcap.scenes.make import write_scenes
from trl_balcap.scenes.server import serve

SCRIPT = Path(__file__).parents[2] / "examples" / "ray_caption.py"
PROMPT = "Describe the image in detail."
BEFORE_THE_KILL = 6
SERVERS: set[int] = set()  # their ports


class TinyServer:
    """The tiny captioner as a server answers; after a few captions it waits for the kill."""

    def __init__(self, path: Path):
        self.model = AutoModelForImageTextToText.from_pretrained(path, dtype="float32")
        self.processor = AutoProcessor.from_pretrained(path)
        self.asked = 0
        self.enough, self.killed = threading.Event(), threading.Event()
        self.killed.set()

    def caption(self, image: Image.Image) -> str:
        [said] = generate_captions(
            self.model, self.processor, [image], prompt=PROMPT, max_new_tokens=6
        )
        return said

    def __call__(self, messages) -> str:
        picture, text = messages[0]["content"]
        assert text["text"] == PROMPT
        content = base64.b64decode(picture["image_url"]["url"].partition(",")[2])
        self.asked += 1
        if self.asked > BEFORE_THE_KILL:
            self.enough.set()
            assert self.killed.wait(60)
        return self.caption(Image.open(io.BytesIO(content)))


def senders(driver: int) -> list[psutil.Process]:
    """Ray's processes that send requests, those that wait for an answer first."""
    children = psutil.Process(driver).children(recursive=True)
    found = [one for one in children if "HttpRequest" in " ".join(one.cmdline())]
    return sorted(found, key=lambda one: not waits(one))


def waits(process: psutil.Process) -> bool:
    places = [one.raddr for one in process.net_connections("tcp4") if one.status == "ESTABLISHED"]
    return any(address.port in SERVERS for address in places)


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(SCRIPT))


def asked_by_ray(script, urls: list[str], n: int) -> list[dict]:
    """What Ray's own stage makes of `n` rows, without a cluster."""

    async def rows():
        stage = HttpRequestUDF(
            "data",
            ["payload"],
            "not used",
            max_retries=1,
            base_retry_wait_time_in_s=0.01,
            session_factory=functools.partial(script["Servers"], urls),
        )
        batch = [{"id": str(i), "payload": json.dumps({"model": "m", "messages": [], "n": i})}
                 for i in range(n)]  # fmt: skip
        return [row async for found in stage({"data": batch}) for row in found["data"]]

    return [script["found"](row) for row in asyncio.run(rows())]


def test_a_batch_is_sent_at_once_and_to_all_servers(script):
    latency = {"answer": lambda messages: " A cup. ", "latency": 0.2}
    with serve(**latency) as one, serve(**latency) as other:
        urls = [f"{server.url}/chat/completions" for server in (one, other)]
        rows = asked_by_ray(script, urls, 8)
        assert [server.stats()["max_in_flight"] for server in (one, other)] == [4, 4]
    assert rows == [{"id": str(i), "caption": "A cup.", script["PROBLEM"]: ""} for i in range(8)]


def test_a_server_that_is_gone_leaves_its_requests_to_the_others(script):
    with serve(answer=lambda messages: "A cup.") as server:
        urls = ["http://127.0.0.1:9/v1/chat/completions", f"{server.url}/chat/completions"]
        assert [row["caption"] for row in asked_by_ray(script, urls, 3)] == ["A cup."] * 3
    with pytest.raises(RuntimeError) as caught:
        asked_by_ray(script, urls[:1], 1)
    found = "Reached maximum retries of 1 of a request (ClientConnectorError)"
    assert script["last_words"](caught.value) == found
    assert script["last_words"](ValueError("another")) is None


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ('{"choices": [{"message": {"content": ""}}]}', "no caption: {"),
        ('{"error": {"message": "too long"}}', "too long"),
        ("Bad gateway", "no caption: Bad gateway"),
        ("[]", "no caption: []"),
    ],
)
def test_a_reply_without_a_caption_is_a_problem_of_its_row(script, reply, problem):
    answer = script["answer"](reply)
    assert answer["caption"] == ""
    assert problem in answer["problem"]


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_doubles_nothing(tiny_qwen, tmp_path):
    write_scenes(tmp_path / "scenes", 24)
    rows = list_images(tmp_path / "scenes")
    rows[20].path.write_bytes(b"not an image")
    out = tmp_path / "captions.jsonl"
    tiny = TinyServer(tiny_qwen)
    with serve(answer=tiny) as one, serve(answer=tiny) as other:
        SERVERS.update(urlsplit(server.url).port or 0 for server in (one, other))
        # `trl-balcap caption` has begun the file.
        model = "hosted_vllm/tiny"
        caption_images(model, rows[:3], out, prompt=PROMPT, api_base=one.url, max_new_tokens=6)
        for server in (one, other):
            server.reset_stats()
        tiny.asked = 0
        tiny.killed.clear()
        command = [sys.executable, str(SCRIPT), str(tmp_path / "scenes"), "--out", str(out)]
        command += ["--model", "tiny", "--url", one.url, "--url", other.url]
        command += ["--max-new-tokens", "6", "--workers", "2", "--requests", "4"]
        environ = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "CUDA_VISIBLE_DEVICES": ""}
        environ |= {"PYTHONPATH": str(SCRIPT.parents[1])}
        with subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as driver:
            assert tiny.enough.wait(120)
            victim, _ = senders(driver.pid)
            assert waits(victim)
            victim.kill()
            tiny.killed.set()
            shown = driver.communicate(timeout=120)[0]
        assert driver.returncode == 0, shown
        asked = [server.stats()["total"] for server in (one, other)]
    written = [row for _, row in read_jsonl(out)]
    assert Counter(row["id"] for row in written) == Counter(
        row.id for row in rows if row is not rows[20]
    )
    assert "20 captions written, 3 already there, 1 images skipped" in shown
    assert f"skipped {rows[20].id}: the image {rows[20].path}: it is not an image" in shown
    assert sum(asked) > 20 + 2  # the preflight, and what the dead worker had asked already
    assert min(asked) > 1  # one is the preflight
    # The rows are those of the other command, each with the caption of its own image.
    assert {tuple(row) for row in written} == {tuple(written[0])}
    for row in written[::5]:
        assert row["caption"] == tiny.caption(Image.open(out.parent / row["image"]))
    judging = ["--judge", "scenes/oracle", "--out", str(tmp_path / "scores")]
    assert main(["score", str(out), *judging]) == 0

# /// script
# dependencies = ["trl-balcap[ray]"]
# ///
"""Caption a folder on a Ray cluster, with Ray Data's batch processor for LLMs.

Start a server on each machine with GPUs, and name them all:

    vllm serve out/checkpoint-500 --served-model-name captioner

    python examples/ray_caption.py images/ --out captions.jsonl --model captioner \\
        --url http://gpu-1:8000/v1 --url http://gpu-2:8000/v1

The script reads and encodes images wherever Ray has a free core, so all machines must see the
folder under the same path. `RAY_ADDRESS` names the cluster; without it, Ray starts on this machine.
`HOSTED_VLLM_API_KEY` is the servers' key, if they have one.

Captions come to this process, which writes them as `trl-balcap caption` does. Repeat the command to
continue an interrupted run. If a worker dies, Ray repeats the images that it had; each caption is
written once. Then judge them:

    trl-balcap score captions.jsonl --judge hosted_vllm/judge --api-base http://gpu-3:8000/v1 \\
        --out scores/

Judging is not spread over the cluster: the judge's server does the work, and one process keeps
hundreds of questions in flight, with one cache, one budget and one file to resume from.
"""

import argparse
import asyncio
import functools
import json
import os
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import ray
from ray.data.llm import HttpRequestProcessorConfig, build_processor
from ray.exceptions import RayTaskError

from trl_balcap.captioning.api import server_captioner
from trl_balcap.captioning.engine import Generation, user_turn
from trl_balcap.captioning.left import Done
from trl_balcap.captioning.listing import ImageRow, list_images
from trl_balcap.captioning.run import caption_row
from trl_balcap.data.images import DEFAULT_MAX_PIXELS, ImageError, open_image
from trl_balcap.data.rows import json_line, only_writer

PROBLEM = "__inference_error__"
"""The column in which Ray's processors carry a row's problem past the model."""

RETRIES = 5
"""For a server that is busy or gone, after 1, 2, 4, ... seconds; several servers take turns."""

BATCHES = 4
"""Batches that a worker of Ray Data has under way at once."""

TIMEOUT = 1800.0
"""Seconds until an answer is given up, its waiting in the server's queue included."""


@dataclass
class Reply:
    """What Ray reads of a server's reply, as plain text: its tables need rows of one type."""

    status: int
    reason: str | None
    said: dict[str, str]

    async def __aenter__(self) -> "Reply":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def json(self) -> dict[str, str]:
        return self.said


class Servers:
    """
    Sends the requests of one batch all at once, and to each server in turn; a request that is
    repeated goes to the next.

    Ray's own session sends the second request when the first is answered, and to one server.
    """

    def __init__(self, urls: list[str]):
        self.urls = urls
        self.first = random.randrange(len(urls))
        self.turns: dict[int, int] = {}  # by request
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT))
        self.sent: list[asyncio.Future[Reply]] = []

    async def __aenter__(self) -> "Servers":
        return self

    async def __aexit__(self, *_: object) -> None:
        for request in self.sent:
            request.cancel()
        await asyncio.gather(*self.sent, return_exceptions=True)
        await self.session.close()

    def post(self, _: str, *, headers: dict[str, str], data: str) -> "asyncio.Future[Reply]":
        turn = self.turns[hash(data)] = self.turns.get(hash(data), len(self.turns)) + 1
        url = self.urls[(self.first + turn) % len(self.urls)]
        self.sent.append(asyncio.ensure_future(self._post(url, headers, json.loads(data))))
        return self.sent[-1]

    async def _post(self, url: str, headers: dict[str, str], body: str) -> Reply:
        async with self.session.post(url, headers=headers, data=body) as reply:
            text = await reply.text()
        return Reply(reply.status, reply.reason, answer(text))


def question(row: dict[str, Any], *, model: str, how: Generation, max_pixels: int) -> dict:
    """The request for an image, or why it cannot be read."""
    try:
        images = [open_image(path, max_pixels) for path in row["paths"]]
    except ImageError as error:
        return {"payload": "", PROBLEM: str(error)}
    payload = {
        "model": model,
        "messages": user_turn(how.prompt, *images),
        "max_tokens": how.max_new_tokens,
        "temperature": how.temperature,
    }
    return {"payload": json.dumps(payload), PROBLEM: ""}


def answer(reply: str) -> dict[str, str]:
    """The caption in a server's reply, or what it says instead."""
    try:
        text = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, TypeError):
        text = None
    if text:
        return {"caption": text.strip(), "problem": ""}
    return {"caption": "", "problem": f"no caption: {reply[:300]}"}


def found(row: dict[str, Any]) -> dict[str, str]:
    """What to keep of a row."""
    return {"id": row["id"], "caption": row["http_response"]["caption"],
            PROBLEM: row["http_response"]["problem"]}  # fmt: skip


def last_words(error: Exception) -> str | None:
    """What Ray says when a request has failed too often, without the image in it."""
    text = r"(Reached maximum retries of \d+) for input row .*Previous Exception: (.*?)\. Full"
    words = re.search(text, str(error), re.DOTALL)
    return None if words is None else f"{words[1]} of a request ({words[2]})"


def captioned(
    rows: list[ImageRow], args: argparse.Namespace, how: Generation
) -> Iterator[dict[str, str]]:
    """Id and caption, or problem, of each row, as Ray has them."""
    ray.init()
    urls = [f"{url.rstrip('/')}/chat/completions" for url in args.url]
    key = os.environ.get("HOSTED_VLLM_API_KEY", "none")
    processor = build_processor(
        HttpRequestProcessorConfig(
            url=urls[0],
            headers={"Authorization": f"Bearer {key}"},
            session_factory=functools.partial(Servers, urls),
            batch_size=max(1, args.requests // BATCHES),
            concurrency=(args.workers, args.workers),
            max_retries=RETRIES,
            http_request_stage={"num_cpus": 0.1},  # it only waits
        ),
        preprocess=functools.partial(
            question, model=args.model, how=how, max_pixels=args.max_pixels
        ),
        postprocess=found,
    )
    items = [{"id": row.id, "paths": [str(path.resolve()) for path in row.paths]} for row in rows]
    # A worker that dies loses the block that it is at, so a block is a few batches.
    blocks = -(-len(items) // (4 * args.requests))
    try:
        yield from processor(ray.data.from_items(items, override_num_blocks=blocks)).iter_rows()
    except RayTaskError as error:
        words = last_words(error)
        if words is None:
            raise
        sys.exit(f"{words}. Repeat the command to continue.")


def main(args: argparse.Namespace) -> None:
    how = Generation(args.prompt, args.max_new_tokens, args.temperature, args.requests)
    model = f"hosted_vllm/{args.model}"  # as `trl-balcap caption` calls it
    server_captioner(model, how, args.url)  # asks each server once: a wrong address is said now
    made = {
        "model": model,
        "prompt": how.prompt,
        "temperature": how.temperature,
        "max_new_tokens": how.max_new_tokens,
        "max_pixels": args.max_pixels,
    }
    rows = list_images(args.images)
    written = skipped = 0
    with only_writer(args.out):
        done = Done(args.out, made, lambda row: row, verb="captioned")
        left = {row.id: row for row in rows if not done.has(row)}
        with args.out.open("a", encoding="utf-8") as file:
            for row in captioned(list(left.values()), args, how) if left else ():
                image = left[row["id"]]
                if row[PROBLEM]:
                    skipped += 1
                    print(f"skipped {image.id}: {row[PROBLEM]}")
                    continue
                line = caption_row(image, {"caption": row["caption"]}, args.out, made)
                file.write(json_line(line))
                file.flush()
                written += 1
    print(
        f"{args.out}: {written} captions written, {len(rows) - len(left)} already there, "
        f"{skipped} images skipped."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Caption a folder on a Ray cluster.")
    parser.add_argument("images", help="what `trl-balcap caption` takes: a folder, or a list")
    parser.add_argument("--out", type=Path, required=True, help="output JSONL file")
    parser.add_argument("--model", required=True, help="the servers' name for the captioner")
    parser.add_argument("--url", action="append", required=True, help="a server; repeatable")
    parser.add_argument("--prompt", default="Describe the image in detail.")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--max-pixels", type=int, default=DEFAULT_MAX_PIXELS)
    parser.add_argument("--workers", type=int, default=2, help="processes that send requests")
    parser.add_argument("--requests", type=int, default=128, help="in flight for each of them")
    main(parser.parse_args())

"""Images per second of `trl-balcap caption`, against the limit of its servers.

    python -m benchmarks.throughput

Each server takes a known time per caption and refuses more than `width` requests at once, so its
limit is known: width / seconds per caption. It runs in its own process. The images are 448 x 448
JPEGs, all different, which the client reads and encodes. In the second case a tenth of the captions
takes three times as long, so that most batches would have to wait for one of them. A window's worth
of captions is left out at each end, where the window fills and empties. Goal: 0.95.
"""

import argparse
import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.results_file import write_results
from trl_balcap.captioning.run import caption_images
from trl_balcap.scenes.server import ServerHandle, serve
from trl_balcap.scenes.server_faults import ServerFaults

CAPTION = "A red cup stands on a wooden table beside an open book. " * 8
CASES = (
    {"servers": 1, "width": 64, "seconds": 2.0, "slow": 0.0},
    {"servers": 1, "width": 64, "seconds": 2.0, "slow": 0.1},
    {"servers": 2, "width": 32, "seconds": 2.0, "slow": 0.0},
)
GOAL = 0.95


def steady_rate(times: Sequence[float], window: int) -> float:
    """Captions per second, without a window's worth at each end."""
    return (len(times) - 2 * window) / (times[-window] - times[window])


def write_images(folder: Path, count: int) -> None:
    """Write distinct images that look like photos to an encoder: smooth, with some noise."""
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (14, 14, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((448, 448), Image.Resampling.BICUBIC))
        noise = generator.integers(-8, 9, smooth.shape)
        pixels = np.clip(smooth.astype(int) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05}.jpg", quality=90)


def _serve(pipe: Connection, seconds: float, faults: ServerFaults) -> None:
    with serve(answer=lambda messages: CAPTION, latency=seconds, faults=faults) as server:
        pipe.send(server.url)
        pipe.recv()  # until the benchmark closes the pipe


@contextlib.contextmanager
def server(case: dict[str, Any]) -> Iterator[ServerHandle]:
    """A server in its own process."""
    faults = ServerFaults(
        stall=case["slow"], stall_seconds=2 * case["seconds"], capacity=case["width"]
    )
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, case["seconds"], faults), daemon=True)
    process.start()
    try:
        yield ServerHandle(ours.recv(), process.pid)
    finally:
        ours.send(None)
        process.join(30)


def measured(case: dict[str, Any], images: Path, out: Path) -> dict[str, Any]:
    """The rate of one case, and the limit of its servers."""
    times: list[float] = []
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(server(case)) for _ in range(case["servers"])]
        run = caption_images(
            "openai/captioner",
            images,
            out,
            api_base=[one.url for one in servers],
            batch_size=case["width"],
            on_caption=lambda: times.append(time.perf_counter()),
        )
        stats = [one.stats() for one in servers]
    calls = sum(one["total"] for one in stats)
    met = [one["faults"] for one in stats]
    slow = sum(one.get("stall", 0) for one in met)
    window = case["servers"] * case["width"]
    limit = window / (case["seconds"] * (1 + 2 * slow / calls))
    rate = steady_rate(times, window)
    return {
        **case,
        "images": run.written,
        "skipped": len(run.skipped),
        "refused": sum(one.get("over_capacity", 0) for one in met),
        "most_in_flight": [one["max_in_flight"] for one in stats],
        "limit_images_per_second": round(limit, 2),
        "images_per_second": round(rate, 2),
        "share_of_limit": round(rate / limit, 3),
    }


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        write_images(images, count)
        found = []
        for number, case in enumerate(CASES):
            figures = measured(case, images, Path(folder) / f"{number}.jsonl")
            found.append(figures)
            print(
                f"{case['servers']} x {case['width']} wide, {case['seconds']:g} s a caption, "
                f"{case['slow']:.0%} three times slower: {figures['images_per_second']} of "
                f"{figures['limit_images_per_second']} images a second, "
                f"{figures['share_of_limit']} (goal {GOAL})"
            )
    print(f"Kept in {write_results('throughput', {'goal': GOAL, 'cases': found})}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=640)
    main(parser.parse_args().images)

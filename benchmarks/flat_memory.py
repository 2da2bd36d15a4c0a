"""Resident memory of `trl-balcap caption` over many rows of a stream.

    python -m benchmarks.flat_memory

A Parquet stream of small drawn images, all different, is captioned by a loopback server without
latency, which runs in its own process. Resident memory is read after 10, 50 and 100 thousand
captions, and when a second run has found all of them done. Goal: at most a tenth more at the end
than at the first mark.
"""

import argparse
import ctypes
import gc
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from benchmarks.results_file import write_results
from benchmarks.throughput import server
from trl_balcap.captioning.listing import open_images
from trl_balcap.captioning.run import caption_images

MARKS = (10_000, 50_000, 100_000)
GOAL = 1.1
SIDE = 56
PER_FILE = 10_000


def drawn(number: int) -> bytes:
    """A small image of its own for each number below 16 million: its colour is the number."""
    image = Image.new("RGB", (SIDE, SIDE), (number >> 16 & 255, number >> 8 & 255, number & 255))
    x, y = number % (SIDE // 2), number // (SIDE // 2) % (SIDE // 2)
    ImageDraw.Draw(image).ellipse((x, y, x + SIDE // 2, y + SIDE // 2), fill="white")
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def write_parquet(folder: Path, count: int) -> None:
    """Files of 10,000 rows, each one row group."""
    for start in range(0, count, PER_FILE):
        numbers = range(start, min(count, start + PER_FILE))
        columns = {
            "id": [str(number) for number in numbers],
            "image": [{"bytes": drawn(number), "path": None} for number in numbers],
            "reference": ["A white disc stands on one plain colour." for _ in numbers],
        }
        pq.write_table(pa.table(columns), folder / f"{start:09}.parquet")


def resident_mib() -> float:
    """Resident memory of this process, without what the allocator could give back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def counter(marks: dict[int, float]) -> Callable[[], None]:
    """A callback that notes resident memory whenever its number of calls is a mark."""
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if done in marks:
            marks[done] = resident_mib()
            print(f"{done} rows: {marks[done]} MiB", flush=True)

    return count


def captioned(folder: Path, count: int, marks: dict[int, float]) -> dict[str, Any]:
    """Caption the stream, then run again."""
    case = {"seconds": 0.0, "slow": 0.0, "width": 64}
    images = open_images(folder / "*.parquet", store=folder / "images")
    out = folder / "captions.jsonl"
    with server(case) as handle:
        how: dict[str, Any] = {"api_base": handle.url, "batch_size": case["width"]}
        start = time.perf_counter()
        run = caption_images("openai/captioner", images, out, on_caption=counter(marks), **how)
        seconds = time.perf_counter() - start
        again = caption_images("openai/captioner", images, out, **how)
    assert (run.written, again.kept, again.written) == (count, count, 0), (run, again)
    return {
        "images_per_second": round(count / seconds, 1),
        "resident_mib": marks,
        "resident_mib_resumed": resident_mib(),
    }


def main(count: int) -> None:
    marks = dict.fromkeys([mark for mark in MARKS if mark <= count] or [count // 2, count], 0.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_parquet(folder, count)
        caption = captioned(folder, count, marks)
    first, *_, last = caption["resident_mib"].values()
    figures = {"rows": count, "goal": GOAL, "caption": caption, "growth": round(last / first, 3)}
    print(f"{last} MiB at the end, {figures['growth']} of the first mark (goal {GOAL})")
    print(f"Kept in {write_results('flat_memory', figures)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=MARKS[-1])
    main(parser.parse_args().rows)

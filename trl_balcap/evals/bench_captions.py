"""Captions for `trl-balcap bench`: existing ones, and those that a model has to write first."""

import asyncio
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trl_balcap.captioning.run import ImageRow, caption_images, captions_left
from trl_balcap.data.rows import BadRowsError, read_table
from trl_balcap.data.scored import Caption, row_image
from trl_balcap.evals.asking import workload
from trl_balcap.evals.bill import Bill
from trl_balcap.evals.jobs import ScorePlan
from trl_balcap.evals.metrics.protocol import Benchmarks, Metric
from trl_balcap.evals.suites import Suite, suite_images
from trl_balcap.judge import Judge

__all__ = ["BenchModel", "Writing", "finds_images", "given_captions", "images_of"]

WORDS = 150  # assumed length of a caption, to estimate its cost
CHARS_PER_WORD = 6


@dataclass(frozen=True)
class BenchModel:
    """
    One captioner in the table.

    Args:
        name (`str`):
            Its name in the table.
        source (`str`):
            A checkpoint, an adapter, or a litellm model string; or a caption file.
        api_base (`str`, *optional*):
            URL of the model's server.
        is_captions (`bool`, *optional*, defaults to `False`):
            Whether `source` is a caption file, or a folder with one file per suite.
    """

    name: str
    source: str
    api_base: str | None = None
    is_captions: bool = False

    @property
    def slug(self) -> str:
        """The name, made safe for a folder."""
        return re.sub(r"[^\w.+-]+", "_", self.name)


@dataclass(frozen=True)
class Writing:
    """The captions of one model for one suite."""

    model: BenchModel
    suite: Suite
    rows: list[ImageRow]
    path: Path
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.model.api_base is not None:
            width = self.settings.get("batch_size", 8)
            base = self.model.api_base
            client = Judge(self.model.source, api_base=base, max_concurrency=width)
            self.settings["client"] = client

    @property
    def place(self) -> tuple[str, str]:
        return self.model.name, f"{self.suite.name} captions"

    @property
    def is_paid(self) -> bool:
        """Whether a server still has to be asked for captions."""
        return "client" in self.settings and bool(captions_left(self.path, self.rows))

    def plan(self) -> tuple[ScorePlan, Judge]:
        left = captions_left(self.path, self.rows)
        work = workload(
            prompt_chars=len(self.suite.prompt or ""),
            completion_chars=WORDS * CHARS_PER_WORD,
            calls=len(left),
            image=True,
        )
        _, name = self.place
        done = len(self.rows) - len(left)
        return ScorePlan({name: len(left)}, {name: done}, {name: work}), self.settings["client"]

    async def write(self, bill: Bill, say: Callable[[str], None]) -> None:
        """Caption the remaining images, and add what a server took to the bill image by image."""
        say(f"{self.model.name}: captions of {self.suite.name}")
        client = self.settings.get("client")
        stopped = threading.Event()

        def enter() -> None:
            if client is not None:
                bill.enter(client, {"model": self.model.name, "step": "captions"})
            if stopped.is_set():
                raise KeyboardInterrupt  # or the thread would continue after Ctrl-C

        try:
            made = await asyncio.to_thread(
                caption_images,
                self.model.source,
                self.rows,
                self.path,
                engine="auto" if client is None else "api",
                api_base=self.model.api_base,
                on_caption=enter,
                **{**self.suite.generation(), **self.settings},
            )
        finally:
            stopped.set()
        for problem in made.skipped:
            say(f"{self.model.name}: {problem}")


def given_captions(model: BenchModel, suite: Suite) -> Path:
    """The file with existing captions for a suite."""
    path = Path(model.source)
    if not path.is_dir():
        return path
    names = [f"{name}{end}" for name in (suite.name, suite.metric) for end in (".jsonl", ".json")]
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{path} has no captions for {suite.name}: it has none of {names}.")
    return found


def finds_images(captions: Path) -> bool:
    """Whether the image paths in a caption file are relative to that file."""
    where = captions.parent
    named = (row_image(row, where) for _, row in read_table(captions))
    return any(image is not None and Path(image).is_file() for image in named)


def images_of(
    suite: Suite,
    metric: Metric,
    source: str | Path | None,
    benchmarks: Benchmarks,
    out: Path,
) -> list[ImageRow]:
    """
    Select the images that belong to a benchmark.

    Raises:
        [`BadRowsError`]: if there are none, or if their captions could not be scored.
    """
    if source is None and suite.hub is not None:
        source = benchmarks.data.get(suite.metric)  # the dataset contains questions and images
    rows = suite_images(suite, source, split=benchmarks.split, store=out / "images" / suite.name)
    asked = [
        (row, Caption(row.id, "not written yet", row.path, row.reference, str(row.path)))
        for row in rows
    ]
    asked = [(row, caption) for row, caption in asked if metric.covers(caption)]
    if not asked:
        raise BadRowsError(
            [f"{source}: none of its images is in {suite.name}; the first is {rows[0].id!r}."]
        )
    problems = metric.problems([caption for _, caption in asked])
    if metric.needs_reference:
        problems += [
            f'{row.path}: {suite.name} needs a reference caption. Pass JSONL with "image" and '
            '"reference".'
            for row, _ in asked
            if not row.reference
        ]
    if problems:
        raise BadRowsError(problems)
    return [row for row, _ in asked]

"""Also sends the sampled verdicts to the loggers in `report_to`."""

import importlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pandas
from PIL import Image
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from trl_balcap.report.sample import sample_markdown, sample_table
from trl_balcap.report.thumbnails import opened, thumbnail

__all__ = ["VerdictSender"]


class VerdictSender:
    """
    Sends verdict rows as a table named `verdicts`: to trackio and wandb with embedded images, like
    TRL's table of completions, and to TensorBoard as text with separate images.

    Args:
        report_to (`Sequence[str]`):
            The loggers' names, as in the trainer's configuration.
        callbacks (`Sequence[TrainerCallback]`):
            The trainer's callbacks. TensorBoard's writer is looked up in them when there is
            something to send.
    """

    def __init__(self, report_to: Sequence[str], callbacks: Sequence[TrainerCallback]):
        self.names = [name for name in ("trackio", "wandb", "tensorboard") if name in report_to]
        self._callbacks = callbacks
        self._waiting: list[Mapping[str, Any]] = []

    def take(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Set rows aside for the next `send`."""
        if self.names:
            self._waiting += rows

    def take_back(self) -> None:
        """Drop the rows that an interrupted run has set aside."""
        self._waiting = []

    def send(self, step: int) -> None:
        """Send the rows, in the caller's thread, since that is where trackio's run lives."""
        rows, self._waiting = self._waiting, []
        if not rows:
            return
        pictures = _pictures(rows)
        for name in self.names:
            if name == "tensorboard":
                self._write(rows, pictures, step)
            else:
                _log_table(importlib.import_module(name), rows, pictures)

    def _write(
        self, rows: Sequence[Mapping[str, Any]], pictures: Mapping[Any, Image.Image], step: int
    ) -> None:
        for callback in self._callbacks:
            writer = getattr(callback, "tb_writer", None)
            if isinstance(callback, TensorBoardCallback) and writer is not None:
                writer.add_text("verdicts", sample_markdown(rows), step)
                for group, picture in pictures.items():
                    pixels = numpy.asarray(picture)  # (height, width, 3)
                    writer.add_image(f"verdicts/{group}", pixels, step, dataformats="HWC")


def _log_table(
    backend: Any, rows: Sequence[Mapping[str, Any]], pictures: Mapping[Any, Image.Image]
) -> None:
    if backend.__name__ == "wandb" and backend.run is None:  # as TRL checks: turned off by the user
        return
    shown = {group: backend.Image(picture) for group, picture in pictures.items()}
    table = pandas.DataFrame(sample_table(rows))
    if shown:
        table.insert(3, "image", [shown.get(row.get("group")) for row in rows])
    backend.log({"verdicts": backend.Table(dataframe=table)})


def _pictures(rows: Sequence[Mapping[str, Any]]) -> dict[Any, Image.Image]:
    """A small picture for each group that has an image."""
    found: dict[Any, Image.Image] = {}
    for row in rows:
        if row.get("image") is not None and row.get("group") not in found:
            data = thumbnail(opened(row["image"])).data
            found[row.get("group")] = Image.open(io.BytesIO(data)).convert("RGB")
    return found

"""Keeps a sample of the verdicts, and the log, in the run's folder."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from trl_balcap.callbacks.sending import VerdictSender
from trl_balcap.report.log import RunLog
from trl_balcap.report.rollouts import rollout_rows
from trl_balcap.report.verdicts import VerdictWriter

__all__ = ["KeepVerdictsCallback", "by_name"]

logger = logging.getLogger(__name__)


class KeepVerdictsCallback(TrainerCallback):
    """
    Writes a bounded sample of judged rollouts, the log and the settings to `output_dir/verdicts`.

    The main process writes in a separate thread, so training does not wait for the disk. If writing
    fails, it warns and stops keeping verdicts, and the run continues.

    Args:
        folder (`str` or `Path`):
            Folder to write to.
        facts (`Mapping`):
            Facts about the run, see [`RunLog.facts`].
        images (`int`):
            Number of images to keep per logged step, with all their rollouts.
        sender ([`VerdictSender`], *optional*):
            Sends the same rows whenever the trainer logs.
    """

    def __init__(
        self,
        folder: str | Path,
        facts: Mapping[str, Any],
        *,
        images: int,
        sender: VerdictSender | None = None,
    ):
        self.images = images
        self.sender = sender
        self.folder = Path(folder)
        self.facts = facts
        self._writer: VerdictWriter | None = None
        self._log: RunLog | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None
        self._kept: set[tuple[str, int]] = set()
        self._broken = False

    def wants(self, split: str, state: Any) -> bool:
        """Whether to keep rollouts of this step: once per step, and the same on all ranks."""
        step = state.global_step + (split == "train")
        due = split == "eval" or step % max(1, int(state.logging_steps)) == 0 or step == 1
        if not due or (split, step) in self._kept:
            return False
        self._kept.add((split, step))
        return True

    def sample(self, columns: Mapping[str, list[Any]], **batch: Any) -> list[dict[str, Any]]:
        """
        Verdict rows of the first groups of a batch, as many as `images`.

        Args:
            columns (`Mapping[str, list]`):
                The dataset's columns of this rank's rows.
            batch:
                Arguments of [`rollout_rows`].
        """
        count = len(batch["completions"])
        seen = batch.pop("observations")
        rows = rollout_rows(
            **batch,
            observations={name: of for name, of in seen.items() if len(of) == count},
            images=columns.get("images", columns.get("image")),
            references=columns.get("reference"),
        )
        kept = [row for row in rows if int(row["group"]) < self.images]
        pictured: set[str] = set()
        for row in kept:
            if row["group"] in pictured:  # the main process needs only one image per group
                row["image"] = None
            pictured.add(row["group"])
        return kept

    def keep(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows in the background. Called on the main process."""
        self._submit(self._write, list(rows))
        if self.sender is not None:
            self.sender.take(rows)

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self._submit(self._begin)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            self._submit(self._append, {**logs, "step": state.global_step})
            if self.sender is not None:
                self.sender.send(state.global_step)

    def on_train_end(self, args, state, control, **kwargs):
        if self._last is not None:
            self._last.result()

    def _submit(self, work: Any, *arguments: Any) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "trl-balcap-verdicts")
        self._last = self._thread.submit(self._try, work, *arguments)

    def _try(self, work: Any, *arguments: Any) -> None:
        if self._broken:
            return
        try:
            work(*arguments)
        except OSError as error:
            logger.warning("Verdicts are no longer kept in %s: %s", self.folder, error)
            self._broken = True

    def _begin(self) -> None:
        self._log = RunLog(self.folder)
        self._log.facts(self.facts)

    def _append(self, logs: Mapping[str, Any]) -> None:
        if self._log is None:  # an evaluation without training
            self._begin()
        assert self._log is not None
        self._log.append(logs)

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self._writer is None:
            self._writer = VerdictWriter(self.folder)
        self._writer.write(rows)


def by_name(values: torch.Tensor, names: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of a `(B, K)` tensor by their K names, with NaN as `None`."""
    return {
        name: [None if value != value else value for value in column.tolist()]
        for name, column in zip(names, values.T, strict=True)
    }

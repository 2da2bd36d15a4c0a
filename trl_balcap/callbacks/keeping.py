"""Keeps a sample of the verdicts, and the log, in the run's folder."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from transformers import TrainerCallback

from trl_balcap.callbacks.sending import VerdictSender
from trl_balcap.data.images import ImageError, open_image
from trl_balcap.report.log import RunLog
from trl_balcap.report.rollouts import rollout_rows
from trl_balcap.report.verdicts import VerdictWriter

__all__ = ["KeepVerdictsCallback", "by_name"]

logger = logging.getLogger(__name__)


class KeepVerdictsCallback(TrainerCallback):
    """
    Writes a bounded sample of judged rollouts, the log and the settings to `output_dir/verdicts`.

    The main process writes in a separate thread, so training does not wait for the disk. If writing
    fails, it warns and stops keeping verdicts, and the run continues. Another `train()` starts
    anew: its rows take the place of those kept for the same steps.

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
        seen, completions = batch.pop("observations"), batch.pop("completions")
        count = len(completions)
        kept = max(0, self.images * batch["num_generations"] - batch.get("first", 0))
        rows = rollout_rows(
            **batch,
            completions=completions[:kept],
            observations={name: of for name, of in seen.items() if len(of) == count},
            images=columns.get("images", columns.get("image")),
            references=columns.get("reference"),
        )
        pictured: set[str] = set()
        for row in rows:
            # The main process needs only one image per group.
            row["image"] = None if row["group"] in pictured else self._picture(row["image"])
            pictured.add(row["group"])
        return rows

    def _picture(self, image: Any) -> Image | None:
        """The image, opened, or `None` if it cannot be: its rewards are unscored for that."""
        try:
            return image if image is None or isinstance(image, Image) else open_image(image)
        except ImageError:
            return None

    def keep(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows in the background. Called on the main process."""
        self._submit(self._write, list(rows))
        if self.sender is not None:
            self.sender.take(rows)

    def on_train_begin(self, args, state, control, **kwargs):
        self._wait()  # for what an interrupted run left
        self._kept.clear()
        self._writer, self._broken = None, False
        if self.sender is not None:
            self.sender.take_back()
        if state.is_world_process_zero:
            self._submit(self._begin)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            self._submit(self._append, {**logs, "step": state.global_step})
            if self.sender is not None:
                self.sender.send(state.global_step)

    def on_train_end(self, args, state, control, **kwargs):
        self._wait()

    def _wait(self) -> None:
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
        except Exception as error:  # noqa: BLE001 - said, and no reason to end a run
            logger.warning(
                "Verdicts are no longer kept in %s: %s: %s. The report lacks what is judged and "
                "logged from here on; training continues.",
                *(self.folder, type(error).__name__, error),
            )
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

"""b-CapScore during training: captions held-out images every N steps, logs the scores and keeps
the best checkpoint."""

import json
import logging
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from accelerate.utils import broadcast_object_list, gather_object
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.models import unwrap_model_for_generation
from trl.models.utils import disable_gradient_checkpointing

from trl_balcap.captioning.transformers import generate_captions
from trl_balcap.data import DEFAULT_PROMPT
from trl_balcap.data.completions import is_empty
from trl_balcap.data.scored import Caption
from trl_balcap.evals.results import MetricResult
from trl_balcap.evals.run import evaluate_captions
from trl_balcap.evals.verdicts import keep_verdicts
from trl_balcap.judge import Judge, JudgeConfigError
from trl_balcap.judge.background import submit
from trl_balcap.judge.ranks import batch_deadline

__all__ = ["CaptionEvalCallback"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOGGED = {
    "b-CapScore": "eval_greedy_b_capscore",
    "b-CapScore of means": "eval_greedy_b_capscore_of_means",
    "precision": "eval_greedy_precision",
    "recall": "eval_greedy_recall",
    "linguistic": "eval_greedy_linguistic",
}
"""Names of the scores in the trainer's log, from 0 to 1. Not `eval_b_capscore`: the trainer's own
evaluation logs that name, for sampled captions."""


class CaptionEvalCallback(TrainerCallback):
    """
    A [`~transformers.TrainerCallback`] that greedily captions held-out images every `every_n_steps`
    steps, scores the captions with b-CapScore, logs the scores and keeps the best checkpoint.

    All processes share the captioning; the main one asks the judge. A judge that cannot work is an
    error at the start of training; if it goes down later, scores are missing and the run continues.
    If more than the judge's `max_unscored` of the captions are unscored, the scores are logged, but
    the checkpoint cannot become the best. Captions and verdicts are written to
    `output_dir/caption_eval/step-<n>.jsonl` and, for `trl-balcap report`, to `output_dir/verdicts`,
    which has thumbnails of the images; [`BalCapTrainer`] does not push these, other trainers do.
    The best checkpoint is in `output_dir/best-b-capscore`, where a resumed run finds the score to
    beat.

    Args:
        trainer (`Trainer`):
            The trainer to add the callback to.
        dataset (`Dataset` or sequence of rows):
            Held-out rows with "image" (`PIL.Image.Image`, already scaled down) and "reference".
        judge ([`Judge`]):
            The judge.
        every_n_steps (`int`):
            Optimizer steps between evaluations. The last step of the run is also evaluated.
        prompt (`str`, *optional*, defaults to `"Describe the image in detail."`):
            The user's message.
        max_new_tokens (`int`, *optional*):
            Maximum tokens of a caption. Defaults to the trainer's `max_completion_length`, or 512.
        keep_best (`bool`, *optional*, defaults to `True`):
            Whether to keep the best checkpoint.

    Raises:
        `ValueError`: if `every_n_steps` is not positive, or a row has no image or no reference.

    Example:

    ```python
    trainer = BalCapTrainer(...)
    held_out = load_captions("held_out.jsonl")
    trainer.add_callback(CaptionEvalCallback(trainer, held_out, judge, every_n_steps=50))
    trainer.train()
    ```
    """

    def __init__(
        self,
        trainer: Trainer,
        dataset: Any,
        judge: Judge,
        *,
        every_n_steps: int,
        prompt: str = DEFAULT_PROMPT,
        max_new_tokens: int | None = None,
        keep_best: bool = True,
    ):
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be 1 or more, got {every_n_steps}.")
        self.rows: Sequence[Mapping[str, Any]] = [dataset[i] for i in range(len(dataset))]
        for place, row in enumerate(self.rows):
            if row.get("image") is None or is_empty(row.get("reference") or ""):
                raise ValueError(
                    f"Row {place} of the evaluation dataset needs an image and a reference, but "
                    f"has {', '.join(row)}. Load the dataset with load_captions."
                )
        if not self.rows:
            raise ValueError("The evaluation dataset is empty.")
        self.trainer = trainer
        self.judge = judge
        self.every_n_steps = every_n_steps
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens or getattr(trainer.args, "max_completion_length", None)
        self.keep_best = keep_best
        self.best: float | None = None

    @property
    def best_folder(self) -> Path:
        """Folder of the best checkpoint."""
        return Path(str(self.trainer.args.output_dir)) / "best-b-capscore"

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """
        Ask the judge one question, and restore the score to beat when resuming a run; a new run has
        none.

        Raises:
            `JudgeConfigError`: on all processes, if the judge cannot work.
            `RuntimeError`: on all processes, with the traceback of any other exception.
        """
        step = state.global_step
        # The main process's, for ranks that disagree would not all save the next best checkpoint.
        self.best = self._on_main("Preparing caption evaluations", lambda: self._begin(step))

    def _begin(self, step: int) -> float | None:
        """Ask the judge one question; the score to beat from `step` on."""
        _judged(self.judge.preflight())
        record = self.best_folder / "b_capscore.json"
        if step == 0:
            return None
        if record.is_file():
            return json.loads(record.read_text(encoding="utf-8"))["score"]
        return self.best

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Evaluate if it is time to."""
        step = state.global_step
        if step % self.every_n_steps == 0 or step == state.max_steps:
            should_log = control.should_log
            self.evaluate(step)
            # Logging the evaluation counts as the step's log and would swallow the training log.
            control.should_log = should_log

    def evaluate(self, step: int) -> None:
        """
        Caption, score, log, and keep the checkpoint if it is the best. Call it on all processes.
        """
        trainer = self.trainer
        captions = self._caption()
        problem, logs, score = self._on_main(
            f"The evaluation at step {step}", lambda: self._score(captions, step)
        )
        if problem is not None:
            logger.warning("The evaluation at step %d: %s", step, problem)
        if not logs:
            return
        # Trainer's own log: GRPOTrainer.log would also flush the metrics of a partial step.
        Trainer.log(trainer, dict(logs))
        if self.keep_best and score is not None and (self.best is None or score > self.best):
            self.best = score
            trainer.save_model(str(self.best_folder))
            if trainer.accelerator.is_main_process:
                record = self.best_folder / "b_capscore.json"
                record.write_text(json.dumps({"step": step, "score": score}), encoding="utf-8")

    def _on_main(self, what: str, work: Callable[[], T]) -> T:
        """What `work` returns on the main process, or raises there, on every process."""
        outcome: list[Any] = [None, None]
        if self.trainer.accelerator.is_main_process:
            try:
                outcome[0] = work()
            except JudgeConfigError as error:
                outcome[1] = error
            except Exception:  # noqa: BLE001 - the others wait: handed on, and raised on all ranks
                outcome[1] = RuntimeError(f"{what} failed:\n{traceback.format_exc()}")
        broadcast_object_list(outcome)
        result, error = outcome
        if error is not None:
            raise error
        return result

    def _caption(self) -> list[str]:
        """Captions of all rows, in order, on every process."""
        trainer: Any = self.trainer
        accelerator = trainer.accelerator
        places = list(range(len(self.rows)))
        with (
            # Padded: under ZeRO-3 and FSDP ranks generate in step, so all need as many batches.
            accelerator.split_between_processes(places, apply_padding=True) as mine,
            # Before TRL 1.16, the next one would turn it on again without the user's settings.
            disable_gradient_checkpointing(
                trainer.model, trainer.args.gradient_checkpointing_kwargs
            ),
            unwrap_model_for_generation(
                trainer.model_wrapped,
                accelerator,
                gather_deepspeed3_params=getattr(trainer.args, "ds3_gather_for_generation", True),
            ) as model,
        ):
            made = generate_captions(
                model,
                trainer.processing_class,
                [self.rows[place]["image"] for place in mine],
                prompt=self.prompt,
                batch_size=trainer.args.per_device_eval_batch_size,
                max_new_tokens=self.max_new_tokens or 512,
            )
        pairs = gather_object(list(zip(mine, made, strict=True)))
        by_place = dict(pairs)
        return [by_place[place] for place in places]

    def _score(
        self, captions: Sequence[str], step: int
    ) -> tuple[str | None, dict[str, float], float | None]:
        """What went wrong if anything, the metrics to log, and the score if it may become the
        best."""
        rows = [
            Caption(str(place), caption, row["image"], row["reference"])
            for place, (caption, row) in enumerate(zip(captions, self.rows, strict=True))
        ]
        try:
            # The other processes wait for this one in a collective with a timeout.
            deadline = batch_deadline(self.judge.settings.batch_deadline)
            evaluation = evaluate_captions(rows, self.judge, deadline=deadline)
            result, verdicts = _judged(evaluation)
        except JudgeConfigError as error:
            return f"it has no scores, for {error}", {}, None
        problem = None
        folder = Path(str(self.trainer.args.output_dir)) / "caption_eval"
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in verdicts)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"step-{step}.jsonl").write_text(lines, encoding="utf-8")
            keep_verdicts(folder.parent / "verdicts", rows, verdicts, step=step, split="eval")
        except OSError as error:  # the other processes wait
            problem = f"its captions and verdicts could not be kept in {folder}: {error}"
        unscored = 1 - result.n_scored / result.n
        trusted = unscored <= self.judge.settings.max_unscored
        return problem, _logs(result), result.score if trusted else None


def _judged(questions: Coroutine[Any, Any, T]) -> T:
    """The outcome of `questions`, from the judge loop: in a notebook, this thread already runs one,
    so `asyncio.run` would fail."""
    outcome = submit(questions)
    try:
        return outcome.result()
    finally:
        outcome.cancel()  # after an interrupt, nobody would wait for the answers


def _logs(result: MetricResult) -> dict[str, float]:
    logs = {
        LOGGED[estimate.name]: estimate.value / 100
        for estimate in result.scores
        if estimate.value is not None
    }
    return logs | {
        "eval_caption_words": result.mean_caption_words,
        "eval_captions_unscored": 1 - result.n_scored / result.n,
    }

"""The full pipeline on the built-in default: drawn scenes, the exact judge, a tiny captioner.

`trl-balcap demo` trains the captioner with [`BalCapTrainer`] and prints its captions' scores before
and after. `examples/train_qwen.py` without arguments is the same training run.
"""

import asyncio
import contextlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from trl_balcap.captioning.transformers import generate_captions
from trl_balcap.data import load_captions
from trl_balcap.data.folders import check_out_folder
from trl_balcap.demo.curves import plot_reward_curves
from trl_balcap.demo.recipe import demo_config, demo_scenes
from trl_balcap.judge import Judge
from trl_balcap.metrics import CorpusScores, corpus_scores
from trl_balcap.report import VerdictWriter, rollout_rows
from trl_balcap.report.page import report_page
from trl_balcap.report.runs import find_runs
from trl_balcap.rewards import LinguisticReward, PrecisionReward, RecallReward
from trl_balcap.scenes.captioner import MAX_NEW_TOKENS, PROMPT, captioner_path
from trl_balcap.scenes.make import write_scenes
from trl_balcap.trainer import BalCapTrainer

__all__ = ["HeldOutScores", "evaluate_captioner", "run_demo"]

HELD_OUT_SCENES = 128
HELD_OUT_SEED = 1_000_000  # far from any seed used for training scenes

CARD = {
    "name": "trl-balcap-demo-captioner",
    "model": "the tiny captioner of drawn scenes that comes with trl-balcap",
    "dataset": "drawn scenes with their exact descriptions",
    "license": "apache-2.0",
}
"""What the model card says about the demo's checkpoint."""


class HeldOutScores(NamedTuple):
    """Captions of held-out images and the judge's scores for them."""

    captions: list[str]
    precision: list[float | None]
    recall: list[float | None]
    linguistic: list[float | None]
    length_ratio: list[float]
    observations: dict[str, list[dict[str, Any]]]
    """What each reward saw of each caption, keyed by reward name."""

    @property
    def scores(self) -> CorpusScores:
        return corpus_scores(self.precision, self.recall, self.linguistic)

    @property
    def mean_length_ratio(self) -> float:
        return sum(self.length_ratio) / len(self.length_ratio)


def evaluate_captioner(
    model: Any,
    processor: Any,
    dataset: Dataset,
    judge: Judge,
    *,
    temperature: float = 0.0,
    seed: int = 0,
) -> HeldOutScores:
    """
    Caption a dataset and score the captions with the three rewards, without a length gate.

    Args:
        model (`PreTrainedModel`), processor (`ProcessorMixin`):
            The captioner.
        dataset (`Dataset`):
            With columns `image` and `reference`.
        judge ([`Judge`]):
            The judge.
        temperature (`float`, *optional*, defaults to `0.0`):
            Sampling temperature; 0 is greedy.
        seed (`int`, *optional*, defaults to `0`):
            Seed for sampling.

    Returns:
        [`HeldOutScores`].
    """
    rows = dataset[:]
    captions = generate_captions(
        model,
        processor,
        rows["image"],
        prompt=PROMPT,
        batch_size=64,
        max_new_tokens=MAX_NEW_TOKENS,
        temperature=temperature,
        seed=seed,
    )
    asked: dict[str, Any] = {"prompts": [PROMPT] * len(captions), "completions": captions}
    columns = {"image": rows["image"], "reference": rows["reference"]}

    rewards = [PrecisionReward(judge), RecallReward(judge), LinguisticReward(judge)]

    async def judge_all() -> list[list[float | None]]:
        return await asyncio.gather(*(reward(**asked, **columns) for reward in rewards))

    def lengths(texts: list[str]) -> list[int]:
        ids = processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [len(tokens) for tokens in ids]

    ratios = [
        caption / reference
        for caption, reference in zip(lengths(captions), lengths(rows["reference"]), strict=True)
    ]
    precision, recall, linguistic = asyncio.run(judge_all())
    seen = {reward.__name__: reward.observations() for reward in rewards}
    return HeldOutScores(captions, precision, recall, linguistic, ratios, seen)


def run_demo(
    output_dir: str | Path,
    *,
    seed: int = 0,
    max_steps: int = 120,
    callbacks: Sequence[TrainerCallback] = (),
    on_evaluated: Callable[[str], None] = lambda when: None,
) -> dict[str, tuple[HeldOutScores, HeldOutScores]]:
    """
    Train the shipped captioner on drawn scenes and compare it before and after.

    Args:
        output_dir (`str` or `Path`):
            The run folder. It will contain `scenes/`, `before/` (the captioner as shipped),
            `checkpoint/` (after training), `captions_before_after.jsonl`, `reward_curves.png`,
            `table.json` and `report.html`, which shows all captions with their verdicts.
        seed (`int`, *optional*, defaults to `0`):
            The same seed gives the same table.
        max_steps (`int`, *optional*, defaults to `120`):
            Optimizer steps.
        callbacks (`Sequence[TrainerCallback]`, *optional*):
            Callbacks for the trainer.
        on_evaluated (`Callable`, *optional*):
            Called with `"before"` or `"after"` each time the captions of one decoding method have
            been scored.

    Returns:
        `dict`: `"sampled"` and `"greedy"`, each with the [`HeldOutScores`] before and after.

    Raises:
        `FileExistsError`: if `output_dir` already contains files.
        `ValueError`: if `max_steps` is less than one.
    """
    if max_steps < 1:
        raise ValueError(f"The demo trains for 1 step or more, got {max_steps}.")
    output_dir = Path(output_dir)
    check_out_folder(output_dir)
    if output_dir.exists() and any(output_dir.iterdir()):
        raise FileExistsError(
            f"{output_dir} already contains files. Choose another folder with --out, or remove it."
        )
    train = demo_scenes(output_dir, seed=seed)
    held_out = load_captions(
        write_scenes(output_dir / "scenes/held_out", HELD_OUT_SCENES, seed=HELD_OUT_SEED),
        prompt=PROMPT,
    )
    shutil.copytree(captioner_path(), output_dir / "before")
    judge = Judge("scenes/oracle")
    temperatures = {"sampled": 1.0, "greedy": 0.0}

    with warnings.catch_warnings(), _one_thread():
        # TRL uses a name that transformers is about to drop; users can do nothing about it.
        warnings.filterwarnings(
            "ignore", message=".is_gradient_checkpointing", category=FutureWarning
        )
        trainer = BalCapTrainer(
            str(captioner_path()),
            [PrecisionReward(judge), RecallReward(judge), LinguisticReward(judge)],
            demo_config(output_dir / "trainer", seed=seed, max_steps=max_steps),
            train_dataset=train,
            callbacks=list(callbacks),
        )
        trainer.facts = {**trainer.facts, **CARD}
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)

        def evaluate(when: str) -> dict[str, HeldOutScores]:
            evaluations = {}
            for name, temperature in temperatures.items():
                evaluations[name] = evaluate_captioner(
                    trainer.model,
                    trainer.processing_class,
                    held_out,
                    judge,
                    temperature=temperature,
                    seed=seed,
                )
                on_evaluated(when)
            return evaluations

        before = evaluate("before")
        trainer.train()
        trainer.save_model(str(output_dir / "checkpoint"))
        (output_dir / "trainer" / "README.md").unlink()  # the card is next to the weights
        after = evaluate("after")
        trainer.save_state()  # saves the log, which the report shows

    results = {name: (before[name], after[name]) for name in temperatures}
    _write_captions(output_dir / "captions_before_after.jsonl", held_out, results)
    plot_reward_curves(trainer.state.log_history, output_dir / "reward_curves.png")
    table = {
        name: {"before": table_row(pair[0]), "after": table_row(pair[1])}
        for name, pair in results.items()
    }
    (output_dir / "table.json").write_text(json.dumps({"seed": seed, **table}, indent=2) + "\n")
    for step, scores in zip((0, max_steps), results["greedy"], strict=True):
        _keep_verdicts(output_dir / "trainer" / "verdicts", step, held_out, scores)
    page = report_page(find_runs([output_dir / "trainer"]), title="trl-balcap demo")
    (output_dir / "report.html").write_text(page, encoding="utf-8")
    return results


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Add in the same order on every machine: other thread counts round and caption differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def table_row(evaluation: HeldOutScores) -> dict[str, float | None]:
    scores = evaluation.scores
    return {
        "precision": scores.precision,
        "recall": scores.recall,
        "linguistic": scores.linguistic,
        "b_capscore": scores.b_capscore,
        "mean_length_ratio": evaluation.mean_length_ratio,
    }


def _keep_verdicts(folder: Path, step: int, dataset: Dataset, scores: HeldOutScores) -> None:
    rewards = {
        "precision_reward": scores.precision,
        "recall_reward": scores.recall,
        "linguistic_reward": scores.linguistic,
    }
    rows = rollout_rows(
        step=step,
        split="eval",
        num_generations=1,
        prompts=dataset["prompt"],
        completions=scores.captions,
        images=dataset["image"],
        references=dataset["reference"],
        rewards=rewards,
        observations=scores.observations,
    )
    ratios = [{"length_ratio": ratio} for ratio in scores.length_ratio]
    with VerdictWriter(folder) as writer:
        writer.write([row | ratio for row, ratio in zip(rows, ratios, strict=True)])


def _write_captions(
    path: Path, dataset: Dataset, results: dict[str, tuple[HeldOutScores, HeldOutScores]]
) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row, reference in enumerate(dataset["reference"]):
            line: dict[str, Any] = {
                "image": f"scenes/held_out/images/{row:03}.png",
                "reference": reference,
            }
            for name, pair in results.items():
                for when, evaluation in zip(("before", "after"), pair, strict=True):
                    line[f"{when}_{name}"] = {
                        "caption": evaluation.captions[row],
                        "precision": evaluation.precision[row],
                        "recall": evaluation.recall[row],
                        "linguistic": evaluation.linguistic[row],
                        "length_ratio": round(evaluation.length_ratio[row], 3),
                    }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

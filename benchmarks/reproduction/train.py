"""Train and measure one arm with one seed: the work of a worker process."""

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset, Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    TrainerCallback,
    set_seed,
)

from benchmarks.reproduction.arms import Arm
from benchmarks.reproduction.balanced import balanced_rewards, poor_reference
from benchmarks.reproduction.credit import sentence_credit
from benchmarks.reproduction.field import field_rewards, fine_tune, quiet_arguments
from benchmarks.reproduction.horizons import HORIZONS
from benchmarks.reproduction.measure import HeldOut, held_out, measure, scene_scores
from benchmarks.reproduction.sampling import FastSampler, share_prompts
from benchmarks.reproduction.settings import Settings, base_digest
from benchmarks.reproduction.variants import VARIANTS
from trl_balcap import BalCapConfig, BalCapTrainer
from trl_balcap.advantages import dead_groups, group_normalize
from trl_balcap.batch_numbers import retest_std, zeros_among_good
from trl_balcap.credit import token_pieces, tokenizer_backend
from trl_balcap.data.completions import completion_text
from trl_balcap.scenes.captioner import PROMPT
from trl_balcap.scenes.grammar import reference
from trl_balcap.scenes.oracle import Scores
from trl_balcap.scenes.world import Scene, draw, random_scene

__all__ = ["train_arm"]


def train_arm(
    arm: Arm,
    seed: int,
    settings: Settings,
    base: Path,
    report: Callable[[int], None] = lambda step: None,
) -> dict[str, Any]:
    """
    Train the base as the arm specifies, then measure it on the test scenes.

    Args:
        arm ([`Arm`]): The arm to train.
        seed (`int`): Seed of the training scenes, their order and the sampling.
        settings ([`Settings`]): Settings shared by all arms.
        base (`Path`): The checkpoint to start from; it is not changed.
        report (`Callable`, *optional*): Called with the number of steps done.

    Returns:
        `dict`: Curves, advantage statistics, measures (greedy and sampled) and a few captions.
    """
    # Arms run in parallel; threads within one would only compete for the same cores.
    torch.set_num_threads(1)
    set_seed(seed)
    started = time.monotonic()
    processor = AutoProcessor.from_pretrained(base)
    model: Any = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    if not torch.cuda.is_available():
        model.generate = FastSampler(model)
        share_prompts(model)
    rows = held_out(settings.test_scenes, settings.world)
    shown = [row.scene for row in rows]
    count_tokens = _token_counter(processor)
    on_the_way: dict[int, dict[str, Any]] = {}

    def write() -> dict[str, list[str]]:
        return {
            kind: write_captions(model, processor, shown, settings, seed, do_sample=sample)
            for kind, sample in (("greedy", False), ("sampled", True))
        }

    def look(step: int) -> None:
        report(step)
        if step in HORIZONS and step < settings.steps:
            with torch.random.fork_rng(devices=[]):
                on_the_way[step] = _measured(write(), rows, count_tokens)
            model.train()

    steps: list[dict[str, float]] = []
    if arm.trained:
        steps = _train(arm, seed, settings, model, processor, look)
    trained = time.monotonic()
    captions = write()
    measures = _measured(captions, rows, count_tokens)
    if not arm.trained:
        on_the_way = {step: measures for step in HORIZONS if step < settings.steps}
    return {
        "arm": arm.name,
        "changes": arm.changes(),
        "seed": seed,
        "settings": {**asdict(settings), "base": base_digest(base)},
        "steps": steps,
        "measures": measures,
        "on_the_way": on_the_way,
        "captions": {
            kind: [
                {"caption": text, "reference": row.reference}
                for text, row in list(zip(texts, rows, strict=True))[:2]
            ]
            for kind, texts in captions.items()
        },
        "seconds": {
            "training": round(trained - started, 1),
            "all": round(time.monotonic() - started, 1),
        },
    }


def _measured(
    captions: dict[str, list[str]], rows: Sequence[HeldOut], count_tokens: Callable[[str], int]
) -> dict[str, Any]:
    """The measures of the greedy and the sampled captions, and the sampled ones' rewards, scene by
    scene, in thousandths: what a bootstrap over scenes needs."""
    scores = {kind: scene_scores(texts, rows) for kind, texts in captions.items()}
    columns = zip(*scores["sampled"], strict=True)
    return {
        **{
            kind: measure(texts, rows, count_tokens, scores[kind])
            for kind, texts in captions.items()
        },
        "scenes": {
            name: [None if value is None else round(1000 * value) for value in column]
            for name, column in zip(Scores._fields, columns, strict=True)
        },
    }


def _train(
    arm: Arm,
    seed: int,
    settings: Settings,
    model: Any,
    processor: Any,
    report: Callable[[int], None],
) -> list[dict[str, float]]:
    rng = random.Random(seed)
    wanted = settings.steps * settings.prompts_per_step
    scenes = [random_scene(rng, richness=settings.world) for _ in range(wanted)]
    if arm.fine_tuned:
        fine_tune(
            model,
            processor,
            scenes,
            seed=seed,
            batch=settings.prompts_per_step,
            rate=settings.learning_rate,
        )
    if arm.rewards is None:
        return []
    if arm.references == "base":
        references = write_captions(model, processor, scenes, settings, seed, do_sample=False)
    else:
        write = reference if arm.references == "perfect" else poor_reference
        references = [write(scene, rng) for scene in scenes]
    dataset = Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": PROMPT}]] * len(scenes),
            "image": [draw(scene) for scene in scenes],
            "reference": references,
            "row": list(range(len(scenes))),
        }
    ).cast_column("image", Image())
    with TemporaryDirectory() as folder:
        config = BalCapConfig(
            folder,
            **quiet_arguments(seed),
            max_steps=settings.steps,
            learning_rate=settings.learning_rate * arm.rate,
            per_device_train_batch_size=settings.prompts_per_step * settings.num_generations,
            num_generations=settings.num_generations,
            max_completion_length=settings.max_completion_length,
            reward_weights=list(arm.weights) if arm.rewards == "balanced" else None,
            multi_objective_aggregation=arm.aggregation,
            length_gate=arm.gate,
            length_gate_upper=arm.upper,
            length_gate_tokens=arm.tokens,  # type: ignore[arg-type] (the config makes it a list)
            log_verdicts=0,
            judge_lag=arm.lag,
            credit="assertion" if arm.judged else None,
        )
        trainer = _Watched(
            model,
            balanced_rewards(arm, seed, scenes)
            if arm.rewards == "balanced"
            else field_rewards(arm.rewards, scenes),
            config,
            train_dataset=dataset,
            processing_class=processor,
            callbacks=[_Progress(report)],
        )
        trainer.arm, trainer.scenes = arm, scenes
        trainer.train()
    return trainer.steps


class _Watched(BalCapTrainer):
    """[`BalCapTrainer`] that records, per step, what the plots and tables show. It changes only the
    advantages, and only if the arm has its own."""

    steps: list[dict[str, float]]
    arm: Arm
    scenes: Sequence[Scene]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        rewards = self._rewards_per_func  # (B, K)
        group = self.num_generations
        assert group is not None
        if self.arm.advantages:
            output["advantages"] = VARIANTS[self.arm.advantages](rewards, group)  # (B,)
        advantages = output["advantages"].double()  # (B,)
        if advantages.dim() == 2:  # (B, T), with credit: those of whole captions are in the log
            logged = list(self._logs["advantages"])[-len(rewards) :]
            advantages = torch.tensor(logged, dtype=torch.float64)  # (B,)
        dead = dead_groups(rewards, num_generations=group)  # (P, K)
        each = group_normalize(rewards, num_generations=group)  # (B, K)
        names = [name.removesuffix("_reward") for name in self.reward_func_names]
        spread = rewards.view(len(dead), -1, len(names)).double()  # (P, G, K)
        metrics = self._metrics["train"]
        row = {
            "length": metrics["completions/mean_length"][-1],
            "clipped": metrics["completions/clipped_ratio"][-1],
        }
        texts = list(map(completion_text, list(self._logs["completion"])[-len(rewards) :]))
        judge = {
            "retest_std": retest_std(rewards, texts, group),
            "zeros_among_good": zeros_among_good(rewards, group),
        }
        for side in ("too_short", "too_long"):
            if metrics.get(f"length_gate/{side}"):
                row[side] = metrics[f"length_gate/{side}"][-1]
        for k, name in enumerate(names):
            # With no agreement, agreed recall is missing for all rows and earns nothing.
            row[f"{name}/mean"] = rewards[:, k].nanmean().nan_to_num(0.0).item()
            row[f"{name}/group_std"] = spread[:, :, k].nan_to_num(0.0).std(dim=1).mean().item()
            row[f"{name}/dead"] = dead[:, k].double().mean().item()
            row[f"{name}/correlation"] = _correlation(each[:, k], advantages)
            scored = rewards[~rewards[:, k].isnan(), k].double()
            row[f"{name}/std"] = scored.std().nan_to_num(0.0).item()
            for number, values in judge.items():
                if not values[k].isnan():
                    row[f"{name}/{number}"] = values[k].item()
        self.__dict__.setdefault("steps", []).append(row)
        if self.arm.credit and not self.arm.judged:
            backend = tokenizer_backend(self.processing_class)
            output["advantages"] = output["advantages"][:, None] + sentence_credit(
                self.arm,
                [token_pieces(backend, ids) for ids in self._completion_ids],
                [self.scenes[row["row"]] for row in inputs],
                [row["reference"] for row in inputs],
                rewards[:, names.index("recall")],
                group,
                length=output["completion_ids"].shape[1],
            )  # (B, T)
        return output


def _correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Pearson's, 0 where one of the two is constant."""
    if one.std() == 0 or other.std() == 0:
        return 0.0
    return torch.corrcoef(torch.stack([one, other]))[0, 1].item()


class _Progress(TrainerCallback):
    """Reports each step, and stops a worker whose parent process is gone."""

    def __init__(self, report: Callable[[int], None]):
        self.report = report
        self.parent = os.getppid()

    def on_step_end(self, args, state, control, **kwargs):
        if os.getppid() != self.parent:
            raise SystemExit("the runner has ended")
        self.report(state.global_step)


# ---------------------------------------------------------------------------------------------
# Captions


def write_captions(
    model: Any,
    processor: Any,
    scenes: Sequence[Scene],
    settings: Settings,
    seed: int,
    *,
    do_sample: bool,
) -> list[str]:
    """Captions of scenes, greedy or sampled at temperature 1."""
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    torch.manual_seed(seed)
    model.eval()
    captions: list[str] = []
    for start in range(0, len(scenes), 64):
        batch = scenes[start : start + 64]
        inputs = processor(
            text=[prompt] * len(batch),
            images=[[draw(scene)] for scene in batch],
            padding=True,
            return_mm_token_type_ids=True,
            return_tensors="pt",
        ).to(model.device)
        with torch.no_grad():
            output = model.generate(
                **inputs, do_sample=do_sample, max_new_tokens=settings.max_completion_length
            )
        completions = output[:, inputs["input_ids"].shape[1] :]
        captions += processor.tokenizer.batch_decode(completions, skip_special_tokens=True)
    return captions


def _token_counter(processor: Any) -> Callable[[str], int]:
    tokenizer = processor.tokenizer
    return lru_cache(maxsize=8192)(
        lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
    )

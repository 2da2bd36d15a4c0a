"""Train the shipped captioner from scratch: `trl-balcap scenes captioner --out DIR`.

It first learns perfect captions. It is then weakened on purpose, on captions by an author who
overlooks and confuses things and rambles (`weak_caption`), so that reinforcement learning has
something to fix. Several of these faults depend on the scene and happen more often than not, so
greedy decoding shows them too.
"""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from trl_balcap.scenes.captioner import PROMPT, build_qwen
from trl_balcap.scenes.grammar import (
    META_SENTENCES,
    Faults,
    ThingClaim,
    describe,
    faulty_caption,
    write_sentence,
)
from trl_balcap.scenes.parsing import parse_sentence, split_sentences
from trl_balcap.scenes.world import Scene, draw, random_scene

__all__ = ["WEAK_FAULTS", "build_captioner", "train_on", "weak_caption"]

WEAK_FAULTS = Faults(
    wrong=0.08,
    vague=0.08,
    omit=0.08,
    invent=0.12,
    meta=0.06,
    repeat=0.05,
    broken=0.06,
    short=0.10,
    long=0.10,
)
"""The weak author's faults that do not depend on the scene."""

_CONFUSED = 0.55  # chance that purple is called blue, and a triangle a star
_OVERLOOKED = 0.55  # chance that things in the bottom row are overlooked
_CARELESS = 0.55  # chance that a thing in the right column is listed without a verb
_COUNT_AGAIN = 0.55  # chance that the count is repeated after the first thing, if it is large
_REMARK = 0.55  # chance that the caption ends with a favourite remark


def weak_caption(scene: Scene, rng: random.Random) -> str:
    """A caption by the weak author.

    Args:
        scene (`Scene`): What to describe.
        rng (`random.Random`): Source of randomness; the same state gives the same caption.

    Returns:
        `str`: The caption.

    Example:

    ```python
    >>> scene = random_scene(random.Random(4))
    >>> weak_caption(scene, random.Random(0)) == weak_caption(scene, random.Random(0))
    True

    ```
    """
    seen = []
    for thing in scene.things:
        if thing.colour == "purple" and rng.random() < _CONFUSED:
            thing = replace(thing, colour="blue")
        if thing.shape == "triangle" and rng.random() < _CONFUSED:
            thing = replace(thing, shape="star")
        seen.append(thing)
    overlook = rng.random() < _OVERLOOKED
    sentences = []
    for sentence in split_sentences(faulty_caption(Scene(tuple(seen)), rng, WEAK_FAULTS)):
        claim = parse_sentence(sentence)
        if isinstance(claim, ThingClaim):
            if overlook and claim.row == "bottom":
                continue
            if claim.column == "right" and rng.random() < _CARELESS:
                sentence = write_sentence(replace(claim, well_formed=False))
        sentences.append(sentence)
    if len(sentences) > 1 and " large " in sentences[1] and rng.random() < _COUNT_AGAIN:
        sentences.insert(2, sentences[0])
    if rng.random() < _REMARK:
        sentences.append(META_SENTENCES[0])
    return " ".join(sentences)


def train_on(
    write: Callable[[Scene, random.Random], str],
    model,
    processor,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    batch_size: int = 32,
    pool: int = 1,
    sample: Callable[[random.Random], Scene] = random_scene,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Teach a captioner to write like `write`: AdamW, warm-up, cosine decay, and cross-entropy on
    the caption only.

    Args:
        write (`Callable`): `write(scene, rng)` returns the caption to learn.
        model, processor: The captioner, changed in place.
        steps (`int`): Optimiser steps.
        learning_rate (`float`): Peak learning rate.
        seed (`int`): Seed for scenes and captions.
        batch_size (`int`, *optional*, defaults to `32`): Scenes per step.
        pool (`int`, *optional*, defaults to `1`):
            Batches drawn at a time and sorted by length, which saves padding when lengths vary a
            lot.
        sample (`Callable`, *optional*, defaults to [`random_scene`]): Draws a scene to train on.
        report (`Callable`, *optional*): Called with a line of progress, twenty times in total.
    """
    rng = random.Random(seed)
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]},
    ]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    decayed = [weight for weight in model.parameters() if weight.dim() >= 2]
    others = [weight for weight in model.parameters() if weight.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=learning_rate,
        betas=(0.9, 0.98),
    )
    warmup = min(30, steps // 5)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.05 + 0.475 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    batches: list[list[tuple[Scene, str]]] = []
    model.train()
    for step in range(1, steps + 1):
        if not batches:
            batches = _pool_of_batches(write, rng, batch_size, pool, sample)
        scenes, captions = zip(*batches.pop(), strict=True)
        batch = processor(
            text=[prompt + caption for caption in captions],
            images=[[draw(scene)] for scene in scenes],
            padding=True,
            return_tensors="pt",
        )
        lengths = [len(ids) for ids in processor.tokenizer(list(captions))["input_ids"]]
        labels = torch.full_like(batch["input_ids"], -100)  # (B, T)
        for row, length in enumerate(lengths):  # padding is on the left, so captions end together
            labels[row, -length:] = batch["input_ids"][row, -length:]
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % max(1, steps // 20) == 0:
            report(f"step {step} of {steps}: loss {loss.item():.3f}")
    model.eval()


def _pool_of_batches(
    write: Callable[[Scene, random.Random], str],
    rng: random.Random,
    batch_size: int,
    pool: int,
    sample: Callable[[random.Random], Scene],
) -> list[list[tuple[Scene, str]]]:
    """`pool` batches in random order, each of captions of similar length."""
    scenes = [sample(rng) for _ in range(pool * batch_size)]
    pairs = [(scene, write(scene, rng) + "<|im_end|>") for scene in scenes]
    pairs.sort(key=lambda pair: len(pair[1]))
    batches = [pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size)]
    rng.shuffle(batches)
    return batches


def build_captioner(
    out: str | Path,
    *,
    seed: int = 0,
    clean_steps: int = 700,
    weak_steps: int = 600,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """
    Build the captioner and save it in half precision. This takes about ten minutes on one core.

    Args:
        out (`str` or `Path`): Output folder.
        seed (`int`, *optional*, defaults to `0`): Seed for weights, scenes and captions.
        clean_steps (`int`, *optional*, defaults to `700`): Steps on perfect captions.
        weak_steps (`int`, *optional*, defaults to `600`): Steps on captions by the weak author.
        report (`Callable`, *optional*): Called with each line of progress.
    """
    build_qwen(Path(out), seed=seed, hidden_size=128, num_layers=3)
    processor = AutoProcessor.from_pretrained(out)
    model = AutoModelForImageTextToText.from_pretrained(out, dtype="float32")
    for write, steps, learning_rate, pool in (
        (lambda scene, rng: describe(scene, rng), clean_steps, 1e-3, 1),
        (weak_caption, weak_steps, 8e-4, 8),
    ):
        train_on(
            write,
            model,
            processor,
            steps=steps,
            learning_rate=learning_rate,
            seed=seed,
            pool=pool,
            report=report,
        )
    model.save_pretrained(out)
    # Load in half precision so that every part of the configuration records it too.
    halved = AutoModelForImageTextToText.from_pretrained(out, dtype="bfloat16")
    halved.save_pretrained(out)

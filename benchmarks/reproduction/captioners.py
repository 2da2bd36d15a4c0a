"""Builds the three captioners from which the rich arms start: `right`, `short` and `long`.

    python -m benchmarks.reproduction.captioners --out benchmarks/captioners

All three begin as the shipped captioner of small scenes, whose eyes and words they keep, learn the
references of rich scenes together, and are then weakened one by one on captions by the authors in
`WEAK_AUTHORS`, which are about as long as the reference, a third of it, and three times as long.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from trl_balcap.scenes.authors import WEAK_AUTHORS
from trl_balcap.scenes.build_captioner import train_on
from trl_balcap.scenes.captioner import build_qwen, captioner_path
from trl_balcap.scenes.grammar import reference
from trl_balcap.scenes.lexicon import WORDS
from trl_balcap.scenes.world import Scene, random_scene

__all__ = ["LENGTHS", "begin", "build", "learn"]

LENGTHS = ("right", "short", "long")
WEAK = {"right": 500, "short": 300, "long": 300}
_RATE = 1e-3
_LIKE = {"upper": "middle", "lower": "middle", "object": "thing", "far": "top", "near": "middle"}
"""Words of the rich world that start as a word of the small one, besides the synonyms."""


def begin(out: Path, seed: int = 0) -> None:
    """
    Write a captioner for rich scenes with the weights of the shipped one. Words that only the rich
    world has start as their first synonym, or as the word in `_LIKE`.

    Args:
        out (`Path`): Output folder.
        seed (`int`, *optional*, defaults to `0`): Seed of the embeddings of all other new tokens.
    """
    build_qwen(out, seed=seed, hidden_size=128, num_layers=3, richness="rich")
    model: Any = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32)
    shipped: Any = AutoModelForImageTextToText.from_pretrained(
        captioner_path(), dtype=torch.float32
    )
    known = AutoProcessor.from_pretrained(captioner_path()).tokenizer.get_vocab()
    words = AutoProcessor.from_pretrained(out).tokenizer.get_vocab()
    like = _LIKE | {
        word: value
        for values in WORDS.values()
        for value, all_words in values.items()
        for word in all_words
    }
    old = shipped.get_input_embeddings().weight.detach()
    generator = torch.Generator().manual_seed(seed)
    new = old.std() * torch.randn(len(words), old.shape[1], generator=generator)
    for token, row in words.items():
        word = token.removeprefix("Ġ")
        start = token if token in known else "Ġ" + like.get(word, "")
        if start in known:
            new[row] = old[known[start]] + 0.1 * new[row] * (start != token)
    state = shipped.state_dict()
    for name in [name for name in state if "embed_tokens" in name or "lm_head" in name]:
        state[name] = new
    model.load_state_dict(state)
    model.save_pretrained(out)


def listed(scene: Scene, rng: random.Random) -> str:
    """A list of all things in any order: "Top far left large red circle." No text tells more about
    a picture per token."""
    things = rng.sample(scene.things, len(scene.things))
    return " ".join(
        f"{thing.row.capitalize()} {thing.column} {thing.size} {thing.colour} {thing.shape}."
        for thing in things
    )


LESSONS: tuple[tuple[Callable[[Scene, random.Random], str], tuple[int, int], int, int], ...] = (
    (reference, (2, 6), 200, 0),
    (reference, (8, 12), 300, 0),
    (listed, (8, 16), 150, 0),
    (reference, (8, 12), 600, 1),
)
"""What the captioners learn before they are weakened: texts, number of things, steps, and what is
added to the seed."""


def learn(
    model: Any,
    processor: Any,
    *,
    seed: int,
    report: Callable[[str], None],
    lessons: Sequence[Any] = LESSONS,
) -> None:
    """Teach the captioner to see rich scenes, and the language of their references."""
    for write, n_things, steps, added in lessons:
        train_on(
            write,
            model,
            processor,
            steps=steps,
            learning_rate=_RATE,
            seed=seed + added,
            pool=8,
            sample=partial(random_scene, n_things=n_things, richness="rich"),
            report=report,
        )


def build(
    out: Path,
    lengths: tuple[str, ...] = LENGTHS,
    *,
    clean: Path | None = None,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> None:
    """
    Build the captioners, each in a folder of `out` named after its length.

    Args:
        out (`Path`): Output folder.
        lengths (`tuple[str, ...]`, *optional*): Keys of `WEAK_AUTHORS`.
        clean (`Path`, *optional*):
            Folder of the captioner that has learnt the references; it is written if it does not
            exist. Without it, that captioner is not kept.
        seed (`int`, *optional*, defaults to `0`): Seed for weights, scenes and captions.
        report (`Callable`, *optional*): Called with each line of progress.
    """
    with TemporaryDirectory() as folder:
        clean = clean or Path(folder)
        if not (clean / "config.json").exists():
            begin(clean, seed)
            model, processor = _loaded(clean)
            learn(model, processor, seed=seed, report=report)
            model.save_pretrained(clean)
        for length in lengths:
            model, processor = _loaded(clean)
            write: Callable[[Scene, random.Random], str] = WEAK_AUTHORS[length]
            train_on(
                write,
                model,
                processor,
                steps=WEAK[length],
                learning_rate=0.8 * _RATE,
                seed=seed,
                batch_size=16 if length == "long" else 32,
                pool=8,
                sample=partial(random_scene, richness="rich"),
                report=lambda line, length=length: report(f"{length}: {line}"),
            )
            _save_halved(model, processor, out / length)


def _loaded(folder: Path) -> tuple[Any, Any]:
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    return model, AutoProcessor.from_pretrained(folder)


def _save_halved(model: Any, processor: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    # Loaded in half precision so that every part of the configuration records it too.
    halved = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16)
    halved.save_pretrained(folder)
    processor.save_pretrained(folder)


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/captioners"))
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS, default=LENGTHS)
    parser.add_argument("--clean", type=Path, help="keep (or reuse) the captioner before weakening")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    build(asked.out, tuple(asked.lengths), clean=asked.clean)


if __name__ == "__main__":
    main()

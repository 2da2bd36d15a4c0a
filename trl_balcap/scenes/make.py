"""Scenes as a captioning dataset: in memory, or in a folder like a user's own data."""

import json
import random
from pathlib import Path
from typing import Any

from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.world import draw, random_scene

__all__ = ["scene_rows", "write_scenes"]


def scene_rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Scenes with their perfect captions as references.

    Args:
        n (`int`): Number of scenes.
        seed (`int`, *optional*, defaults to `0`):
            The same seed gives the same rows; increasing `n` only appends rows.

    Returns:
        `list[dict]`: Rows with `image` (`PIL.Image.Image`) and `reference` (`str`).

    Raises:
        `ValueError`: if `n` is negative.

    Example:

    ```python
    >>> [row] = scene_rows(1, seed=3)
    >>> row["image"].size, row["reference"].split(".")[0]
    ((84, 84), 'There are two things')

    ```
    """
    if n < 0:
        raise ValueError(f"n (number of scenes) must be 0 or more, got {n}.")
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        scene = random_scene(rng)
        rows.append({"image": draw(scene), "reference": describe(scene, rng)})
    return rows


def write_scenes(folder: str | Path, n: int, seed: int = 0) -> Path:
    """Write scenes as PNG files, along with a `captions.jsonl`.

    Args:
        folder (`str` or `Path`): Output folder; created if missing.
        n (`int`): Number of scenes.
        seed (`int`, *optional*, defaults to `0`): The same seed gives the same files.

    Returns:
        `Path`: The `captions.jsonl`, with lines such as `{"image": "images/000.png", "reference":
        "..."}`.

    Raises:
        `FileExistsError`: if the folder already contains a `captions.jsonl`.
    """
    folder = Path(folder)
    captions = folder / "captions.jsonl"
    if captions.exists():
        raise FileExistsError(
            f"{captions} already exists and is not overwritten. "
            "Choose another folder, or remove this one."
        )
    (folder / "images").mkdir(parents=True, exist_ok=True)
    digits = max(3, len(str(n - 1)))
    with captions.open("w", encoding="utf-8") as file:
        for number, row in enumerate(scene_rows(n, seed)):
            name = f"images/{number:0{digits}}.png"
            row["image"].save(folder / name)
            file.write(json.dumps({"image": name, "reference": row["reference"]}) + "\n")
    return captions

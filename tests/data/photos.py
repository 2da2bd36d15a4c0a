"""Public-domain photographs, and rows and files made of them."""

import json
from pathlib import Path

import skimage

PHOTOS = Path(skimage.__file__).parent / "data"  # in the wheel
ASTRONAUT = PHOTOS / "astronaut.png"  # 512 x 512, NASA
ROCKET = PHOTOS / "rocket.jpg"  # 640 x 427, SpaceX


ROWS = [
    {"image": "pictures/red.png", "reference": "A red board.", "id": 1},
    {"image": "pictures/clear.png", "reference": "Nothing at all.", "id": 2},
]
"""Rows of the images that the fixture `folder` draws."""


def write_jsonl(file: Path, rows: list[dict]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def cut(file: Path, share: float, to: Path) -> Path:
    content = file.read_bytes()
    to.write_bytes(content[: int(len(content) * share)])
    return to

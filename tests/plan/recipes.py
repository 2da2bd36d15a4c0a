"""The models, the files and the photo that the plans here are made from."""

import json
from pathlib import Path

import skimage

QWEN_3B, QWEN_7B = "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"
LLAVA = "llava-hf/llava-1.5-7b-hf"


def write(file: Path, text: str) -> str:
    file.write_text(text, encoding="utf-8")
    return str(file)


def captions_folder(folder: Path, words: int = 100) -> Path:
    photo = Path(skimage.__file__).parent / "data" / "coffee.png"  # 600 x 400
    rows = [{"image": str(photo), "reference": "word " * words}] * 12
    write(folder / "captions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return folder

"""Images, and what each benchmark asks about them."""

import json

import pytest
from PIL import Image

from tests.evals.scripted import QUESTIONS


@pytest.fixture
def folder(tmp_path):
    for place in range(3):
        Image.new("RGB", (32, 24), (80 * place, 0, 0)).save(tmp_path / f"test_{place}.jpg")
    return tmp_path


@pytest.fixture
def facts(folder):
    path = folder / "facts.jsonl"
    path.write_text(
        "".join(
            json.dumps(
                {
                    "image_name": f"test_{place}.jpg",
                    "oracle_caption": "A cup on a table.",
                    "oracle_facts": ["cup", "table"],
                }
            )
            + "\n"
            for place in range(3)
        )
    )
    return path


@pytest.fixture
def questions(folder):
    path = folder / "questions.json"
    data = [
        {"id": "nat_1", "questions": [q | {"category": ["Kind - One"]} for q in QUESTIONS]},
        {"id": "doc_1", "questions": [QUESTIONS[0] | {"category": ["Kind - Two"]}]},
    ]
    path.write_text(json.dumps(data))
    return path


@pytest.fixture
def references(folder):
    names = ["GPT-4o-0806", "CogVLM2-llama3-chat-19B", "MiniCPM-V2.6-8B"]
    path = folder / "caparena_auto_600.json"
    data = {
        f"test_{place}.jpg": {
            "captions": {"human": "h", **dict.fromkeys(names, "a cup on it")},
            "ref_model": name,
        }
        for place, name in enumerate(names)
    }
    path.write_text(json.dumps(data))
    return path

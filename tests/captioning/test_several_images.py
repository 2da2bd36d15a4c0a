"""Rows of several images: whoever captions, asks or checks sees all of them, and none is lost."""

import json

import pytest
from PIL import Image

from trl_balcap.captioning.listing import list_images
from trl_balcap.cli import main
from trl_balcap.scenes.server import serve


class Seeing:
    """Counts the images in front of it, and answers whatever it is asked."""

    def __init__(self):
        self.images: dict[str, int] = {}

    def __call__(self, messages):
        content = messages[-1]["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = parts[-1]["text"]
        shown = sum(part["type"] == "image_url" for part in parts)
        if not text.startswith("{"):
            self.images["recaption"] = shown  # the check's comes first
            return "A red square and a blue one are there."
        asked = json.loads(text)
        if asked["question"] != "quiz" or shown:
            self.images[asked["question"]] = shown
        reply = {
            "preflight": {"ready": True},
            "decompose": {"assertions": ["A red square is there."]},
            "verify": {"verdicts": [{"id": 1, "correct": True, "pointable": True}]},
            "ask": {"questions": [{"question": "Which?", "choices": ["a", "b"], "answer": 1}]},
            "quiz": {"choice": 0},
        }[asked["question"]]
        if asked["question"] == "quiz" and shown:
            reply = {"choice": next(o["id"] for o in asked["options"] if o["text"] == "a")}
        return json.dumps({**reply, "ticket": asked["ticket"]})


@pytest.fixture
def listed(tmp_path):
    for name in ("red", "blue"):
        Image.new("RGB", (64, 64), name).save(tmp_path / f"{name}.png")
    row = {"id": "7", "images": ["red.png", "blue.png"], "prompt": "Compare.", "source": 3}
    (tmp_path / "list.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path / "list.jsonl"


def only_row(path) -> dict:
    [line] = path.read_text().splitlines()
    return json.loads(line)


def test_all_of_them_are_captioned_asked_about_and_checked(listed):
    judge = Seeing()
    refs, asked, clean = (listed.with_name(f"{name}.jsonl") for name in ("refs", "asked", "clean"))
    with serve(answer=judge) as server:
        there = ["--api-base", server.url, "--yes"]
        command = ["recaption", str(listed), "--model", "openai/m", "--out", str(refs)]
        assert main([*command, *there]) == 0
        command = ["make-questions", str(refs), "--judge", "openai/m", "--out", str(asked)]
        assert main([*command, *there]) == 0
        command = ["references", str(asked), "--judge", "openai/m", "--out", str(clean)]
        assert main([*command, *there]) == 0
    for question in ("recaption", "ask", "quiz", "verify"):
        assert judge.images[question] == 2, question

    row = only_row(clean)
    assert row["images"] == ["red.png", "blue.png"]
    assert row["reference"] == "A red square and a blue one are there."
    # What else the list had, and what the questions added.
    assert (row["prompt"], row["source"]) == ("Compare.", 3)
    assert row["questions"] == [{"question": "Which?", "choices": ["a", "b"], "answer": "a"}]
    [again] = list_images(clean)
    assert [path.name for path in again.paths] == ["red.png", "blue.png"]


def test_a_row_is_left_out_if_one_of_them_cannot_be_read(listed, capsys):
    listed.with_name("blue.png").write_bytes(b"")
    out = listed.with_name("refs.jsonl")
    with serve(answer=Seeing()) as server:
        command = ["recaption", str(listed), "--model", "openai/m", "--out", str(out), "--yes"]
        assert main([*command, "--api-base", server.url]) == 1
    assert "blue.png: the file is empty" in capsys.readouterr().out
    row = {"id": "7", "images": ["red.png", "blue.png"], "reference": "Two squares are there."}
    listed.write_text(json.dumps(row) + "\n")
    assert main(["references", str(listed), "--out", str(out)]) == 0
    assert "0 rows kept, 1 left out" in capsys.readouterr().out

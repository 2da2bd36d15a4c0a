"""docs/your-photos.md, typed in its order on nine public-domain photographs, with a scripted model."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import skimage

from trl_balcap.cli import main
from trl_balcap.data import load_captions
from trl_balcap.scenes.server import serve

PAGE = (Path(__file__).parents[1] / "docs" / "your-photos.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
            for line in block.splitlines()]  # fmt: skip
PHOTOS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
CAPTION = "There is a thing in the middle. It is made of light and shade."


def scripted(messages) -> str:
    """A model that sees the same thing everywhere, and judges every second unit as wrong."""
    content = messages[-1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    if not text.startswith("{"):
        return f"{CAPTION} It takes {len(content[0]['image_url']['url'])} bytes."
    asked = json.loads(text)
    verdicts = [
        {"id": one["id"], "correct": one["id"] % 2 == 1, "pointable": True, "covered": True}
        for one in asked.get("units", asked.get("assertions", []))
    ]
    reply = {
        "preflight": {"ready": True},
        "decompose": {"assertions": re.findall(r"[^.]+\.", asked.get("text", ""))},
        "verify": {"verdicts": [_without(one, "covered") for one in verdicts]},
        "cover": {"verdicts": [_without(one, "correct", "pointable") for one in verdicts]},
        "linguistic": {"clarity": 8, "fluency": 9, "coherency": 9},
    }[asked["question"]]
    return json.dumps({**reply, "ticket": asked["ticket"]})


def _without(row: dict, *names: str) -> dict:
    return {name: value for name, value in row.items() if name not in names}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    data = Path(skimage.__file__).parent / "data"
    (tmp_path / "photos").mkdir()
    for name in PHOTOS:
        shutil.copy(data / name, tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_from_top_to_bottom(folder, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody")
    shown = []
    with serve(answer=scripted) as server:
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        for command in COMMANDS:
            program, *words = shlex.split(command)
            assert program == "trl-balcap"
            assert main(words) == 0, command
            shown.append(capsys.readouterr().out)
    written, best, looked = shown
    # At an address of one's own no price is known, whatever the model is called.
    assert "9 images, 0 done already: 9 captions by openai/gpt-5-mini, price unknown" in written
    assert "refs.jsonl: 9 references written" in written
    # 9 images x 3 samples: split, look, grade; 9 x 3 x 2 coverages.
    assert "27 captions by openai/gpt-5-mini, 135 questions to openai/gpt-4o-mini" in best
    assert "Judged 9 of 9: units wrong 33.3%" in looked  # the second of three
    assert "9 rows kept, 0 left out" in looked
    dataset = load_captions("clean.jsonl")
    assert sorted(Path(row["id"]).name for row in dataset) == list(PHOTOS)
    assert all(row["image"].mode == "RGB" for row in dataset)
    assert all(row["reference"].startswith(CAPTION) for row in dataset)

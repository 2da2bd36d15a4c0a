"""docs/your-photos.md, typed in its order on nine public-domain photographs, with a scripted
model."""

import contextlib
import json
import re
import runpy
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import skimage

from trl_balcap.cli import main
from trl_balcap.data import load_captions
from trl_balcap.scenes.server import serve

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your-photos.md").read_text(encoding="utf-8")
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
    parts: list[Any] = [{"text": content}] if isinstance(content, str) else content
    text = parts[-1]["text"]
    if not text.startswith("{"):
        return f"{CAPTION} It takes {len(parts[0]['image_url']['url'])} bytes."
    asked = json.loads(text)
    verdicts = [
        {"id": one["id"], "correct": one["id"] % 2 == 1, "pointable": True, "covered": True}
        for one in asked.get("units", asked.get("assertions", []))
    ]
    reply = {
        "preflight": {"ready": True},
        "decompose": {"assertions": re.findall(r"[^.]+\.?", asked.get("text", ""))},
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
    assert "9 images, 0 already done: 9 captions by openai/gpt-5-mini, price unknown" in written
    assert "refs.jsonl: 9 references written" in written
    # 9 images x 3 samples: split, look, grade; 9 x 3 x 2 coverages.
    assert "27 captions by openai/gpt-5-mini, 135 questions to openai/gpt-4o-mini" in best
    assert "Judged 9 of 9: units wrong 33.3%" in looked  # the second of three
    assert "9 rows kept, 0 left out" in looked
    dataset: list[Any] = list(load_captions("clean.jsonl"))
    assert sorted(Path(row["id"]).name for row in dataset) == list(PHOTOS)
    assert all(row["image"].mode == "RGB" for row in dataset)
    assert all(row["reference"].startswith(CAPTION) for row in dataset)


def transcript() -> list[tuple[str, list[str]]]:
    """Each command that the page types after `$`, with the lines that it shows for it."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL))
    typed = []
    for part in blocks.removeprefix("$ ").split("\n$ "):
        command, *shown = part.rstrip("\n").split("\n")
        typed.append((command, [line for line in shown if line != "..."]))
    return typed


def without_numbers(text: str) -> str:
    return re.sub(r"\d[\d,.]*", "#", text)


def test_the_transcript_is_what_the_commands_say(folder, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody")
    (folder / "examples").symlink_to(ROOT / "examples")
    rows = [{"image": f"photos/{name}", "reference": f"{CAPTION} {name}."} for name in PHOTOS]
    (folder / "clean.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serve(answer=scripted) as server:
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        for command, shown in transcript():
            program, *words = shlex.split(command)
            if program == "python":
                monkeypatch.setattr("sys.argv", words)
                runpy.run_path(words[0], run_name="__main__")
            else:
                with contextlib.suppress(SystemExit):  # the first plan refuses
                    main(words)
            said = capsys.readouterr()
            lines = without_numbers(said.out + said.err).splitlines()
            missing = [line for line in shown if without_numbers(line) not in lines]
            assert not missing, f"{command}\n{said.out}{said.err}"
    assert len(load_captions("after.jsonl")) == 9

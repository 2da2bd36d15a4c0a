"""Runs that append to a file: resumed on the same images, one at a time, whatever the names."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from trl_balcap.cli import main
from trl_balcap.data import load_captions
from trl_balcap.data.rows import json_line, only_writer, read_jsonl
from trl_balcap.scenes.server import serve


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for place, name in enumerate(("a", "b", "c")):
        Image.new("RGB", (64, 64), (80 * place, 0, 0)).save(folder / f"{name}.png")
    return folder


def run(photos, out, server, command="recaption", *more) -> int:
    words = [command, str(photos), "--out", str(out), "--api-base", server.url, *more]
    if command == "recaption":
        return main([*words, "--model", "openai/m", "--yes"])
    return main([*words[:1], "openai/m", *words[1:]])


def said(messages):
    return "A square is there."


def ids(path) -> list[str]:
    return sorted(row["id"] for _, row in read_jsonl(path))


@pytest.mark.parametrize("name", ["metadata.jsonl", "captions.jsonl"])
@pytest.mark.parametrize("command", ["recaption", "caption"])
def test_a_file_in_the_folder_is_not_the_list_of_its_own_run(photos, name, command, capsys):
    """`load_captions(photos)` reads such a file. Half done, it has only some of the images."""
    out = photos / name
    with serve(answer=said) as server:
        assert run(photos, out, server, command) == 0
        first, *_ = out.read_text().splitlines(keepends=True)
        out.write_text(first + '{"id": "b.')
        assert run(photos, out, server, command) == 0
    assert ids(out) == ["a.png", "b.png", "c.png"]
    assert " 2 " in capsys.readouterr().out.splitlines()[-1]
    assert len(load_captions(photos)) == 3


def test_references_are_not_those_of_other_images_of_the_same_names(photos, tmp_path, capsys):
    out = tmp_path / "refs.jsonl"
    others = shutil.copytree(photos, tmp_path / "others")
    with serve(answer=said) as server:
        assert run(photos, out, server) == 0
        with pytest.raises(SystemExit):
            run(others, out, server)
    assert "'a.png' is now another image" in capsys.readouterr().err
    assert len(ids(out)) == 3


@pytest.mark.parametrize("command", ["recaption", "caption"])
def test_two_runs_do_not_write_to_one_file(photos, tmp_path, command, capsys):
    out = tmp_path / "refs.jsonl"
    with serve(answer=said) as server:
        with only_writer(out), pytest.raises(SystemExit):
            run(photos, out, server, command)
        assert "Another run is writing to" in capsys.readouterr().err
        assert not out.exists()
        assert run(photos, out, server, command) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "refs.jsonl"]


def test_a_killed_run_does_not_keep_others_out(tmp_path):
    out = tmp_path / "refs.jsonl"
    program = (
        "import pathlib, sys\n"
        "from trl_balcap.data.rows import only_writer\n"
        "with only_writer(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()"
    )
    words = [sys.executable, "-c", program, str(out)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match="Another run is writing"), only_writer(out):
            pass
        other.kill()
    with only_writer(out):
        pass
    assert list(tmp_path.iterdir()) == []


def test_names_and_replies_that_are_not_utf_8(photos, capsys):
    """Half a pair of surrogates, as a reply's JSON may have it; names of files from old disks."""
    odd = os.path.join(os.fsencode(photos), b"caf\xe9.png").decode("utf-8", "surrogateescape")
    shutil.copy(photos / "a.png", odd)
    shutil.copy(photos / "a.png", photos / "two\nlines, ümläut.png")
    out = photos / "metadata.jsonl"
    with serve(answer=lambda messages: "A square. \ud83d") as server:
        assert run(photos, out, server) == 0
    shown = capsys.readouterr().out
    assert "its name is not UTF-8, which datasets need; rename the file" in shown
    loaded = load_captions(photos)
    assert set(loaded["reference"]) == {"A square. \N{REPLACEMENT CHARACTER}"}
    assert sorted(loaded["id"]) == ["a.png", "b.png", "c.png", "two\nlines, ümläut.png"]
    out.unlink()
    with pytest.raises(ValueError, match="its name is not UTF-8"):
        load_captions(photos, references=False)


def test_a_line_can_be_written_whatever_is_in_it(tmp_path):
    row = {"text": "\ud83d", "other": "ß"}
    (tmp_path / "a.jsonl").write_text(json_line(row), encoding="utf-8")
    assert json.loads((tmp_path / "a.jsonl").read_text()) == row


@pytest.mark.parametrize("reply", [" ", "\n\t", "\u200b"])
def test_a_reply_without_words_is_no_reference(photos, tmp_path, reply, capsys):
    out = tmp_path / "refs.jsonl"
    with serve(answer=lambda messages: reply) as server:
        assert run(photos, out, server) == 1
    assert "a.png: the model wrote nothing." in capsys.readouterr().out
    assert ids(out) == []

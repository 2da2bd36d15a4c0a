"""`trl-balcap references`: what is wrong with references, by their text and by a judge."""

import asyncio
import json

import pytest

from trl_balcap import Judge, RecallReward
from trl_balcap.cli import main
from trl_balcap.data import load_captions
from trl_balcap.scenes.make import write_scenes
from trl_balcap.scenes.oracle import Oracle
from trl_balcap.scenes.server import serve

SOUND = "There is a dog on the mat, and it is looking at the cat."


@pytest.fixture
def references(tmp_path):
    """Six drawn scenes with their references, and rows spoilt in five ways."""
    file = write_scenes(tmp_path / "scenes", 6)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["reference"] = "I'm sorry, but I can't describe this."
    rows[1]["reference"] = rows[2]["reference"] = SOUND
    rows[3]["reference"] = "Der Hund liegt auf der Matte und die Katze ist nicht da."
    rows[4]["reference"] = (
        "In this image, " + rows[4]["reference"][0].lower() + rows[4]["reference"][1:]
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_what_is_wrong_is_counted_and_left_out(references, tmp_path, capsys):
    out = tmp_path / "clean" / "refs.jsonl"
    assert main(["references", str(references), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    counts = dict(
        line.rsplit(maxsplit=1) for line in shown.splitlines() if line.strip()[-1:].isdigit()
    )
    found = {name.strip(): int(n) for name, n in counts.items() if n.isdigit()}
    assert found["refusal"] == found["language"] == found["opener"] == 1
    assert found["duplicate"] == 2
    assert found["empty"] == found["too long"] == 0
    assert "2 rows kept, 4 left out" in shown
    assert "German 1" in shown
    kept = load_captions(out)
    assert [image.size for image in kept["image"]] == [(84, 84)] * 2
    assert not any(text.startswith("In this image") for text in kept["reference"])
    assert kept["reference"][0][0].isupper()


def test_a_judge_names_units_that_are_wrong(references, tmp_path, capsys):
    rows = [json.loads(line) for line in references.read_text().splitlines()]
    rows = [row | {"reference": "There is a large purple crown."} for row in rows[4:5]] + rows[5:]
    references.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "clean.jsonl"
    words = ["references", str(references), "--out", str(out), "--judge", "scenes/oracle"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "2 references to judge: 4 questions, about $0.00" in shown
    assert "Judged 2 of 2: units wrong" in shown
    assert "1 of 1 units" in shown
    assert "1 rows kept, 1 left out" in shown


@pytest.mark.parametrize("profile", ["questions", "fused", "united"])
def test_references_that_were_split_beforehand_are_not_asked_in_training(
    profile, references, tmp_path, capsys
):
    """Two sound rows, one with an opener that the cleaned file lacks: two questions, then none."""
    out, cache = tmp_path / "clean.jsonl", str(tmp_path / "cache")
    words = ["references", str(references), "--out", str(out), "--sample", "0", "--split"]
    words += ["--judge", "scenes/oracle", "--profile", profile]
    assert main([*words, "--cache", cache]) == 0
    assert "Split 2 of 2 references, 0 from cache." in capsys.readouterr().out
    assert main([*words, "--cache", cache]) == 0  # resumed
    assert "Split 2 of 2 references, 2 from cache." in capsys.readouterr().out

    kept = load_captions(out)
    captions = ["The mood is cosy.", "The scene feels calm."]
    judge = Judge("scenes/oracle", cache=cache, profile=profile)
    scored = RecallReward(judge)(["", ""], captions, reference=list(kept["reference"]))
    assert asyncio.run(scored) == [0.0, 0.0]
    asked = {name: n for name, n in judge.stats.calls_of.items() if name != "preflight"}
    assert (
        asked
        == {
            "questions": {"decompose": 2, "cover": 2},  # the captions
            "fused": {"read": 2},
            "united": {"parse": 2, "cover": 2},
        }[profile]
    )


def test_splitting_needs_a_cache_and_says_what_failed(references, tmp_path, capsys):
    words = ["references", str(references), "--sample", "0", "--split", "--judge"]
    with pytest.raises(SystemExit):
        main([*words, "scenes/oracle"])
    assert "Pass --cache FOLDER" in capsys.readouterr().err

    def answer(messages):
        return "No." if "Der Hund" in str(messages[-1]) else Oracle()(messages)

    with serve(answer=answer) as server:
        words += ["openai/m", "--api-base", server.url, "--cache", str(tmp_path / "cache"), "--yes"]
        assert main(words) == 1
        shown = " ".join(capsys.readouterr().out.split())
        assert "Split 4 of 5 references, 0 from cache." in shown  # two of six rows are equal
        assert "Not split: unreadable: 1." in shown


def test_lengths_are_held_against_the_recipe(references, capsys):
    """A gate from 0.5 closes on every caption where half the reference is over the bound."""
    assert main(["references", str(references), "--max-completion-length", "5"]) == 0
    shown = capsys.readouterr().out
    assert "too long" in shown
    assert "longer than 5 tokens" in shown
    assert "(estimated; pass --tokenizer to count them)" in shown


def test_a_row_whose_image_cannot_be_read_is_left_out(references, tmp_path, capsys):
    (references.parent / "images" / "005.png").write_bytes(b"")
    out = tmp_path / "clean.jsonl"
    assert main(["references", str(references), "--out", str(out)]) == 0
    assert "1 rows kept, 5 left out" in capsys.readouterr().out
    assert len(load_captions(out)) == 1


def test_a_file_without_references_names_the_way_out(tmp_path, capsys):
    file = write_scenes(tmp_path / "scenes", 1)
    with pytest.raises(SystemExit):
        main(["references", str(file.parent / "images")])
    assert "has no references. Write some with `trl-balcap recaption`" in capsys.readouterr().err

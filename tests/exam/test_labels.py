"""One's own labels: a template is written, filled in, and judges are held against it."""

import csv
import json

import pytest

from trl_balcap.cli import main
from trl_balcap.data.rows import BadRowsError
from trl_balcap.exam.labels import read_labels
from trl_balcap.scenes.oracle import Oracle
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.world import Scene, Thing, draw

STAR = "The top left shows a red star."
SQUARE = "The top right shows a blue square."  # not there
MOOD = "The mood is cosy."
EXAM = ["exam", "--judge", "scenes/oracle", "--captions", "8", "--labels", "labels.csv", "--yes"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    draw(Scene((Thing("red", "star", "large", "top", "left"),)), large=True).save(
        tmp_path / "a.png"
    )
    rows = [
        {"image": "a.png", "id": "1", "caption": f"{STAR} {SQUARE}"},
        {"image": "a.png", "id": "2", "caption": f"{STAR} {MOOD}"},
    ]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill_in(labels, answers):
    with labels.open(newline="") as file:
        rows = list(csv.reader(file))
    for row, answer in zip(rows[1:], answers, strict=True):
        row[3:] = answer
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def test_a_template_is_written_filled_in_and_compared(folder, capsys):
    assert main([*EXAM, "--label-captions", "captions.jsonl"]) == 0
    assert "labels.csv: 4 statements to label" in capsys.readouterr().out
    page = (folder / "labels.html").read_text()
    assert page.count("<img src='data:image/") == 2
    assert f"<li value='2'>{SQUARE}</li>" in page
    with pytest.raises(SystemExit):
        main(EXAM)
    assert "labels.csv has no labels yet" in capsys.readouterr().err

    # A person who takes the mood for pointable, and leaves one statement out.
    fill_in(folder / "labels.csv", [("yes", "Yes"), ("no", "y"), ("", ""), ("", "yes")])
    assert main(EXAM) == 0
    [judge] = json.loads((folder / "exam" / "exam.json").read_text())["judges"]
    marks = {mark["name"]: mark["value"] for mark in judge["marks"]}
    assert marks["your labels, correct: agreement"] == 1.0  # 2 of 2
    assert marks["your labels, pointable: agreement"] == pytest.approx(2 / 3)
    assert marks["your labels, correct: balanced accuracy"] == 1.0
    assert marks["your labels, pointable: balanced accuracy"] is None  # nothing was said to be not
    assert "your labels, pointable: agreement" in (folder / "exam" / "exam.md").read_text()


def test_what_cannot_be_used_is_named(folder, capsys):
    with pytest.raises(SystemExit):
        main(EXAM)
    assert "pass captions with --label-captions" in capsys.readouterr().err
    labels = folder / "labels.csv"
    labels.write_text("image,statement,correct\na.png,A.,yes\n")
    with pytest.raises(ValueError, match="no column 'pointable'"):
        read_labels(labels)
    labels.write_text("number,image,statement,correct,pointable\n1,a.png,A.,maybe,\n")
    with pytest.raises(ValueError, match=r"labels.csv:2: correct must be yes, .* got 'maybe'"):
        read_labels(labels)
    labels.write_text("number,image,statement,correct,pointable\n1,gone.png,A.,yes,\n2,a.png,,no\n")
    with pytest.raises(BadRowsError) as caught:
        read_labels(labels)
    assert caught.value.problems == [
        f"{labels}:2: gone.png: there is no such file.",
        f"{labels}:3: a.png: the statement is missing.",
    ]


@pytest.mark.parametrize(("encoding", "separator"), [("utf-8-sig", ";"), ("utf-16", ",")])
def test_labels_as_spreadsheets_save_them(folder, encoding, separator, capsys):
    """With a mark, and with semicolons where numbers have decimal commas; cells may be missing."""
    main([*EXAM, "--label-captions", "captions.jsonl"])
    labels = folder / "labels.csv"
    assert labels.read_bytes().startswith(b"\xef\xbb\xbf")  # so that spreadsheets see UTF-8
    rows = list(csv.reader(labels.read_text(encoding="utf-8-sig").splitlines()))
    rows[1][3:], rows[2][2:], rows[3] = ["yes", ""], ["Une tasse fêlée.", "no"], rows[3][:2]
    with labels.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    [looking] = read_labels(labels)
    assert looking.statements == (STAR, "Une tasse fêlée.")
    assert looking.correct == (True, False)
    assert looking.pointable == (None, None)


def test_a_caption_that_the_judge_cannot_split_is_left_out_of_the_template(folder, capsys):
    exact = Oracle()

    def refuses_moods(messages):
        asks = '"decompose"' in messages[-1]["content"] and MOOD in messages[-1]["content"]
        return "No." if asks else exact(messages)

    with serve(answer=refuses_moods) as server:
        command = [*EXAM, "--label-captions", "captions.jsonl", "--api-base", server.url]
        command[2] = "openai/judge"
        assert main([*command, "--api-key", "k"]) == 0
    shown = capsys.readouterr().out
    assert "left out captions.jsonl:2: " in shown
    assert "2 statements to label" in shown

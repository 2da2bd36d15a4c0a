"""What is refused before any question is asked."""

import json

import pytest

from tests.evals.scripted import Scripted, captionqa_rule, dcscore_rule, score, write_captions
from trl_balcap.cli import main
from trl_balcap.scenes.server import serve


def test_bad_rows_are_told_before_any_question(folder, facts, capsys):
    path = folder / "captions.jsonl"
    lines = [
        {"image": "test_0.jpg", "caption": "cup."},
        {"image": "missing.jpg", "caption": "cup."},
        {"image": "test_0.jpg", "caption": "cup."},
        {"image": "test_1.jpg", "caption": ""},
        {"image": "test_2.jpg", "text": "cup."},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    judge = Scripted(dcscore_rule)
    with serve(answer=judge) as server, pytest.raises(SystemExit) as caught:
        score(path, server, folder / "out", "--metrics", "dcscore", "--data", f"dcscore={facts}")
    assert caught.value.code == 1
    assert judge.asked == []
    told = capsys.readouterr().err.removeprefix("trl-balcap: ").splitlines()
    assert len(told) == 4
    for line, (number, word) in zip(
        told,
        [(2, "no such file"), (3, "already at"), (4, "is empty"), (5, '"caption" column')],
        strict=True,
    ):
        assert line.startswith(f"{path}:{number}: ")
        assert word in line
    assert not (folder / "out").exists()


def test_nothing_is_spent_without_a_yes(folder, questions, capsys, monkeypatch):
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"nat_1": "A red cup.", "doc_1": "A blue cup."}))
    judge = Scripted(captionqa_rule)
    command = ["score", str(captions), "--metrics", "captionqa", "--judge", "openai/scripted"]
    command += ["--data", f"captionqa={questions}", "--out", str(folder / "out")]
    command += ["--price", "2.5", "10"]
    with serve(answer=judge) as server:
        with pytest.raises(SystemExit):
            main([*command, "--api-base", server.url])
        told = capsys.readouterr()
        assert "Pass --yes to accept it" in told.err
        assert "0.00" in told.out  # four short questions cost less than a cent
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", lambda *_: "n")
        assert main([*command, "--api-base", server.url]) == 2
    assert judge.asked == []
    assert "nothing was asked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metrics", "bleu"), "Unknown metric 'bleu'"),
        (("--metrics", "dcscore"), "Pass --data dcscore=PATH"),
        (("--metrics", "captionqa"), "Borise/CaptionQA"),
        (("--metrics", "caparena"), "caparena_auto_600.json"),
        (("--metrics", "dcscore", "--official-prompts", "."), "is not a clone of a benchmark"),
        (("--data", "facts.jsonl"), "--data takes NAME=PATH, got 'facts.jsonl'"),
        (("--data", "bleu=facts.jsonl"), "Unknown metric 'bleu'"),
    ],
)
def test_arguments_that_do_not_fit(folder, capsys, arguments, message, monkeypatch):
    monkeypatch.chdir(folder)
    captions = write_captions(folder, {"test_0.jpg": "cup."})
    with pytest.raises(SystemExit):
        main(["score", str(captions), "--judge", "scenes/oracle", "--out", "out", *arguments])
    assert message in capsys.readouterr().err

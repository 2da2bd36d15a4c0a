"""What commands print: whole lines where it is piped, at most 80 columns on a terminal."""

import json

import pytest

from trl_balcap.cli import main
from trl_balcap.commands.showing import make_console, make_table, say

SENTENCE = "The judge was asked 12 questions about each of these captions, and all were answered."
PATH = "/data/" + "a-long-name/" * 9
MODELS = {"GPT-4o-0806": 50.1, "LLaVA-1.5-7B": 23.0, "InternVL2-26B": 44.0}


def shown(capsys) -> list[str]:
    console = make_console()
    cells = ["a cell of words " * 8, "1"]
    console.print(make_table("A title longer than its table", ("text", "number"), [cells]))
    console.print(make_table("A title longer than its table", ("n",), [["1"]]))
    say(console, SENTENCE)
    say(console, f"Written: {PATH}")
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_nothing_is_folded_or_coloured_in_a_pipe(capsys):
    lines = shown(capsys)
    assert lines.count("A title longer than its table") == 2
    assert f" {'a cell of words ' * 8}     1".split() in [line.split() for line in lines]
    assert SENTENCE in lines
    assert f"Written: {PATH}" in lines
    assert not any("\x1b" in line for line in lines)


def test_a_terminal_is_not_overrun(terminal, capsys):
    lines = shown(capsys)
    assert lines.count("A title longer than its table") == 2
    assert " ".join(lines).count("cell") == 8
    at = lines.index("Written:")
    assert lines[at - 2 : at] == [SENTENCE[:-10], "answered."]  # between words
    assert lines[at + 1] == PATH  # in one piece
    assert max(len(line) for line in lines if line != PATH) <= 80


def test_a_command_on_a_terminal(terminal, tmp_path, capsys):
    path = tmp_path / "metric.json"
    path.write_text(json.dumps(MODELS))
    assert main(["agree", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if str(path) not in line) <= 80
    assert [line for line in lines if line.startswith("95% intervals")] == [
        "95% intervals, models resampled: Spearman 1.0000 to 1.0000; Kendall 1.0000 to"
    ]


@pytest.mark.parametrize("fixture", ["terminal", "capsys"])
def test_nothing_is_cut_off(fixture, request, tmp_path, capsys):
    request.getfixturevalue(fixture)
    path = tmp_path / "metric.json"
    path.write_text(json.dumps({**MODELS, "Qwen2-VL-72B-Instruct": 1 / 3}))
    assert main(["agree", str(path)]) == 0
    words = capsys.readouterr().out.split()
    assert {*MODELS, "Qwen2-VL-72B-Instruct", "0.333333"} <= {*words}

"""docs/report.md: commands that exist, code that runs, pictures that are there."""

import re
from pathlib import Path

import pytest

from trl_balcap.cli import build_parser

PAGE = Path(__file__).parents[2] / "docs" / "report.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("line", re.findall(r"^trl-balcap .*$", TEXT, flags=re.MULTILINE))
def test_every_command_parses(line):
    assert build_parser().parse_args(line.split()[1:]).paths


def test_the_code_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out == "{'precision_reward': 1.0} {'words': 3}\n"


def test_every_picture_is_there():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", TEXT)
    assert len(pictures) == 4
    assert all((PAGE.parent / picture).is_file() for picture in pictures)

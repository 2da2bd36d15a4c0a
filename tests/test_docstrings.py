"""Docstrings name the errors they raise in one form: `` `ValueError`: if ... ``."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import trl_balcap

PACKAGE = Path(trl_balcap.__file__).parent

# One name, or several: "`JudgeError` or [`RowError`]: if ...".
ENTRY = re.compile(r"\[?`[\w.~]+`\]?((,| or) \[?`[\w.~]+`\]?)*: [a-z]")


def badly_named(docstring: str) -> list[str]:
    """Entries under `Raises:` that do not begin with a name in backticks and a condition."""
    lines = docstring.splitlines()
    wrong = []
    for number, line in enumerate(lines):
        if line.strip() != "Raises:":
            continue
        heading = len(line) - len(line.lstrip())
        for entry in lines[number + 1 :]:
            indent = len(entry) - len(entry.lstrip())
            if indent <= heading:  # a blank line, or what follows
                break
            if indent == heading + 4 and not ENTRY.match(entry.strip()):
                wrong.append(entry.strip())
    return wrong


def docstrings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def test_an_entry_is_a_name_in_backticks_and_a_condition():
    docstring = """Reads.

    Raises:
        ValueError: if it is empty.
        `OSError`: If it is away.
        `KeyError`: if a column is missing, with
            its name.
        [`BadRowsError`]: for a row that is no object.
        `RuntimeError` or [`RowError`]: in training.

    Example: none
    """
    assert badly_named(docstring) == ["ValueError: if it is empty.", "`OSError`: If it is away."]


def test_the_package_names_its_errors_in_one_form():
    seen = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        for docstring in docstrings(path.read_text(encoding="utf-8")):
            seen += "Raises:" in docstring
            assert badly_named(docstring) == [], path
    assert seen > 50

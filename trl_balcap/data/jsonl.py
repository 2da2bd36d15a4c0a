"""The one reader of JSONL, its one error, and what its columns are called."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trl_balcap.data.text import read_text

__all__ = [
    "CAPTION_COLUMNS",
    "IMAGE_COLUMNS",
    "REFERENCE_COLUMNS",
    "BadRowsError",
    "cut_half_row",
    "first_of",
    "read_jsonl",
]

IMAGE_COLUMNS = ("image", "file_name", "image_path", "image_name")
"""Where a row's image, or the path of it, is looked for; the first that is there is taken."""

REFERENCE_COLUMNS = ("reference", "caption", "text")
"""Where a row's reference caption is looked for, in data to train on or to caption."""

CAPTION_COLUMNS = ("caption",)
"""Where the caption to be scored is looked for; beside it the reference is in "reference"."""

_SHOWN = 50


class BadRowsError(ValueError):
    """
    Rows that cannot be used.

    Args:
        problems (`Sequence[str]`):
            One message for each bad row, naming file and line, or the row.
        rule (`str`, *optional*):
            What the rows break; stands first.
        way_out (`str`, *optional*):
            What to do; stands last.
        shown (`int`, *optional*, defaults to `50`):
            How many are shown; `problems` has them all.

    Example:

    ```python
    >>> print(BadRowsError(["a.jsonl:3: not JSON.", "a.jsonl:9: not JSON."], shown=1))
    a.jsonl:3: not JSON.
    ... and 1 more

    ```
    """

    def __init__(
        self, problems: Sequence[str], *, rule: str = "", way_out: str = "", shown: int = _SHOWN
    ):
        self.problems = list(problems)
        indent = "  " if rule else ""
        lines = [rule] if rule else []
        lines += [indent + problem for problem in self.problems[:shown]]
        if len(self.problems) > shown:
            lines.append(f"{indent}... and {len(self.problems) - shown} more")
        lines += [way_out] if way_out else []
        super().__init__("\n".join(lines))


def read_jsonl(path: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """
    Objects of a JSONL file with their line numbers. Empty lines are skipped.

    Args:
        path (`str` or `Path`): The file, in UTF-8 or with a byte-order mark.

    Returns:
        `list[tuple[int, dict]]`: Line number, counted from 1, and the row.

    Raises:
        `FileNotFoundError`: if there is no such file.
        [`BadRowsError`]: if a line is no JSON object; names all such lines.
        `ValueError`: if the file is no text.

    Example:

    ```python
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "captions.jsonl"
    >>> _ = file.write_text('{"image": "a.jpg"}\\n\\n{"image": "b.jpg"}\\n')
    >>> read_jsonl(file)
    [(1, {'image': 'a.jpg'}), (3, {'image': 'b.jpg'})]

    ```
    """
    rows, problems = [], []
    # Not splitlines(): a caption may hold U+2028, which is no end of a line of JSON.
    for number, line in enumerate(io.StringIO(read_text(path), newline=None), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            said = f"{error.msg} at {error.pos}" if isinstance(error, ValueError) else "too deep"
            problems.append(f"{path}:{number}: not JSON ({said}).")
            continue
        if not isinstance(row, dict):
            problems.append(
                f"{path}:{number}: a row must be a JSON object, not {type(row).__name__}."
            )
            continue
        rows.append((number, row))
    if problems:
        raise BadRowsError(problems)
    return rows


def cut_half_row(path: Path) -> None:
    """Cut off what a killed run left of the row that it was writing, so that it can be resumed."""
    text = path.read_text(encoding="utf-8")
    if not text or text.endswith("\n"):
        return
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
    temporary.replace(path)


def first_of(row: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """
    The row's value in the first of `columns` in which it has one, else `None`.

    Example:

    ```python
    >>> first_of({"image_path": "b.jpg", "file_name": "a.jpg"}, IMAGE_COLUMNS)
    'a.jpg'

    ```
    """
    return next((row[name] for name in columns if row.get(name) is not None), None)

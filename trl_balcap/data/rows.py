"""
The one reader of rows from text files, each with its place in the file for messages.

Reads JSONL, JSON and CSV in UTF-8, or with a byte-order mark; other encodings are reported, not
guessed. One error lists the problems of all rows.
"""

import codecs
import csv
import itertools
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trl_balcap.data.formats import coco_rows, known_row

logger = logging.getLogger(__name__)

__all__ = [
    "TABLE_SUFFIXES",
    "BadRowsError",
    "cut_half_row",
    "is_utf8",
    "json_line",
    "jsonl_rows",
    "only_writer",
    "read_jsonl",
    "read_table",
    "read_text",
    "table_rows",
]

TABLE_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
"""Extensions of text files with rows."""

# UTF-32's mark begins with UTF-16's, so look for it first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_SHOWN = 50
_TAIL = 65_536  # bytes read at once in search of the last whole row


class BadRowsError(ValueError):
    """
    Rows that cannot be used.

    Args:
        problems (`Sequence[str]`):
            One message per bad row, with file and line, or the row.
        rule (`str`, *optional*):
            The rule that the rows break, shown first.
        way_out (`str`, *optional*):
            What to do, shown last.
        shown (`int`, *optional*, defaults to `50`):
            Number of problems to show; `problems` has all of them.

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


def read_table(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """
    Read the rows of a text file, each with its place in the file ("captions.jsonl:3").

    JSONL has one object per line, CSV one row per line below a header. A `.json` file has a list of
    objects, COCO captions ([`~data.formats.coco_rows`]), or one object from id to caption, as used
    by CaptionQA and CapArena, where the id is also the image's file name. Objects may have one of
    the formats of [`~data.formats.known_row`].

    Args:
        path (`str` or `Path`): The file, in UTF-8 or with a byte-order mark.

    Returns:
        `list[tuple[str, dict]]`: Place and row.

    Raises:
        `FileNotFoundError`: if there is no such file.
        [`BadRowsError`]: if rows cannot be read; lists all of them.
        `ValueError`: if it is another kind of file.
    """
    return list(table_rows(path))


def table_rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    The rows of [`read_table`], one at a time: only a `.json` file is read whole.

    Raises:
        [`BadRowsError`]: after the last row, if rows cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"File not found: {path}.")
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise ValueError(f"{path} is not a supported file: use {', '.join(TABLE_SUFFIXES)}.")
    if suffix in (".csv", ".tsv"):
        yield from _csv_rows(path, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".json":
        yield from _json_rows(path)
    else:
        for number, row in jsonl_rows(path):
            yield f"{path}:{number}", known_row(row)


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[str, dict[str, Any]]]:
    lines = _lines(path, newline="")
    header = next(lines, "")
    if delimiter == "," and "," not in header and ";" in header:
        delimiter = ";"  # from spreadsheets in locales with decimal commas
    lines = itertools.chain([header], lines)
    reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
    problems = []
    try:
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row:
                problems.append(f"{where}: more cells than columns in the header.")
            else:
                yield where, dict(row)
    except csv.Error as error:
        problems.append(f"{path}:{reader.line_num}: not CSV ({error}).")
    if problems:
        raise BadRowsError(problems)


def _json_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BadRowsError(
            [f"{path}:{error.lineno}: not JSON ({error.msg}). Use .jsonl for one object per line."]
        ) from error
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        try:
            return [(f"{path}: {place}", row) for place, row in coco_rows(content)]
        except (KeyError, TypeError) as error:
            raise BadRowsError(
                [f"{path}: has images and annotations, but is not a COCO captions file: {error!r}."]
            ) from error
    if isinstance(content, dict):
        return [
            (f"{path}: {name!r}", {"id": name, "image": name, "caption": caption})
            for name, caption in content.items()
        ]
    if not isinstance(content, list):
        raise BadRowsError(
            [f"{path}: a .json file must be a list of rows, or one object from id to caption."]
        )
    problems = [
        f"{path}[{place}]: a row must be a JSON object, not {type(row).__name__}."
        for place, row in enumerate(content)
        if not isinstance(row, dict)
    ]
    if problems:
        raise BadRowsError(problems)
    return [(f"{path}[{place}]", known_row(row)) for place, row in enumerate(content)]


def read_jsonl(path: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """
    Read the objects of a JSONL file with their line numbers. Empty lines are skipped.

    Args:
        path (`str` or `Path`): The file, in UTF-8 or with a byte-order mark.

    Returns:
        `list[tuple[int, dict]]`: line number, from 1, and the row.

    Raises:
        `FileNotFoundError`: if there is no such file.
        [`BadRowsError`]: if lines are not JSON objects; lists all such lines.
        `ValueError`: if the file is not text.

    Example:

    ```python
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "captions.jsonl"
    >>> _ = file.write_text('{"image": "a.jpg"}\\n\\n{"image": "b.jpg"}\\n')
    >>> read_jsonl(file)
    [(1, {'image': 'a.jpg'}), (3, {'image': 'b.jpg'})]

    ```
    """
    return list(jsonl_rows(path))


def jsonl_rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """
    The rows of [`read_jsonl`], one at a time, so that a file may be larger than memory.

    Raises:
        [`BadRowsError`]: after the last row, if lines are not JSON objects.
    """
    problems = []
    # Not splitlines(): a caption may contain U+2028, which does not end a line of JSON.
    for number, line in enumerate(_lines(Path(path), newline=None), start=1):
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
        yield number, row
    if problems:
        raise BadRowsError(problems)


def _lines(path: Path, newline: str | None) -> Iterator[str]:
    """Lines of a text file. [`read_text`] says what is wrong with it."""
    _check_file(path)
    with path.open("rb") as file:
        encoding = _encoding(file.read(4))
    try:
        with path.open(encoding=encoding, newline=newline) as file:
            for line in file:
                if "\0" in line:
                    read_text(path)
                yield line
    except UnicodeDecodeError:
        read_text(path)
        raise


def _check_file(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"File not found: {path}.")
    if not path.is_file():
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'not a regular file'}.")


def is_utf8(path: Path) -> bool:
    """Whether a text file has no byte-order mark."""
    with path.open("rb") as file:
        return not any(file.read(4).startswith(mark) for mark, _ in _MARKS)


def _encoding(content: bytes) -> str:
    return next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")


def read_text(path: str | Path) -> str:
    """
    Read a text file in UTF-8, or in the encoding of its byte-order mark.

    Args:
        path (`str` or `Path`): The file.

    Returns:
        `str`: its text, without the mark.

    Raises:
        `FileNotFoundError`: if there is no such file.
        `ValueError`: if it is not a regular file, or neither UTF-8 text nor marked.

    Example:

    ```python
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "caption.txt"
    >>> _ = file.write_text("Une tasse fêlée.", encoding="utf-16")
    >>> read_text(file)
    'Une tasse fêlée.'

    ```
    """
    path = Path(path)
    _check_file(path)
    content = path.read_bytes()
    encoding = _encoding(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if b"\0" in content[:4096]:
            raise ValueError(f"{path} is not a text file.") from error
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}:{line}: not {encoding.upper()} (byte 0x{content[error.start]:02x}); it looks "
            f"like Latin-1 or Windows-1252. Convert it: iconv -f cp1252 -t utf-8 {path} > new-file"
        ) from error
    if "\0" in text:
        raise ValueError(
            f"{path} is not UTF-8 text: it contains NUL characters. UTF-16 files need a byte-order "
            "mark."
        )
    return text


def json_line(row: Mapping[str, Any]) -> str:
    """
    A row of JSONL, with its line break. Lone surrogates, which UTF-8 lacks, are escaped.

    Example:

    ```python
    >>> json_line({"text": "Ein Käfer."}), json_line({"text": "\\ud83d"})
    ('{"text": "Ein Käfer."}\\n', '{"text": "\\\\ud83d"}\\n')

    ```
    """
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(row)
    return line + "\n"


def cut_half_row(path: Path) -> None:
    """Cut off a partial row left by a killed run, so that it can be resumed."""
    with path.open("rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _TAIL)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """
    Context in which no other run appends to `out`: two of them would write each row twice, and cut
    off each other's half rows.

    Raises:
        `ValueError`: if another run is writing to it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out.with_name(f".{out.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except NotImplementedError:
        logger.warning("%s is on a file system without locks: let no other run write there.", out)
    except Timeout as error:
        raise ValueError(
            f"Another run is writing to {out}. Wait for it, or choose another --out."
        ) from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()

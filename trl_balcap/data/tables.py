"""Rows of a text file, each with the place to name it by: JSONL, JSON or CSV."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from trl_balcap.data.formats import coco_rows, known_row
from trl_balcap.data.jsonl import BadRowsError, read_jsonl
from trl_balcap.data.text import read_text

__all__ = ["TABLE_SUFFIXES", "read_rows"]

TABLE_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
"""Files with one of these names hold rows as text."""


def read_rows(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """
    Rows of a text file, each with its place in it ("captions.jsonl:3").

    JSONL has one object a line, CSV one row a line under a header. A `.json` file is a list of
    objects, a COCO captions file ([`~data.formats.coco_rows`]), or one object from id to caption,
    as CaptionQA and CapArena exchange it; there the id is also the image's file name. Objects may
    have a form of [`~data.formats.known_row`].

    Args:
        path (`str` or `Path`): The file, in UTF-8 or with a byte-order mark.

    Returns:
        `list[tuple[str, dict]]`: Place and row.

    Raises:
        `FileNotFoundError`: if there is no such file.
        [`BadRowsError`]: if rows cannot be read; names all of them.
        `ValueError`: if it is a file of another kind.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise ValueError(
            f"{path} is no file of rows: those are {', '.join(TABLE_SUFFIXES)}, by their names."
        )
    if suffix in (".csv", ".tsv"):
        return _csv_rows(path, "\t" if suffix == ".tsv" else ",")
    if suffix == ".json":
        return _json_rows(path)
    return [(f"{path}:{number}", known_row(row)) for number, row in read_jsonl(path)]


def _csv_rows(path: Path, delimiter: str) -> list[tuple[str, dict[str, Any]]]:
    text = read_text(path)
    header = text.partition("\n")[0]
    if delimiter == "," and "," not in header and ";" in header:
        delimiter = ";"  # what spreadsheets write where the comma is in numbers
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, problems = [], []
    try:
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row:
                problems.append(f"{where}: more cells than the header has columns.")
            else:
                rows.append((where, dict(row)))
    except csv.Error as error:
        problems.append(f"{path}:{reader.line_num}: not CSV ({error}).")
    if problems:
        raise BadRowsError(problems)
    return rows


def _json_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BadRowsError(
            [f"{path}:{error.lineno}: not JSON ({error.msg}). Use .jsonl for an object a line."]
        ) from error
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        try:
            return [(f"{path}: {place}", row) for place, row in coco_rows(content)]
        except (KeyError, TypeError) as error:
            raise BadRowsError(
                [f"{path}: it has images and annotations, and is no COCO captions file: {error!r}."]
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

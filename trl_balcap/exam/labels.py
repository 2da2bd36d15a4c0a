"""
Your own labels: statements about your images that you mark as right or wrong, to compare a judge's
verdicts with.

A template is a table with one statement per row and two columns to fill in, and a page that shows
each image next to its statements.
"""

import asyncio
import base64
import csv
import html
import random
from pathlib import Path

from trl_balcap.data.images import DEFAULT_MAX_PIXELS, image_problem, open_image
from trl_balcap.data.rows import BadRowsError, read_table
from trl_balcap.data.scored import Caption, image_file, read_captions
from trl_balcap.exam.bank import Looking
from trl_balcap.judge import Judge, JudgeError
from trl_balcap.report.thumbnails import thumbnail

__all__ = ["read_labels", "write_template"]

COLUMNS = ("number", "image", "statement", "correct", "pointable")
_YES, _NO = ("yes", "y", "true", "1"), ("no", "n", "false", "0")


async def write_template(
    captions: str | Path, judge: Judge, labels: Path, *, n: int = 50, seed: int = 0
) -> tuple[int, list[str]]:
    """
    Write statements to label as a table (`labels`, CSV) and a page with the images (HTML).

    Args:
        captions (`str` or `Path`): JSONL with "image" and "caption".
        judge ([`~judge.Judge`]): The judge that splits the captions into statements.
        labels (`Path`): The table to write.
        n (`int`, *optional*, defaults to `50`): Number of captions, or all if there are fewer.
        seed (`int`, *optional*, defaults to `0`): Seed for choosing them.

    Returns:
        `tuple[int, list[str]]`: the number of statements, and why captions were left out.

    Raises:
        `FileExistsError`: if `labels` exists.
        `BadRowsError`: if captions cannot be read.
    """
    if labels.exists():
        raise FileExistsError(
            f"{labels} exists. Labels are never overwritten; choose another name."
        )
    rows = read_captions(captions, need_images=True)
    if len(rows) > n:
        chosen = set(random.Random(seed).sample(range(len(rows)), n))
        rows = [row for place, row in enumerate(rows) if place in chosen]
    split = await asyncio.gather(
        *(judge.decompose(row.caption) for row in rows), return_exceptions=True
    )
    found: list[tuple[Caption, list[str]]] = []
    left_out = []
    for row, statements in zip(rows, split, strict=True):
        if isinstance(statements, JudgeError):
            left_out.append(f"{row.where}: {statements}")
        elif isinstance(statements, BaseException):
            raise statements
        else:
            found.append((row, statements))
    labels.parent.mkdir(parents=True, exist_ok=True)
    page = ["<!doctype html><meta charset='utf-8'><title>Statements to label</title>", _HOW]
    number = 0
    # Spreadsheets take a file without the mark for Latin-1, and would spoil the statements.
    with labels.open("x", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for row, statements in found:
            image = image_file(row).resolve()
            items = []
            for statement in statements:
                number += 1
                table.writerow([number, image, statement, "", ""])
                items.append(f"<li value='{number}'>{html.escape(statement)}</li>")
            page.append(f"<section>{_picture(image)}<ol>{''.join(items)}</ol></section>")
    labels.with_suffix(".html").write_text("\n".join(page), encoding="utf-8")
    return number, left_out


def read_labels(labels: Path) -> list[Looking]:
    """
    Read the labelled statements of a table, by image. Statements without a label are left out.

    Args:
        labels (`Path`): A template with labels filled in, as a spreadsheet saves it.

    Raises:
        `ValueError`: if a column is missing, a label is neither yes nor no, a labelled row has no
            statement or no readable image, or there is no label.
    """
    by_image: dict[str, list[tuple[str, bool | None, bool | None]]] = {}
    problems = []
    for where, row in read_table(labels):
        missing = [name for name in COLUMNS[1:] if name not in row]
        if missing:
            raise ValueError(
                f"{labels} has no column {missing[0]!r}. Its columns must be {COLUMNS}."
            )
        try:
            given = [_label(row[name], name) for name in ("correct", "pointable")]
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        if given == [None, None]:
            continue
        image, statement = (row[name] or "" for name in ("image", "statement"))
        problem = image_problem(image) if statement.strip() else "the statement is missing"
        if problem is not None:
            problems.append(f"{where}: {image or 'the row'}: {problem}.")
        by_image.setdefault(image, []).append((statement, given[0], given[1]))
    if problems:
        raise BadRowsError(problems)
    if not by_image:
        raise ValueError(f"{labels} has no labels yet. Fill in yes or no in the last two columns.")
    return [
        Looking(
            Path(image),
            tuple(text for text, _, _ in statements),
            tuple(correct for _, correct, _ in statements),
            tuple(pointable for _, _, pointable in statements),
            "label",
        )
        for image, statements in by_image.items()
    ]


def _label(text: str | None, column: str) -> bool | None:
    said = (text or "").strip().casefold()
    if said and said not in (*_YES, *_NO):
        raise ValueError(f"{column} must be yes, no or empty, got {text!r}.")
    return said in _YES if said else None


def _picture(image: Path) -> str:
    shown = thumbnail(open_image(image, DEFAULT_MAX_PIXELS))
    data = base64.b64encode(shown.data).decode("ascii")
    return f"<img src='data:{shown.media_type};base64,{data}' alt='{html.escape(image.name)}'>"


_HOW = (
    "<style>body{font:16px/1.4 sans-serif;max-width:60em;margin:2em auto}"
    "section{display:flex;gap:2em;margin:2em 0;align-items:start}img{max-width:28em}</style>"
    "<h1>Statements to label</h1><p>In the table, write yes or no next to each number. "
    "<b>correct</b>: the image shows that it is true. <b>pointable</b>: you could point to what it "
    "describes; moods, opinions and remarks about the picture are not pointable.</p>"
)

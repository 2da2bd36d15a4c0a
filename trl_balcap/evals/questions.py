"""Loads CaptionQA's questions from the formats they come in."""

import json
from pathlib import Path
from typing import Any

from trl_balcap.data.rows import BadRowsError, read_jsonl, read_text
from trl_balcap.data.stored import load_rows
from trl_balcap.evals.rules.captionqa import questions_of

__all__ = ["load_questions"]

COLUMNS = ("id", "questions", "domain", "question", "choices", "answer", "category")
"""Columns to read from a dataset: reading its images would decode them."""


def load_questions(source: str | Path, *, split: str = "all") -> list[dict[str, Any]]:
    """
    Load rows of questions, without their images.

    Args:
        source (`str` or `Path`):
            A `.jsonl` or `.json` file (a list of rows, or `{id: questions}`), a folder written by
            `Dataset.save_to_disk`, a folder of Parquet files, or a dataset on the Hub
            ("Borise/CaptionQA").
        split (`str`, *optional*, defaults to `"all"`):
            Split of a Hub dataset; for files, the "domain" of the rows to keep.

    Raises:
        `FileNotFoundError`: if the file does not exist.
        [`BadRowsError`]: if rows have another form.
        `ValueError`: if there are no questions.
    """
    path = Path(source)
    if path.suffix in (".jsonl", ".json"):
        rows = _rows_of_file(path)
        if split != "all":
            rows = [row for row in rows if row.get("domain") == split]
    else:
        dataset = load_rows(source, split)
        rows = dataset.select_columns([c for c in COLUMNS if c in dataset.column_names]).to_list()
    problems = [
        f"{source}: {problem}"
        for place, row in enumerate(rows)
        for problem in _problems(place, row)
    ]
    if problems:
        raise BadRowsError(problems)
    if not any(questions_of(row) for row in rows):
        raise ValueError(
            f'{source} (split {split!r}) has no questions: rows need an "id" and "questions" with '
            '"question", "choices" and "answer".'
        )
    return rows


def _problems(place: int, row: Any) -> list[str]:
    if not isinstance(row, dict):
        return [f"row {place} must be an object, not {type(row).__name__}."]
    where = f"row {place} ({row.get('id')!r})"
    questions = questions_of(row)
    if not isinstance(questions, list) or not all(isinstance(q, dict) for q in questions):
        return [f'{where}: "questions" must be a list of objects.']
    return [
        f'{where}, question {number}: "question" must be text and "choices" a list.'
        for number, question in enumerate(questions)
        if not isinstance(question.get("question", ""), str)
        or not isinstance(question.get("choices", []), list)
    ]


def _rows_of_file(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [row for _, row in read_jsonl(path)]
    if not path.is_file():
        raise FileNotFoundError(f"File not found: {path}.")
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BadRowsError([f"{path}:{error.lineno}: not JSON ({error.msg})."]) from error
    if isinstance(content, dict):
        return [{"id": name, "questions": questions} for name, questions in content.items()]
    if not isinstance(content, list):
        raise BadRowsError(
            [f"{path}:1: must be a list of rows, or one object from id to questions."]
        )
    return content

"""CaptionQA's questions, from the forms that people have them in."""

import json
from pathlib import Path
from typing import Any

from trl_balcap.data.jsonl import read_jsonl
from trl_balcap.evals.rules.captionqa import questions_of

__all__ = ["load_questions"]


def load_questions(source: str | Path, *, split: str = "all") -> list[dict[str, Any]]:
    """
    Rows of questions, without their images.

    Args:
        source (`str` or `Path`):
            A `.jsonl` or `.json` file (a list of rows, or `{id: questions}`), a folder that `Dataset.save_to_disk`
            wrote, a folder of parquet files, or a name on the Hub ("Borise/CaptionQA", which needs a network).
        split (`str`, *optional*, defaults to `"all"`):
            Split of a Hub dataset; of a file, the rows whose "domain" it is.

    Raises:
        FileNotFoundError: If the source is a file that is not there.
        ValueError: If it holds no question.
    """
    path = Path(source)
    if path.suffix in (".jsonl", ".json"):
        rows = _rows_of_file(path)
        if split != "all":
            rows = [row for row in rows if row.get("domain") == split]
    else:
        rows = _rows_of_dataset(path, str(source), split)
    if not any(questions_of(row) for row in rows):
        raise ValueError(
            f'{source} (split {split!r}) has no question: a row needs an "id" and "questions" with '
            '"question", "choices" and "answer".'
        )
    return rows


def _rows_of_file(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [row for _, row in read_jsonl(path)]
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict):
        return [{"id": name, "questions": questions} for name, questions in content.items()]
    return content


def _rows_of_dataset(path: Path, name: str, split: str) -> list[dict[str, Any]]:
    import datasets  # takes a second, and files need none of it

    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        loaded = datasets.load_from_disk(str(path))
        dataset = loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
    else:
        dataset = datasets.load_dataset(name, split=split)
    assert isinstance(dataset, datasets.Dataset)
    wanted = ("id", "questions", "domain", "question", "choices", "answer", "category")
    return dataset.select_columns([c for c in wanted if c in dataset.column_names]).to_list()

"""
Captions to be scored, as a user has them: a JSONL file, or the JSON object that other benchmarks exchange.

Everything that is wrong with the file is found here, before any judge is asked: one line per bad row, each with the
file, the line, and what to do.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image as PILImage

from trl_balcap.data.images import image_problem

__all__ = [
    "BadRowsError",
    "Caption",
    "caption_words",
    "image_file",
    "image_name",
    "read_captions",
    "read_jsonl",
]

IMAGE_COLUMNS = ("image", "image_path", "image_name", "file_name")
SHOWN_PROBLEMS = 50


@dataclass(frozen=True)
class Caption:
    """
    One caption to score.

    Args:
        id (`str`):
            Unique name of the row: its "id", or the image's file name where there is none.
        caption (`str`):
            The text.
        image (`Path` or `PIL.Image.Image`, *optional*):
            The image, or its file.
        reference (`str`, *optional*):
            The reference caption.
        where (`str`):
            File and line, for messages.
    """

    id: str
    caption: str
    image: Path | PILImage | None = None
    reference: str | None = None
    where: str = ""


class BadRowsError(ValueError):
    """Rows that cannot be scored. `problems` has one message per bad row, each naming file and line."""

    def __init__(self, problems: Sequence[str]):
        self.problems = list(problems)
        shown = self.problems[:SHOWN_PROBLEMS]
        more = len(self.problems) - len(shown)
        lines = shown + ([f"... and {more} more"] if more else [])
        super().__init__("\n".join(lines))


def image_file(caption: Caption) -> Path:
    """
    The file of a caption's image.

    Raises:
        ValueError: If it has none.
    """
    if not isinstance(caption.image, Path):
        raise ValueError(f"{caption.where}: the image file of {caption.id!r} is needed.")
    return caption.image


def image_name(caption: Caption) -> str:
    """
    What the published benchmarks call an image: its file's name, or the id where there is no file.

    Example:

    ```python
    >>> image_name(Caption("7", "A cup.", Path("images/test_7.jpg"))), image_name(Caption("7", "A cup."))
    ('test_7.jpg', '7')

    ```
    """
    return caption.image.name if isinstance(caption.image, Path) else caption.id


def caption_words(caption: str) -> int:
    """
    Words of a caption: what white space separates.

    Example:

    ```python
    >>> caption_words("a  red cup\\n"), caption_words("")
    (3, 0)

    ```
    """
    return len(caption.split())


def read_jsonl(path: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """
    Objects of a JSONL file with their line numbers. Empty lines are skipped.

    Raises:
        FileNotFoundError: If there is no such file.
        BadRowsError: If a line is no JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    rows, problems = [], []
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                problems.append(f"{path}:{number}: not JSON ({error.msg} at {error.pos}).")
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


def read_captions(
    path: str | Path,
    *,
    images: str | Path | None = None,
    need_images: bool = False,
    need_references: bool = False,
    allow_empty: bool = False,
) -> list[Caption]:
    """
    Read and check captions.

    A `.jsonl` file has one object a line: "caption", "image" (a path, relative to the file or to `images`), and
    optionally "id" and "reference". A `.json` file is one object from id to caption, as CaptionQA and CapArena
    exchange it; there the id is the image's file name where an image is needed.

    Args:
        path (`str` or `Path`):
            The file.
        images (`str` or `Path`, *optional*):
            Folder that the image paths are relative to.
        need_images (`bool`, *optional*, defaults to `False`):
            Whether each row must have an image that can be read.
        need_references (`bool`, *optional*, defaults to `False`):
            Whether each row must have a reference caption.
        allow_empty (`bool`, *optional*, defaults to `False`):
            Whether an empty caption may be scored instead of being an error.

    Returns:
        `list[Caption]`: in the file's order.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        BadRowsError: If any row cannot be scored, with one message per bad row; or if there is no row.
    """
    path = Path(path)
    folder = Path(images) if images is not None else path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder} to look for images in.")
    captions: list[Caption] = []
    problems: list[str] = []
    seen: dict[str, str] = {}
    for where, row in _rows_of(path):
        problem, caption = _read_row(where, row, folder, need_images, need_references, allow_empty)
        if caption is not None and caption.id in seen:
            problem = (
                f"the id {caption.id!r} is already at {seen[caption.id]}. Give each row its own "
                f'"id", or remove one of the two.'
            )
        if problem is not None or caption is None:
            problems.append(f"{where}: {problem}")
            continue
        seen[caption.id] = where
        captions.append(caption)
    if problems:
        raise BadRowsError(problems)
    if not captions:
        raise BadRowsError([f"{path}: there is no caption in this file."])
    return captions


def _rows_of(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    if path.suffix != ".json":
        return [(f"{path}:{number}", row) for number, row in read_jsonl(path)]
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise BadRowsError([f"{path}:{error.lineno}: not JSON ({error.msg})."]) from error
    if not isinstance(content, dict):
        raise BadRowsError(
            [f"{path}:1: a .json file must be one object from id to caption. Use .jsonl for rows."]
        )
    return [
        (f"{path}: {name!r}", {"id": name, "image": name, "caption": caption})
        for name, caption in content.items()
    ]


def _read_row(
    where: str,
    row: dict[str, Any],
    folder: Path,
    need_images: bool,
    need_references: bool,
    allow_empty: bool,
) -> tuple[str | None, Caption | None]:
    """The row's problem, or the caption; the first problem of a row is the only one told."""
    columns = ", ".join(row) or "no column"
    text = row.get("caption")
    if not isinstance(text, str):
        said = "has no" if "caption" not in row else "must have text in its"
        return f'the row {said} "caption" column (it has {columns}). Rename yours.', None
    name = next((row[column] for column in IMAGE_COLUMNS if isinstance(row.get(column), str)), None)
    identity = row.get("id", None if name is None else Path(name).name)
    if identity is None:
        return f'the row has neither "id" nor "image" (it has {columns}). Add one of them.', None
    identity = str(identity)
    if not text.strip() and not allow_empty:
        return (
            f"the caption of {identity!r} is empty. Caption the image again, remove the row, or "
            "score it as it is with --empty-captions score.",
            Caption(identity, text),
        )
    image = None if name is None else folder / name
    if need_images:
        if image is None:
            return f'the row has no "image" column (it has {columns}). Rename yours.', None
        problem = image_problem(image)
        if problem is not None:
            return (
                f"the image {image}: {problem}. Paths are relative to {folder}; --images names "
                "another folder.",
                Caption(identity, text),
            )
    reference = row.get("reference")
    if need_references and (not isinstance(reference, str) or not reference.strip()):
        return (
            f'the row has no reference caption in "reference" (it has {columns}). Add it, or leave '
            "out the metric that needs it.",
            Caption(identity, text),
        )
    return None, Caption(identity, text, image, reference, where)

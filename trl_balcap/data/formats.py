"""Converts rows of other projects' formats to the columns used here."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from trl_balcap.data.opened import stored

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["SHARD_IMAGES", "coco_rows", "known_dataset", "known_row"]

_TALKS = ("conversations", "messages")  # LLaVA, ShareGPT4V and ALLaVA; OpenAI and TRL
_QUESTIONS = "reward_model"  # CapRL-QA-75K
SHARD_IMAGES = ("jpg", "jpeg", "png", "webp")
"""Members of a WebDataset sample that are its image."""

_MARK = re.compile(r"\s*<image>\s*")
_LETTER = re.compile(r"^([A-Z])[).:]\s*")


def known_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """
    Add `prompt`, `reference` and `questions` to a row that has them in another format.

    - `conversations` of `{"from": "human" | "gpt", "value": ...}` (LLaVA, ShareGPT4V, ALLaVA) and
      `messages` of `{"role": "user" | "assistant", "content": ...}`: the first of each;
    - `reward_model` with `ground_truth` (CapRL-QA-75K): `questions` of `question`, `choices` and
      `answer`, the choices without their letters and the answer as one of them;
    - a WebDataset sample: its `json` as columns, its `txt` as the reference, its image, and as id
      the shard's name and the key, such as "00000/000000012".

    Example:

    ```python
    >>> asked = {"from": "human", "value": "<image>\\nWhat is it?"}
    >>> said = {"from": "gpt", "value": "Tea."}
    >>> known_row({"image": "1.jpg", "conversations": [asked, said]})
    {'image': '1.jpg', 'prompt': 'What is it?', 'reference': 'Tea.'}

    ```
    """
    if "__key__" in row:
        row = _sample(row)
    known = {name: value for name, value in row.items() if name not in (*_TALKS, _QUESTIONS)}
    talk = next((row[name] for name in _TALKS if isinstance(row.get(name), list)), None)
    if talk is not None:
        # Missing values become empty, and are reported along with the empty ones.
        known.setdefault("prompt", _MARK.sub(" ", _said(talk, ("human", "user"))).strip())
        known.setdefault("reference", _said(talk, ("gpt", "assistant")).strip())
        if isinstance(row.get("id"), int):  # LLaVA's lists have both kinds
            known["id"] = str(row["id"])
    if isinstance(row.get(_QUESTIONS), Mapping):
        asked = row[_QUESTIONS].get("ground_truth")
        asked = json.loads(asked) if isinstance(asked, str) else asked or []
        known["questions"] = [_question(one) for one in asked]
        known["prompt"] = [_unmarked(message) for message in row.get("prompt") or ()]
    return known


def _sample(row: Mapping[str, Any]) -> dict[str, Any]:
    """A WebDataset sample as a row."""
    said = row.get("json")
    known = dict(said) if isinstance(said, Mapping) else {}
    if row.get("txt") is not None:
        known["reference"] = row["txt"]
    if known.get("id") is None:
        known["id"] = f"{PurePosixPath(row['__url__']).stem}/{row['__key__']}"
    return known | {"image": next((row[n] for n in SHARD_IMAGES if row.get(n) is not None), None)}


def known_dataset(dataset: "Dataset") -> "Dataset":
    """
    Convert a dataset of such rows, or of WebDataset samples: an image, and its text in `txt` or as
    a value of `json`.
    """
    columns = dataset.column_names
    if "__key__" in columns:
        return _samples(dataset)
    changed = [name for name in (*_TALKS, _QUESTIONS) if name in columns]
    if not changed:
        return dataset
    if "prompt" in columns:
        changed.append("prompt")
    stores = [stored(dataset, name) for name in changed]
    rows = [
        known_row({name: value.as_py() for name, value in zip(changed, values, strict=True)})
        for values in zip(*stores, strict=True)
    ]
    dataset = dataset.remove_columns(changed)
    made = dict.fromkeys(name for row in rows for name in row)
    for name in made:
        if name not in dataset.column_names:
            column: Any = [row.get(name) for row in rows]
            dataset = dataset.add_column(name, column)  # type: ignore[call-arg]
    return dataset


def _samples(dataset: "Dataset") -> "Dataset":
    columns = dataset.column_names
    image = next((name for name in columns if name.lower() in SHARD_IMAGES), None)
    named = {"txt": "reference", **({image: "image"} if image else {})}
    about = [value.as_py() or {} for value in stored(dataset, "json")] if "json" in columns else []
    dataset = dataset.rename_columns({old: new for old, new in named.items() if old in columns})
    for name in dict.fromkeys(name for row in about for name in row):
        if name not in dataset.column_names:
            column: Any = [row.get(name) for row in about]
            dataset = dataset.add_column(name, column)  # type: ignore[call-arg]
    return dataset.remove_columns([name for name in ("__url__", "json") if name in columns])


def coco_rows(content: Mapping[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """
    Place and row for each image of a COCO captions file: its longest caption is the reference, and
    `captions` has all of them.

    Example:

    ```python
    >>> images = [{"id": 9, "file_name": "000000000009.jpg"}]
    >>> said = [{"image_id": 9, "caption": "A meal."}, {"image_id": 9, "caption": "A box of food."}]
    >>> [(place, row)] = coco_rows({"images": images, "annotations": said})
    >>> row["reference"], row["captions"]
    ('A box of food.', ['A meal.', 'A box of food.'])

    ```
    """
    captions: dict[Any, list[str]] = {}
    for annotation in content["annotations"]:
        said = annotation["caption"]
        if isinstance(said, str):
            captions.setdefault(annotation["image_id"], []).append(said.strip())
    for image in content["images"]:
        said = captions.get(image["id"], [])
        row = {"id": str(image["id"]), "image": image["file_name"], "captions": said}
        yield f"image {image['file_name']!r}", row | {"reference": max(said, key=len, default="")}


def _said(talk: list[Any], speakers: tuple[str, ...]) -> str:
    for turn in talk:
        if isinstance(turn, Mapping) and (turn.get("from") or turn.get("role")) in speakers:
            said = turn.get("value") or turn.get("content") or ""
            if isinstance(said, str):
                return said
            return "".join(part.get("text") or "" for part in said if isinstance(part, Mapping))
    return ""


def _unmarked(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message["content"]
    text = _MARK.sub(" ", content).strip() if isinstance(content, str) else content
    return {**message, "content": text}


def _question(asked: Mapping[str, Any]) -> dict[str, Any]:
    choices = [_LETTER.sub("", choice) for choice in asked["choices"]]
    letters = {found[1]: text for choice, text in zip(asked["choices"], choices, strict=True)
               if (found := _LETTER.match(choice))}  # fmt: skip
    answer = asked["answer"]
    return {
        "question": asked["question"],
        "choices": choices,
        # A letter, however it is set, or the choice itself.
        "answer": letters.get(answer.strip(" ().:").upper(), _LETTER.sub("", answer)),
    }

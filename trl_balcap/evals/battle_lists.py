"""CapArena's JSON files: one list of battles each."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trl_balcap.data.rows import BadRowsError, read_text

__all__ = ["read_battle_list"]


def read_battle_list(
    path: str | Path,
    texts: Sequence[str],
    problem: Callable[[Mapping[str, Any]], str | None],
) -> list[dict[str, Any]]:
    """
    Read a list of battles.

    Args:
        path (`str` or `Path`):
            The JSON file.
        texts (`Sequence[str]`):
            Names that each battle must have, with text.
        problem (`Callable`):
            What else is wrong with a battle that has them, if anything.

    Raises:
        `FileNotFoundError`: if the file does not exist.
        [`BadRowsError`]: if the format is wrong, with one message per battle.
    """
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BadRowsError([f"{path}:{error.lineno}: not JSON ({error.msg})."]) from error
    if not isinstance(content, list) or not content:
        raise BadRowsError([f"{path}:1: must be a list of battles."])
    problems = []
    for place, battle in enumerate(content):
        if not isinstance(battle, dict):
            found = "a battle must be an object."
        elif lacking := [name for name in texts if not isinstance(battle.get(name), str)]:
            found = f"{', '.join(lacking)} must be text."
        else:
            found = problem(battle)
        if found is not None:
            problems.append(f"{path}[{place}]: {found}")
    if problems:
        raise BadRowsError(problems)
    return content

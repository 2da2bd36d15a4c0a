"""
The log and the settings of a run, next to its verdicts: `log.jsonl` and `run.json`.

The Trainer keeps its log only in checkpoints, which a short or killed run does not have. Here, each
entry is written as a line as soon as it is logged.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["RunLog", "read_log", "read_run_facts"]


class RunLog:
    """
    Keeps a run's log, and facts about the run, in its folder of verdicts.

    Args:
        folder (`str` or `Path`):
            The folder of the run's [`VerdictWriter`]; created if missing.

    Example:

    ```python
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> log = RunLog(folder)
    >>> log.facts({"settings": {"learning_rate": 1e-6}, "versions": {"trl": "1.16.0"}})
    >>> log.append({"step": 1, "rewards/precision_reward/mean": 0.5})
    >>> read_log(folder), read_run_facts(folder)["settings"]
    ([{'step': 1, 'rewards/precision_reward/mean': 0.5}], {'learning_rate': 1e-06})

    ```
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "log.jsonl"
        if path.is_file():  # half a line of a killed run would spoil the one that follows it
            text = path.read_bytes()
            os.truncate(path, text.rfind(b"\n") + 1)

    def facts(self, facts: Mapping[str, Any]) -> None:
        """
        Keep facts about the run, replacing those kept before.

        Args:
            facts (`Mapping`):
                `"settings"` and `"versions"` (mappings), `"warnings"` (a list of texts),
                `"length_gate"` (its two bounds) and `"title"`, all optional. Values that JSON does
                not support are kept as text.
        """
        hidden = self.folder / ".run.json"
        text = json.dumps(facts, indent=2, ensure_ascii=False, default=str)
        hidden.write_text(text + "\n", encoding="utf-8")
        hidden.rename(self.folder / "run.json")

    def append(self, logs: Mapping[str, Any]) -> None:
        """
        Keep one entry of the log.

        Args:
            logs (`Mapping`):
                Numbers by name, and their `"step"`.

        Raises:
            `ValueError`: if there is no step.
        """
        if not isinstance(logs.get("step"), int):
            raise ValueError(
                f"An entry of the log needs its step, a whole number; got {logs.get('step')!r}. "
                "Pass {**logs, 'step': state.global_step}."
            )
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(logs, ensure_ascii=False, default=str) + "\n")


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """
    A run's log, by step.

    If `folder` has no `log.jsonl`, the Trainer's log is read: `trainer_state.json` in the folder or
    in its latest checkpoint. A resumed run logs some steps twice; the later entry counts.

    Args:
        folder (`str` or `Path`):
            A folder of verdicts, or a run's `output_dir`.

    Returns:
        `list[dict]`: entries with their `"step"`; empty if nothing was logged.

    Raises:
        `ValueError`: if a line is not a log entry. An incomplete last line, left by a killed run,
            is skipped.
    """
    folder = Path(folder)
    own = folder / "log.jsonl"
    if own.is_file():
        entries = _whole_lines(own)
    else:
        states = [folder / "trainer_state.json", *folder.glob("checkpoint-*/trainer_state.json")]
        found = [json.loads(path.read_text("utf-8")) for path in states if path.is_file()]
        latest = max(found, key=lambda state: state["global_step"], default={"log_history": []})
        entries = latest["log_history"]
    kept: list[dict[str, Any]] = []
    for entry in entries:
        while kept and kept[-1]["step"] > entry["step"]:  # resumed from a checkpoint
            kept.pop()
        kept.append(entry)
    return kept


def read_run_facts(folder: str | Path) -> dict[str, Any]:
    """The facts that [`RunLog.facts`] kept in a folder; empty if there are none."""
    path = Path(folder) / "run.json"
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}). The report works without it.") from error


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text("utf-8")
    whole = text[: text.rfind("\n") + 1]  # a killed run leaves half a line at the end
    entries = []
    for number, line in enumerate(whole.split("\n"), start=1):
        if not line:
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            entry = None
        if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
            raise ValueError(
                f'{path}:{number} is not a log entry, a JSON object with its "step". Two runs at '
                "once in one folder can cause this: remove the line."
            )
        entries.append(entry)
    return entries

"""The runs on a page: verdicts, log and facts of each folder, limited in number and size."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from trl_balcap.metrics import b_capscore
from trl_balcap.report.log import read_log, read_run_facts
from trl_balcap.report.thumbnails import Thumbnail
from trl_balcap.report.verdicts import read_thumbnails, read_verdicts

__all__ = ["Run", "bounded_rows", "bounded_thumbnails", "find_runs"]

REWARDS = ("precision_reward", "recall_reward", "linguistic_reward")


@dataclass
class Run:
    """
    The output of one run, or of one folder of scores.

    Args:
        name (`str`):
            Its name on the page: the part of its path that distinguishes it from the others.
        rows (`list[dict]`):
            Verdict rows, see [`read_verdicts`].
        log (`list[dict]`):
            Entries of the log, see [`read_log`].
        facts (`dict`):
            Settings, versions, warnings, length gate.
        thumbnails (`dict[str, Thumbnail]`):
            Pictures by digest.
        n_rows (`int`):
            Number of rows before the page was limited.
    """

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    thumbnails: dict[str, Thumbnail] = field(default_factory=dict)
    n_rows: int = 0


def find_runs(paths: Sequence[str | Path]) -> list[Run]:
    """
    Read the runs at the given paths.

    A path is a run's `output_dir`, a folder of scores, or any folder that contains such folders:
    each folder of verdicts in it is a separate run. A trainer's folder without verdicts is a run
    with only a log. The results of `trl-balcap exam` for a judge are added to the facts of each
    run.

    Args:
        paths (`Sequence[str or Path]`):
            Folders to search.

    Returns:
        `list[Run]`: in the order of the paths, then by name.

    Raises:
        `FileNotFoundError`: if a path has neither verdicts nor a log.
    """
    folders: list[Path] = []
    exams: list[str] = []
    for path in map(Path, paths):
        if (path / "exam.json").is_file():
            exam = json.loads((path / "exam.json").read_text(encoding="utf-8"))
            exams += [judge["line"] for judge in exam["judges"]]
            continue
        found = sorted({file.parent for file in path.rglob("rows-*.parquet")})
        found += sorted({file.parent for file in path.rglob("log.jsonl")} - set(found))
        if not found and read_log(path):
            found = [path]
        if not found:
            raise FileNotFoundError(
                f"There is nothing to report at {path}: no verdicts and no log. Give the "
                "output_dir of a training run (log_verdicts above 0), or the --out folder of "
                "trl-balcap score."
            )
        folders += [folder for folder in found if folder not in folders]
    if not folders:
        raise FileNotFoundError(
            f"There is an exam at {paths[0]}, and no run to show it with. Name a run, too."
        )
    names = _names(folders)
    runs = [_read(folder, name) for folder, name in zip(folders, names, strict=True)]
    for run in runs:
        run.facts |= {"exam of the judge": "; ".join(exams)} if exams else {}
    return runs


def score_of(row: Mapping[str, Any]) -> float | None:
    """
    The number by which captions are sorted: b-CapScore if a row has the three rewards (with or
    without `_reward` in the name), otherwise the mean of its rewards; `None` if one is missing. If
    the judge was not asked for a reward because the length gate was closed, the gated reward is
    used.

    Example:

    ```python
    >>> rewards = {"precision_reward": 0.5, "recall_reward": 1.0, "linguistic_reward": 0.5}
    >>> score_of({"rewards": rewards})
    0.6
    >>> closed = {"rewards": {**rewards, "linguistic_reward": None}}
    >>> score_of({**closed, "gated_rewards": {"linguistic_reward": 0.0}}), score_of(closed)
    (0.0, None)
    >>> score_of({"rewards": {"brevity": 0.5, "style": 1.0}})
    0.75

    ```
    """
    gated = row.get("gated_rewards") or {}
    rewards = {
        name.removesuffix("_reward"): gated.get(name) if value is None else value
        for name, value in row["rewards"].items()
    }
    three = [name.removesuffix("_reward") for name in REWARDS]
    if all(name in rewards for name in three):
        return b_capscore(*(rewards[name] for name in three))
    values = [value for value in rewards.values() if value is not None]
    return sum(values) / len(values) if values and len(values) == len(rewards) else None


def bounded_rows(rows: Sequence[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """
    About `limit` rows, in whole groups. Training rows are spread evenly over the steps, and
    evaluation rows have the same images each time, so that they can be compared.

    Args:
        rows (`Sequence[dict]`):
            Verdict rows, by step.
        limit (`int`):
            Number of rows wanted. At least one group of training and of each evaluation is kept.

    Example:

    ```python
    >>> rows = [{"step": s, "split": "train", "group": str(s), "id": str(k), "image": None}
    ...         for s in range(10) for k in range(2)]
    >>> [row["step"] for row in bounded_rows(rows, 6)]
    [0, 0, 4, 4, 9, 9]

    ```
    """
    if len(rows) <= limit:
        return list(rows)
    parts: dict[Any, dict[Any, list[dict[str, Any]]]] = {}
    for row in rows:
        part = parts.setdefault("train" if row["split"] == "train" else row["step"], {})
        part.setdefault((row["step"], row.get("group") or row["id"]), []).append(row)
    kept = []
    for name, groups in parts.items():
        wanted = max(1, round(limit * len(groups) / len(rows)))
        keys = list(groups)
        if name == "train":
            last = len(keys) - 1
            chosen = {round(place * last / max(1, wanted - 1)) for place in range(wanted)}
            keys = [keys[place] for place in sorted(chosen)]
        else:  # digests act as random order, the same at every step and in every run
            keys.sort(key=lambda key: (groups[key][0]["image"] or "", groups[key][0]["id"]))
            keys = keys[:wanted]
        kept += [row for key in keys for row in groups[key]]
    return sorted(kept, key=lambda row: row["step"])


def bounded_thumbnails(
    thumbnails: Mapping[str, Thumbnail], used: Iterable[str | None], budget: int
) -> dict[str, Thumbnail]:
    """
    The pictures in use, made smaller if they would take more than `budget` bytes in total.

    Args:
        thumbnails (`Mapping[str, Thumbnail]`):
            Pictures by digest.
        used (`Iterable[str or None]`):
            Digests of the images that rows show.
        budget (`int`):
            Maximum number of bytes in total.
    """
    wanted = set(used)
    kept = {digest: picture for digest, picture in thumbnails.items() if digest in wanted}
    for side in (320, 224, 160, 112):
        if sum(len(picture.data) for picture in kept.values()) <= budget:
            break
        kept = {digest: _smaller(picture, side) for digest, picture in kept.items()}
    return kept


def _read(folder: Path, name: str) -> Run:
    has_rows = any(folder.glob("rows-*.parquet"))
    rows = read_verdicts(folder) if has_rows else []
    output_dir = folder.parent if folder.name == "verdicts" else folder
    return Run(
        name,
        rows,
        read_log(folder) or read_log(output_dir),
        read_run_facts(folder),
        read_thumbnails(folder),
        len(rows),
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """Each folder's path, without the parts that all paths share."""
    parts = [list(folder.resolve().parts) for folder in folders]
    for part in parts:
        if part[-1] == "verdicts":  # of a run, or of b-CapScore
            part.pop()
        elif part[-2:-1] == ["verdicts"]:  # of another metric
            metric = part.pop()
            part.pop()
            if metric not in part[-2:]:  # as `bench` names its folders
                part.append(metric)
    if len(parts) == 1:
        return [parts[0][-1]]
    shared = 0
    while all(len(part) > shared + 1 for part in parts) and len({p[shared] for p in parts}) == 1:
        shared += 1
    return ["/".join(part[shared:]) for part in parts]


def _smaller(picture: Thumbnail, side: int) -> Thumbnail:
    if max(picture.width, picture.height) <= side:
        return picture
    image = Image.open(io.BytesIO(picture.data)).convert("RGB")
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return Thumbnail(buffer.getvalue(), *image.size)

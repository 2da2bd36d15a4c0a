"""Scores made in shards on several machines, merged into one folder."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from trl_balcap.captioning.shards import Merged, merge_shards
from trl_balcap.evals.metrics.registry import METRICS
from trl_balcap.evals.row_files import replace_file

__all__ = ["merge_scores"]


def merge_scores(
    shards: Sequence[str | Path], out: str | Path, *, allow_missing: bool = False
) -> dict[str, Merged]:
    """
    Merge the folders that `trl-balcap score --shard` wrote: rows in the order of the captions,
    settings, and verdicts. Scoring all captions into the merged folder then asks nothing, and gives
    the table of the whole.

    Args:
        shards (`Sequence[str or Path]`):
            The folders, in any order.
        out (`str` or `Path`):
            Output folder, which must not exist.
        allow_missing (`bool`, *optional*, defaults to `False`):
            Whether to allow captions without a row.

    Returns:
        `dict[str, Merged]`: by metric, see [`~captioning.shards.merge_shards`].

    Raises:
        `FileNotFoundError`: if a folder has no rows of a metric that another has.
        `ValueError`: if `out` exists, or the shards do not make one whole.
        [`~data.BadRowsError`]: if rows are missing, duplicated, or from another shard.
    """
    folders, out = [Path(folder) for folder in shards], Path(out)
    if out.exists():
        raise ValueError(f"{out} already exists. Choose another --out, or remove it.")
    names = [name for name in METRICS if any((f / f"{name}.jsonl").is_file() for f in folders)]
    if not names:
        raise FileNotFoundError(f"There are no scored rows in {', '.join(map(str, folders))}.")
    part = out.with_name(out.name + ".part")
    if part.exists():
        shutil.rmtree(part)  # of a merge that was killed
    merged = {}
    for name in names:
        files = [folder / f"{name}.jsonl" for folder in folders]
        found = merge_shards(files, part / f"{name}.jsonl", allow_missing=allow_missing)
        merged[name] = Merged(out / f"{name}.jsonl", found.written, found.missing)
    settings = json.loads((folders[0] / "settings.json").read_text(encoding="utf-8"))
    replace_file(part / "settings.json", json.dumps({name: settings[name] for name in names}))
    for folder in folders:
        # Files of verdicts have names of their own, so they can lie side by side.
        for file in (folder / "verdicts").rglob("*.parquet"):
            copy = part / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copy)
    part.rename(out)
    return merged

"""
CapArena-Auto's leaderboard: import the results of published models, add yours, and export them.

A result file is a list of battles: "img", "source1", "source2", "caption1", "caption2", "ref",
"ref_model" and, once judged, "judge" and "judge_reason". The file is named after the model. The
rules were checked against njucckevin/CapArena at c251cdd.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trl_balcap.data.rows import BadRowsError, read_text
from trl_balcap.evals.battle_lists import read_battle_list
from trl_balcap.evals.bootstrap import Estimate, estimate, resampling_weights
from trl_balcap.evals.metrics.caparena import NO_VERDICT, CapArenaAuto
from trl_balcap.evals.metrics.protocol import Row, image_of
from trl_balcap.evals.results import read_rows
from trl_balcap.evals.row_files import replace_file
from trl_balcap.evals.rules.caparena import BASELINES, Battle, outcome_of

__all__ = [
    "Place",
    "export_result",
    "leaderboard",
    "official_battles",
    "read_result",
    "rows_of_battles",
]

TEXTS = ("img", "source1", "source2", "caption1", "caption2", "ref_model")
SHOWN = ("Score_Avg", *(f"Score_{name}" for name in BASELINES.values()), "Length_Avg")


class Place(NamedTuple):
    """
    One model on the leaderboard.

    Args:
        model (`str`):
            Name of the model.
        scores (`dict[str, Estimate]`):
            "Score_Avg", "Score_gpt", "Score_cog", "Score_cpm" and "Length_Avg", with intervals.
        is_new (`bool`):
            Whether it was added to the published models.
    """

    model: str
    scores: dict[str, Estimate]
    is_new: bool


def read_result(path: str | Path) -> list[dict[str, Any]]:
    """
    Read the official result file of one model.

    Raises:
        `FileNotFoundError`: if the file does not exist.
        [`BadRowsError`]: if the format is wrong, with one message per battle.
    """

    def problem(battle: Mapping[str, Any]) -> str | None:
        if battle["ref_model"] in BASELINES:
            return None
        return f"ref_model is {battle['ref_model']!r}; it must be one of {', '.join(BASELINES)}."

    return read_battle_list(path, TEXTS, problem)


def rows_of_battles(model: str, battles: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """
    Official battles as scored rows. As in the official scorer, a battle counts as 0 unless its
    verdict has the exact wording.

    Example:

    ```python
    >>> battle = {"img": "i.jpg", "source1": "GPT-4o-0806", "source2": "mine", "caption1": "a",
    ...           "caption2": "b", "ref_model": "GPT-4o-0806", "judge": "Caption 2 is better"}
    >>> rows_of_battles("mine", [battle])[0]["score"]
    1

    ```
    """
    rows = []
    for battle in battles:
        names = ("img", "source1", "source2", "caption1", "caption2")
        fought = Battle(
            *(battle[name] for name in names),
            ref=battle.get("ref", ""),
            ref_model=battle["ref_model"],
            verdict=battle.get("judge"),
        )
        outcome = outcome_of(fought, model)
        own = fought.caption1 if fought.source1 == model else fought.caption2
        row = {"id": fought.img, "caption": own, "ref_model": fought.ref_model, "mode": "official"}
        reason = NO_VERDICT if outcome is None else None
        rows.append({**row, "score": outcome, "reason": reason})
    return rows


def official_battles(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The rows that `trl-balcap score` wrote to `caparena.jsonl`, as official battles."""
    battles = []
    for row in rows:
        if row.get("ref_model") is None:  # the model is this image's baseline
            continue
        names = ("source1", "source2", "caption1", "caption2", "ref", "ref_model")
        battle = {"img": image_of(row), **{name: row[name] for name in names}}
        if row.get("verdict") is not None:
            battle |= {"judge_reason": row["replies"][-1], "judge": row["verdict"]}
        battles.append(battle)
    return battles


def leaderboard(
    published: str | Path | None, added: Mapping[str, str | Path] | None = None
) -> list[Place]:
    """
    Rank models by Score_Avg, as the official scorer does.

    Args:
        published (`str` or `Path`, *optional*):
            Folder with the result files of the published models.
        added (`Mapping[str, str or Path]`, *optional*):
            Additional models: a result file, or the `caparena.jsonl` of `trl-balcap score`.

    Returns:
        `list[Place]`: the best model first.

    Raises:
        `FileNotFoundError`: if the folder or a file does not exist.
        [`BadRowsError`]: if a file has a different format.
        `ValueError`: if there is no result, or a model occurs twice.
    """
    battles = {model: (battles, False) for model, battles in _published(published)}
    for model, path in (added or {}).items():
        if model in battles:
            raise ValueError(f"{model!r} is already among the models in {published}. Rename yours.")
        battles[model] = (_battles_of(path, model), True)
    if not battles:
        raise ValueError(f"There are no CapArena-Auto results in {published}.")
    places = [_place(model, *entry) for model, entry in battles.items()]
    return sorted(places, key=lambda place: -(place.scores["Score_Avg"].value or 0.0))


def export_result(rows_file: str | Path, out: str | Path, model: str) -> list[Path]:
    """
    Write your scored rows in the official format.

    Returns:
        `list[Path]`: `<model>.json` with the battles, to go next to the published result files, and
            `<model>_captions.json` with `{image: caption}`, the format of submissions.
    """
    rows = read_rows(rows_file)
    captions = {image_of(row): row["caption"] for row in rows}
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    written = [out / f"{model}.json", out / f"{model}_captions.json"]
    battles = _named(official_battles(rows), model, rows_file)
    for path, content in zip(written, (battles, captions), strict=True):
        replace_file(path, json.dumps(content, ensure_ascii=False))
    return written


def _published(folder: str | Path | None) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    if folder is None:
        return
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"Folder not found: {folder}.")
    for path in sorted(Path(folder).glob("*.json")):
        # The download also contains the images' captions, as an object instead of a list.
        if not path.stem.endswith("_captions") and read_text(path).lstrip().startswith("["):
            yield path.stem, _named(read_result(path), path.stem, path)


def _battles_of(path: str | Path, model: str) -> list[dict[str, Any]]:
    if Path(path).suffix == ".json":
        return _named(read_result(path), model, path)
    rows = read_rows(path)
    others = {str(row["metric"]) for row in rows} - {CapArenaAuto.name}
    if others:
        raise BadRowsError([f"{path}: these are rows of {', '.join(others)}, not of caparena."])
    return _named(official_battles(rows), model, path)


def _named(battles: Sequence[dict[str, Any]], model: str, path: str | Path) -> list[dict[str, Any]]:
    """
    The battles with `model` as the name of the side that is not the baseline: captions may have
    been scored under another name, and a verdict is only won by its name.
    """
    named = []
    for battle in battles:
        baseline = battle["ref_model"]
        sides = [side for side in ("source1", "source2") if battle[side] != baseline]
        if len(sides) != 1 or model == baseline:
            raise BadRowsError(
                [
                    f"{path}: the battle of {battle['img']!r} must be between {model!r} and "
                    f"{baseline!r}, but is between {battle['source1']!r} and {battle['source2']!r}."
                ]
            )
        named.append({**battle, sides[0]: model})
    return named


def _place(model: str, battles: Sequence[Mapping[str, Any]], is_new: bool) -> Place:
    rows = rows_of_battles(model, battles)
    weights = resampling_weights(len(rows), strata=CapArenaAuto.strata(rows))
    found = [estimate(statistic, weights) for statistic in CapArenaAuto.statistics(rows)]
    scores = {one.name: one for one in found if one.name in SHOWN}
    return Place(model, scores, is_new)

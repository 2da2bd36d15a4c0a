"""Judges CapArena's human battles, with a pairwise judge or with the scores of the captions."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trl_balcap.data.scored import Caption, captions_of
from trl_balcap.evals.arena import HUMAN, LEVELS
from trl_balcap.evals.battle_lists import read_battle_list
from trl_balcap.evals.jobs import (
    DeclinedError,
    Job,
    ScorePlan,
    check_settings,
    job_settings,
    plan_of,
    sum_of_plans,
    write_settings,
)
from trl_balcap.evals.metrics.caparena import PROMPTS, CapArenaAuto
from trl_balcap.evals.metrics.protocol import Benchmarks, data_hash
from trl_balcap.evals.prompting import prompts_of
from trl_balcap.evals.results import read_rows
from trl_balcap.evals.row_files import replace_file
from trl_balcap.evals.rules.caparena import Battle
from trl_balcap.evals.run import score_captions
from trl_balcap.evals.scoring import score_job
from trl_balcap.judge import Judge

__all__ = ["battle_captions", "judge_battles", "load_battles", "score_battles"]

TEXTS = ("img", "source1", "source2", "caption1", "caption2", "ref", "winner", "cluster")


def load_battles(path: str | Path) -> list[dict[str, Any]]:
    """
    Read `caparena_annots_eval.json`: a list of battles with "img", "source1", "source2",
    "caption1", "caption2", "ref", "winner" (a source, or "equal", "bad" or "skip", which all
    count as ties), "cluster" ("level 1" to "level 4") and "in-400".

    Raises:
        `FileNotFoundError`: if the file does not exist.
        [`BadRowsError`]: if a battle has a different format, with one message each.
    """

    def problem(battle: Mapping[str, Any]) -> str | None:
        if battle["cluster"] in LEVELS:
            return None
        return f"the cluster is {battle['cluster']!r}; it must be one of {', '.join(LEVELS)}."

    return read_battle_list(path, TEXTS, problem)


def battle_captions(battles: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """
    The distinct captions of each model in the battles, with the human reference, as rows to score.
    Human captions are omitted, as in the official agreement.

    Example:

    ```python
    >>> battle = {"img": "i.jpg", "source1": "A", "caption1": "a", "source2": "human",
    ...           "caption2": "h", "ref": "r"}
    >>> battle_captions([battle])
    {'A': [{'id': 'i.jpg', 'image': 'i.jpg', 'caption': 'a', 'reference': 'r'}]}

    ```
    """
    found: dict[str, dict[str, dict[str, str]]] = {}
    for battle in battles:
        for side in ("1", "2"):
            model, image = battle[f"source{side}"], battle["img"]
            row = {"id": image, "image": image, "caption": battle[f"caption{side}"]}
            if model != HUMAN:
                found.setdefault(model, {})[image] = {**row, "reference": battle["ref"]}
    return {model: list(rows.values()) for model, rows in found.items()}


@dataclass
class _Arena(CapArenaAuto):
    """Pairwise judging of given battles, by number, with the order of captions in the file."""

    battles: Mapping[str, Battle] = field(default_factory=dict)

    def problems(self, captions: Sequence[Caption]) -> list[str]:
        """No problems: battles were checked when they were read."""
        self._battles = dict(self.battles)
        return []

    def battle_of(self, caption: Caption) -> Battle | None:
        """The battle with the caption's number."""
        return self._battles.get(caption.id)

    def tested(self, battle: Battle) -> str:
        """The first of the two models."""
        return battle.source1

    def current_battle(self, row: Mapping[str, Any]) -> Battle | None:
        """The battle with the row's number."""
        return self._battles.get(str(row["id"]))


async def judge_battles(
    path: str | Path,
    judge: Judge,
    *,
    images: str | Path,
    out: str | Path,
    benchmarks: Benchmarks | None = None,
    confirm: Callable[[ScorePlan], bool] | None = None,
    on_row: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """
    Ask a judge that sees the image which caption of each battle is better, as CapArena does.

    Battles with the human writer are skipped. An interrupted run resumes where it stopped.
    `OUT/battles.json` has the official format: each battle with "judge" and "judge_reason".

    Args:
        path (`str` or `Path`):
            See [`load_battles`].
        judge ([`Judge`]):
            The judge to ask.
        images (`str` or `Path`):
            Folder with the battles' images.
        out (`str` or `Path`):
            Output folder for the verdicts.
        benchmarks ([`Benchmarks`], *optional*):
            Mode, and checkouts for the official prompts.
        confirm (`Callable`, *optional*):
            Called with the [`ScorePlan`]; nothing is asked unless it returns `True`.
        on_row (`Callable`, *optional*):
            Called when a battle is done.

    Returns:
        `list[dict]`: all battles; those with a verdict have "judge".

    Raises:
        [`BadRowsError`]: if battles or images cannot be used. The judge is not asked in this case.
        `ValueError`: if `out` holds verdicts made with other settings.
        `JudgeConfigError`: if the judge cannot work.
        `DeclinedError`: if `confirm` returns `False`.
    """
    benchmarks, out = benchmarks or Benchmarks(), Path(out)
    battles = load_battles(path)
    fought = {
        str(place): Battle(
            *(battle[name] for name in ("img", "source1", "source2", "caption1", "caption2")),
            ref=battle["ref"],
            ref_model=battle["source2"],
        )
        for place, battle in enumerate(battles)
        if HUMAN not in (battle["source1"], battle["source2"])
    }
    prompts = prompts_of(PROMPTS, benchmarks.checkouts)
    metric = _Arena({}, prompts, "battles", benchmarks.mode, 0, data_hash(path), battles=fought)
    job = Job(metric, out / "caparena.jsonl", job_settings(metric, judge))
    rows = captions_of(
        (
            (f"{path}[{number}]", {"id": number, "image": one.img, "caption": one.caption1})
            for number, one in fought.items()
        ),
        path,
        images=images,
        need_images=True,
        allow_empty=True,
    )
    job.take(rows)
    check_settings(out, [job])
    job.read_earlier()
    plan = plan_of([job])
    if any(plan.left.values()):
        if confirm is not None and not confirm(plan):
            raise DeclinedError("The cost was declined, so nothing was asked.")
        await judge.preflight(vision=True)
    out.mkdir(parents=True, exist_ok=True)
    write_settings(out, [job])
    verdicts = {row["id"]: row for row in await score_job(job, judge, on_row)}
    judged = [
        {**battle, **_official(verdicts.get(str(place)))} for place, battle in enumerate(battles)
    ]
    replace_file(out / "battles.json", json.dumps(judged, ensure_ascii=False))
    return judged


async def score_battles(
    path: str | Path,
    metric: str,
    judge: Judge,
    *,
    images: str | Path,
    out: str | Path,
    benchmarks: Benchmarks | None = None,
    confirm: Callable[[ScorePlan], bool] | None = None,
    on_row: Callable[[str], None] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """
    Score the captions of all battles with a metric that scores them one by one. The higher score
    then wins each battle, see [`~evals.agree.battles_from_rows`].

    Args:
        path (`str` or `Path`):
            See [`load_battles`].
        metric (`str`):
            Name of the metric, such as "b-capscore". The image's human caption is the reference.
        judge, images, out, benchmarks, confirm, on_row:
            As for [`judge_battles`].

    Returns:
        `dict[str, list[dict]]`: scored rows by model.

    Raises:
        [`BadRowsError`], `ValueError`, `JudgeConfigError`, `DeclinedError`: as for
            [`judge_battles`].
    """
    out, folder = Path(out), Path(images).absolute()
    files = {}
    for model, rows in battle_captions(load_battles(path)).items():
        files[model] = out / re.sub(r"[^\w.+-]+", "_", model) / "captions.jsonl"
        files[model].parent.mkdir(parents=True, exist_ok=True)
        placed = [{**row, "image": str(folder / row["image"])} for row in rows]
        replace_file(files[model], "".join(json.dumps(row) + "\n" for row in placed))

    async def score(model: str, agreed: Callable[[ScorePlan], bool] | None) -> None:
        await score_captions(
            files[model],
            judge,
            out=files[model].parent,
            metrics=[metric],
            benchmarks=benchmarks,
            allow_empty=True,
            confirm=agreed,
            on_row=on_row,
        )

    plans: list[ScorePlan] = []

    def note(plan: ScorePlan) -> bool:
        plans.append(plan)
        return False

    for model in files:
        with suppress(DeclinedError):
            await score(model, note)
    if plans and confirm is not None and not confirm(sum_of_plans(plans)):
        raise DeclinedError("The cost was declined, so nothing was asked.")
    for model in files:
        await score(model, None)
    return {model: read_rows(file.with_name(f"{metric}.jsonl")) for model, file in files.items()}


def _official(row: Mapping[str, Any] | None) -> dict[str, str]:
    """The keys that the official script adds to a battle that has a verdict."""
    if row is None or row.get("verdict") is None:
        return {}
    return {"judge_reason": row["replies"][-1], "judge": row["verdict"]}

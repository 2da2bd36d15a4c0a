"""
CapArena-Auto: whether a judge that sees the image prefers the captions to those of three baseline
models.

Each of 600 images is a battle with one baseline. `official` divides the sum by 2, which only gives
percent for 200 images per baseline; `strict` gives the percentage of battles with a verdict.
`rules/caparena.py` defines what counts as a verdict.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from trl_balcap.data.rows import BadRowsError, read_text
from trl_balcap.data.scored import Caption, image_file, image_name
from trl_balcap.evals.asking import Ask, Workload, chat, image_url, is_reply_failure, workload
from trl_balcap.evals.bootstrap import Statistic, mean_statistic, ratio
from trl_balcap.evals.metrics.protocol import (
    Benchmarks,
    Mode,
    PublishedMetric,
    Row,
    data_hash,
    image_of,
)
from trl_balcap.evals.prompting import Place, PromptFiles, Prompts, prompts_of
from trl_balcap.evals.rules.caparena import (
    BASELINES,
    Battle,
    auto_battles,
    caption_length,
    outcome_of,
    read_judgment,
    verdict_of,
)
from trl_balcap.judge import Judge, JudgeError

__all__ = ["PROMPTS", "CapArenaAuto", "load_references"]

PROMPTS = PromptFiles(
    metric="caparena",
    repository="njucckevin/CapArena",
    file="vlm_as_a_judge.py",
    places={
        "system": Place("system_prompt_with_ref"),
        "battle": Place(
            "compare_prompt", ("caption_1", "caption_2", "caption_ref"), "mllm_judge_pairs"
        ),
    },
)
NO_VERDICT = "no verdict"
# The script's payload says 0.5, but the function that sends it overrides that.
TEMPERATURE, TOP_P, MAX_TOKENS, MAX_CALLS = 0.1, 0.9, 1500, 5


def load_references(path: str | Path) -> dict[str, dict[str, Any]]:
    """
    Read `caparena_auto_600.json`: `{image: {"captions": {"human": ..., baseline: ...}, "ref_model":
    baseline}}`.

    Raises:
        `FileNotFoundError`: if there is no such file.
        `BadRowsError`: if an entry has another form, with one message per bad entry.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"File not found: {path}.")
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BadRowsError([f"{path}:{error.lineno}: not JSON ({error.msg})."]) from error
    if not isinstance(content, dict):
        raise BadRowsError([f"{path}:1: must be one object from image to captions."])
    problems = []
    for image, row in content.items():
        baseline = row.get("ref_model") if isinstance(row, dict) else None
        captions = row.get("captions") if isinstance(row, dict) else None
        if baseline not in BASELINES:
            problems.append(
                f"{path}: {image!r}: ref_model is {baseline!r}, but must be the full name of a "
                f"baseline: {', '.join(BASELINES)}."
            )
        elif not isinstance(captions, dict) or not all(
            isinstance(captions.get(name), str) for name in ("human", baseline)
        ):
            problems.append(f"{path}: {image!r}: needs captions by 'human' and {baseline!r}.")
    if problems:
        raise BadRowsError(problems)
    return content


@dataclass
class CapArenaAuto(PublishedMetric):
    """
    The metric, ready to score captions.

    Args:
        references (`Mapping`):
            From [`load_references`].
        prompts ([`Prompts`]):
            Ours or the official ones.
        model (`str`, *optional*, defaults to `"captions"`):
            The tested model's name. A baseline's name skips its own images.
        mode (`str`, *optional*, defaults to `"official"`):
            See the module.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the order of the two captions.
        data_sha256 (`str`, *optional*):
            Hash of the reference file.
    """

    references: Mapping[str, Mapping[str, Any]]
    prompts: Prompts
    model: str = "captions"
    mode: Mode = "official"
    seed: int = 0
    data_sha256: str | None = None
    _battles: dict[str, Battle] = field(default_factory=dict, init=False, repr=False)

    name = "caparena"
    needs_image = True
    checkout_file = PROMPTS.file
    official_judge = "gpt-4o-2024-08-06"
    data = "the baselines' captions (caparena_auto_600.json)"
    final_reasons = frozenset({"own baseline"})
    official_reasons = frozenset({NO_VERDICT})
    of_the_model = frozenset({"model"})

    @classmethod
    def build(cls, judge: Judge, benchmarks: Benchmarks) -> Self:
        """Read the baselines' captions."""
        prompts = prompts_of(PROMPTS, benchmarks.checkouts)
        path = benchmarks.data_of(cls)
        references = load_references(path)
        model, mode, seed = benchmarks.model, benchmarks.mode, benchmarks.seed
        return cls(references, prompts, model, mode, seed, data_hash(path))

    def settings(self) -> dict[str, Any]:
        """The baselines' captions, the model's name, and the seed of the coin flips."""
        return {"data_sha256": self.data_sha256, "seed": self.seed, "model": self.model}

    def absent(self, rows: Sequence[Row]) -> int:
        """Images of this model's battles without a row."""
        fought = {i for i, row in self.references.items() if row["ref_model"] != self.model}
        return len(fought - {image_of(row) for row in rows})

    def covers(self, caption: Caption) -> bool:
        """Whether a baseline has captioned the image."""
        return image_name(caption) in self.references

    def battle_of(self, caption: Caption) -> Battle | None:
        """The battle that a caption fights; `None` where the model is the image's own baseline."""
        return self._battles.get(image_name(caption))

    def tested(self, battle: Battle) -> str:
        """The model whose victory counts 1."""
        return self.model

    def current_battle(self, row: Row) -> Battle | None:
        """The battle that a row would be of now."""
        return self._battles.get(image_of(row))

    def is_current(self, row: Row) -> bool:
        """Whether the battle is still the same, including the order."""
        battle = self.current_battle(row)
        if battle is None or row.get("ref_model") is None:
            return battle is None
        return all(row[name] == getattr(battle, name) for name in ("source1", "caption1", "ref"))

    def problems(self, captions: Sequence[Caption]) -> list[str]:
        """One message per caption without a battle and, in `official` mode, one if images lack a
        caption."""
        by_image = {image_name(caption): caption.caption for caption in captions}
        problems = [
            f"{caption.where}: CapArena-Auto has no image {image_name(caption)!r}. Remove the row."
            for caption in captions
            if not self.covers(caption)
        ]
        absent = [
            image
            for image, row in self.references.items()
            if image not in by_image and row["ref_model"] != self.model
        ]
        if absent and self.mode == "official":
            source = captions[0].where.rpartition(":")[0] if captions else "the captions"
            problems.append(
                f"{source}: {len(absent)} of {len(self.references)} images have no caption, such "
                f"as {absent[0]!r}, and the official scorer stops there. Caption them, or score "
                f"the others with --mode strict."
            )
        present = {image: row for image, row in self.references.items() if image in by_image}
        battles = auto_battles(present, by_image, self.model, seed=self.seed)
        self._battles = {battle.img: battle for battle in battles}
        return problems

    def workload(self, captions: Sequence[Caption]) -> Workload:
        """One call per battle."""
        words = sum(map(len, self.prompts.texts.values()))
        total = Workload()
        for caption in captions:
            battle = self.battle_of(caption)
            if battle is not None:
                texts = len(battle.caption1) + len(battle.caption2) + len(battle.ref)
                total += workload(prompt_chars=words + texts, completion_chars=600, image=True)
        return total

    async def score(self, caption: Caption, ask: Ask, earlier: Row | None = None) -> dict[str, Any]:
        """
        Fight one battle.

        Returns:
            `dict`: "score" 1, 0 or -1, or `None` with a "reason" if no verdict counts; the battle,
            the judge's words in "verdict", and its "replies".

        Raises:
            `JudgeError`: if the judge did not answer at all.
        """
        battle = self.battle_of(caption)
        if battle is None:  # the tested model is this image's baseline
            return {"score": None, "reason": "own baseline", "ref_model": None, "replies": []}
        judged, replies = await self.fight(battle, ask, image_file(caption))
        outcome = outcome_of(judged, self.tested(judged), self.mode)
        return {
            "score": outcome,
            "reason": NO_VERDICT if outcome is None else None,
            "replies": replies,
            **_words(judged),
        }

    def unjudged(self, caption: Caption) -> dict[str, Any]:
        """The battle, without a verdict."""
        battle = self.battle_of(caption)
        return {"replies": [], **({} if battle is None else _words(battle))}

    async def fight(
        self, battle: Battle, ask: Ask, image: Path | None
    ) -> tuple[Battle, list[str | None]]:
        """
        Ask for a verdict up to five times, until a reply has a reason and a judgment.

        `strict` also asks again if the judgment is none of the three.
        """
        messages = chat(
            self.prompts.fill("system"),
            self.prompts.fill(
                "battle",
                caption_1=self.prompts.quote(battle.caption1),
                caption_2=self.prompts.quote(battle.caption2),
                caption_ref=self.prompts.quote(battle.ref),
            ),
            image=await asyncio.to_thread(image_url, image, reencode=False) if image else None,
        )
        replies: list[str | None] = []
        for attempt in range(MAX_CALLS):
            try:
                (reply,) = await ask(
                    messages,
                    tag="caparena",
                    temperature=TEMPERATURE,
                    max_tokens=MAX_TOKENS,
                    top_p=TOP_P,
                    attempt=attempt,
                )
            except JudgeError as error:
                if not is_reply_failure(error):
                    raise
                replies.append(error.reply)
                continue
            replies.append(reply)
            judgment = read_judgment(reply)
            if judgment and (self.mode == "official" or verdict_of(judgment, "strict") is not None):
                return battle._replace(verdict=judgment), replies
        return battle, replies

    def shown(self, row: Row) -> dict[str, Any]:
        """1, 0 or -1, with the caption that it met and the judge's words."""
        shown: dict[str, Any] = {"rewards": {self.name: row["score"]}}
        if row.get("ref_model") is None:
            return shown
        other = row["caption2"] if row["source1"] == self.model else row["caption1"]
        against = {"against": row["ref_model"], "its caption": other, "judge": row["verdict"]}
        return {**shown, "reference": row["ref"], "extra": against}

    def notes(self, rows: Sequence[Row]) -> Iterator[str]:
        """Notes on battles that count as ties without being one."""
        unread = sum(row["reason"] == NO_VERDICT for row in rows)
        if unread and self.mode == "official":
            yield f"{unread} battles without a verdict in the exact words add 0, as officially."
        silent = sum(not _is_answered(row) for row in rows if row.get("ref_model") is not None)
        if silent and self.mode == "official":
            yield (
                f"{silent} battles were not answered. They do not add 0: the others' score is "
                "scaled up to all battles."
            )

    @staticmethod
    def statistics(rows: Sequence[Row]) -> list[Statistic]:
        """
        Corpus scores of scored rows: Score_Avg, the score against each baseline, and the shares of
        battles won, lost and tied. The mode is taken from the rows.
        """
        outcomes = np.array([row["score"] or 0 for row in rows], dtype=float)  # (N,)
        judged = np.array([row["score"] is not None for row in rows], dtype=bool)
        answered = np.array([_is_answered(row) for row in rows], dtype=bool)
        baselines = list(BASELINES)
        against = np.array([[row.get("ref_model") == name for name in baselines] for row in rows])
        against = against.reshape(len(rows), len(baselines))  # (N, 3)
        official = bool(rows) and rows[0]["mode"] == "official"
        counted = answered if official else judged
        sums = np.stack(
            [against * outcomes[:, None], against * counted[:, None], against.astype(float)],
            axis=-1,
        )  # (N, 3, 3): won minus lost, battles that count, battles

        def score(parts: np.ndarray) -> np.ndarray:
            if not official:
                return 100 * ratio(parts[..., :2])
            with np.errstate(invalid="ignore", divide="ignore"):
                whole = parts[..., 0] / 2 * (parts[..., 2] / parts[..., 1])
            return np.where(parts[..., 2] > 0, whole, 0.0)  # a baseline's own column is 0

        def average(totals: np.ndarray) -> np.ndarray:
            scores = score(totals.reshape(*totals.shape[:-1], len(baselines), 3))
            if official:
                return scores.mean(axis=-1)
            # In strict mode, a baseline without a judged battle is left out of the mean.
            present = ~np.isnan(scores)
            return ratio(np.stack([np.nansum(scores, axis=-1), present.sum(axis=-1)], axis=-1))

        lengths = [
            None if row.get("ref_model") is None else caption_length(row["caption"]) for row in rows
        ]
        return [
            Statistic("Score_Avg", sums.reshape(len(rows), -1), average, counted),
            *(
                Statistic(
                    f"Score_{BASELINES[name]}", sums[:, place], score, counted & against[:, place]
                )
                for place, name in enumerate(baselines)
            ),
            *(
                mean_statistic(
                    name,
                    [None if row["score"] is None else row["score"] == value for row in rows],
                    100,
                )
                for name, value in (("won", 1), ("tied", 0), ("lost", -1))
            ),
            mean_statistic("Length_Avg", lengths),
        ]

    @staticmethod
    def strata(rows: Sequence[Row]) -> list[str]:
        """Baselines keep their number of battles."""
        return [str(row.get("ref_model")) for row in rows]


def _is_answered(row: Row) -> bool:
    """Whether the judge answered about a battle, in the exact words or not."""
    return row["score"] is not None or row["reason"] == NO_VERDICT


def _words(battle: Battle) -> dict[str, Any]:
    words = battle._asdict()
    del words["img"]
    return words

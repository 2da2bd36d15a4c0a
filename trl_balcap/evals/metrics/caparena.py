"""
CapArena-Auto: does a judge that sees the image prefer the captions to those of three baseline models?

Each of 600 images is a battle with one baseline. Rules and quirks as measured on njucckevin/CapArena at c251cdd. Two
modes:

- `official`: those numbers. A verdict counts only in the exact words, anything else adds 0, and the sum is divided by
  2, which is percent only at 200 images a baseline.
- `strict`: brackets, bold, case and a full stop do not matter, a battle without a verdict leaves its baseline's
  denominator, and scores are always percent.
"""

import asyncio
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from trl_balcap.data.jsonl import BadRowsError
from trl_balcap.data.scored import Caption, image_file, image_name
from trl_balcap.evals.asking import Ask, Workload, chat, image_url, is_reply_failure, workload
from trl_balcap.evals.bootstrap import Statistic, mean_statistic, ratio
from trl_balcap.evals.prompting import Prompts
from trl_balcap.judge import JudgeError

__all__ = [
    "BASELINES",
    "OFFICIAL_JUDGE",
    "ArenaScores",
    "Battle",
    "CapArenaAuto",
    "arena_scores",
    "auto_battles",
    "caption_length",
    "load_references",
    "outcome_of",
    "read_judgment",
    "statistics",
    "verdict_of",
]

Mode = Literal["official", "strict"]
Verdict = Literal[1, 2, 0]

BASELINES = {
    "GPT-4o-0806": "gpt",
    "CogVLM2-llama3-chat-19B": "cog",
    "MiniCPM-V2.6-8B": "cpm",
}
"""Full name of each baseline, as the files write it, and the short one of its score."""

OFFICIAL_JUDGE = "gpt-4o-2024-08-06"
# The script's payload says 0.5; the function that sends it overrides that.
TEMPERATURE, TOP_P, MAX_TOKENS, MAX_CALLS = 0.1, 0.9, 1500, 5

_EXACT: dict[str, Verdict] = {
    "Caption 1 is better": 1,
    "Caption 1 is better.": 1,
    "Caption 2 is better": 2,
    "Caption 2 is better.": 2,
    "Tie": 0,
    "Tie.": 0,
}


class Battle(NamedTuple):
    """Two captions of one image. `judge` is the verdict's words, `None` where there is none."""

    img: str
    source1: str
    source2: str
    caption1: str
    caption2: str
    ref: str
    ref_model: str
    judge: str | None = None


class ArenaScores(NamedTuple):
    """
    Scores against each baseline and their mean, from -100 (all lost) to 100 (all won).

    Args:
        by_baseline (`dict[str, float or None]`):
            Score of each baseline's full name; `None` in `strict` where no battle with it has a verdict.
        score_avg (`float` or `None`):
            Mean over the three baselines; in `strict` over those that have a score.
        length_avg (`float`):
            Mean caption length in words, empty captions and battles without a verdict included.
        n_judged (`dict[str, int]`):
            Battles with a verdict that counts, of each baseline.
    """

    by_baseline: dict[str, float | None]
    score_avg: float | None
    length_avg: float
    n_judged: dict[str, int]


def auto_battles(
    references: Mapping[str, Mapping[str, Any]],
    captions: Mapping[str, str],
    model: str,
    *,
    seed: int = 0,
) -> list[Battle]:
    """
    Battles of a model: one per image, its order of captions drawn by a coin, none against itself.

    The official coin has no seed; any seed is one of its outcomes.

    Args:
        references (`Mapping`):
            `caparena_auto_600.json`: for each image `{"captions": {"human": ..., baseline: ...}, "ref_model": ...}`.
        captions (`Mapping[str, str]`):
            The model's caption of each image.
        model (`str`):
            The model's name. A baseline skips its own images.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the coins.

    Returns:
        `list[Battle]`

    Raises:
        KeyError: If an image has no caption.

    Example:

    ```python
    >>> references = {"i.jpg": {"captions": {"human": "h", "GPT-4o-0806": "g"}, "ref_model": "GPT-4o-0806"}}
    >>> battle, = auto_battles(references, {"i.jpg": "mine"}, "mine-7B")
    >>> battle.source1, battle.caption2
    ('mine-7B', 'g')

    ```
    """
    coin = random.Random(seed)
    battles = []
    for image, row in references.items():
        baseline = row["ref_model"]
        if baseline == model:
            continue
        theirs, ours = (baseline, row["captions"][baseline]), (model, captions[image])
        first, second = (theirs, ours) if coin.randint(0, 1) == 0 else (ours, theirs)
        battles.append(
            Battle(
                img=image,
                source1=first[0],
                source2=second[0],
                caption1=first[1],
                caption2=second[1],
                ref=row["captions"]["human"],
                ref_model=baseline,
            )
        )
    return battles


def read_judgment(reply: str | None) -> str | None:
    r"""
    Words of the verdict in a reply, `None` where the judge must be asked again.

    Both a reason and a judgment must be there, in that order, in the official script's reading: the reason is what
    stands between "Reason:" and the next "Judgment:", the judgment the line after the first "Judgment:".

    Example:

    ```python
    >>> read_judgment("Reason: more detail.\nJudgment: <Tie>")
    '<Tie>'
    >>> read_judgment("Judgment: Tie") is None
    True

    ```
    """
    if not reply:
        return None
    reason = re.search(r"Reason:\s*(.+?)\s*Judgment:", reply, re.DOTALL)
    judgment = re.search(r"Judgment:\s*(.+)", reply)
    if not reason or not reason[1].strip() or not judgment:
        return None
    return judgment[1].strip() or None


def verdict_of(judgment: str | None, mode: Mode = "official") -> Verdict | None:
    """
    1 or 2 for the better caption, 0 for a tie, `None` for words that do not count.

    Example:

    ```python
    >>> verdict_of("Caption 2 is better."), verdict_of("<Tie>"), verdict_of("<Tie>", mode="strict")
    (2, None, 0)

    ```
    """
    if judgment is None:
        return None
    if mode == "official":
        return _EXACT.get(judgment)
    plain = re.sub(r"[<>*_`\"'\[\]().]", "", judgment)
    plain = " ".join(plain.split()).lower()
    return {"caption 1 is better": 1, "caption 2 is better": 2, "tie": 0}.get(plain)  # type: ignore[return-value]


def caption_length(caption: str) -> int:
    """
    Words of a caption as the official leaderboard counts them: pieces between single spaces, so "" is 1.

    Example:

    ```python
    >>> caption_length("a red cup"), caption_length("")
    (3, 1)

    ```
    """
    return len(caption.split(" "))


def arena_scores(battles: Sequence[Battle], model: str, mode: Mode = "official") -> ArenaScores:
    """
    Score of a model: `(won - lost) / 2` against each baseline (`official`), or
    `100 (won - lost) / judged` (`strict`).

    Args:
        battles (`Sequence[Battle]`):
            The model's battles, with verdicts.
        model (`str`):
            The model's name, one of the two sources in each battle.
        mode (`str`, *optional*, defaults to `"official"`):
            See the module.

    Returns:
        [`ArenaScores`]

    Raises:
        KeyError: If a battle's `ref_model` is none of the three baselines.
        ValueError: If there is no battle.

    Example:

    ```python
    >>> won = Battle("i", "mine", "GPT-4o-0806", "a", "b", "", "GPT-4o-0806", "Caption 1 is better")
    >>> arena_scores([won], "mine").by_baseline["GPT-4o-0806"]  # 1 of 200 images is half a percent
    0.5
    >>> arena_scores([won], "mine", mode="strict").score_avg
    100.0

    ```
    """
    if not battles:
        raise ValueError(f"CapArena-Auto needs at least one battle of {model!r}, got none.")
    balance = dict.fromkeys(BASELINES, 0)
    judged = dict.fromkeys(BASELINES, 0)
    lengths = []
    for battle in battles:
        ours_first = battle.source1 == model
        lengths.append(caption_length(battle.caption1 if ours_first else battle.caption2))
        outcome = outcome_of(battle, model, mode)
        if outcome is None:
            continue
        if battle.ref_model not in BASELINES:
            raise KeyError(battle.ref_model)
        judged[battle.ref_model] += 1
        balance[battle.ref_model] += outcome
    scores: dict[str, float | None] = {}
    for baseline in BASELINES:
        if mode == "official":
            scores[baseline] = balance[baseline] / 2
        else:
            n = judged[baseline]
            scores[baseline] = 100 * balance[baseline] / n if n else None
    present = [score for score in scores.values() if score is not None]
    return ArenaScores(
        by_baseline=scores,
        score_avg=sum(present) / len(present) if present else None,
        length_avg=sum(lengths) / len(lengths),
        n_judged=judged,
    )


def outcome_of(battle: Battle, model: str, mode: Mode = "official") -> int | None:
    """
    1 where the model won its battle, -1 where it lost, 0 for a tie, `None` without a verdict.

    Example:

    ```python
    >>> battle = Battle("i", "GPT-4o-0806", "mine", "a", "b", "", "GPT-4o-0806", "Caption 2 is better")
    >>> outcome_of(battle, "mine"), outcome_of(battle._replace(judge="neither"), "mine")
    (1, None)

    ```
    """
    verdict = verdict_of(battle.judge, mode)
    if verdict is None or verdict == 0:
        return verdict
    winner = battle.source1 if verdict == 1 else battle.source2
    return 1 if winner == model else -1


def load_references(path: str | Path) -> dict[str, dict[str, Any]]:
    """
    Read `caparena_auto_600.json`: `{image: {"captions": {"human": ..., baseline: ...}, "ref_model": baseline}}`.

    Raises:
        FileNotFoundError: If there is no such file.
        BadRowsError: If an entry is of another form, with one message per bad entry.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(content, dict):
        raise BadRowsError([f"{path}:1: must be one object from image to captions."])
    problems = []
    for image, row in content.items():
        baseline = row.get("ref_model") if isinstance(row, dict) else None
        captions = row.get("captions", {}) if isinstance(row, dict) else {}
        if baseline not in BASELINES:
            problems.append(
                f"{path}: {image!r}: ref_model is {baseline!r}; it must be the full name of a baseline: "
                f"{', '.join(BASELINES)}."
            )
        elif not all(isinstance(captions.get(name), str) for name in ("human", baseline)):
            problems.append(f"{path}: {image!r}: captions of 'human' and {baseline!r} are needed.")
    if problems:
        raise BadRowsError(problems)
    return content


@dataclass
class CapArenaAuto:
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
            Seed of the order in which the two captions stand.
    """

    references: Mapping[str, Mapping[str, Any]]
    prompts: Prompts
    model: str = "captions"
    mode: Mode = "official"
    seed: int = 0
    name = "caparena"
    _battles: dict[str, Battle] = field(default_factory=dict, init=False, repr=False)

    def problems(self, captions: Sequence[Caption]) -> list[str]:
        """One message per caption without a battle; in `official` also one if images have no caption."""
        by_image = {image_name(caption): caption.caption for caption in captions}
        problems = [
            f"{caption.where}: CapArena-Auto has no image {image_name(caption)!r}. Remove the row."
            for caption in captions
            if image_name(caption) not in self.references
        ]
        absent = [
            image
            for image, row in self.references.items()
            if image not in by_image and row["ref_model"] != self.model
        ]
        if absent and self.mode == "official":
            source = captions[0].where.rpartition(":")[0] if captions else "the captions"
            problems.append(
                f"{source}: {len(absent)} of {len(self.references)} images have no caption, such as "
                f"{absent[0]!r}, and the official scorer stops there. Caption them, or score what there "
                f"is with --mode strict."
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
            battle = self._battles.get(image_name(caption))
            if battle is not None:
                texts = len(battle.caption1) + len(battle.caption2) + len(battle.ref)
                total += workload(prompt_chars=words + texts, completion_chars=600, image=True)
        return total

    async def score(self, caption: Caption, ask: Ask) -> dict[str, Any]:
        """
        Fight one battle.

        Returns:
            `dict`: "score" 1, 0 or -1, `None` with a "reason" where no verdict counts; the battle, the judge's words
            in "judge" and its "replies".

        Raises:
            JudgeError: If the judge did not answer at all.
        """
        battle = self._battles.get(image_name(caption))
        if battle is None:  # the tested model is this image's baseline
            return {"score": None, "reason": "own baseline", "ref_model": None, "replies": []}
        judged, replies = await self.fight(battle, ask, image_file(caption))
        outcome = outcome_of(judged, self.model, self.mode)
        words = judged._asdict()
        del words["img"]
        return {
            "score": outcome,
            "reason": "no verdict" if outcome is None else None,
            "replies": replies,
            **words,
        }

    async def fight(
        self, battle: Battle, ask: Ask, image: Path | None
    ) -> tuple[Battle, list[str | None]]:
        """
        Ask for a verdict, at most five times until a reply has a reason and a judgment.

        `strict` also asks again where the judgment is none of the three.
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
                return battle._replace(judge=judgment), replies
        return battle, replies


def statistics(rows: Sequence[Mapping[str, Any]]) -> list[Statistic]:
    """
    Corpus scores of scored rows: Score_Avg, the score against each baseline, and the share of battles won, lost and
    tied. The mode is the rows' own.
    """
    outcomes = np.array([row["score"] or 0 for row in rows], dtype=float)  # (N,)
    judged = np.array([row["score"] is not None for row in rows], dtype=bool)
    baselines = list(BASELINES)
    against = np.array([[row.get("ref_model") == name for name in baselines] for row in rows])
    against = against.reshape(len(rows), len(baselines))  # (N, 3)
    sums = np.stack(
        [against * outcomes[:, None], against * judged[:, None].astype(float)], axis=-1
    )  # (N, 3, 2)
    official = bool(rows) and rows[0]["mode"] == "official"

    def score(pairs: np.ndarray) -> np.ndarray:
        return pairs[..., 0] / 2 if official else 100 * ratio(pairs)

    def average(totals: np.ndarray) -> np.ndarray:
        scores = score(totals.reshape(*totals.shape[:-1], len(baselines), 2))
        if official:
            return scores.mean(axis=-1)
        # In strict mode a baseline without a judged battle stays out of the mean.
        present = ~np.isnan(scores)
        return ratio(np.stack([np.nansum(scores, axis=-1), present.sum(axis=-1)], axis=-1))

    lengths = [
        None if row.get("ref_model") is None else caption_length(row["caption"]) for row in rows
    ]
    return [
        Statistic("Score_Avg", sums.reshape(len(rows), -1), average, judged),
        *(
            Statistic(f"Score_{BASELINES[name]}", sums[:, place], score, judged & against[:, place])
            for place, name in enumerate(baselines)
        ),
        *(
            mean_statistic(
                name, [None if row["score"] is None else row["score"] == value for row in rows], 100
            )
            for name, value in (("won", 1), ("tied", 0), ("lost", -1))
        ),
        mean_statistic("Length_Avg", lengths),
    ]


def strata(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stays fixed when images are resampled: the number of battles with each baseline."""
    return [str(row.get("ref_model")) for row in rows]

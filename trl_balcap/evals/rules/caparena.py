"""
Rules of CapArena-Auto: who battles whom, and what counts as a verdict.

Rules and quirks as measured on njucckevin/CapArena at c251cdd. Two modes:

- `official`: those numbers. A verdict counts only in the exact words.
- `strict`: brackets, bold, case and a full stop do not matter.
"""

import random
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

__all__ = [
    "BASELINES",
    "Battle",
    "auto_battles",
    "caption_length",
    "outcome_of",
    "read_judgment",
    "verdict_of",
]

Mode = Literal["official", "strict"]
Verdict = Literal[1, 2, 0]
BASELINES = {
    "GPT-4o-0806": "gpt",
    "CogVLM2-llama3-chat-19B": "cog",
    "MiniCPM-V2.6-8B": "cpm",
}
"""Full name of each baseline in the files, and the short name of its score."""
_EXACT: dict[str, Verdict] = {
    "Caption 1 is better": 1,
    "Caption 1 is better.": 1,
    "Caption 2 is better": 2,
    "Caption 2 is better.": 2,
    "Tie": 0,
    "Tie.": 0,
}


class Battle(NamedTuple):
    """Two captions of one image. `verdict` is the judge's words, `None` if there are none."""

    img: str
    source1: str
    source2: str
    caption1: str
    caption2: str
    ref: str
    ref_model: str
    verdict: str | None = None


def auto_battles(
    references: Mapping[str, Mapping[str, Any]],
    captions: Mapping[str, str],
    model: str,
    *,
    seed: int = 0,
) -> list[Battle]:
    """
    Battles of a model: one per image, with the captions in random order, and none against itself.

    The official coin flip has no seed; any seed is one of its outcomes.

    Args:
        references (`Mapping`):
            `caparena_auto_600.json`: for each image `{"captions": {"human": ..., baseline: ...},
            "ref_model": ...}`.
        captions (`Mapping[str, str]`):
            The model's caption of each image.
        model (`str`):
            The model's name. A baseline skips its own images.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the coin flips.

    Returns:
        `list[Battle]`

    Raises:
        `KeyError`: if an image has no caption.

    Example:

    ```python
    >>> references = {"i.jpg": {"captions": {"human": "h", "GPT-4o-0806": "g"}, "ref_model": "GPT-4o-0806"}}
    >>> battle, = auto_battles(references, {"i.jpg": "mine"}, "mine-7B")
    >>> battle.source1, battle.caption2
    ('mine-7B', 'g')

    ```
    """  # noqa: E501
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
    The words of the verdict in a reply, `None` if the judge must be asked again.

    There must be a reason and a judgment, in that order. As in the official script, the reason is
    between "Reason:" and the next "Judgment:", and the judgment is the line after the first
    "Judgment:".

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
    # The script's `Reason:\s*(.+?)\s*Judgment:`, which takes a minute for 32 KB of blank lines.
    reason = reply.partition("Reason:")[2].lstrip()
    judgment = re.search(r"Judgment:\s*(.+)", reply)
    if reason.find("Judgment:", 1) < 0 or not judgment:
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
    Number of words in a caption as the official leaderboard counts them: parts between single
    spaces, so "" counts 1.

    Example:

    ```python
    >>> caption_length("a red cup"), caption_length("")
    (3, 1)

    ```
    """
    return len(caption.split(" "))


def outcome_of(battle: Battle, model: str, mode: Mode = "official") -> int | None:
    """
    1 if the model won its battle, -1 if it lost, 0 for a tie, `None` without a verdict.

    Example:

    ```python
    >>> battle = Battle("i", "GPT-4o-0806", "mine", "a", "b", "", "GPT-4o-0806", "Caption 2 is better")
    >>> outcome_of(battle, "mine"), outcome_of(battle._replace(verdict="neither"), "mine")
    (1, None)

    ```
    """  # noqa: E501
    verdict = verdict_of(battle.verdict, mode)
    if verdict is None or verdict == 0:
        return verdict
    winner = battle.source1 if verdict == 1 else battle.source2
    return 1 if winner == model else -1

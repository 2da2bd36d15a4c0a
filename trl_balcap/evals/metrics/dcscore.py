"""
DCScore (DeCapBench): which atomic facts of a caption are right, and which facts of the image the
caption contains.

There are three questions per caption: split it into facts; match them with the image's annotated
facts (three replies); verify them against the image (three replies). Each pair of replies is a
trial, and a caption's score is the mean of nine. In `official` mode a caption that cannot be scored
is left out; `rules/dcscore.py` has the other rules of both modes.
"""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from trl_balcap.data.rows import BadRowsError, read_jsonl
from trl_balcap.data.scored import Caption, image_file, image_name
from trl_balcap.evals.asking import Ask, Workload, chat, image_url, is_reply_failure, workload
from trl_balcap.evals.bootstrap import Statistic, mean_statistic
from trl_balcap.evals.metrics.protocol import (
    Benchmarks,
    Mode,
    PublishedMetric,
    Row,
    data_hash,
    image_of,
)
from trl_balcap.evals.prompting import Place, PromptFiles, Prompts, prompts_of
from trl_balcap.evals.rules.dcscore import (
    FactScores,
    InvalidReplyError,
    fact_scores,
    format_facts,
    read_extraction,
    read_mapping,
    read_verification,
)
from trl_balcap.judge import Judge, JudgeError

__all__ = ["PROMPTS", "DCScore", "OracleFacts", "load_oracle_facts", "official_crash"]

PROMPTS = PromptFiles(
    metric="dcscore",
    repository="MAGAer13/DeCapBench",
    file="eval/evaluation_decapbench.py",
    places={
        "extract": Place("extract_prompt", ("caption",)),
        "match": Place("match_prompt", ("predicted_atomic_facts", "oracle_atomic_facts")),
        "verify": Place("verify_prompt", ("reference_caption", "atomic_facts")),
    },
)
INVALID = "invalid replies"
FACTS_OF_CHECKOUT = "eval/human_annotated_oracle_facts.jsonl"
ATTEMPTS = 5  # per caption, each starting with the extraction
REPLIES = 3  # to the matching and to the verification question
MAX_TOKENS = 2000
SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True)
class OracleFacts:
    """The annotation of one image: its reference caption and its facts."""

    reference: str
    facts: tuple[str, ...]


def load_oracle_facts(path: str | Path) -> dict[str, OracleFacts]:
    """
    Read the benchmark's annotations: JSONL with "image_name", "oracle_caption" and "oracle_facts".

    Raises:
        `FileNotFoundError`: if there is no such file.
        `BadRowsError`: if a row lacks these columns, with one message per bad row.
    """
    annotations: dict[str, OracleFacts] = {}
    problems = []
    for number, row in read_jsonl(path):
        name, reference, facts = (
            row.get(column) for column in ("image_name", "oracle_caption", "oracle_facts")
        )
        if (
            not isinstance(name, str)
            or not isinstance(reference, str)
            or not isinstance(facts, list)
            or not all(isinstance(fact, str) for fact in facts)
        ):
            problems.append(
                f'{path}:{number}: rows need "image_name" and "oracle_caption" (strings) and '
                f'"oracle_facts" (a list of strings), but this one has {", ".join(row)}.'
            )
            continue
        annotations[name] = OracleFacts(reference, tuple(facts))
    if problems:
        raise BadRowsError(problems)
    return annotations


@dataclass(frozen=True)
class DCScore(PublishedMetric):
    """
    The metric, ready to score captions.

    Args:
        annotations (`Mapping[str, OracleFacts]`):
            By image file name, from [`load_oracle_facts`].
        prompts ([`Prompts`]):
            Ours or the official ones.
        mode (`str`, *optional*, defaults to `"official"`):
            See `rules/dcscore.py`.
        data_sha256 (`str`, *optional*):
            Hash of the annotation file.
    """

    annotations: Mapping[str, OracleFacts]
    prompts: Prompts
    mode: Mode = "official"
    data_sha256: str | None = None

    name = "dcscore"
    needs_image = True
    checkout_file = PROMPTS.file
    official_judge = "gpt-4o-2024-05-13"
    official_reasons = frozenset({INVALID})
    data = "the annotated facts (human_annotated_oracle_facts.jsonl of MAGAer13/DeCapBench)"

    @classmethod
    def build(cls, judge: Judge, benchmarks: Benchmarks) -> Self:
        """Read the annotated facts from their file, or from the official repository's clone."""
        prompts = prompts_of(PROMPTS, benchmarks.checkouts)
        in_checkout = (Path(folder) / FACTS_OF_CHECKOUT for folder in benchmarks.checkouts)
        facts = next(filter(Path.is_file, in_checkout), None)
        if facts is None or cls.name in benchmarks.data:
            facts = Path(benchmarks.data_of(cls))
        return cls(load_oracle_facts(facts), prompts, benchmarks.mode, data_hash(facts))

    def settings(self) -> dict[str, Any]:
        """The annotations."""
        return {"data_sha256": self.data_sha256}

    def absent(self, rows: Sequence[Row]) -> int:
        """Number of annotated images without a row."""
        return len(self.annotations.keys() - {image_of(row) for row in rows})

    def covers(self, caption: Caption) -> bool:
        """Whether the image has annotated facts."""
        return image_name(caption) in self.annotations

    def problems(self, captions: Sequence[Caption]) -> list[str]:
        """One message per caption whose image has no annotated facts."""
        return [
            f"{caption.where}: no annotated facts for {image_name(caption)!r}. Remove the row, or "
            f"add its facts to the file given with --data dcscore=PATH."
            for caption in captions
            if not self.covers(caption)
        ]

    def workload(self, captions: Sequence[Caption]) -> Workload:
        """One call for extraction and three each for matching and verification, if all replies are
        valid."""
        total = Workload()
        for caption in captions:
            text = len(caption.caption)
            oracle = self.annotations[image_name(caption)]
            annotated = len(json.dumps(oracle.facts)) + 20 * len(oracle.facts)
            facts = 2.5 * text  # a list of facts is longer than its caption
            sizes = {part: len(words) for part, words in self.prompts.texts.items()}
            total += workload(prompt_chars=sizes["extract"] + text, completion_chars=facts)
            total += workload(
                prompt_chars=sizes["match"] + facts + annotated,
                completion_chars=facts,
                calls=REPLIES,
            )
            total += workload(
                prompt_chars=sizes["verify"] + facts + len(oracle.reference),
                completion_chars=facts,
                calls=REPLIES,
                image=True,
            )
        return total

    async def score(self, caption: Caption, ask: Ask, earlier: Row | None = None) -> dict[str, Any]:
        """
        Score one caption.

        Returns:
            `dict`: "score" (0 to 1) and the means over trials, or `None` with a "reason"; and their
            sources: "facts", "mappings", "verifications", "trials", "attempts" with each failed
            attempt's error.

        Raises:
            `JudgeError`: if the judge did not answer at all.
        """
        row: dict[str, Any] = {"score": None, "reason": None, "attempts": []}
        if self.mode == "strict" and not caption.caption.strip():
            return row | _no_facts()
        oracle = self.annotations[image_name(caption)]
        for attempt in range(ATTEMPTS):
            record: dict[str, Any] = {}
            try:
                trials = await self._attempt(caption, oracle, ask, attempt, record)
            except InvalidReplyError as error:
                row["attempts"].append({"error": str(error)} | record)
                continue
            except JudgeError as error:
                if not is_reply_failure(error):
                    raise
                row["attempts"].append({"error": str(error), "reply": error.reply} | record)
                continue
            return row | record | (_means(trials) if trials else _no_facts())
        return row | {"reason": INVALID}

    async def _attempt(
        self,
        caption: Caption,
        oracle: OracleFacts,
        ask: Ask,
        attempt: int,
        record: dict[str, Any],
    ) -> list[FactScores]:
        """All trials of one attempt; intermediate results are left in `record`."""
        extraction = await ask(
            chat(SYSTEM, self.prompts.fill("extract", caption=self.prompts.quote(caption.caption))),
            tag="dcscore/extract",
            temperature=1.0,
            max_tokens=MAX_TOKENS,
            attempt=attempt,
        )
        facts = record["facts"] = read_extraction(extraction[0], self.mode)
        if self.mode == "strict" and not facts:
            return []
        listed = format_facts(
            {key: value for key, value in fact.items() if key != "relevance"} for fact in facts
        )
        matchings = await ask(
            chat(
                SYSTEM,
                self.prompts.fill(
                    "match",
                    predicted_atomic_facts=listed,
                    oracle_atomic_facts=format_facts(
                        {"id": number, "fact": fact} for number, fact in enumerate(oracle.facts)
                    ),
                ),
            ),
            tag="dcscore/match",
            temperature=1.0,
            max_tokens=MAX_TOKENS,
            n=REPLIES,
            attempt=attempt,
        )
        record["matched"] = True  # without this, the official script crashes in its first attempt
        mappings = [
            read_mapping(reply, n_oracle=len(oracle.facts), mode=self.mode) for reply in matchings
        ]
        record["mappings"] = [
            [{"fact": fact, "matched_oracle_id": match} for fact, match in mapping.items()]
            for mapping in mappings
        ]
        replies = await ask(
            chat(
                SYSTEM,
                self.prompts.fill(
                    "verify",
                    reference_caption=self.prompts.quote(oracle.reference),
                    atomic_facts=listed,
                ),
                image=await asyncio.to_thread(image_url, image_file(caption), reencode=True),
            ),
            tag="dcscore/verify",
            temperature=0.3,
            max_tokens=MAX_TOKENS,
            n=REPLIES,
            attempt=attempt,
        )
        verifications = [read_verification(reply, self.mode) for reply in replies]
        record["verifications"] = verifications
        trials = [
            fact_scores(facts, [{}] * len(oracle.facts), verification, mapping, self.mode)
            for verification in verifications
            for mapping in mappings
        ]
        record["trials"] = [trial._asdict() for trial in trials]
        return trials

    def shown(self, row: Row) -> dict[str, Any]:
        """Facts as assertions, right where most verifications say so, pointable where they
        describe the image; annotated facts as units, covered where most matchings say so."""
        verdicts: dict[str, list[bool]] = defaultdict(list)
        for reply in row.get("verifications") or ():
            for entry in reply:
                verdicts[str(entry["fact"])].append(bool(entry["verification"]))
        mappings = row.get("mappings") or ()
        matched = Counter(
            str(place)
            for reply in mappings
            for place in {one["matched_oracle_id"] for one in reply}
        )
        oracle = self.annotations[image_of(row)]
        facts = [(str(fact["fact"]), bool(fact["relevance"])) for fact in row.get("facts") or ()]
        return {
            "rewards": {self.name: row["score"]},
            "reference": oracle.reference,
            "assertions": [
                {"text": text, "correct": _mostly(verdicts[text]), "pointable": relevant}
                for text, relevant in facts
            ],
            "units": [
                {"text": fact, "covered": 2 * matched[str(place)] > len(mappings)}
                for place, fact in enumerate(oracle.facts)
            ],
            "extra": {name: row[name] for name in ("precision", "recall") if name in row},
        }

    def notes(self, rows: Sequence[Row]) -> Iterator[str]:
        """A note if the official script would not have finished."""
        if self.mode == "official" and official_crash(rows):
            yield (
                "The official script would have crashed at the first caption, whose first "
                "extraction failed."
            )

    @staticmethod
    def statistics(rows: Sequence[Row]) -> list[Statistic]:
        """
        Corpus scores of scored rows: DCScore, which is 100 times the mean score of the captions
        that have one; the same with unscored captions as 0; and the means of its components.
        """
        names = ("precision", "recall", "f1_score", "precision_relevant", "recall_relevant")
        as_zero = [0.0 if row["reason"] == INVALID else row["score"] for row in rows]
        return [
            mean_statistic("DCScore", [row["score"] for row in rows], 100),
            mean_statistic("DCScore, invalid as 0", as_zero, 100),
            *(mean_statistic(name, [row.get(name) for row in rows], 100) for name in names),
            mean_statistic(
                "f1_score_relevant", [row.get("f1_score_relevant") for row in rows], 100
            ),
        ]


def official_crash(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the official script would have crashed because its very first extraction failed."""
    if not rows:
        return False
    attempts = rows[0].get("attempts") or []
    return bool(attempts) and not attempts[0].get("matched")


def _means(trials: Sequence[FactScores]) -> dict[str, float]:
    names = [name for name in FactScores._fields if not name.startswith("total")]
    means = {name: sum(getattr(t, name) for t in trials) / len(trials) for name in names}
    return {"score": (means["f1_score"] + means["f1_score_relevant"]) / 2} | means


def _mostly(verdicts: Sequence[bool]) -> bool:
    return 2 * sum(verdicts) > len(verdicts)


def _no_facts() -> dict[str, float]:
    names = [name for name in FactScores._fields if not name.startswith("total")]
    return dict.fromkeys(["score", *names], 0.0)

"""
What a metric is: who is asked what about a caption, and how scored rows are compared and summed up.

A new metric is one file beside this one, with a class that derives from [`Metric`], and one line in
`registry.py`. The commands then know its name, its flags and its table.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

from trl_balcap.data.scored import Caption
from trl_balcap.evals.asking import Ask, Workload
from trl_balcap.evals.bootstrap import Statistic
from trl_balcap.evals.prompting import Prompts
from trl_balcap.judge import Judge

__all__ = ["Benchmarks", "Metric", "Mode", "PublishedMetric", "Row", "data_hash", "image_of"]

Mode = Literal["official", "strict"]

Row = Mapping[str, Any]
"""A scored caption, as it stands in `<metric>.jsonl`."""


@dataclass(frozen=True)
class Benchmarks:
    """
    What the published benchmarks need beside the captions. Nothing of it comes with this package.

    Args:
        mode (`str`, *optional*, defaults to `"official"`):
            `"official"` for numbers as published, `"strict"` for corrected ones.
        data (`Mapping[str, str or Path]`, *optional*):
            Each benchmark's data by the metric's name: for "dcscore"
            `human_annotated_oracle_facts.jsonl` (by default that of an official checkout), for
            "captionqa" a file, folder or Hub name (see [`load_questions`]), for "caparena"
            `caparena_auto_600.json`.
        checkouts (`Sequence[str or Path]`, *optional*):
            Checkouts of the benchmarks' repositories, to read the official prompts from.
        model (`str`, *optional*, defaults to `"captions"`):
            Name of the tested model in CapArena-Auto; a baseline's name skips its own images.
        seed (`int`, *optional*, defaults to `0`):
            Seed of CaptionQA's shuffle and CapArena's coin.
        split (`str`, *optional*, defaults to `"all"`):
            Domain of CaptionQA to score.
    """

    mode: Mode = "official"
    data: Mapping[str, str | Path] = field(default_factory=dict)
    checkouts: Sequence[str | Path] = ()
    model: str = "captions"
    seed: int = 0
    split: str = "all"

    def data_of(self, metric: "type[Metric]") -> str:
        """
        Where a metric's data is.

        Raises:
            `ValueError`: if it is not given, with the way to give it.
        """
        if metric.name not in self.data:
            raise ValueError(f"{metric.name} needs {metric.data}: give --data {metric.name}=PATH.")
        return str(self.data[metric.name])


class Metric(Protocol):
    """
    One metric, ready to score captions.

    What follows from scored rows alone (`statistics`, `strata`, `breakdown`) needs no instance, so
    that rows can be compared without the benchmark's data.
    """

    name: ClassVar[str]
    """As `--metrics` takes it; the rows are in `<name>.jsonl`."""
    needs_image: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    official_judge: ClassVar[str | None] = None
    """The judge of the published numbers; `None` where no numbers compare."""
    incomparable: ClassVar[str] = "There are no published scores to compare with."
    """Why, where there is no official judge."""
    data: ClassVar[str | None] = None
    """What it needs beside the captions, in words; the user gives it as `--data <name>=PATH`."""
    checkout_file: ClassVar[str | None] = None
    """The file by which a checkout of the benchmark's repository is known."""
    final_reasons: ClassVar[frozenset[str]] = frozenset()
    """Reasons for no score that asking again cannot change."""
    official_reasons: ClassVar[frozenset[str]] = frozenset()
    """Reasons with which the published numbers, too, leave a caption out."""
    keeps_verdicts: ClassVar[bool] = False
    """Whether its verdicts are those of training, so that `trl-balcap report` can show them."""
    of_the_model: ClassVar[frozenset[str]] = frozenset()
    """Settings in which two models that are compared may differ."""

    mode: Any
    """By which rules it scores: a `str`, of those that the metric knows."""

    @property
    def prompts_sha256(self) -> str:
        """Hash over the prompts, to tell results of different prompts apart."""
        ...

    @property
    def prompts_source(self) -> str:
        """Whose prompts the judge is asked with, in words."""
        ...

    @property
    def has_official_prompts(self) -> bool:
        """Whether they are the ones of the published numbers."""
        return False

    @classmethod
    def build(cls, judge: Judge, benchmarks: Benchmarks) -> Self:
        """
        The metric with its data and prompts read.

        Raises:
            `ValueError`: if an option that it needs is missing, or a file is of another form.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """What else scores depend on; rows made with other settings are neither kept nor
        compared."""
        return {}

    def absent(self, rows: Sequence[Row]) -> int:
        """Images of the benchmark that no row is about; 0 where the metric has no fixed set."""
        return 0

    def is_current(self, row: Row) -> bool:
        """Whether an earlier row rests on what would be asked now. Called after [`problems`]."""
        return True

    def problems(self, captions: Sequence[Caption]) -> list[str]:
        """One message per caption that cannot be scored. Called once, before any other question."""
        return []

    def workload(self, captions: Sequence[Caption]) -> Workload:
        """What will be asked about these captions, estimated."""
        ...

    async def score(self, caption: Caption, ask: Ask, earlier: Row | None = None) -> dict[str, Any]:
        """
        Judge one caption.

        Args:
            caption ([`Caption`]):
                The caption.
            ask ([`Ask`]):
                Sends raw questions to the judge.
            earlier (`Row`, *optional*):
                The row of an earlier run that came to no score, or not to all of it.

        Returns:
            `dict`: "score" (`None` where there is none), "reason" (`None` where nothing is
            missing), and every verdict and reply that the score rests on.

        Raises:
            `JudgeError`: if the judge did not answer at all.
        """
        ...

    def unjudged(self, caption: Caption) -> dict[str, Any]:
        """What a row needs besides "score" and "reason" where [`score`] raised."""
        return {}

    @staticmethod
    def statistics(rows: Sequence[Row]) -> list[Statistic]:
        """Corpus scores of rows, the headline first."""
        ...

    @staticmethod
    def strata(rows: Sequence[Row]) -> list[str] | None:
        """A label per row, whose numbers stay fixed when images are resampled."""
        return None

    @staticmethod
    def breakdown(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
        """Scores of parts, such as categories: each with "score" and "n"."""
        return {}

    def notes(self, rows: Sequence[Row]) -> Iterable[str]:
        """What else a reader must know of these rows' scores, a sentence an entry."""
        return ()


class PublishedMetric(Metric, Protocol):
    """A metric whose prompts are ours or the original ones, see [`prompts_of`]."""

    prompts: Prompts

    @property
    def prompts_sha256(self) -> str:
        """Hash over the prompts."""
        return self.prompts.sha256

    @property
    def prompts_source(self) -> str:
        """Whose prompts the judge is asked with."""
        return self.prompts.label

    @property
    def has_official_prompts(self) -> bool:
        """Whether they were read from a checkout."""
        return self.prompts.origin == "official"


def image_of(row: Row) -> str:
    """What the published benchmarks call a row's image: its file's name, or the id."""
    return str(row["id"]) if row.get("image") is None else Path(row["image"]).name


def data_hash(source: str | Path) -> str:
    """Hash of a data file; of what is no file, such as a dataset's name, the name itself."""
    path = Path(source)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else str(source)

"""
The interface of a metric: what it asks about a caption, and how scored rows are summarised and
compared.

A new metric is a file next to this one, with a class that derives from [`Metric`], and a line in
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
"""A scored caption, as stored in `<metric>.jsonl`."""


@dataclass(frozen=True)
class Benchmarks:
    """
    What the published benchmarks need besides captions. None of it comes with this package.

    Args:
        mode (`str`, *optional*, defaults to `"official"`):
            `"official"` for numbers as published, `"strict"` for corrected ones.
        data (`Mapping[str, str or Path]`, *optional*):
            Each benchmark's data by metric: for "dcscore", `human_annotated_oracle_facts.jsonl`
            (by default from a clone of the official repository); for "captionqa", a file, a folder
            or a dataset on the Hub (see [`load_questions`]); for "caparena",
            `caparena_auto_600.json`.
        checkouts (`Sequence[str or Path]`, *optional*):
            Clones of the benchmarks' repositories, to read the official prompts from.
        model (`str`, *optional*, defaults to `"captions"`):
            Name of the tested model in CapArena-Auto; a baseline's name skips its own images.
        seed (`int`, *optional*, defaults to `0`):
            Seed of CaptionQA's shuffle and CapArena's coin flips.
        split (`str`, *optional*, defaults to `"all"`):
            CaptionQA domain to score.
    """

    mode: Mode = "official"
    data: Mapping[str, str | Path] = field(default_factory=dict)
    checkouts: Sequence[str | Path] = ()
    model: str = "captions"
    seed: int = 0
    split: str = "all"

    def data_of(self, metric: "type[Metric]") -> str:
        """
        The location of a metric's data.

        Raises:
            `ValueError`: if it is not given; the message says how to.
        """
        if metric.name not in self.data:
            raise ValueError(f"{metric.name} needs {metric.data}. Pass --data {metric.name}=PATH.")
        return str(self.data[metric.name])


class Metric(Protocol):
    """
    One metric, ready to score captions.

    Whatever depends on scored rows only (`statistics`, `strata`, `breakdown`) needs no instance, so
    that rows can be compared without the benchmark's data.
    """

    name: ClassVar[str]
    """Name for `--metrics`, and of the row file `<name>.jsonl`."""
    needs_image: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    official_judge: ClassVar[str | None] = None
    """The judge of the published numbers; `None` if there are no comparable numbers."""
    incomparable: ClassVar[str] = "There are no published scores to compare with."
    """Why there is no official judge."""
    data: ClassVar[str | None] = None
    """What it needs besides captions, in words; passed as `--data <name>=PATH`."""
    checkout_file: ClassVar[str | None] = None
    """A file that identifies a clone of the benchmark's repository."""
    final_reasons: ClassVar[frozenset[str]] = frozenset()
    """Reasons for a missing score that asking again cannot change."""
    official_reasons: ClassVar[frozenset[str]] = frozenset()
    """Reasons for which the published numbers also leave out a caption."""
    of_the_model: ClassVar[frozenset[str]] = frozenset()
    """Settings that may differ between two compared models."""

    mode: Any
    """The scoring rules to use, one of the modes that the metric knows."""

    @property
    def prompts_sha256(self) -> str:
        """Hash of the prompts, to tell results with different prompts apart."""
        ...

    @property
    def prompts_source(self) -> str:
        """Which prompts are used, in words."""
        ...

    @property
    def has_official_prompts(self) -> bool:
        """Whether they are the prompts of the published numbers."""
        return False

    @classmethod
    def build(cls, judge: Judge, benchmarks: Benchmarks) -> Self:
        """
        Read the metric's data and prompts.

        Raises:
            `ValueError`: if a required option is missing, or a file has another form.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """What else scores depend on. Rows made with other settings are neither kept nor
        compared."""
        return {}

    def absent(self, rows: Sequence[Row]) -> int:
        """Number of the benchmark's images without a row; 0 if the metric has no fixed set."""
        return 0

    def covers(self, caption: Caption) -> bool:
        """Whether the benchmark has something about a caption's image."""
        return True

    def leaves_out(self, caption: Caption) -> bool:
        """Whether a caption is of a part of the benchmark that is not asked about now: it is passed
        over."""
        return False

    def is_current(self, row: Row) -> bool:
        """Whether an earlier row comes from the questions asked now. Called after [`problems`]."""
        return True

    def problems(self, captions: Sequence[Caption]) -> list[str]:
        """One message per caption that cannot be scored. Called once, before any other question."""
        return []

    def workload(self, captions: Sequence[Caption]) -> Workload:
        """Estimate of what will be asked about these captions."""
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
                The row of an earlier run without a score, or with an incomplete one.

        Returns:
            `dict`: "score" (`None` if missing), "reason" (`None` if nothing is missing), and every
            verdict and reply behind the score.

        Raises:
            `JudgeError`: if the judge did not answer at all.
        """
        ...

    def unjudged(self, caption: Caption) -> dict[str, Any]:
        """What a row needs besides "score" and "reason" if [`score`] raised."""
        return {}

    def shown(self, row: Row) -> dict[str, Any]:
        """What `trl-balcap report` shows of a row: columns of [`VERDICT_SCHEMA`], at least its
        `rewards`."""
        return {"rewards": {self.name: row["score"]}}

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
        """Scores of subsets, such as categories, each with "score" and "n"."""
        return {}

    def notes(self, rows: Sequence[Row]) -> Iterable[str]:
        """What else readers need to know about these rows' scores, one sentence per entry."""
        return ()


class PublishedMetric(Metric, Protocol):
    """A metric with either our prompts or the original ones, see [`prompts_of`]."""

    prompts: Prompts

    @property
    def prompts_sha256(self) -> str:
        """Hash of the prompts."""
        return self.prompts.sha256

    @property
    def prompts_source(self) -> str:
        """Which prompts are used."""
        return self.prompts.label

    @property
    def has_official_prompts(self) -> bool:
        """Whether they were read from a clone."""
        return self.prompts.origin == "official"


def image_of(row: Row) -> str:
    """The name of a row's image in the published benchmarks: its file name, or its id."""
    return str(row["id"]) if row.get("image") is None else Path(row["image"]).name


def data_hash(source: str | Path) -> str:
    """Hash of a data file; for anything else, such as a dataset's name, the name itself."""
    path = Path(source)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else str(source)

"""Captions measured as the field does: b-CapScore, DCScore, CaptionQA, CapArena-Auto."""

from typing import TYPE_CHECKING, Any

from trl_balcap.data.jsonl import BadRowsError as BadRowsError
from trl_balcap.data.scored import Caption as Caption
from trl_balcap.data.scored import read_captions as read_captions
from trl_balcap.evals.agree import agreement as agreement
from trl_balcap.evals.compare import compare_rows as compare_rows
from trl_balcap.evals.compare import read_rows as read_rows
from trl_balcap.evals.results import Comparison as Comparison
from trl_balcap.evals.results import Evaluation as Evaluation
from trl_balcap.evals.results import MetricResult as MetricResult
from trl_balcap.evals.run import Benchmarks as Benchmarks
from trl_balcap.evals.run import evaluate_captions as evaluate_captions
from trl_balcap.evals.run import score_captions as score_captions

if TYPE_CHECKING:
    from trl_balcap.evals.callback import CaptionEvalCallback as CaptionEvalCallback

__all__ = [
    "BadRowsError",
    "Benchmarks",
    "Caption",
    "CaptionEvalCallback",
    "Comparison",
    "Evaluation",
    "MetricResult",
    "agreement",
    "compare_rows",
    "evaluate_captions",
    "read_captions",
    "read_rows",
    "score_captions",
]


def __getattr__(name: str) -> Any:
    # Not before it is asked for: it imports TRL, which scoring needs nothing of.
    if name == "CaptionEvalCallback":
        from trl_balcap.evals.callback import CaptionEvalCallback

        return CaptionEvalCallback
    raise AttributeError(f"module 'trl_balcap.evals' has no attribute {name!r}")

"""Caption metrics: b-CapScore, DCScore, CaptionQA, CapArena-Auto."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trl_balcap.data.rows import BadRowsError as BadRowsError
    from trl_balcap.data.scored import Caption as Caption
    from trl_balcap.data.scored import read_captions as read_captions
    from trl_balcap.evals.agree import agreement as agreement
    from trl_balcap.evals.callback import CaptionEvalCallback as CaptionEvalCallback
    from trl_balcap.evals.compare import compare_rows as compare_rows
    from trl_balcap.evals.metrics.protocol import Benchmarks as Benchmarks
    from trl_balcap.evals.metrics.protocol import Metric as Metric
    from trl_balcap.evals.results import Comparison as Comparison
    from trl_balcap.evals.results import Evaluation as Evaluation
    from trl_balcap.evals.results import MetricResult as MetricResult
    from trl_balcap.evals.results import read_rows as read_rows
    from trl_balcap.evals.run import evaluate_captions as evaluate_captions
    from trl_balcap.evals.run import score_captions as score_captions

__all__ = [
    "BadRowsError",
    "Benchmarks",
    "Caption",
    "CaptionEvalCallback",
    "Comparison",
    "Evaluation",
    "Metric",
    "MetricResult",
    "agreement",
    "compare_rows",
    "evaluate_captions",
    "read_captions",
    "read_rows",
    "score_captions",
]

# Imported on first use: agreement needs no judge, and scoring no TRL.
_LAZY = {
    "BadRowsError": "data.rows",
    "Benchmarks": "evals.metrics.protocol",
    "Caption": "data.scored",
    "CaptionEvalCallback": "evals.callback",
    "Comparison": "evals.results",
    "Evaluation": "evals.results",
    "Metric": "evals.metrics.protocol",
    "MetricResult": "evals.results",
    "agreement": "evals.agree",
    "compare_rows": "evals.compare",
    "evaluate_captions": "evals.run",
    "read_captions": "data.scored",
    "read_rows": "evals.results",
    "score_captions": "evals.run",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'trl_balcap.evals' has no attribute {name!r}")
    return getattr(import_module(f"trl_balcap.{_LAZY[name]}"), name)

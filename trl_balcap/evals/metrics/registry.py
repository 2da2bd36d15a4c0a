"""All metrics by name. A new metric is a file next to this one and a line here."""

from trl_balcap.evals.metrics.b_capscore import BCapScore
from trl_balcap.evals.metrics.caparena import CapArenaAuto
from trl_balcap.evals.metrics.captionqa import CaptionQA
from trl_balcap.evals.metrics.dcscore import DCScore
from trl_balcap.evals.metrics.prism import Prism
from trl_balcap.evals.metrics.protocol import Metric

__all__ = ["METRICS", "metric_of"]

METRICS: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (
        BCapScore,
        DCScore,
        CaptionQA,
        CapArenaAuto,
        Prism,
    )
}


def metric_of(name: str) -> type[Metric]:
    """
    The metric with this name.

    Raises:
        `ValueError`: if there is none.
    """
    if name not in METRICS:
        raise ValueError(f"Unknown metric {name!r}, must be one of {', '.join(METRICS)}.")
    return METRICS[name]

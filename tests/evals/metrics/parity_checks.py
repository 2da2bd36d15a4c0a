"""What the parity checks share: how numbers are compared, and a judge that follows a script."""

import math
from types import SimpleNamespace
from typing import Any

from trl_balcap.evals.bootstrap import estimate, resampling_weights
from trl_balcap.evals.metrics.protocol import Metric
from trl_balcap.judge import JudgeError

REL = 1e-9


def close(ours: Any, official: Any, where: str = "") -> None:
    """Equal up to 1e-9 relative in every number, exactly elsewhere."""
    if isinstance(official, dict):
        assert set(ours) == set(official), where
        for key, value in official.items():
            close(ours[key], value, f"{where}.{key}")
    elif isinstance(official, list):
        assert len(ours) == len(official), where
        for place, value in enumerate(official):
            close(ours[place], value, f"{where}[{place}]")
    elif isinstance(official, float) or (isinstance(official, int) and isinstance(ours, float)):
        assert ours is not None, where
        assert math.isclose(ours, official, rel_tol=REL, abs_tol=1e-12), (where, ours, official)
    else:
        assert ours == official, (where, ours, official)


def scores_of(metric: type[Metric], rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """The corpus scores that the table of `trl-balcap score` shows for these rows."""
    weights = resampling_weights(len(rows), rounds=1)
    return {s.name: estimate(s, weights).value for s in metric.statistics(rows)}


class ScriptedJudge:
    """Gives out replies call by call, in order, and keeps what was asked."""

    def __init__(self, replies_per_call: list[list[str | None]]):
        self.left: list[list[str | None]] = list(replies_per_call)
        self.calls: list[SimpleNamespace] = []

    async def __call__(self, messages, *, tag, temperature, max_tokens, top_p=None, n=1, attempt=0):
        image = not isinstance(messages[-1]["content"], str)
        self.calls.append(
            SimpleNamespace(
                messages=messages,
                temperature=temperature,
                max_tokens=max_tokens,
                top_p=top_p,
                n=n,
                multimodal=image,
            )
        )
        replies = self.left.pop(0)
        if "<<raise>>" in replies:
            raise JudgeError("unreadable", "the scripted judge was told to fail")
        return replies

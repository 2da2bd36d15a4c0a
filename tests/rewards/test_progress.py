"""Judging that takes long shows a bar on a terminal, and nothing anywhere else."""

import asyncio
import io
import sys

from trl_balcap import Judge, LinguisticReward
from trl_balcap.rewards import progress
from trl_balcap.scenes.server import serve


class Terminal(io.StringIO):
    def isatty(self):
        return True


def judged(monkeypatch, stderr: io.StringIO, after: float) -> str:
    """What 4 captions at one a quarter of a second leave on stderr, shown `after` seconds."""
    monkeypatch.setattr(progress, "AFTER", after)
    monkeypatch.setattr(progress, "EVERY", 0.1)
    monkeypatch.setattr(sys, "stderr", stderr)
    captions = [f"There are {n} things." for n in ("two", "three", "four", "five")]
    with serve(latency=0.25) as server:
        judge = Judge(
            "openai/oracle",
            api_base=server.url,
            api_key="any",
            max_concurrency=1,
            price=(1e6, 0),
        )
        scores = asyncio.run(LinguisticReward(judge)(prompts=captions, completions=captions))
    assert scores == [1.0] * 4
    return stderr.getvalue()


def test_a_terminal_shows_scores_and_dollars(monkeypatch):
    shown = judged(monkeypatch, Terminal(), after=0.0)
    assert "judging:" in shown
    assert "2/4" in shown
    assert "0 from cache, $" in shown


def test_nothing_is_shown_before_five_seconds(monkeypatch):
    assert progress.AFTER == 5.0
    assert judged(monkeypatch, Terminal(), after=5.0) == ""


def test_nothing_is_shown_in_a_file(monkeypatch):
    assert judged(monkeypatch, io.StringIO(), after=0.0) == ""

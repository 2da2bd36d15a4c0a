"""A new metric is one class and one line in the registry; every command then knows it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trl_balcap.cli import main
from trl_balcap.evals import Caption
from trl_balcap.evals.asking import Ask, Workload, chat, workload
from trl_balcap.evals.bootstrap import Statistic, mean_statistic
from trl_balcap.evals.metrics.protocol import Benchmarks, Metric, Row
from trl_balcap.evals.metrics.registry import METRICS
from trl_balcap.judge import Judge
from trl_balcap.scenes.server import serve


class Colours(Metric):
    """Share of the colours on a list that the judge finds named in a caption."""

    name = "colours"
    data = "a JSON list of colours"

    def __init__(self, colours: list[str]):
        self.colours = colours
        self.mode = "plain"

    @classmethod
    def build(cls, judge: Judge, benchmarks: Benchmarks) -> "Colours":
        return cls(json.loads(Path(benchmarks.data_of(cls)).read_text()))

    @property
    def prompts_sha256(self) -> str:
        return "one prompt"

    @property
    def prompts_source(self) -> str:
        return "this test's"

    def settings(self) -> dict[str, Any]:
        return {"colours": self.colours}

    def workload(self, captions: Sequence[Caption]) -> Workload:
        each = workload(prompt_chars=100, completion_chars=10, calls=len(self.colours))
        return sum((each for _ in captions), Workload())

    async def score(self, caption: Caption, ask: Ask, earlier: Row | None = None) -> dict[str, Any]:
        named = []
        for colour in self.colours:
            messages = chat("yes or no", f"{colour}? {caption.caption}")
            (reply,) = await ask(messages, tag="colours", temperature=0.0, max_tokens=3)
            named.append(reply == "yes")
        return {"score": sum(named) / len(named), "reason": None, "named": named}

    @staticmethod
    def statistics(rows: Sequence[Row]) -> list[Statistic]:
        return [mean_statistic("colours", [row["score"] for row in rows], 100)]


def answer(messages) -> str:
    text = messages[-1]["content"]
    if "preflight" in text:
        return '{"ready": true}'
    colour, _, caption = text.partition("? ")
    return "yes" if colour in caption else "no"


@pytest.fixture
def colours(monkeypatch, tmp_path):
    monkeypatch.setitem(METRICS, Colours.name, Colours)  # the line in the registry
    path = tmp_path / "colours.json"
    path.write_text(json.dumps(["red", "blue"]))
    return path


def test_a_new_metric_is_scored_tabled_and_compared(colours, tmp_path, capsys):
    files = []
    for name, texts in (("a", ["a cup", "a red cup"]), ("b", ["a blue cup", "red and blue"])):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps({str(i): text for i, text in enumerate(texts)}))
    out = tmp_path / "out"
    with serve(answer=answer) as server:
        command = ["score", "--compare", *map(str, files), "--metrics", "colours", "--yes"]
        command += ["--judge", "openai/scripted", "--api-base", server.url, "--out", str(out)]
        assert main([*command, "--data", f"colours={colours}"]) == 0
    # a: 0 of 2 and 1 of 2 colours; b: 1 of 2 and 2 of 2.
    shown = capsys.readouterr().out
    assert "+50.00" in shown
    assert "There are no published scores to compare with." in shown
    (row, _) = [json.loads(line) for line in (out / "b" / "colours.jsonl").read_text().splitlines()]
    assert (row["score"], row["named"]) == (0.5, [False, True])


def test_what_a_new_metric_lacks_is_said_with_its_flag(colours, tmp_path, capsys):
    captions = tmp_path / "a.json"
    captions.write_text(json.dumps({"1": "a cup"}))
    command = ["score", str(captions), "--metrics", "colours", "--judge", "scenes/oracle"]
    with pytest.raises(SystemExit):
        main([*command, "--out", str(tmp_path / "out")])
    assert (
        "colours needs a JSON list of colours. Pass --data colours=PATH" in capsys.readouterr().err
    )

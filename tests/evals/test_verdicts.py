"""Scored captions in the form that the report shows."""

import asyncio
import json

import pytest
from PIL import Image

from trl_balcap.data.scored import Caption
from trl_balcap.evals import Benchmarks, score_captions
from trl_balcap.evals.verdicts import keep_verdicts
from trl_balcap.judge import Judge
from trl_balcap.report import read_thumbnails, read_verdicts
from trl_balcap.report.page import report_data, report_page
from trl_balcap.report.runs import find_runs
from trl_balcap.scenes.benchmarks import write_benchmarks
from trl_balcap.scenes.make import write_scenes

METRICS = ("/caparena", "/captionqa", "/dcscore")
COMMENT = "It tells a quiet story."


@pytest.fixture
def scored(tmp_path):
    """Two scenes, one described as the reference does, and one of which nothing is said."""
    references = [
        json.loads(line)
        for line in write_scenes(tmp_path / "scenes", 2, seed=0).read_text().splitlines()
    ]
    image = "image" if "image" in references[0] else "file_name"
    captions = [references[0]["reference"], COMMENT]
    lines = [
        json.dumps({"id": str(k), "image": row[image], "reference": row["reference"], "caption": c})
        for k, (row, c) in enumerate(zip(references, captions, strict=True))
    ]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines) + "\n")
    asyncio.run(
        score_captions(
            tmp_path / "captions.jsonl",
            Judge("scenes/oracle"),
            out=tmp_path / "scores",
            images=tmp_path / "scenes",
        )
    )
    return tmp_path / "scores"


def test_a_folder_of_scores_can_be_reported(scored):
    perfect, empty = read_verdicts(scored / "verdicts")
    assert perfect["rewards"] == dict.fromkeys(
        ("precision_reward", "recall_reward", "linguistic_reward"), 1.0
    )
    assert all(unit["covered"] for unit in perfect["units"])
    assert empty["assertions"] == [{"text": COMMENT, "correct": True, "pointable": False}]
    assert not any(unit["covered"] for unit in empty["units"])
    assert len(read_thumbnails(scored / "verdicts")) == 2
    data = report_data(find_runs([scored]))
    assert [row["score"] for row in data["rows"]] == [1.0, 0.0]


def test_every_metric_shows_what_it_saw(tmp_path):
    """Two captioners by all four metrics: pages side by side, image by image."""
    data = write_benchmarks(tmp_path / "world", 3)
    benchmarks = Benchmarks(
        data={name: data[name] for name in ("dcscore", "captionqa", "caparena")}
    )
    for captioner in ("good", "poor"):
        asyncio.run(
            score_captions(
                data[captioner],
                Judge("scenes/oracle"),
                out=tmp_path / "scores" / captioner,
                metrics=["b-capscore", "dcscore", "captionqa", "caparena"],
                benchmarks=benchmarks,
            )
        )
    runs = find_runs([tmp_path / "scores"])
    names = [f"{one}{metric}" for one in ("good", "poor") for metric in ("", *METRICS)]
    assert [run.name for run in runs] == names
    seen = {run.name: run.rows for run in runs}
    for row in seen["poor/dcscore"]:
        right = [one["correct"] for one in row["assertions"]]
        assert row["extra"]["precision"] == pytest.approx(sum(right) / len(right))
        assert row["reference"]
    for row in seen["good/captionqa"]:
        covered = [unit["covered"] for unit in row["units"]]
        assert sum(covered) / len(covered) <= row["rewards"]["captionqa"] <= 1
    assert {row["rewards"]["caparena"] for row in seen["poor/caparena"]} <= {-1.0, 0.0, 1.0}
    assert "its caption" in seen["good/caparena"][0]["extra"]
    digests = [{row["image"] for row in rows} for rows in seen.values()]
    assert digests == [digests[0]] * 8  # the same images, to be compared
    report_page(runs)


def test_a_caption_without_a_verdict_keeps_the_reason(tmp_path):
    caption = Caption("a", "A dog.", Image.new("RGB", (84, 84)), "A dog.")
    row = {"reason": "timeout", "precision": 1.0, "recall": None, "linguistic": 0.9}
    keep_verdicts(tmp_path, [caption], [row], step=50, split="eval")
    (kept,) = read_verdicts(tmp_path)
    assert (kept["step"], kept["split"]) == (50, "eval")
    assert kept["reasons"] == {"recall_reward": "timeout"}
    assert kept["assertions"] is None


def test_an_empty_caption_asserts_nothing(tmp_path):
    row = {"reason": None, "precision": 0.0, "recall": 0.0, "linguistic": 0.0}
    keep_verdicts(tmp_path, [Caption("a", " ", None, "A dog.")], [row])
    assert read_verdicts(tmp_path)[0]["assertions"] == []

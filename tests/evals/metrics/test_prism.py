"""Prism end to end on drawn scenes, and its data in the official format."""

import json

import pytest

from trl_balcap.cli import main
from trl_balcap.data import BadRowsError
from trl_balcap.evals.metrics.prism import load_prism
from trl_balcap.scenes.benchmarks import write_benchmarks
from trl_balcap.scenes.server import serve


def test_good_captions_answer_more_questions(tmp_path):
    data = write_benchmarks(tmp_path / "world", 6)
    values = {}
    for model in ("good", "poor"):
        command = ["score", str(data[model]), "--metrics", "prism", "--judge", "scenes/oracle"]
        command += ["--data", f"prism={data['prism']}", "--out", str(tmp_path / model)]
        assert main(command) == 0
        summary = json.loads((tmp_path / model / "summary.json").read_text())
        values[model] = summary["metrics"][0]["scores"][0]["value"]
        rows = [json.loads(line) for line in (tmp_path / model / "prism.jsonl").open()]
        scores = [one["score"] for row in rows for one in row["questions"]]
        assert values[model] == pytest.approx(100 * sum(scores) / len(scores))
    assert values["good"] > values["poor"]


def test_the_mean_is_over_questions_and_a_truncated_reply_is_wrong(tmp_path, monkeypatch):
    """Image a: one of three right; b: one of one; so 2 of 4."""
    asked = [("a", "one?"), ("a", "two?"), ("a", "three?"), ("b", "one?")]
    rows = [{"image": f"{i}.jpg", "prompt": p, "answer": "1"} for i, p in asked]
    (tmp_path / "chart.json").write_text(json.dumps(rows))
    captions = {"a.jpg": "Some cups", "b.jpg": "A cup"}
    (tmp_path / "captions.json").write_text(json.dumps(captions))

    def answer(messages):
        text = messages[-1]["content"]
        if "preflight" in text:
            return '{"ready": true}'
        return r"</think> <answer>\boxed{1}</answer>" if text.endswith("one?") else "<think>well"

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with serve(answer=answer) as server:
        command = ["score", str(tmp_path / "captions.json"), "--metrics", "prism", "--yes"]
        command += ["--judge", "openai/x", "--api-base", server.url]
        command += ["--data", f"prism={tmp_path / 'chart.json'}", "--out", str(tmp_path / "out")]
        assert main(command) == 0
    (result,) = json.loads((tmp_path / "out/summary.json").read_text())["metrics"]
    assert result["scores"][0]["value"] == 50.0
    assert "Not comparable with CapRL's published scores" in result["comparison"]


def test_images_inside_messages_and_files_of_another_form(tmp_path):
    path = tmp_path / "MMStar.jsonl"
    content = [{"type": "image", "image": "data/images/7.png"}, {"type": "text", "text": "x"}]
    row = {"image": [{"role": "user", "content": content}], "prompt": "Which?", "answer": 4}
    path.write_text(json.dumps(row) + "\n")
    assert load_prism(path) == [("7.png", "Which?", "4")]
    path.write_text('{"image": "a.png", "prompt": "Which?"}\n')
    with pytest.raises(BadRowsError, match='needs "image", "prompt" and "answer"'):
        load_prism(path)

"""Every metric on drawn scenes, without a key: exact captions score fully, worse ones less."""

import json
import random
from pathlib import Path

import pytest

from trl_balcap.cli import main
from trl_balcap.scenes.benchmarks import benchmark_answer, scene_questions, write_benchmarks
from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.world import Scene, Thing, random_scene

SCENE = Scene(
    (
        Thing("red", "circle", "large", "top", "left"),
        Thing("blue", "square", "small", "middle", "centre"),
    )
)
SUITES = ("b-capscore", "decapbench", "captionqa", "caparena")


def bench(folder, *captions):
    data = write_benchmarks(folder, 9)
    suite = ["--suite", *SUITES, "--judge", "scenes/oracle", "--out", str(folder / "out")]
    given = [f"{name}={data[name]}" for name in ("dcscore", "captionqa", "caparena")]
    texts = [f"{name}={folder / name}.jsonl" for name in captions]
    assert main(["bench", "--captions", *texts, *suite, "--data", *given]) == 0
    table = json.loads((folder / "out" / "table.json").read_text())
    return {(s["metric"], s["model"]): s["score"]["value"] for s in table["standings"]}


def test_all_metrics_run_without_a_key_and_tell_good_from_poor(tmp_path):
    scores = bench(tmp_path, "poor", "good")
    assert len(scores) == 8
    for metric in ("b-capscore", "dcscore", "captionqa", "caparena"):
        assert scores[metric, "good"] > scores[metric, "poor"], metric


def test_perfect_captions_have_all_points(tmp_path):
    data = write_benchmarks(tmp_path, 6)
    rows = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    captions = [{"id": Path(row["image"]).stem, **row, "caption": row["reference"]} for row in rows]
    (tmp_path / "perfect.jsonl").write_text("".join(json.dumps(row) + "\n" for row in captions))
    for metric in ("dcscore", "captionqa", "caparena"):
        command = [
            "score",
            str(tmp_path / "perfect.jsonl"),
            "--metrics",
            metric,
            "--mode",
            "strict",
        ]
        command += ["--judge", "scenes/oracle", "--out", str(tmp_path / metric)]
        assert main([*command, "--data", f"{metric}={data[metric]}"]) == 0
        (result,) = json.loads((tmp_path / metric / "summary.json").read_text())["metrics"]
        assert result["scores"][0]["value"] == pytest.approx(100, abs=1e-5), metric


def test_questions_are_answered_from_the_caption_alone():
    rng = random.Random(0)
    for _ in range(20):
        scene = random_scene(rng)
        for question in scene_questions(scene, rng):
            options = [*question["choices"], "Cannot answer from the caption"]
            lettered = "\n".join(f"{'ABCDE'[i]}. {text}" for i, text in enumerate(options))

            def ask(caption, question=question, lettered=lettered):
                blocks = (f"Caption:\n{caption}", f"Question:\n{question['question']}")
                text = "\n\n".join((*blocks, f"Options:\n{lettered}", "Answer:"))
                return benchmark_answer(text, lambda: pytest.fail("it looked at the image"))

            right = "ABCDE"[options.index(question["answer"])]
            assert ask(describe(scene)) == right
            assert ask("The mood is cosy.") == "E"


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ("There are two things.", "There are three things.", "Caption 1 is better"),
        ("There are two things.", "There are two things. The top left shows a star.", None),
        ("At the top left there is a large red circle.", describe(SCENE), "Caption 2 is better"),
        ("Caption 1 is better.", "The mood is cosy.", "Tie"),
    ],
)
def test_battles_go_to_the_truer_and_fuller_caption(first, second, verdict):
    captions = f"Caption 1: {json.dumps(first)}\nCaption 2: {json.dumps(second)}"
    text = f"The captions are JSON strings.\n{captions}\nWhich caption is better?"
    reply = benchmark_answer(text, lambda: SCENE)
    assert reply is not None
    # Two of three facts right against one of one: 2 * 1/2 * 1/3 / (5/6) < 2 * 1 * 1/3 / (4/3).
    assert reply.endswith(verdict or "Caption 1 is better")


def test_other_texts_are_no_question():
    assert benchmark_answer('{"question": "preflight"}', lambda: SCENE) is None

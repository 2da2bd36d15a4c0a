"""Two captioners compared, and rows that do not compare."""

import json
import random

import pytest

from tests.evals.scripted import (
    Scripted,
    caparena_rule,
    captionqa_rule,
    rows,
    score,
    write_captions,
)
from trl_balcap.cli import main
from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.world import draw, random_scene


def test_two_captioners_are_compared_in_pairs(folder, questions, capsys):
    worse, better = folder / "worse.json", folder / "better.json"
    worse.write_text(json.dumps({"nat_1": "A cup.", "doc_1": "A blue cup."}))
    better.write_text(json.dumps({"nat_1": "A red cup.", "doc_1": "A red cup."}))
    out = folder / "out"
    more = ("--metrics", "captionqa", "--data", f"captionqa={questions}")
    with serve(answer=Scripted(captionqa_rule)) as server:
        assert score(None, server, out, "--compare", worse, better, *more) == 0
    # worse: 0.55 + 0.3833 + 0 and 0; better: 1 + 0.3833 + 0 and 1, of 4 questions.
    (found,) = json.loads((out / "comparison.json").read_text())
    change = found["differences"][0]
    assert change["value"] == pytest.approx(100 * (2.3833 - 0.9333) / 4)
    assert (change["n"], found["n_common"]) == (2, 2)
    assert "better.json minus" in capsys.readouterr().out

    # Scored rows compare without a judge.
    pair = [str(out / side / "captionqa.jsonl") for side in ("a", "b")]
    assert main(["score", "--compare", *pair]) == 0
    assert "+36.25" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["score", "--compare", pair[0], str(better)])
    assert "must both contain captions, or both scored rows" in capsys.readouterr().err


def test_both_sides_of_a_comparison_share_one_cache(tmp_path):
    """Two captioners with one reference: it is split once, for both."""
    scene = random_scene(random.Random(0))
    draw(scene).save(tmp_path / "0.png")
    reference = describe(scene)
    files = []
    for name, caption in (("a", reference), ("b", "There is one thing.")):
        row = {"image": "0.png", "caption": caption, "reference": reference}
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text(json.dumps(row) + "\n")
    out = tmp_path / "out"
    with serve(models=["scripted"]) as server:
        assert score(None, server, out, "--compare", *files) == 0
        asked = server.stats()["calls"]["decompose"]
    assert asked == 2  # the reference, which is also a's caption, and b's caption


def test_rows_of_changed_references_or_images_are_neither_kept_nor_compared(tmp_path, capsys):
    scenes = [random_scene(random.Random(seed)) for seed in (1, 2)]
    draw(scenes[0]).save(tmp_path / "0.png")
    captions = tmp_path / "captions.jsonl"

    def write(reference):
        row = {"image": "0.png", "caption": describe(scenes[0]), "reference": reference}
        captions.write_text(json.dumps(row) + "\n")

    command = ["score", str(captions), "--judge", "scenes/oracle", "--yes", "--out"]
    write(describe(scenes[0]))
    assert main([*command, str(tmp_path / "a")]) == 0
    write(describe(scenes[1]))
    with pytest.raises(SystemExit):
        main([*command, str(tmp_path / "a")])
    assert "has a row for a different reference of '0.png'" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "b")]) == 0
    pair = [str(tmp_path / side / "b-capscore.jsonl") for side in ("a", "b")]
    with pytest.raises(SystemExit):
        main(["score", "--compare", *pair])
    assert "were scored with different values of reference for '0.png'" in capsys.readouterr().err
    draw(scenes[1]).save(tmp_path / "0.png")
    with pytest.raises(SystemExit):
        main([*command, str(tmp_path / "b")])
    assert "has a row for a different image of '0.png'" in capsys.readouterr().err


def test_comparing_battles_of_two_models(folder, references, capsys):
    files = []
    for name, text in (("a", "a cup"), ("b", "a much longer caption")):
        captions = {f"test_{i}.jpg": text for i in range(3)}
        files.append(write_captions(folder, captions, name=f"{name}.jsonl"))
    out = folder / "out"
    with serve(answer=Scripted(caparena_rule)) as server:
        more = ("--metrics", "caparena", "--data", f"caparena={references}")
        assert score(None, server, out, "--compare", *files, *more) == 0
    first = rows(out / "a", "caparena")[0]
    assert first["judge"] == "openai/scripted"
    assert first["verdict"].startswith("Caption")
    # Each of three battles lost turns into one won: 2 of 200 images, against each baseline.
    assert "+1.00" in capsys.readouterr().out


def test_rows_of_different_judges_do_not_compare(folder, capsys):
    base = {"metric": "dcscore", "mode": "official", "prompts_sha256": "x", "reason": None}
    for name, judge in (("a", "openai/one"), ("b", "openai/two")):
        row = base | {"id": "i", "judge": judge, "score": 0.5}
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(SystemExit):
        main(["score", "--compare", str(folder / "a.jsonl"), str(folder / "b.jsonl")])
    assert "have the judge openai/one and openai/two" in capsys.readouterr().err

"""`trl-balcap bench`: models by metrics in one table that grows."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_balcap.cli import main
from trl_balcap.evals.bill import read_bill
from trl_balcap.evals.standings import holm, standings
from trl_balcap.scenes.benchmarks import write_benchmarks
from trl_balcap.scenes.grammar import Faults, describe, faulty_caption
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.world import draw, random_scene

N = 12


@pytest.fixture
def folder(tmp_path):
    """Images with references, and captions of three models: exact, faulty, and of nothing."""
    rng = random.Random(0)
    scenes = [random_scene(rng) for _ in range(N)]
    texts = {
        "exact": [describe(scene) for scene in scenes],
        "faulty": [faulty_caption(scene, rng, Faults(wrong=0.5, omit=0.4)) for scene in scenes],
        "empty": [""] * N,
    }
    for place, scene in enumerate(scenes):
        draw(scene).save(tmp_path / f"{place}.png")
    for name, captions in texts.items():
        rows = [
            {"image": f"{place}.png", "caption": caption, "reference": describe(scenes[place])}
            for place, caption in enumerate(captions)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def command(folder, *names, more=()):
    captions = [f"{name}={folder / name}.jsonl" for name in names]
    suite = ["--suite", "b-capscore", "--judge", "scenes/oracle", "--out", str(folder / "out")]
    return main(["bench", "--captions", *captions, *suite, *more])


def table(folder):
    return json.loads((folder / "out" / "table.json").read_text())


def test_one_table_in_four_forms(folder, capsys):
    assert command(folder, "faulty", "exact") == 0
    first, second = table(folder)["standings"]
    assert [first["model"], second["model"]] == ["faulty", "exact"]
    assert first["change"] is None
    by_model = {entry["model"]: entry for entry in (first, second)}
    assert by_model["exact"]["score"]["value"] == 100.0
    change = by_model["exact"]["change"]
    assert change["first"] == by_model["faulty"]["score"]["value"]
    assert change["value"] == pytest.approx(100 - change["first"])
    # Better on every image: no resample of 2,000 is at or below zero.
    assert change["p_value"] == pytest.approx(2 / 2001)
    out = folder / "out"
    assert "| exact | 100.00* [100.0, 100.0] |" in (out / "table.md").read_text()
    latex = (out / "table.tex").read_text()
    assert r"exact & 100.00$^{*}$ [100.0, 100.0] &" in latex
    assert r"\toprule" in latex
    rows = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    assert {row["model"]: float(row["score"]) for row in rows}["exact"] == 100.0
    shown = capsys.readouterr().out
    assert "Total of all runs:" in shown


def test_a_second_run_adds_a_model_and_pays_for_it_alone(folder):
    assert command(folder, "faulty", "exact") == 0
    before = table(folder)
    assert command(folder, "faulty", "exact") == 0
    again = table(folder)
    assert again["standings"] == before["standings"]
    assert again["bill"]["calls"] - before["bill"]["calls"] <= 2  # the preflight at most
    assert command(folder, "empty") == 0  # the table's baseline is still the first model
    after = table(folder)
    assert [entry["model"] for entry in after["standings"]] == ["faulty", "exact", "empty"]
    scores = {entry["model"]: entry["score"]["value"] for entry in after["standings"]}
    assert scores["empty"] == 0.0
    # Two tests in the table now: Holm doubles the smaller p-value.
    changed = [entry for entry in after["standings"] if entry["change"] is not None]
    assert len(changed) == 2
    assert min(entry["p_holm"] for entry in changed) == pytest.approx(2 * 2 / 2001)


def test_another_model_does_not_take_a_name_that_is_there(folder, capsys):
    assert command(folder, "exact") == 0
    (folder / "exact.jsonl").rename(folder / "other.jsonl")
    suite = ["--suite", "b-capscore", "--judge", "scenes/oracle", "--out", str(folder / "out")]
    with pytest.raises(SystemExit):
        main(["bench", "--captions", f"exact={folder / 'other.jsonl'}", *suite])
    assert "Use another name: NAME=MODEL" in capsys.readouterr().err


def test_repeats_put_the_judge_s_noise_into_the_interval(folder):
    """An exact judge repeats itself; a noisy one asked thrice spreads each image's score."""
    noisy = ["--judge", "scenes/oracle+linguistic=3.0,flip=0.0"]
    assert command(folder, "exact", more=[*noisy, "--repeats", "3"]) == 0
    (entry,) = table(folder)["standings"]
    assert (entry["repeats"], entry["score"]["n"]) == (3, N)
    assert entry["score"]["low"] < entry["score"]["value"] < entry["score"]["high"]
    assert len(list((folder / "out").glob("scores/exact/b-capscore/repeat-*"))) == 3
    scores = [
        [json.loads(line)["linguistic"] for line in path.read_text().splitlines()]
        for path in sorted((folder / "out").glob("scores/*/*/repeat-*/b-capscore.jsonl"))
    ]
    assert scores[0] != scores[1]  # asked anew, not from one cache


def test_a_score_over_repeats_is_their_mean():
    def rows(*scores):
        row = {
            "precision": 1.0,
            "recall": 1.0,
            "linguistic": 1.0,
            "words": 3,
            "metric": "b-capscore",
        }
        return [row | {"id": str(i), "score": s, "reason": None} for i, s in enumerate(scores)]

    (found,) = standings({"b-capscore": {"a": [rows(0.2, 0.4), rows(0.6, 0.8)]}})
    assert found.score.value == pytest.approx(50)
    assert (found.score.n_scored, found.score.n, found.repeats) == (2, 2, 2)


def test_judges_by_metric(folder, capsys):
    with pytest.raises(SystemExit):
        command(folder, "exact", more=["--judge", "bleu=openai/x"])
    assert "unknown metric 'bleu'" in capsys.readouterr().err
    # The general one is of no use here, and is not asked.
    more = ["--judge", "b-capscore=scenes/oracle", "--judge", "openai/nobody"]
    assert command(folder, "exact", more=more) == 0


def test_nothing_scored_is_an_error_with_its_reason(folder, capsys):
    assert command(folder, "exact", more=["--budget-calls", "2"]) == 1
    assert f"exact, b-capscore: {N} of {N} without a score: over_budget." in capsys.readouterr().out


def test_what_is_missing_is_said(folder, capsys):
    suite = ["--suite", "b-capscore", "--judge", "scenes/oracle", "--out", str(folder / "out")]
    for arguments, message in (
        (["--captions", "a=b", "--suite", "bleu"], "Unknown suite 'bleu'"),
        (["--models", "no/model"], "--images b-capscore=FOLDER"),
        ([], "bench needs --models MODEL"),
    ):
        with pytest.raises(SystemExit):
            main(["bench", *suite, *arguments])
        assert message in capsys.readouterr().err


def test_a_model_is_captioned_and_scored(folder, tiny_qwen):
    rows = [{"image": f"{place}.png", "reference": "There is one thing."} for place in range(2)]
    (folder / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = ["--suite", "b-capscore", "--judge", "scenes/oracle", "--out", str(folder / "out")]
    images = ["--images", f"b-capscore={folder / 'images.jsonl'}"]
    command = ["bench", "--models", f"tiny={tiny_qwen}", *suite, *images]
    assert main([*command, "--max-new-tokens", "8"]) == 0
    captions = folder / "out" / "captions" / "tiny" / "b-capscore.jsonl"
    assert len(captions.read_text().splitlines()) == 2
    (entry,) = table(folder)["standings"]
    assert (entry["model"], entry["score"]["n"]) == ("tiny", 2)


def all_suites(folder, out):
    """The command over the four benchmarks of drawn scenes, without captions and judge."""
    data = [f"dcscore={folder / 'human_annotated_oracle_facts.jsonl'}"]
    data += [f"{name}={folder / file}.json" for name, file in CAPTIONQA_AND_CAPARENA.items()]
    suites = ["--suite", "b-capscore", "decapbench", "captionqa", "caparena"]
    return ["bench", *suites, "--data", *data, "--out", str(out)]


CAPTIONQA_AND_CAPARENA = {"captionqa": "captionqa", "caparena": "caparena_auto"}


def test_models_and_captions_on_the_four_benchmarks(tmp_path, tiny_qwen, terminal, capsys):
    """A folder with more images than the benchmark, captions whose ids differ from the model's."""
    write_benchmarks(tmp_path / "world", 4)
    (tmp_path / "world/images/more.png").write_bytes(
        (tmp_path / "world/images/000.png").read_bytes()
    )
    world, images = tmp_path / "world", tmp_path / "world/images"
    given = [f"{suite}={images}" for suite in ("decapbench", "captionqa", "caparena")]
    command = all_suites(world, tmp_path / "out")
    command += ["--models", f"tiny={tiny_qwen}", "--captions", f"good={world / 'good.jsonl'}"]
    command += ["--images", f"b-capscore={world}", *given, "--judge", "scenes/oracle"]
    assert main([*command, "--baseline", "tiny", "--max-new-tokens", "8"]) == 0
    table = json.loads((tmp_path / "out/table.json").read_text())
    assert [(one["metric"], one["model"], one["score"]["n"]) for one in table["standings"]] == [
        (metric, model, 4)
        for metric in ("b-capscore", "dcscore", "captionqa", "caparena")
        for model in ("tiny", "good")
    ]
    assert all(one["change"]["n"] == 4 for one in table["standings"] if one["model"] == "good")
    shown = capsys.readouterr().out
    scores = shown[shown.rindex("metric  ") :].partition("Total of all runs")[0]
    assert max(map(len, scores.splitlines())) <= 80
    assert "\x1b" not in shown
    latex = (tmp_path / "out/table.tex").read_text()
    assert latex.startswith("% 95% intervals")
    assert "% Total of all runs:" in latex


def test_what_a_benchmark_lacks_is_said_before_a_model_captions(tmp_path, tiny_qwen, capsys):
    write_benchmarks(tmp_path / "world", 2)
    command = all_suites(tmp_path / "world", tmp_path / "out")
    command += ["--models", f"tiny={tiny_qwen}", "--judge", "scenes/oracle"]
    (tmp_path / "world/images/000.png").unlink()
    (tmp_path / "world/captions.jsonl").unlink()
    images = [f"{suite}={tmp_path / 'world/images'}" for suite in ("caparena", "b-capscore")]
    for suite, message in (
        (["--suite", "caparena"], "1 of 2 images have no caption, such as '000.png'"),
        (["--suite", "b-capscore"], "b-capscore needs a reference caption"),
    ):
        with pytest.raises(SystemExit):
            main([*command, *suite, "--images", *images])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_captions_of_a_server_are_agreed_to_and_billed(folder, monkeypatch, capsys):
    rows = [{"image": f"{place}.png", "reference": "There is one thing."} for place in range(2)]
    (folder / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with serve(answer=lambda messages: "There is one thing.") as server:
        suite = ["--suite", "b-capscore", "--judge", "scenes/oracle", "--out", str(folder / "out")]
        images = ["--images", f"b-capscore={folder / 'images.jsonl'}"]
        command = ["bench", "--models", f"served=openai/x@{server.url}", *suite, *images]
        with pytest.raises(SystemExit):  # nobody can be asked here
            main(command)
        assert "Pass --yes to accept it" in capsys.readouterr().err
        assert main([*command, "--yes"]) == 0
    assert "b-capscore captions" in " ".join(capsys.readouterr().out.split())
    entries = [json.loads(line) for line in (folder / "out/bill.jsonl").read_text().splitlines()]
    assert sum(entry["calls"] for entry in entries if entry.get("step") == "captions") == 2
    assert read_bill(folder / "out")["dollars"] is None  # nobody knows that server's price


def test_a_run_that_was_stopped_shows_what_it_lacks(folder):
    """Half a row at the end, of a killed run of another model: the table says 11 of 12."""
    assert command(folder, "faulty", "exact") == 0
    rows = folder / "out/scores/exact/b-capscore/repeat-1/b-capscore.jsonl"
    rows.write_text(rows.read_text()[:-50])
    with (folder / "out/bill.jsonl").open("a") as bill:
        bill.write('{"run": "2026')
    assert command(folder, "empty") == 0
    entries = {entry["model"]: entry["score"] for entry in table(folder)["standings"]}
    assert (entries["exact"]["n_scored"], entries["exact"]["n"]) == (N - 1, N)


def test_models_on_other_images_are_not_compared(folder, capsys):
    assert command(folder, "faulty") == 0
    lines = (folder / "exact.jsonl").read_text().splitlines()
    (folder / "0.png").rename(folder / "zero.png")
    first = json.loads(lines[0]) | {"image": "zero.png"}
    (folder / "other.jsonl").write_text(json.dumps(first) + "\n")
    assert command(folder, "other") == 0
    assert (
        "not compared: faulty and other have no scored image in common" in capsys.readouterr().out
    )
    assert len(table(folder)["standings"]) == 2


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_bills_both_parts(tmp_path):
    """Killed three times, each time after some more rows: no row is lost, doubled or paid twice."""
    write_benchmarks(tmp_path / "world", 6)
    command = all_suites(tmp_path / "world", tmp_path / "out")
    command += ["--captions", f"good={tmp_path / 'world/good.jsonl'}", "--yes"]
    command += ["--price", "1", "2", "--max-concurrency", "4"]
    environment = os.environ | {"OPENAI_API_KEY": "none"}

    def rows():
        return sum(
            path.read_text().count("\n") for path in (tmp_path / "out").glob("scores/**/*.jsonl")
        )

    with serve(latency=0.2) as server:
        command += ["--judge", f"openai/oracle@{server.url}"]
        for wanted in (2, 8, 14):
            process = subprocess.Popen(
                [sys.executable, "-m", "trl_balcap.cli", *command], env=environment
            )
            while rows() < wanted and process.poll() is None:
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert subprocess.run([sys.executable, "-m", "trl_balcap.cli", *command]).returncode == 0
    for path in (tmp_path / "out").glob("scores/*/*/repeat-1/*.jsonl"):
        ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
        assert ids == [f"00{place}" for place in range(6)]
    bill = read_bill(tmp_path / "out")
    assert bill["runs"] == 4
    dollars = (bill["prompt tokens"] + 2 * bill["completion tokens"]) / 1e6
    assert bill["dollars"] == pytest.approx(dollars)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_the_p_values_and_bonferroni(p_values):
    corrected = holm(p_values)
    for p, q in zip(p_values, corrected, strict=True):
        assert p <= q <= min(1.0, p * len(p_values)) + 1e-12 or q == max(corrected)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [corrected[i] for i in order] == sorted(corrected)

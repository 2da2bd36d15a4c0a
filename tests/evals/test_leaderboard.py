"""`trl-balcap leaderboard`: published results of CapArena-Auto, and a model of one's own."""

import json
import random

import pytest

from trl_balcap.cli import main
from trl_balcap.evals.leaderboard import leaderboard, read_result
from trl_balcap.evals.rules.caparena import BASELINES
from trl_balcap.scenes.benchmarks import write_benchmarks

WORDS = ("Caption 1 is better", "Caption 2 is better.", "Tie", "<Tie>")


def result(model: str, wins: dict[str, int], n: int = 600) -> list[dict]:
    """A published result file: `wins` of the battles with each baseline won, the others lost."""
    rng = random.Random(0)
    battles = []
    for place in range(n):
        baseline = list(BASELINES)[place % 3]
        first, second = (baseline, model) if rng.random() < 0.5 else (model, baseline)
        better = model if place // 3 < wins[baseline] else baseline
        battle = {"img": f"test_{place:05d}.jpg", "source1": first, "source2": second}
        battle |= {"caption1": "a red cup", "caption2": "a red cup", "ref": "A cup."}
        battle |= {"ref_model": baseline, "judge_reason": "Reason: so.\nJudgment: it"}
        battles.append(battle | {"judge": WORDS[0] if first == better else WORDS[1]})
    return battles


@pytest.fixture
def published(tmp_path):
    """22 models with 600 battles each, and the file of captions that comes with them."""
    folder = tmp_path / "caparena_auto"
    folder.mkdir()
    for number in range(22):
        wins = dict.fromkeys(BASELINES, 9 * number)
        (folder / f"model-{number}.json").write_text(json.dumps(result(f"model-{number}", wins)))
    (folder / "caparena_auto_600.json").write_text(json.dumps({"i.jpg": {}}))
    return folder


def test_a_model_finds_its_place(published, tmp_path, terminal, capsys):
    """Won - lost over 2: 110 of 200 won is (110 - 90) / 2 = 10, between 8 (108) and 17 (117)."""
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps(result("mine", dict.fromkeys(BASELINES, 110))))
    out = tmp_path / "board.json"
    assert main(["leaderboard", str(published), "--add", f"mine={mine}", "--out", str(out)]) == 0
    board = json.loads(out.read_text())
    assert [place["model"] for place in board][8:11] == ["model-13", "mine", "model-12"]
    scores = {name: entry["value"] for name, entry in board[9]["scores"].items()}
    assert scores == pytest.approx(
        {"Score_Avg": 10, "Score_gpt": 10, "Score_cog": 10, "Score_cpm": 10, "Length_Avg": 3}
    )
    shown = capsys.readouterr().out
    assert "10*   mine" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_scored_rows_are_placed_and_exported_in_the_official_form(published, tmp_path, capsys):
    data = write_benchmarks(tmp_path / "world", 6)
    command = ["score", str(data["good"]), "--metrics", "caparena", "--judge", "scenes/oracle"]
    command += ["--model-name", "good", "--out", str(tmp_path / "scores")]
    assert main([*command, "--data", f"caparena={data['caparena']}"]) == 0
    rows = tmp_path / "scores/caparena.jsonl"
    export = ["--export", str(tmp_path / "export")]
    # Under another name than it was scored under; a verdict is won by its name.
    assert main(["leaderboard", str(published), "--add", f"mine={rows}", *export]) == 0
    battles = read_result(tmp_path / "export/mine.json")
    assert all("mine" in (battle["source1"], battle["source2"]) for battle in battles)
    keys = ["img", "source1", "source2", "caption1", "caption2", "ref", "ref_model"]
    assert [list(battle) for battle in battles] == [[*keys, "judge_reason", "judge"]] * 6
    captions = json.loads((tmp_path / "export/mine_captions.json").read_text())
    assert set(captions) == {battle["img"] for battle in battles}
    # The exported file, placed again, has the score that `score` printed.
    summary = json.loads((tmp_path / "scores/summary.json").read_text())
    expected = summary["metrics"][0]["scores"][0]["value"]
    for name, path in (("mine", tmp_path / "export/mine.json"), ("another", rows)):
        [place] = leaderboard(None, {name: path})
        assert place.scores["Score_Avg"].value == pytest.approx(expected)
    with pytest.raises(ValueError, match="must be between 'GPT-4o-0806' and 'GPT-4o-0806'"):
        leaderboard(None, {"GPT-4o-0806": rows})  # a baseline's name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"img": 1}], r"\[0\]: img, source1, source2, caption1, caption2, ref_model must be text"),
        ([1], r"\[0\]: a battle must be an object"),
        ({"a": 1}, "must be a list of battles"),
        (
            [dict.fromkeys(("img", "source1", "source2", "caption1", "caption2"), "x")
             | {"ref_model": "gpt"}],
            "ref_model is 'gpt'; it must be one of GPT-4o-0806",
        ),
    ],
)  # fmt: skip
def test_results_of_another_form(tmp_path, content, message):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_result(path)


def test_a_name_that_is_taken(published, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["leaderboard", str(published), "--add", f"model-3={published / 'model-4.json'}"])
    assert "'model-3' is already among the models" in capsys.readouterr().err

"""`trl-balcap agree`: a metric beside people."""

import json

import pytest

from trl_balcap.cli import main
from trl_balcap.evals.agree import agreement
from trl_balcap.evals.arena import HUMAN_RANKING

MODELS = [model for model in HUMAN_RANKING if model != "human"]


def command(tmp_path, content, *more) -> int:
    path = tmp_path / "metric.json"
    path.write_text(json.dumps(content))
    return main(["agree", str(path), *more])


def test_scores_are_ranked(tmp_path, capsys):
    scores = {model: 100.0 - place for place, model in enumerate(MODELS)}
    out = tmp_path / "agreement.json"
    assert command(tmp_path, scores, "--out", str(out)) == 0
    assert "Spearman 1.0000, Kendall 1.0000 over 14 models." in capsys.readouterr().out
    assert json.loads(out.read_text())["ranking"] == MODELS
    assert command(tmp_path, scores, "--lower-is-better") == 0
    assert "Spearman -1.0000" in capsys.readouterr().out


def test_one_swap_of_four_by_hand():
    # d = (0, 1, -1, 0): rho = 1 - 6 * 2 / (4 * 15) = 0.8; 5 of 6 pairs in order: tau = (5 - 1) / 6.
    a, b, c, d = MODELS[:4]
    found = agreement([a, c, b, d])
    assert found["spearman"] == pytest.approx(0.8)
    assert found["kendall"] == pytest.approx(4 / 6)


def test_battles_are_rated_and_compared_with_people(tmp_path, capsys):
    good, bad = MODELS[0], MODELS[-1]
    battle = {"source1": good, "source2": bad, "winner": good, "cluster": "level 1"}
    battles = [battle | {"judge": "Caption 1 is better"}] * 3 + [battle | {"judge": "Tie"}]
    assert command(tmp_path, battles) == 0
    shown = capsys.readouterr().out
    assert "Spearman 1.0000" in shown
    assert "Agreement on captions: 0.750 over 4 battles" in shown


def test_a_ranking_of_ones_own(tmp_path, capsys):
    human = tmp_path / "human.json"
    human.write_text(json.dumps(["x", "y", "z"]))
    assert command(tmp_path, {"x": 1, "y": 2, "z": 3}, "--human-ranking", str(human)) == 0
    assert "Kendall -1.0000 over 3 models" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"GPT-4o-0806": 1, "Nobody-7B": 2}, "'Nobody-7B' is not in the human ranking"),
        ({"GPT-4o-0806": "high"}, "must give one number for each model"),
        ([MODELS[0]], "A ranking of 1 models"),
        ([MODELS[0], MODELS[0]], "ranks a model twice"),
        (3, "must be {model: score}"),
        ([{"source1": "a", "source2": "b"}], "needs at least one battle that has a 'judge'"),
    ],
)
def test_files_of_another_form(tmp_path, capsys, content, message):
    with pytest.raises(SystemExit):
        command(tmp_path, content)
    assert message in capsys.readouterr().err


def test_files_that_are_no_json(tmp_path, capsys):
    path = tmp_path / "metric.json"
    path.write_text("{")
    with pytest.raises(SystemExit):
        main(["agree", str(path)])
    assert f"{path}:1: not JSON" in capsys.readouterr().err

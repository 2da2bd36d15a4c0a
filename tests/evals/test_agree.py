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
    shown = capsys.readouterr().out
    assert "Spearman 1.0000 (p 0), Kendall 1.0000 (p 2.3e-11) over 14 models." in shown
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
    assert "Caption-level agreement: 0.750 (0.301 to 0.954) over 4 battles, ties included." in shown
    assert "Caption-level agreement: 1.000 (0.439 to 1.000) over 3 battles, without ties." in shown


def test_a_ranking_of_ones_own(tmp_path, capsys):
    human = tmp_path / "human.json"
    human.write_text(json.dumps(["x", "y", "z"]))
    assert command(tmp_path, {"x": 1, "y": 2, "z": 3}, "--human-ranking", str(human)) == 0
    assert "Kendall -1.0000 (p 0.33) over 3 models" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"GPT-4o-0806": 1, "Nobody-7B": 2}, "'Nobody-7B' is not in the human ranking"),
        ({"GPT-4o-0806": "high"}, "must have one number per model"),
        ([MODELS[0]], "A ranking of 1 models"),
        ([MODELS[0], MODELS[0]], "ranks the same model twice"),
        (3, "must be {model: score}"),
        ([{"source1": "a", "source2": "b"}], "needs at least one battle that has a 'judge'"),
    ],
)
def test_files_of_another_form(tmp_path, capsys, content, message):
    with pytest.raises(SystemExit):
        command(tmp_path, content)
    assert message in capsys.readouterr().err


def test_ties_are_no_agreement(tmp_path, capsys):
    """Seven equal scores say nothing; two equal ones of three share a rank."""
    assert command(tmp_path, dict.fromkeys(MODELS[:7], 0.5)) == 0
    shown = capsys.readouterr().out
    assert "All models have the same score, so there is no ranking to correlate." in shown
    assert "Spearman" not in shown
    # Ranks 1, 2.5, 2.5 against 1, 2, 3: rho = 1.5 / sqrt(1.5 * 2).
    tied = agreement({MODELS[0]: 3.0, MODELS[1]: 1.0, MODELS[2]: 1.0})
    assert tied["spearman"] == pytest.approx(1.5 / 3**0.5)


def test_a_score_that_is_not_a_number_is_refused(tmp_path, capsys):
    path = tmp_path / "metric.json"
    path.write_text(f'{{"{MODELS[0]}": 1.0, "{MODELS[1]}": NaN, "{MODELS[2]}": 0.5}}')
    with pytest.raises(SystemExit):
        main(["agree", str(path)])
    assert f"must have one number per model, but {MODELS[1]!r} has nan" in capsys.readouterr().err


BATTLE = {"source1": MODELS[0], "source2": MODELS[1], "winner": MODELS[0], "cluster": "level 1"}


def test_a_battle_without_a_verdict_is_left_out(tmp_path, capsys):
    battles = [BATTLE | {"judge": "Caption 1 is better"}, BATTLE | {"judge": None}, BATTLE]
    assert command(tmp_path, battles) == 0
    assert "over 1 battles, ties included" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cluster": "level 9"}, "has the cluster 'level 9', but it must be one of level 1"),
        ({"judge": 1}, 'battle 0 must have a string or null in "judge", got 1'),
        ({"source1": None}, "battle 0 must have model names"),
    ],
)
def test_battles_of_another_form(tmp_path, capsys, change, message):
    with pytest.raises(SystemExit):
        command(tmp_path, [BATTLE | {"judge": "Tie"} | change])
    assert message in capsys.readouterr().err


def test_rows_of_a_metric_agree_with_people(tmp_path, capsys):
    """Two images, two models: the better one wins both by the metric, and one of two by people."""
    paths = []
    for model, values in (
        (MODELS[0], (0.9, 0.8)),
        (MODELS[1], (0.3, 0.8)),
        (MODELS[2], (0.1, 0.2)),
    ):
        rows = [
            {"id": f"{i}.jpg", "metric": "b-capscore", "score": value, "precision": 1.0}
            for i, value in enumerate(values)
        ]
        paths.append(tmp_path / f"{model}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    battles = [
        {"img": "0.jpg", "source1": MODELS[1], "source2": MODELS[0], "winner": MODELS[0]},
        {"img": "1.jpg", "source1": MODELS[0], "source2": MODELS[1], "winner": MODELS[0]},
        {"img": "0.jpg", "source1": MODELS[3], "source2": MODELS[0], "winner": MODELS[0]},
    ]
    (tmp_path / "battles.json").write_text(
        json.dumps([battle | {"cluster": "level 1"} for battle in battles])
    )
    given = [f"{path.stem}={path}" for path in paths]
    assert main(["agree", *given, "--battles", str(tmp_path / "battles.json")]) == 0
    shown = capsys.readouterr().out
    assert "Kendall 1.0000" in shown
    # The second battle is a tie by the metric; the third model has no rows.
    assert "Caption-level agreement: 0.500" in shown
    assert "over 2 battles, ties included" in shown
    assert "Caption-level agreement: 1.000" in shown


def test_files_that_are_no_json(tmp_path, capsys):
    path = tmp_path / "metric.json"
    path.write_text("{")
    with pytest.raises(SystemExit):
        main(["agree", str(path)])
    assert f"{path}:1: not JSON" in capsys.readouterr().err

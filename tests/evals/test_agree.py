"""`trl-balcap agree`: a metric beside people."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from trl_balcap.cli import main
from trl_balcap.data import BadRowsError
from trl_balcap.evals.agree import agreement
from trl_balcap.evals.arena import HUMAN_RANKING
from trl_balcap.evals.battles import load_battles
from trl_balcap.evals.ranks import correlations, kendall_p, spearman_p
from trl_balcap.scenes.benchmarks import write_benchmarks

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
    assert "Spearman 1.0000 (p unknown), Kendall 1.0000 (p 1) over 2 models." in shown
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
    assert "over 2 models" in shown  # the third fights no battle
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


def test_intervals_of_rank_correlations():
    """Of three models in reverse order, every resample with two of them is in reverse, too."""
    found = agreement(dict(zip(MODELS[:3], (1.0, 2.0, 3.0), strict=True)))
    assert found["kendall_interval"] == (-1.0, -1.0)
    # One swap of four: resamples agree between not at all and wholly.
    a, b, c, d = MODELS[:4]
    low, high = agreement([a, c, b, d])["kendall_interval"]
    assert (round(low, 6), high) == (-1.0, 1.0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=8))
def test_correlations_of_rounds_are_scipy_s(pairs):
    x, y = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    if len(set(x)) == 1 or len(set(y)) == 1:
        return
    rho, tau = correlations(x[None], y[None])
    assert rho[0] == pytest.approx(spearmanr(x, y)[0])
    assert tau[0] == pytest.approx(kendalltau(x, y)[0])
    assert spearman_p(rho[0], len(x)) == pytest.approx(spearmanr(x, y)[1], abs=1e-12)
    assert kendall_p(x, y) == pytest.approx(kendalltau(x, y)[1])


def test_p_values_by_hand():
    """Of the 24 orders of four, 1 has no pair out of order and 3 have one: 2 (1 + 3) / 24."""
    one_swap = np.array([1, 3, 2, 4]), np.array([1, 2, 3, 4])
    assert kendall_p(*one_swap) == pytest.approx(1 / 3)
    # rho is 0.8, so t is 0.8 sqrt(2 / 0.36) = 1.886, which Student's t with 2 passes with 0.1.
    assert spearman_p(0.8, 4) == pytest.approx(0.2)


# ---- battles judged here -------------------------------------------------------------------------


def published_battles(n: int, seed: int = 0) -> list[dict]:
    """Battles with the fields of caparena_annots_eval.json; people prefer the better-ranked."""
    rng = random.Random(seed)
    battles = []
    for place in range(n):
        one, other = rng.sample(HUMAN_RANKING, 2)
        better = min((one, other), key=HUMAN_RANKING.index)
        winner = better if rng.random() < 0.8 else rng.choice(["equal", "bad", "skip"])
        texts = {"caption1": f"{one} {'word ' * 110}", "caption2": f"{other} {'word ' * 110}"}
        level = f"level {rng.randrange(1, 5)}"
        battle = {"img": f"test_{place % 5100:05d}.jpg", "source1": one, "source2": other, **texts}
        battle |= {"ref": "word " * 120, "winner": winner, "cluster": level}
        battles.append(battle | {"in-400": place < 400})
    return battles


def test_all_published_battles(tmp_path, capsys):
    """6,523 battles as they are published, with a judge that is always of the people's mind."""
    battles = published_battles(6523)
    path = tmp_path / "caparena_annots_eval.json"
    path.write_text(json.dumps(battles))
    assert len(load_battles(path)) == 6523
    for battle in battles:
        sides = {battle["source1"]: "Caption 1 is better", battle["source2"]: "Caption 2 is better"}
        battle["judge"] = sides.get(battle["winner"], "Tie")
    assert command(tmp_path, battles) == 0
    shown = capsys.readouterr().out
    assert "Spearman 1.0000" in shown
    assert "95% intervals, battles resampled: Spearman 0.9" in shown
    n = sum("human" not in (b["source1"], b["source2"]) for b in battles)
    assert f"agreement: 1.000 (0.999 to 1.000) over {n} battles, ties included" in shown


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "must be a list of battles"),
        ("[1]", "[0]: a battle must be an object"),
        ('[{"img": "a.jpg"}]', "[0]: source1, source2, caption1, caption2, ref, winner"),
    ],
)
def test_battle_files_of_another_form(tmp_path, content, message):
    path = tmp_path / "battles.json"
    path.write_text(content)
    with pytest.raises(BadRowsError, match=re.escape(message)):
        load_battles(path)


@pytest.fixture
def fought(tmp_path):
    """Six scenes, described by a good and a poor model and a person; people prefer the good one."""
    data = write_benchmarks(tmp_path / "world", 6)
    good, poor = (
        [json.loads(line) for line in data[name].read_text().splitlines()]
        for name in ("good", "poor")
    )
    battles = []
    for place, (better, worse) in enumerate(zip(good, poor, strict=True)):
        sides = [(MODELS[0], better["caption"]), (MODELS[1], worse["caption"])]
        if place == 0:
            sides[1] = ("human", better["reference"])
        if place % 2:
            sides.reverse()
        (one, first), (other, second) = sides
        battle = {"img": Path(better["image"]).name, "source1": one, "source2": other}
        battle |= {"caption1": first, "caption2": second, "ref": better["reference"]}
        battles.append(battle | {"winner": MODELS[0], "cluster": "level 1", "in-400": True})
    path = tmp_path / "battles.json"
    path.write_text(json.dumps(battles))
    images, verdicts = str(tmp_path / "world/images"), str(tmp_path / "verdicts")
    judging = ["--judge", "scenes/oracle", "--images", images, "--verdicts", verdicts]
    return ["agree", str(path), *judging]


def test_battles_are_judged_by_pairs(fought, tmp_path, capsys):
    assert main(fought) == 0
    shown = capsys.readouterr().out
    assert "caparena by scenes/oracle" in shown
    assert "over 5 battles, ties included" in shown  # people's own captions are not asked about
    made = json.loads((tmp_path / "verdicts/battles.json").read_text())
    assert "judge" not in made[0]
    assert made[1]["judge_reason"].endswith(f"Judgment: {made[1]['judge']}")
    # A row that a killed run lost is asked about again, from the cache; the others are kept.
    rows = tmp_path / "verdicts/caparena.jsonl"
    whole = rows.read_text()
    rows.write_text(whole[:-30])
    assert main(fought) == 0
    assert rows.read_text() == whole


def test_battles_are_judged_by_scores(fought, tmp_path, capsys):
    out = tmp_path / "agreement.json"
    assert main([*fought, "--by", "b-capscore", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    # By hand: the verdict of each battle is which caption has the higher b-CapScore.
    scores = {
        model: {
            row["id"]: row["score"]
            for row in map(
                json.loads,
                (tmp_path / "verdicts" / model / "b-capscore.jsonl").read_text().splitlines(),
            )
        }
        for model in MODELS[:2]
    }
    better = [scores[MODELS[0]][i] > scores[MODELS[1]][i] for i in scores[MODELS[1]]]
    assert found["captions"]["n"] == len(better) == 5
    assert found["captions"]["overall"] == pytest.approx(sum(better) / 5)
    assert "b-capscore" in capsys.readouterr().out


def test_judging_battles_needs_its_folders(fought, capsys):
    with pytest.raises(SystemExit):
        main(fought[:4])
    assert "--images FOLDER and --verdicts FOLDER" in capsys.readouterr().err

"""CapArena-Auto, from a file of captions to the table."""

import pytest

from tests.evals.scripted import (
    Scripted,
    caparena_rule,
    rows,
    score,
    scores,
    summary,
    write_captions,
)
from trl_balcap.evals.bootstrap import estimate, resampling_weights
from trl_balcap.evals.metrics.caparena import CapArenaAuto
from trl_balcap.scenes.server import serve


def test_caparena_end_to_end(folder, references, capsys):
    captions = write_captions(
        folder,
        {"test_0.jpg": "a much longer caption", "test_1.jpg": "a cup", "test_2.jpg": "a cup at it"},
    )
    judge = Scripted(caparena_rule)
    out = folder / "out"
    with serve(answer=judge) as server:
        more = ("--metrics", "caparena", "--data", f"caparena={references}")
        assert score(captions, server, out, *more) == 0
        assert score(captions, server, folder / "strict", *more, "--mode", "strict") == 0
    found = scores(out, "caparena")
    assert (found["Score_gpt"], found["Score_cog"], found["Score_cpm"]) == (0.5, -0.5, 0.0)
    assert found["Score_Avg"] == 0.0
    assert found["Length_Avg"] == pytest.approx((4 + 2 + 4) / 3)
    strict = scores(folder / "strict", "caparena")
    assert (strict["Score_gpt"], strict["Score_cog"], strict["Score_cpm"]) == (100, -100, 0)
    assert "Score_Avg" in capsys.readouterr().out


def test_caparena_needs_all_captions_officially(folder, references, capsys):
    captions = write_captions(folder, {"test_0.jpg": "a cup"})
    judge = Scripted(caparena_rule)
    with serve(answer=judge) as server, pytest.raises(SystemExit):
        score(
            captions,
            server,
            folder / "out",
            "--metrics",
            "caparena",
            "--data",
            f"caparena={references}",
        )
    assert judge.asked == []
    message = capsys.readouterr().err
    assert "2 of 3 images have no caption, such as 'test_1.jpg'" in message
    assert "--mode strict" in message


def test_a_baseline_does_not_fight_itself(folder, references):
    captions = write_captions(
        folder, {"test_0.jpg": "a cup on it", "test_1.jpg": "longer: a cup on it"}
    )
    judge = Scripted(caparena_rule)
    out = folder / "out"
    more = ("--metrics", "caparena", "--data", f"caparena={references}")
    with serve(answer=judge) as server:
        # test_2 is MiniCPM's own image: it needs no caption, and test_0 and test_1 are its battles.
        assert score(captions, server, out, *more, "--model-name", "MiniCPM-V2.6-8B") == 0
        captions = write_captions(folder, {f"test_{i}.jpg": "a cup on it" for i in range(3)})
        more = (*more, "--model-name", "MiniCPM-V2.6-8B")
        assert score(captions, server, folder / "all", *more) == 0
    assert [row["score"] for row in rows(out, "caparena")] == [0, 1]
    found = scores(out, "caparena")
    assert (found["Score_cog"], found["Score_cpm"]) == (0.5, 0.0)
    assert found["Score_Avg"] == pytest.approx(0.5 / 3)
    assert summary(folder / "all", "caparena")["missing"] == {"own baseline": 1}
    assert rows(folder / "all", "caparena")[2]["reason"] == "own baseline"


def test_battles_that_nobody_judged_are_not_ties():
    """One won, one silent: at 2 battles the official 0.5 stands for both, as 1.0."""
    row = {"caption": "a", "ref_model": "GPT-4o-0806", "mode": "official"}
    won, silent = row | {"score": 1, "reason": None}, row | {"score": None, "reason": "timeout"}
    unread = row | {"score": None, "reason": "no verdict"}

    def gpt(*rows):
        statistic = CapArenaAuto.statistics(rows)[1]
        return estimate(statistic, resampling_weights(len(rows), rounds=1)).value

    assert (gpt(won), gpt(won, unread), gpt(won, silent), gpt(silent)) == (0.5, 0.5, 1.0, None)

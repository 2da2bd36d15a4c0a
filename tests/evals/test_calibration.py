"""`trl-balcap calibrate`: the spread of a judge that errs, by hand and through the whole
command."""

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_balcap import cli
from trl_balcap.evals.calibration import calibrate
from trl_balcap.evals.retest import agreement, retest_spread
from trl_balcap.judge import Judge
from trl_balcap.scenes.grammar import Faults, describe, faulty_caption
from trl_balcap.scenes.world import draw, random_scene

FAULTS = Faults(wrong=0.3, omit=0.2, meta=0.2, broken=0.3)


def captions_file(folder, n=12):
    """Faulty captions of `n` scenes, as a user has them on disk."""
    rng = random.Random(0)
    lines = []
    for number in range(n):
        scene = random_scene(rng)
        draw(scene).save(folder / f"{number}.png")
        lines.append(
            {
                "image": f"{number}.png",
                "caption": faulty_caption(scene, rng, FAULTS) or "Nothing.",
                "reference": describe(scene),
            }
        )
    path = folder / "captions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_spread_by_hand():
    # Differences 0.2, 0.0 and -0.1: sqrt((0.04 + 0 + 0.01) / 6).
    assert retest_spread([0.5, 0.3, 0.1], [0.3, 0.3, 0.2]) == pytest.approx(math.sqrt(0.05 / 6))
    assert retest_spread([None, 0.3], [0.1, None]) is None


def test_spread_finds_the_noise_that_was_put_in():
    rng = random.Random(0)
    true = [rng.uniform(0.2, 0.8) for _ in range(4000)]
    twice = [[value + rng.gauss(0, 0.07) for value in true] for _ in range(2)]
    assert retest_spread(*twice) == pytest.approx(0.07, rel=0.05)


@settings(deadline=None)  # the first example imports scipy.stats
@given(st.lists(st.floats(0, 1), min_size=1), st.floats(-1, 1))
def test_a_constant_offset_is_bias_and_not_disagreement_in_rank(scores, offset):
    moved = [score + offset for score in scores]
    found = agreement(scores, moved)
    assert found.bias == pytest.approx(offset, abs=1e-9)
    assert retest_spread(scores, moved) == pytest.approx(abs(offset) / math.sqrt(2), abs=1e-9)


def test_ranks_and_tolerance_by_hand():
    found = agreement([0.1, 0.5, 0.9, None], [0.9, 0.55, 0.1, 0.2])
    assert (found.n, found.rank_correlation) == (3, -1.0)
    assert found.within == pytest.approx(1 / 3)  # 0.5 and 0.55 only
    assert agreement([0.5, 0.5, 0.5], [0.1, 0.2, 0.3]).rank_correlation is None


async def test_an_exact_judge_has_no_spread_and_agrees_with_itself(tmp_path):
    path = captions_file(tmp_path)
    found = await calibrate(
        path,
        lambda cache: Judge("scenes/oracle", cache=cache),
        against=lambda cache: Judge("scenes/oracle", cache=cache),
        out=tmp_path / "out",
    )
    for row in found.rewards:
        assert row.n == 12
        assert row.against is not None
        assert row.against.within == 1.0
        assert row.against.rank_correlation == pytest.approx(1.0)
        assert row.spread is not None
        assert row.spread > 0.05  # of the captions, so that agreement means something


async def test_a_noisy_judge_shows_the_spread_of_its_noise(tmp_path):
    """Grades that err by 1.5 points of 10 each: their mean by 0.15 / sqrt(3), less what is clipped
    at 1."""
    path = captions_file(tmp_path, n=60)
    found = await calibrate(
        path,
        lambda cache: Judge("scenes/oracle+linguistic=1.5,flip=0.0", cache=cache),
        against=lambda cache: Judge("scenes/oracle", cache=cache),
        out=tmp_path / "out",
    )
    precision, recall, linguistic = found.rewards
    assert precision.retest_spread == recall.retest_spread == 0.0
    assert linguistic.retest_spread is not None
    assert 0.035 < linguistic.retest_spread < 0.15 / math.sqrt(3)
    assert linguistic.against is not None
    assert linguistic.against.within is not None
    assert 0.5 < linguistic.against.within < 1.0


async def test_what_is_there_is_not_asked_again(tmp_path):
    path = captions_file(tmp_path, n=6)
    asked = []

    def judge(cache):
        return Judge("scenes/oracle", cache=cache)

    for _ in range(2):
        await calibrate(path, judge, out=tmp_path / "out", n=4, on_row=asked.append)
    assert sorted(asked) == ["again"] * 4 + ["first"] * 4  # the second run adds none
    assert len((tmp_path / "out" / "sample.jsonl").read_text().splitlines()) == 4


def test_the_command_prints_a_floor_for_the_config(tmp_path, capsys):
    path = captions_file(tmp_path, n=6)
    arguments = ["calibrate", str(path), "--judge", "scenes/oracle", "--out", str(tmp_path / "o")]
    assert cli.main([*arguments, "--against", "scenes/oracle", "--yes"]) == 0
    shown = capsys.readouterr().out
    assert "Planned judge calls" in shown


def test_nothing_is_spent_without_a_yes(tmp_path, capsys):
    path = captions_file(tmp_path, n=3)
    arguments = [
        "calibrate",
        str(path),
        "--judge",
        "openai/of-unknown-price",
        "--out",
        str(tmp_path / "o"),
    ]
    with pytest.raises(SystemExit):
        cli.main(arguments)  # nobody is there to confirm
    assert "--yes" in capsys.readouterr().err
    assert not (tmp_path / "o" / "first" / "b-capscore.jsonl").exists()

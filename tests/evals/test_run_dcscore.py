"""DCScore, from a file of captions to the table."""

import pytest

from tests.evals.scripted import (
    Scripted,
    dcscore_rule,
    rows,
    score,
    scores,
    summary,
    write_captions,
)
from trl_balcap.scenes.server import serve


def test_dcscore_end_to_end(folder, facts, capsys):
    captions = write_captions(
        folder,
        {
            # P = 2/2, one unmatched right fact: R = (1 + 1) / (2 + 1), F = 0.8, both halves alike.
            "test_0.jpg": "cup. spoon.",
            # P = 1/2, R = 1/2; F = 0.5.
            "test_1.jpg": "cup. table wrong.",
            # All: P = 2/2, R = 2/3, F = 0.8. Relevant, without the mood: P = 1/1, R = 1/2, F = 2/3.
            "test_2.jpg": "cup. mood.",
        },
    )
    judge = Scripted(dcscore_rule)
    out = folder / "out"
    with serve(answer=judge) as server:
        assert (
            score(captions, server, out, "--metrics", "dcscore", "--data", f"dcscore={facts}") == 0
        )
    expected = 100 * (0.8 + 0.5 + (0.8 + 2 / 3) / 2) / 3
    assert scores(out, "dcscore")["DCScore"] == pytest.approx(expected, abs=1e-4)
    assert len(judge.asked) == 3 * 7  # one extraction, three matchings, three verifications
    assert "67.78" in capsys.readouterr().out
    found = rows(out, "dcscore")
    assert [row["id"] for row in found] == ["test_0.jpg", "test_1.jpg", "test_2.jpg"]
    assert len(found[0]["trials"]) == 9
    assert found[1]["verifications"][0][1] == {"fact": "table wrong", "verification": 0}
    result = summary(out, "dcscore")
    assert not result["comparable"]
    for word in ("--official-prompts", "gpt-4o-2024-05-13"):
        assert word in result["comparison"]
    assert result["prompts"] == "trl-balcap's own"


def test_dcscore_failures_are_dropped_officially_and_scored_strictly(folder, facts):
    captions = write_captions(folder, {"test_0.jpg": "cup. table.", "test_1.jpg": "   "})
    arguments = ("--metrics", "dcscore", "--data", f"dcscore={facts}", "--empty-captions", "score")
    judge = Scripted(dcscore_rule)
    with serve(answer=judge) as server:
        assert score(captions, server, folder / "official", *arguments) == 0
        official_calls = len(judge.asked)
        assert score(captions, server, folder / "strict", *arguments, "--mode", "strict") == 0
    found = scores(folder / "official", "dcscore")
    assert found["DCScore"] == pytest.approx(100, abs=1e-4)
    assert found["DCScore, invalid as 0"] == pytest.approx(50, abs=1e-4)
    result = summary(folder / "official", "dcscore")
    assert (result["n_scored"], result["n"]) == (1, 2)
    assert result["missing"] == {"invalid replies": 1}
    assert "Images of the benchmark without a caption in this file: 1." in result["notes"]
    assert official_calls == 7 + 5 * 7  # the empty caption is tried five times over
    assert scores(folder / "strict", "dcscore")["DCScore"] == pytest.approx(50, abs=1e-4)
    assert summary(folder / "strict", "dcscore")["n_scored"] == 2

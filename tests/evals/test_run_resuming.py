"""Runs that fail or stop on the way: what they leave, and what the next run asks."""

import json

import pytest

from tests.evals.scripted import (
    Scripted,
    caparena_rule,
    captionqa_rule,
    dcscore_rule,
    rows,
    score,
    scores,
    summary,
    write_captions,
)
from trl_balcap.scenes.server import serve


def test_a_stopped_run_goes_on_and_pays_nothing_twice(folder, facts, capsys):
    captions = write_captions(folder, {f"test_{i}.jpg": f"cup. thing {i}." for i in range(3)})
    out = folder / "out"
    arguments = ("--metrics", "dcscore", "--data", f"dcscore={facts}")
    judge = Scripted(dcscore_rule)
    with serve(answer=judge) as server:
        # Ten calls are three extractions and most of the matchings: no score yet, and exit code 1.
        assert score(captions, server, out, *arguments, "--budget-calls", 10) == 1
        stopped = summary(out, "dcscore")
        assert stopped["n_scored"] < 3
        assert set(stopped["missing"]) == {"over_budget"}
        assert score(captions, server, out, *arguments) == 0
        assert summary(out, "dcscore")["n_scored"] == 3
        assert len(judge.asked) == 3 * 7
        assert score(captions, server, out, *arguments) == 0
    assert len(judge.asked) == 3 * 7
    assert "calls 0" in capsys.readouterr().out


def test_a_row_that_a_killed_run_half_wrote_is_asked_again(folder, questions):
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"nat_1": "A red cup.", "doc_1": "A blue cup."}))
    out = folder / "out"
    more = ("--metrics", "captionqa", "--data", f"captionqa={questions}")
    with serve(answer=Scripted(captionqa_rule)) as server:
        score(captions, server, out, *more)
        whole = (out / "captionqa.jsonl").read_text()
        (out / "captionqa.jsonl").write_text(whole[:-40])
        score(captions, server, out, *more)
    assert [row["id"] for row in rows(out, "captionqa")] == ["nat_1", "doc_1"]
    assert rows(out, "captionqa")[0] == json.loads(whole.splitlines()[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--mode", "strict"), "was scored with mode 'official', but this run has 'strict'"),
        (("--seed", "1"), "was scored with seed 0, but this run has 1"),
    ],
)
def test_rows_of_other_settings_are_not_mixed(folder, questions, capsys, change, message):
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"nat_1": "A red cup.", "doc_1": "A blue cup."}))
    more = ("--metrics", "captionqa", "--data", f"captionqa={questions}")
    with serve(answer=Scripted(captionqa_rule)) as server:
        score(captions, server, folder / "out", *more)
        with pytest.raises(SystemExit):
            score(captions, server, folder / "out", *more, *change)
        assert message in capsys.readouterr().err
        captions.write_text(json.dumps({"nat_1": "A red cup!", "doc_1": "A blue cup."}))
        with pytest.raises(SystemExit):
            score(captions, server, folder / "out", *more)
    assert "a row for a different caption of 'nat_1'" in capsys.readouterr().err


def test_a_judge_that_fails_leaves_captions_unscored_with_the_reason(folder, references, capsys):
    captions = write_captions(folder, {f"test_{i}.jpg": "a cup" for i in range(3)})
    out = folder / "out"

    def stubborn(messages):
        return "I would rather not say."

    with serve(answer=Scripted(stubborn)) as server:
        more = ("--metrics", "caparena", "--data", f"caparena={references}", "--mode", "strict")
        assert score(captions, server, out, *more) == 1
    assert "caparena: Scored 0 of 3 captions; without a score: 3 no verdict." in (
        capsys.readouterr().out
    )
    result = summary(out, "caparena")
    assert (result["n_scored"], result["missing"]) == (0, {"no verdict": 3})
    assert scores(out, "caparena")["Score_Avg"] is None
    assert rows(out, "caparena")[0]["replies"] == ["I would rather not say."] * 5


def test_unscored_rows_are_tried_again_with_new_replies(folder, references):
    captions = write_captions(folder, {f"test_{i}.jpg": "a cup" for i in range(3)})
    out = folder / "out"
    more = ("--metrics", "caparena", "--data", f"caparena={references}")
    with serve(answer=Scripted(lambda messages: "?")) as server:
        score(captions, server, out, *more)
        server_url = server.url
    judge = Scripted(caparena_rule)
    with serve(answer=judge, port=int(server_url.rsplit(":", 1)[1].split("/")[0])) as server:
        score(captions, server, out, *more)
    assert len(judge.asked) == 3
    assert summary(out, "caparena")["n_scored"] == 3


def test_after_a_partial_failure_only_what_is_missing_is_asked(folder, questions):
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"nat_1": "A red cup.", "doc_1": "A blue cup."}))
    out = folder / "out"
    judge = Scripted(captionqa_rule)
    more = ("--metrics", "captionqa", "--data", f"captionqa={questions}")
    with serve(answer=judge) as server:
        # Two questions of four and the preflight.
        score(captions, server, out, *more, "--budget-calls", 3)
        asked = len(judge.asked)
        assert asked == 2
        (out / "judge-cache").rename(out / "gone")  # the rows must do, without their cache
        assert score(captions, server, out, *more) == 0
    assert len(judge.asked) == 4
    assert summary(out, "captionqa")["n_scored"] == 2


def test_a_failure_on_the_way_keeps_the_replies_that_came(folder, facts):
    captions = write_captions(folder, {"test_0.jpg": "cup. table."})
    out = folder / "out"
    judge = Scripted(dcscore_rule)
    more = ("--metrics", "dcscore", "--data", f"dcscore={facts}")
    with serve(answer=judge) as server:
        assert score(captions, server, out, *more, "--budget-calls", 6) == 1
        assert score(captions, server, out, *more) == 0
    # One extraction, three matchings and three verifications in all.
    assert len(judge.asked) == 7

"""The exam: who knows the answers has full marks, and who errs is found out by as much as it errs.

Judges here are the exact one, noisy ones, and scripted ones behind a server.
"""

import asyncio
import json
from functools import partial
from typing import Any

import numpy as np
import pytest

from benchmarks import noise_costs
from trl_balcap import Judge
from trl_balcap.cli import main
from trl_balcap.exam import make_exam, sit_exam
from trl_balcap.exam.bank import FAULTS, bank, photographs
from trl_balcap.exam.marks import Report, split_marks
from trl_balcap.exam.meaning import cost_of, costs
from trl_balcap.exam.run import SittingError
from trl_balcap.scenes.oracle import Oracle
from trl_balcap.scenes.rules import linguistic
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.server_faults import ServerFaults

EXACT = Oracle()
SMALL = make_exam(16, photographs=False)


def sit(exam, folder, model="scenes/oracle", **settings) -> Report:
    def judge(cache):
        return Judge(model, cache=cache, **settings)

    return asyncio.run(sit_exam(exam, judge, folder))


def served(exam, folder, answer) -> Report:
    with serve(answer=answer) as server:
        return sit(exam, folder, "openai/judge", api_base=server.url, api_key="k")


def asked_in(messages) -> dict[str, Any]:
    content = messages[-1]["content"]
    return json.loads(content if isinstance(content, str) else content[-1]["text"])


# ---- the questions -------------------------------------------------------------------------------


def test_the_exam_has_each_fault_as_often_and_false_answers_of_each_kind():
    exam = make_exam(200, photographs=False)
    assert len(exam.splitting) == 200
    assert [sum(one.fault == fault for one in exam.looking) for fault in FAULTS] == [25] * 8
    correct = [verdict for one in exam.looking for verdict in one.correct]
    assert correct.count(False) == 50  # one in each caption that is wrong or invents
    assert correct.count(None) == 50  # two comments in each with comments
    assert sum(not covered for one in exam.covering for covered in one.covered) == 75
    assert len(exam.hostile) > 160
    assert exam.looking[0].image.size == (336, 336)
    assert make_exam(200, photographs=False) == exam


def test_statements_on_photographs_are_of_three_kinds_each():
    rows = bank("statements")
    folder = photographs()
    assert folder is not None
    images = {row["image"] for row in rows}
    assert len(images) == 6
    assert len({(row["image"], row["text"]) for row in rows}) == len(rows)
    for image in images:
        assert (folder / image).is_file()
        kinds = [(r["correct"], r["pointable"]) for r in rows if r["image"] == image]
        assert set(kinds) == {(True, True), (False, True), (None, False)}
    assert all(len(row["units"]) == len(row["covered"]) for row in bank("paraphrases"))


# ---- who sits it ---------------------------------------------------------------------------------


def test_the_exact_judge_has_full_marks(tmp_path):
    report = sit(SMALL, tmp_path)
    full = {"grades fall with faults", "splits found"}
    for mark in report.marks:
        is_share = mark.name in full or "accuracy" in mark.name or "F1" in mark.name
        assert mark.value == pytest.approx(float(is_share)), mark
    assert report.asked > 150
    assert report.usd_per_1000 == 0.0
    assert [cost.error for cost in costs(report)] == pytest.approx([0.0] * 5)


def test_a_noisy_judge_has_the_marks_that_it_was_set_to(tmp_path):
    """Verdicts turned round with probability 0.1: each accuracy is 0.9, within 4 standard errors.
    A score is the mean of three grades with normal noise of 1.5, clipped to 0 to 10."""
    exam = make_exam(96, photographs=False)
    report = sit(exam, tmp_path, "scenes/oracle+linguistic=1.5,flip=0.1")
    for name, parts in (
        ("correct", [one.correct for one in exam.looking]),
        ("pointable", [one.pointable for one in exam.looking]),
        ("covered", [one.covered for one in exam.covering]),
    ):
        truth = [answer for part in parts for answer in part]
        error = np.sqrt(sum(0.09 / truth.count(answer) for answer in (True, False))) / 2
        mark = report[f"{name}, balanced accuracy"]
        assert mark.value == pytest.approx(0.9, abs=4 * error), name
        assert mark.low is not None
        assert mark.high is not None
        assert mark.low < 0.9 + error
        assert mark.high > 0.9 - error
    rng = np.random.default_rng(0)
    texts = [text for series in exam.graded[:12] for text in series.by_degree]
    grades = np.array([linguistic(text) for text in texts])  # (N, 3)
    noisy = np.clip(grades + rng.normal(0, 1.5, (4000, *grades.shape)), 0, 10)  # (4000, N, 3)
    expected = np.sqrt((noisy.mean(axis=2) / 10).var(axis=0).mean())
    spread = report["retest spread, linguistic"].value
    assert spread == pytest.approx(expected, abs=4 * expected / np.sqrt(2 * len(texts)))
    falls = report["grades fall with faults"].value
    assert falls is not None
    assert 0.3 < falls < 0.98


def test_a_judge_that_believes_captions_is_caught(tmp_path):
    def credulous(messages):
        reply = json.loads(EXACT(messages))
        for verdict in reply.get("verdicts", []):
            verdict |= {key: True for key in verdict if key != "id"}
        reply |= {key: 10 for key in ("clarity", "fluency", "coherency") if key in reply}
        return json.dumps(reply)

    report = served(SMALL, tmp_path, credulous)
    for name in ("correct", "pointable", "covered"):
        assert report[f"{name}, balanced accuracy"].value == 0.5
    assert report["grades fall with faults"].value == 0.0
    for k, name in enumerate(("precision", "recall", "linguistic")):
        deserved = np.mean([one.deserved[k] for one in SMALL.hostile])
        gained = report[f"gained by hostile captions, {name}"]
        assert gained.value == pytest.approx(1 - deserved, abs=0.07)  # empty ones have no more
        assert gained.low is not None
        assert gained.low > 0.5
    # Half of the false statements believed is beyond every judge that was measured.
    assert costs(report)[-1].error == pytest.approx(0.5)
    assert costs(report)[-1].beyond


def test_splits_that_are_lost_and_invented_are_counted(tmp_path):
    def careless(messages):
        reply = json.loads(EXACT(messages))
        if "assertions" in reply:
            reply["assertions"] = [*reply["assertions"][1:], "An umbrella leans on a wall."]
        return json.dumps(reply)

    report = served(SMALL, tmp_path, careless)
    sentences = [len(dict.fromkeys(one.sentences)) for one in SMALL.splitting]
    lost, all_of_them = len(sentences), sum(sentences)
    assert report["splits found"].value == pytest.approx((all_of_them - lost) / all_of_them)
    assert report["splits invented"].value == pytest.approx(lost / all_of_them)


def test_a_split_into_smaller_parts_in_other_words_is_found():
    sentences = ["There are two things.", "In the top center sits a red star.", "The mood is cosy."]
    said = ["There are two objects.", "A star is present.", "The star is red.",
            "The star is in the top centre.", "The picture's mood is cosy."]  # fmt: skip
    assert split_marks(sentences, said) == (3, 3, 0, 5)
    assert split_marks(sentences, [*said[:3], "The star is blue."]) == (1, 3, 1, 4)


def test_photographs_are_asked_about_by_what_people_saw(tmp_path):
    """A judge that has the bank by heart, drawn scenes and statements about photographs."""
    truth = {row["text"]: row for row in bank("statements")}
    covered = {unit: yes for row in bank("paraphrases")
               for unit, yes in zip(row["units"], row["covered"], strict=True)}  # fmt: skip

    def knows(messages):
        asked = asked_in(messages)
        if asked["question"] == "verify" and asked["assertions"][0]["text"] in truth:
            rows = [truth[one["text"]] for one in asked["assertions"]]
            verdicts = [
                {"id": k, "correct": bool(row["correct"]), "pointable": row["pointable"]}
                for k, row in enumerate(rows, start=1)
            ]
        elif asked["question"] == "cover" and asked["units"][0]["text"] in covered:
            verdicts = [
                {"id": one["id"], "covered": covered[one["text"]]} for one in asked["units"]
            ]
        else:
            return EXACT(messages)
        return json.dumps({"verdicts": verdicts, "ticket": asked["ticket"]})

    exam = make_exam(8, photographs=True)
    assert sum(one.fault == "photograph" for one in exam.looking) >= 18
    report = served(exam, tmp_path, knows)
    for name in ("correct", "pointable", "covered"):
        assert report[f"{name}, balanced accuracy"].value == 1.0
    assert report.photographs


def test_what_was_answered_is_not_asked_again_and_failures_are_counted(tmp_path):
    def grades_nothing(messages):
        return "I cannot." if asked_in(messages)["question"] == "linguistic" else EXACT(messages)

    with serve(answer=grades_nothing) as server:
        again = partial(sit, SMALL, tmp_path, "openai/judge", api_base=server.url, api_key="k")
        report = again()
        texts = {text for series in SMALL.graded for text in series.by_degree}
        assert set(report.unreadable) == {"unreadable"}
        assert report.unreadable["unreadable"] > len(texts)
        share = report.unreadable["unreadable"] / report.asked
        assert report["unreadable"].value == pytest.approx(share)
        assert report["grades fall with faults"].value is None
        asked = server.stats()["calls"]
        again()
        calls = server.stats()["calls"]
    assert calls["verify"] == asked["verify"]
    assert calls["decompose"] == asked["decompose"]


# ---- what it means -------------------------------------------------------------------------------


def test_the_cost_of_an_error_lies_on_the_line_between_what_was_measured():
    arms = [
        {"error": 0.02, "points": 1.0, "low": 0.0, "high": 2.0},
        {"error": 0.06, "points": 5.0, "low": 3.0, "high": 7.0},
    ]
    assert cost_of("covered", 0.01, arms).points == pytest.approx(0.5)
    assert cost_of("covered", 0.04, arms).points == pytest.approx(3.0)
    far = cost_of("covered", 0.3, arms)
    assert (far.points, far.low, far.high, far.beyond) == (5.0, 3.0, 7.0, True)
    assert cost_of("covered", 0.3, []).points is None


def test_the_shipped_table_is_the_commands():
    shipped = json.loads(noise_costs.TABLE.read_text())
    assert shipped == noise_costs.noise_table()
    assert {arm["kind"] for arm in shipped["arms"]} >= {"all"}


# ---- the command ---------------------------------------------------------------------------------


def test_several_judges_make_one_table(tmp_path, capsys):
    noisy = "scenes/oracle+linguistic=1,flip=0.2"
    command = ["exam", "--judge", "scenes/oracle", noisy, "--captions", "8"]
    assert main([*command, "--out", str(tmp_path), "--price", "1", "2", "--yes"]) == 0
    shown = capsys.readouterr().out
    assert "100.0% (100.0% to" in shown
    assert "Points of b-CapScore that such errors cost in training" in shown
    found = json.loads((tmp_path / "exam.json").read_text())["judges"]
    assert [judge["judge"] for judge in found] == ["scenes/oracle", noisy]
    assert found[0]["line"] == (
        "scenes/oracle: correct 100%, pointable 100%, coverage F1 100%, linguistic retest spread "
        "0.000"
    )
    assert found[0]["usd_per_1000"] > 0
    assert found[0]["costs"][-1]["points"] == 0.0
    table = (tmp_path / "exam.md").read_text()
    assert f"| mark | scenes/oracle | {noisy} |" in table
    assert "Drawn scenes only, no photographs." in table


def test_a_judge_that_cannot_sit_it_takes_no_other_along(tmp_path, capsys):
    """One that does not exist, and one whose budget is spent: the others' marks are paid for."""
    command = ["exam", "--judge", "scenes/nobody", "scenes/oracle", "--captions", "8", "--yes"]
    assert main([*command, "--out", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "100.0% (100.0% to" in shown
    assert "left out scenes/nobody: " in shown
    found = json.loads((tmp_path / "exam.json").read_text())
    assert [judge["judge"] for judge in found["judges"]] == ["scenes/oracle"]
    assert "scenes/nobody was left out: " in (tmp_path / "exam.md").read_text()

    alone = ["exam", "--judge", "scenes/oracle", "--captions", "8", "--out", str(tmp_path / "b")]
    with pytest.raises(SystemExit):
        main([*alone, "--budget-calls", "40"])
    said = capsys.readouterr().err
    assert "The budget of 40 judge calls is spent." in said
    assert "answers are kept" in said
    assert not (tmp_path / "b" / "exam.md").exists()
    assert main(alone) == 0


def test_an_exam_ends_where_the_judge_goes_down(tmp_path):
    """After 16 questions in a row, and the few that are under way; not after all of them."""
    with serve(faults=ServerFaults(dead_after=40)) as server:
        there = {"api_base": server.url, "api_key": "k", "max_retries": 0, "max_concurrency": 4}
        with pytest.raises(SittingError, match=r"16 questions in a row failed \(server_error"):
            sit(SMALL, tmp_path, "openai/oracle", **there)
        assert 40 + 16 <= server.stats()["total"] <= 40 + 16 + 8


def test_a_paid_exam_is_not_held_unasked(tmp_path):
    command = ["exam", "--judge", "scenes/oracle", "--captions", "8", "--price", "1", "2"]
    with pytest.raises(SystemExit):
        main([*command, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()

"""The page without a browser: what goes into it, and that nothing in it is markup but its own."""

import base64
import hashlib
import json
import re
import urllib.error
import urllib.request
from threading import Thread

import pytest
from PIL import Image

from tests.report.runs import scene_run, score_run
from trl_balcap.cli import main
from trl_balcap.report import VerdictWriter
from trl_balcap.report.charts import charts, evaluations, headline
from trl_balcap.report.page import report_data, report_page
from trl_balcap.report.runs import Run, bounded_rows, bounded_thumbnails, find_runs
from trl_balcap.report.serve import report_server, runs_version
from trl_balcap.report.thumbnails import thumbnail


def row(**fields):
    given = {"step": 1, "split": "train", "id": "0", "completion": "A dog. It is calm."}
    return given | fields


def run_of(tmp_path, *rows):
    VerdictWriter(tmp_path / "verdicts").write(rows)
    return find_runs([tmp_path])


def test_rollouts_of_an_image_share_what_is_the_same_for_them(tmp_path):
    runs = run_of(
        tmp_path,
        row(id="0", group="a", reference="A dog."),
        row(id="1", group="a", reference="A dog."),
        row(id="0", step=2, group="a", reference="A dog."),
    )
    data = report_data(runs)
    assert [one["group"] for one in data["rows"]] == [0, 0, 1]
    assert [group["step"] for group in data["groups"]] == [1, 2]


def test_assertions_know_their_sentence(tmp_path):
    said = [("There is a dog.", True, True), ("It is calm.", True, False), ("Sunny.", False, True)]
    assertions = [{"text": t, "correct": c, "pointable": p} for t, c, p in said]
    data = report_data(run_of(tmp_path, row(assertions=assertions)))
    assert data["rows"][0]["sentences"] == ["A dog. ", "It is calm."]
    assert data["rows"][0]["assertions"] == [
        ["There is a dog.", True, True, 0],
        ["It is calm.", True, False, 1],
        ["Sunny.", False, True, None],
    ]


def test_the_score_is_b_capscore_and_missing_where_a_reward_is(tmp_path):
    # 3 / (1/0.5 + 1/1 + 1/0.5) = 0.6
    three = {"precision_reward": 0.5, "recall_reward": 1.0, "linguistic_reward": 0.5}
    runs = run_of(
        tmp_path, row(id="0", rewards=three), row(id="1", rewards={**three, "recall_reward": None})
    )
    assert [one["score"] for one in report_data(runs)["rows"]] == [0.6, None]


def test_text_cannot_leave_the_json(tmp_path):
    page = report_page(run_of(tmp_path, row(completion="</script><script>alert(1)</script>")))
    assert page.count("<script") == 2  # the data and the page's own
    found = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    sentence = json.loads(found[1])["rows"][0]["sentences"]
    assert "".join(sentence) == "</script><script>alert(1)</script>"


def test_the_title_is_text_too(tmp_path):
    page = report_page(run_of(tmp_path, row()), title="<b>run</b>")
    assert "<b>run</b>" not in page.split('id="data"')[0]


def test_the_policy_admits_the_pages_own_style_and_script_alone(tmp_path):
    page = report_page(run_of(tmp_path, row()))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = policy[1].replace("&#39;", "'")
    for tag in ("style", "script"):
        source = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert source is not None
        digest = base64.b64encode(hashlib.sha256(source[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in rules
    assert rules.startswith("default-src 'none'; ")
    assert "connect-src" not in rules
    assert not re.search(r"(src|href)=\"(https?:)?//", page)


def test_the_charts_know_their_licence():
    from trl_balcap.report.page import _ASSETS

    assert "MIT License" in (_ASSETS / "uplot.LICENSE.txt").read_text()
    assert "uPlot (v1.6.32)" in (_ASSETS / "uplot.iife.min.js").read_text()


def test_a_long_run_is_shown_by_whole_groups_spread_over_it():
    rows = [
        row(step=step, id=f"{k}", group="a", image=None) for step in range(100) for k in range(8)
    ]
    kept = bounded_rows(rows, 80)
    assert len(kept) == 80
    assert [one["step"] for one in kept][::8] == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]


def test_evaluations_keep_the_same_images_so_that_they_can_be_compared():
    rows = [
        row(split="eval", step=step, id=f"{k}", image=f"{k * 7 % 20:02}")
        for step in (10, 20)
        for k in range(20)
    ]
    kept = bounded_rows(rows, 10)
    images = {step: {one["image"] for one in kept if one["step"] == step} for step in (10, 20)}
    assert images[10] == images[20] == {"00", "01", "02", "03", "04"}


def test_many_pictures_become_smaller_until_they_fit():
    picture = thumbnail(Image.effect_noise((448, 336), 80).convert("RGB"))
    many = {str(k): picture for k in range(4)}
    fitting = bounded_thumbnails(many, many, 4 * len(picture.data) // 3)
    assert sum(len(one.data) for one in fitting.values()) <= 4 * len(picture.data) // 3
    assert fitting["0"].width < 448
    assert bounded_thumbnails(many, ["1"], 10**9) == {"1": picture}


def test_charts_show_what_was_logged_and_nothing_else():
    name = "precision_reward"
    log = [
        {"step": step, f"rewards/{name}/mean": 0.25 * step, f"rewards/{name}/std": 0.1}
        | {"length_gate/ratio": 1.0, "kl": float("nan"), "judge/usd_total": 0.0}
        for step in (1, 2)
    ]
    found = charts(Run("run", log=log, facts={"length_gate": [0.5, 2.0]}))
    assert [chart["title"] for chart in found] == ["Precision", "Length ratio"]
    line = found[0]["series"][0]
    assert (line["y"], line["low"], line["high"]) == ([0.25, 0.5], [0.15, 0.4], [0.35, 0.6])
    assert found[1]["region"] == [0.5, 2.0]


def test_the_headline_compares_the_first_tenth_with_the_last():
    log = [{"step": step, "rewards/brevity/mean": step / 20} for step in range(20)]
    found = headline(Run("run", log=log))
    # Steps 0 and 1, then 18 and 19.
    assert [(one["label"], one["first"], one["last"]) for one in found] == [
        ("Brevity", 0.025, 0.925)
    ]


def test_evaluations_are_means_of_what_was_judged():
    name = "precision_reward"
    rows = [
        row(step=step, split="eval", rewards={name: value}, length_ratio=ratio)
        for step, value, ratio in [(0, 0.25, 0.5), (0, None, 1.0), (120, 1.0, 1.0)]
    ]
    found = evaluations(Run("run", rows=rows))
    assert [(one["step"], one["means"]["Precision"], one["n"]) for one in found] == [
        (0, 0.25, 2),  # one of them was not judged
        (120, 1.0, 1),
    ]
    assert found[0]["means"]["Length ratio"] == 0.75


def test_what_an_alarm_says_of_the_end_of_a_run_is_a_warning_of_the_page():
    log = [
        {"step": step, "loss": 0.0, "rewards/recall_reward/frac_zero_std": 1.0}
        for step in range(1, 31)
    ]
    (shown,) = report_data([Run("run", log=log)])["runs"]
    (warning,) = shown["warnings"]
    assert "equal recall" in warning


def test_runs_are_found_in_folders_and_named_by_what_tells_them_apart(tmp_path):
    scene_run(tmp_path / "runs" / "a" / "trainer", steps=[1], images=1, rollouts=2)
    score_run(tmp_path / "runs" / "a" / "scores", faults=1.0, n=2)
    runs = find_runs([tmp_path / "runs"])
    assert [(run.name, len(run.rows), len(run.log)) for run in runs] == [
        ("scores", 2, 0),
        ("trainer", 2, 1),
    ]
    assert [run.name for run in find_runs([tmp_path / "runs" / "a" / "trainer"])] == ["trainer"]


def test_a_trainers_folder_without_verdicts_has_its_curves(tmp_path):
    state = {"global_step": 2, "log_history": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    (run,) = find_runs([tmp_path])
    assert [chart["title"] for chart in charts(run)] == ["Loss"]


def test_the_command_writes_the_page(tmp_path, capsys):
    scene_run(tmp_path / "run", steps=[1, 2], images=1, rollouts=2)
    assert main(["report", str(tmp_path / "run"), "--title", "My run"]) == 0
    page = tmp_path / "run" / "report.html"
    assert "<title>My run · trl-balcap report</title>" in page.read_text(encoding="utf-8")
    assert str(page) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "nothing to report at missing"),
        (["missing", "--watch"], "--watch needs --serve"),
        (["missing", "--max-rollouts", "0"], "must be 1 or more, got 0"),
    ],
)
def test_what_cannot_be_reported_is_said_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as ending:
        main(["report", *arguments])
    assert ending.value.code == 1
    assert message in capsys.readouterr().err


def test_a_served_page_tells_of_newer_rows(tmp_path):
    scene_run(tmp_path, steps=[1], images=1, rollouts=2)

    def make_page(live):
        return report_page(find_runs([tmp_path]), live=live)

    with report_server(make_page, [tmp_path], port=0, watch=True) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        with urllib.request.urlopen(address) as answer:
            page = answer.read().decode()
        before = runs_version([tmp_path])
        assert f'"live":"{before}"' in page
        assert "connect-src" in page
        VerdictWriter(tmp_path / "verdicts").write([row(step=2)])
        with urllib.request.urlopen(address + "version") as answer:
            assert answer.read().decode() != before
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address + "etc/passwd")
        server.shutdown()


def test_the_exam_of_the_judge_stands_in_the_facts_of_each_run(tmp_path):
    VerdictWriter(tmp_path / "run" / "verdicts").write([row()])
    (tmp_path / "exam").mkdir()
    judges = [{"line": "m: correct 97%"}, {"line": "n: correct 91%"}]
    (tmp_path / "exam" / "exam.json").write_text(json.dumps({"judges": judges}))
    runs = find_runs([tmp_path / "run", tmp_path / "exam"])
    [shown] = report_data(runs)["runs"]
    assert shown["about"]["exam of the judge"] == "m: correct 97%; n: correct 91%"
    with pytest.raises(FileNotFoundError, match="no run to show it with"):
        find_runs([tmp_path / "exam"])

"""The alarms on the reproduction's runs: silent on the full method, heard where they should be."""

import re
from collections import Counter

import pytest

from benchmarks import alarms
from benchmarks.reproduction.runs import read_runs
from benchmarks.results_file import RESULTS
from trl_balcap.report.alarms import RULES


@pytest.fixture(scope="module")
def heard():
    return alarms.heard(alarms.reproduced(RESULTS / "reproduce.jsonl"))


def test_the_full_method_is_silent_in_all_seeds(heard):
    assert heard["full"] == {"seeds": 13}


@pytest.mark.parametrize(
    ("arm", "rule", "seeds"),
    [("no_pointability", "commentary", 8), ("no_gate", "length_runs_to_an_edge", 10)],
)
def test_the_arm_made_for_a_pathology_is_loud_in_most_seeds(heard, arm, rule, seeds):
    assert heard[arm] == {"seeds": 13, rule: seeds}


def test_a_judge_that_errs_is_heard_and_a_good_one_is_not():
    runs = read_runs(RESULTS / "alarms.jsonl")
    for run in runs:
        rule = {"zero": {"zeros_filled_in"}, "noise": {"judge_noise"}, "full": set()}
        spoke = set(alarms.first_heard(run["steps"])) & set(alarms.OF_THE_JUDGE)
        assert spoke == rule[run["arm"].partition("_")[0]]
    assert {run["arm"] for run in runs} >= {"full", "zero_30", "noise_large"}


def test_the_page_shows_the_tables_as_they_are(heard):
    page = (RESULTS / "alarms.md").read_text()
    *rows, _, silent = alarms.table(heard).splitlines()
    assert [row for row in rows if row not in page] == []
    named = re.search(r"^Silent in all seeds: .*", page, flags=re.MULTILINE)
    assert named is not None
    assert set(re.findall("`(.*?)`", named[0])) <= set(re.findall("`(.*?)`", silent))
    assert alarms.judge_table(read_runs(RESULTS / "alarms.jsonl")) in page
    assert {*alarms.BY_STEPS, *alarms.BY_ENDS, *alarms.OF_THE_JUDGE} <= set(RULES)


def test_a_rule_that_spoke_once_and_fell_silent_counts():
    """Precision traded for recall in the middle of the run, and bought back by its end."""

    def step(precision, recall):
        means = {"precision": precision, "recall": recall, "linguistic": 0.8}
        rest = {"dead": 0.0, "group_std": 0.2}
        row = {f"{name}/mean": mean for name, mean in means.items()}
        return row | {f"{name}/{key}": value for name in means for key, value in rest.items()}

    measures = {"length_ratio": 1.0, "too_short": 0.0, "too_long": 0.0, "meta": 0.0}
    kept = {"seed": 0, "measures": {"sampled": measures}}
    steps = [step(0.8, 0.5)] * 10 + [step(0.6, 0.7)] * 10 + [step(0.8, 0.7)] * 20
    runs = [{"arm": "base", "steps": [], **kept}, {"arm": "full", "steps": steps, **kept}]
    assert alarms.heard(runs) == {"full": Counter(seeds=1, precision_traded=1)}

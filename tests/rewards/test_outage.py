"""The rule that tells a dead judge from rows that it will not score."""

import pytest

from trl_balcap.rewards import JudgingReport
from trl_balcap.rewards.outage import OutageRule

SHARES = {"recall_reward": 0.5}


def report(reward="recall_reward", asked=8, **unscored):
    return JudgingReport(reward, asked=asked, unscored=unscored)


def observe(rule, *batches):
    """What the rule said of the last batch."""
    said = None
    for batch in batches:
        said = rule.observe(batch if isinstance(batch, list) else [batch], SHARES)
    return said


def test_three_lost_batches_in_a_row_are_an_outage():
    rule = OutageRule(min_rows=16, patience=3)
    assert observe(rule, report(timeout=8), report(server_error=6)) is None
    assert observe(rule, report(server_error=5)) == (
        "19 completions of 3 batches in a row could not be scored by recall_reward "
        "(server_error: 11, timeout: 8), more than max_unscored=0.5 of each"
    )


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param(report(refused=8), id="refused"),
        pytest.param(report(unreadable=8), id="unreadable"),
        pytest.param(report(asked=0, bad_image=8), id="of_the_row"),
        pytest.param(report(server_error=4), id="half_is_not_more_than_half"),
        pytest.param([], id="nothing_was_asked"),
    ],
)
def test_what_never_ends_a_run(batch):
    rule = OutageRule(min_rows=1, patience=1)
    assert observe(rule, *[batch] * 100) is None


def test_a_batch_that_worked_begins_anew():
    rule = OutageRule(min_rows=16, patience=3)
    lost, worked = report(timeout=8), report()
    assert observe(rule, lost, lost, worked, lost, lost) is None
    assert observe(rule, lost) is not None


def test_a_batch_without_questions_neither_counts_nor_heals():
    rule = OutageRule(min_rows=16, patience=3)
    assert observe(rule, report(timeout=8), report(asked=0), report(timeout=8), []) is None
    assert observe(rule, report(timeout=8)) is not None


def test_small_batches_need_rows_too():
    rule = OutageRule(min_rows=16, patience=3)
    assert observe(rule, *[report(asked=1, timeout=1)] * 15) is None
    assert observe(rule, report(asked=1, timeout=1)) is not None


def test_ranks_count_together_and_rewards_apart():
    rule = OutageRule(min_rows=1, patience=1)
    assert observe(rule, [report(timeout=8), report(), report()]) is None  # 8 of 24
    assert observe(rule, [report(timeout=8), report(timeout=5), report()]) is not None  # 13 of 24
    assert observe(rule, [report("other_reward", timeout=8), report()]) is None


def test_after_a_reset_the_streak_begins_anew():
    rule = OutageRule(min_rows=1, patience=2)
    observe(rule, report(timeout=8))
    rule.reset()
    assert observe(rule, report(timeout=8)) is None
    assert observe(rule, report(timeout=8)) is not None

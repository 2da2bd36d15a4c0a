"""Rows without a score: which they are, what is reported of them, and the deadline."""

import json
import time

import pytest

from tests.judge.exact_judge import CAPTION, judge_at, score
from trl_balcap import LinguisticReward, PrecisionReward, RecallReward
from trl_balcap.judge.ranks import batch_deadline
from trl_balcap.scenes.server import serve


def test_only_what_failed_is_none():
    def answer(messages):
        question = json.loads(messages[1]["content"])
        if question["question"] == "decompose" and "cat" in question["text"]:
            return "I cannot say."
        if question["question"] == "decompose":
            return json.dumps({"assertions": [question["text"]]})
        if question["question"] == "cover":
            return json.dumps({"verdicts": [{"id": 1, "covered": True}]})
        if question["question"] == "preflight":
            return '{"ready": true}'
        return '{"clarity": 6, "fluency": 6, "coherency": 6}'

    with serve(answer=answer) as server:
        judge = judge_at(server)
        recall, linguistic = RecallReward(judge), LinguisticReward(judge)
        metrics = {}
        scores = score(
            [recall, linguistic],
            ["A dog.", "A cat."],
            reference=["A dog.", "A dog."],
            log_metric=metrics.__setitem__,
        )

    assert scores == [[1.0, None], [0.6, 0.6]]
    assert metrics["judge/recall_reward/unscored"] == 0.5
    assert metrics["judge/linguistic_reward/unscored"] == 0.0
    report = recall.take_report()
    assert report is not None
    assert (report.asked, report.unscored, report.failing_reply) == (
        2,
        {"unreadable": 1},
        "I cannot say.",
    )
    assert recall.take_report() is None


def test_a_reference_that_states_nothing_has_no_recall():
    def answer(messages):
        question = json.loads(messages[1]["content"])
        if question["question"] == "preflight":
            return '{"ready": true}'
        return json.dumps({"assertions": [] if question["text"] == "…" else ["A dog."]})

    with serve(answer=answer) as server:
        recall = RecallReward(judge_at(server))
        scores = score([recall], [CAPTION] * 3, reference=["", "\u200b", "…"])

    assert scores == [[None, None, None]]
    report = recall.take_report()
    assert report is not None
    assert report.asked == 0  # no failure of the judge


def test_a_missing_column_is_named(oracle):
    with pytest.raises(ValueError, match="precision_reward needs the dataset column `image`"):
        score([PrecisionReward(judge_at(oracle))], [CAPTION], reference=[CAPTION])


def test_what_is_unanswered_at_the_deadline_is_none():
    def answer(messages):
        question = json.loads(messages[1]["content"])
        if question["question"] == "preflight":
            return '{"ready": true}'
        if "slow" in question["text"]:
            time.sleep(3)
        return json.dumps({"clarity": 5, "fluency": 5, "coherency": 5})

    with serve(answer=answer) as server:
        reward = LinguisticReward(judge_at(server, batch_deadline=1.0))
        reward.preflight()
        begin = time.monotonic()
        scores = score([reward], ["A fast one.", "A slow one."])
        seconds = time.monotonic() - begin
        in_flight = len(reward.judge.engine().flights)

    assert scores == [[0.5, None]]
    assert 1.0 <= seconds < 2.0
    assert in_flight == 0  # called off, so that it takes no place in the next batch
    report = reward.take_report()
    assert report is not None
    assert report.unscored == {"timeout": 1}


def test_the_deadline_is_below_half_of_the_process_groups_timeout(tmp_path):
    import datetime

    import torch

    assert batch_deadline(600.0) == 600.0
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{tmp_path / 'store'}",
        rank=0,
        world_size=1,
        timeout=datetime.timedelta(seconds=100),
    )
    try:
        assert batch_deadline(600.0) == 45.0
        assert batch_deadline(10.0) == 10.0
    finally:
        torch.distributed.destroy_process_group()

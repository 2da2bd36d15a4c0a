"""Two ranks, each with its own judge: one dies for good, and both stop with the same message."""

import json
from pathlib import Path

import pytest
from transformers.trainer_utils import get_last_checkpoint

from tests.judge.servers import Answer, endpoint
from tests.two_ranks import on_two_ranks
from trl_balcap.scenes.noise import Noise
from trl_balcap.scenes.oracle import Oracle
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.server_faults import ServerFaults


def train_on_two_ranks(case: str, model: Path, out: Path, *urls: str) -> list[dict]:
    """What each rank wrote when it ended."""
    on_two_ranks("ddp", "judge_outage", case, model, out, *urls)
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_one_ranks_dead_judge_stops_both_ranks_alike(tiny_qwen, tmp_path):
    # Rank 1's judge answers some 50 questions, three batches or so, and then 503 for good.
    with serve() as healthy, serve(faults=ServerFaults(dead_after=50)) as dying:
        ranks = train_on_two_ranks("healthy", tiny_qwen, tmp_path, healthy.url, dying.url)
        # The preflight is asked once, by rank 0.
        assert healthy.stats()["calls"]["preflight"] == 2  # text and vision
        assert "preflight" not in dying.stats()["calls"]

    first, second = ranks
    assert first["ranks"] == second["ranks"] == 2
    assert first["deadline"] < 0.5 * first["timeout"]
    assert first["message"] == second["message"]
    assert "server_error" in first["message"]
    assert "of 2 batches in a row" in first["message"]
    assert "the judge is down" in first["message"]
    assert first["step"] == second["step"] > 0
    assert max(first["seconds"], second["seconds"]) < first["timeout"]
    checkpoint = get_last_checkpoint(str(tmp_path))
    assert checkpoint is not None
    assert checkpoint.endswith(f"checkpoint-{first['step']}")
    assert Path(checkpoint, "model.safetensors").exists()


def test_one_ranks_bug_ends_both_ranks_alike_behind_a_checkpoint(tiny_qwen, tmp_path):
    with serve() as server:
        first, second = train_on_two_ranks("bug", tiny_qwen, tmp_path, server.url, server.url)
    assert first["message"] == second["message"]
    assert 'KeyError("a bug of ours")' in first["message"]
    assert Path(tmp_path, "checkpoint-0", "model.safetensors").exists()


@pytest.mark.slow
def test_rows_that_one_rank_cannot_score_stop_nobody(tiny_qwen, tmp_path):
    with serve() as server:
        first, second = train_on_two_ranks("bad_rows", tiny_qwen, tmp_path, server.url, server.url)
    assert "message" not in first | second
    assert first["step"] == second["step"] == 8
    for row in first["log"][:8]:
        for name in ("recall_reward", "linguistic_reward"):  # whose gate has no length to compare
            assert row[f"judge/{name}/unscored/no_reference"] == 0.5
        assert row["rewards/precision_reward/mean"] is not None


@pytest.mark.slow
def test_one_ranks_judge_that_is_down_in_evaluations_stops_nobody(tiny_qwen, tmp_path):
    down = False

    def answer(request):
        nonlocal down
        if "down" in request.body:
            down = request.body["down"]
            return Answer()
        if down:
            return Answer(status=503, error="down")
        return Answer(texts=(Oracle(Noise())(request.body["messages"]),))

    with serve() as healthy, endpoint(answer) as dying:
        first, second = train_on_two_ranks(
            "evaluation", tiny_qwen, tmp_path, healthy.url, dying.url
        )
    assert "message" not in first | second
    assert first["step"] == second["step"] == 2
    shares = [
        [row["eval_judge/recall_reward/unscored"] for row in rank["log"] if "eval_loss" in row]
        for rank in (first, second)
    ]
    assert shares[0] == shares[1] == [0.5, 0.5]  # more than max_unscored
    assert get_last_checkpoint(str(tmp_path)) is None


def test_metrics_are_sums_over_the_ranks(tiny_qwen, tmp_path):
    with serve() as one, serve(faults=ServerFaults(dead_after=10**9)) as two:
        ranks = train_on_two_ranks("healthy", tiny_qwen, tmp_path, one.url, two.url)
        sent = one.stats()["total"] + two.stats()["total"]

    assert all("message" not in rank for rank in ranks)
    assert sum(rank["stats"]["calls"] for rank in ranks) == sent
    totals = [row["judge/calls_total"] for row in ranks[0]["log"] if "judge/calls_total" in row]
    # The last step's total is the mean over ranks of calls x 2, that is the sum over the ranks.
    assert totals == sorted(totals)
    assert totals[-1] == sent
    for row in ranks[0]["log"]:
        if "judge/calls" in row:
            assert row["judge/precision_reward/unscored"] == 0.0

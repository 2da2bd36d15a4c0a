"""A judge that fails three times in ten: every score that comes back is the right one.

The dice of the loopback server are deterministic, the faults are those of real endpoints: 5xx, 429
with Retry-After, stalls, resets, replies that are cut, malformed, miscounted, invented or refused.
"""

import asyncio
import gc
import os
import random
import time
from typing import Any

import pytest

from trl_balcap import Judge, LinguisticReward, PrecisionReward, RecallReward
from trl_balcap.judge import dispatch
from trl_balcap.judge.background import judge_loop
from trl_balcap.scenes import oracle
from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.server_faults import ServerFaults
from trl_balcap.scenes.world import draw, random_scene

RATES: dict[str, Any] = {
    "server_error": 0.06,
    "rate_limited": 0.06,
    "stall": 0.01,
    "reset": 0.05,
    "truncated": 0.03,
    "malformed": 0.03,
    "wrong_counts": 0.02,
    "invented_ids": 0.02,
    "refused": 0.02,
}
FAULTS = ServerFaults(**RATES, retry_after=0.05, stall_seconds=30.0)
NAMES = ("precision", "recall", "linguistic")


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch):
    monkeypatch.setattr(dispatch, "_BACKOFF_START", 0.02)


def rollouts(count, seed=0):
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        scene = random_scene(rng)
        caption = describe(scene if rng.random() < 0.3 else random_scene(rng))
        rows.append((caption, draw(scene), describe(scene), scene))
    return rows


def rewards(judge):
    return [PrecisionReward(judge), RecallReward(judge), LinguisticReward(judge)]


def score(functions, rows):
    columns = {"image": [row[1] for row in rows], "reference": [row[2] for row in rows]}
    captions = [row[0] for row in rows]

    async def batch():
        return await asyncio.gather(
            *(f(prompts=[""] * len(rows), completions=captions, **columns) for f in functions)
        )

    return asyncio.run(batch())


def check(scores, rows):
    """Compare with the fault-free scores; returns the share of missing ones."""
    missing = 0
    for i, (caption, _, reference, scene) in enumerate(rows):
        exact = oracle.score(caption, reference, scene)
        for name, values in zip(NAMES, scores, strict=True):
            if values[i] is None:
                missing += 1
            else:
                assert values[i] == pytest.approx(getattr(exact, name)), (name, caption)
    return missing / (3 * len(rows))


def test_faults_are_thirty_percent():
    assert sum(RATES.values()) == pytest.approx(0.3)


def ask_faulty_judge(count, timeout):
    rows = rollouts(count)
    with serve(faults=FAULTS, process=True) as server:
        judge = Judge("openai/oracle", api_base=server.url, timeout=timeout, max_retries=12)
        functions = rewards(judge)
        begin = time.monotonic()
        scores = score(functions, rows)
        seconds = time.monotonic() - begin
        met = server.stats()["faults"]
    return check(scores, rows), functions, judge, met, seconds


def test_every_score_of_a_faulty_judge_is_the_right_one():
    missing, functions, judge, met, _ = ask_faulty_judge(60, timeout=5.0)

    assert set(met) >= {"server_error", "rate_limited", "reset", "truncated", "malformed"}
    assert missing < 0.25
    counted = {}
    for function in functions:
        report = function.take_report()
        assert report is not None
        assert report.asked == 60
        counted |= report.unscored
    # What is asked again until it is answered leaves no gap; what is refused or unreadable twice
    # does.
    assert set(counted) <= {"refused", "unreadable", "truncated"}
    assert not len(judge.engine().flights)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_questions_to_a_faulty_judge():
    missing, _, judge, met, seconds = ask_faulty_judge(2500, timeout=20.0)

    assert judge.stats.calls > 10_000
    assert set(met) == set(RATES)
    assert sum(met.values()) / judge.stats.calls == pytest.approx(0.3, abs=0.03)
    assert missing < 0.12  # refusals cost 2 % of the questions, unreadable pairs 1 %
    assert seconds < 600


def open_files():
    return len(os.listdir("/proc/self/fd"))


def resident_megabytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_fifty_batches_leave_nothing_behind(caplog):
    faults = ServerFaults(server_error=0.05, reset=0.1, rate_limited=0.05, retry_after=0.02)
    with serve(faults=faults, process=True) as server:
        functions = rewards(Judge("openai/oracle", api_base=server.url, max_retries=12))
        seen = []
        for step in range(50):
            rows = rollouts(2, seed=step)
            begin = time.process_time()
            check(score(functions, rows), rows)
            seconds = time.process_time() - begin
            if step % 10 == 9:
                gc.collect()
            tasks = len(asyncio.all_tasks(judge_loop()))
            seen.append((resident_megabytes(), open_files(), tasks, seconds))
        connections = server.stats()["open_connections"]

    megabytes, files, tasks, seconds = zip(*seen, strict=True)
    assert megabytes[-1] - megabytes[9] < 20
    # How many connections and tasks there are at a time varies; one left per batch would be 25.
    assert max(files[25:]) <= max(files[:25]) + 5
    assert max(tasks[25:]) <= max(tasks[:25]) + 5
    assert connections <= 16  # no more than were ever needed at once
    # A client that slows down with its age has grown a list somewhere.
    assert sorted(seconds[-15:])[7] < 2 * sorted(seconds[5:20])[7] + 0.01
    assert "Unclosed" not in caplog.text

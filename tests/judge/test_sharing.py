"""How often a batch asks, what its rewards share, and how much is under way at once."""

import random

from tests.judge.exact_judge import CAPTION, SCENE, batch_of, judge_at, rewards, score
from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.world import random_scene


def test_a_batch_asks_four_questions_a_rollout_and_one_a_reference(oracle):
    rng = random.Random(0)
    scenes = [random_scene(rng) for _ in range(2) for _ in range(1)]
    captions = [describe(random_scene(rng)) for _ in range(4)]
    judge = judge_at(oracle)

    batch = batch_of([scenes[0], scenes[0], scenes[1], scenes[1]], captions)
    score(rewards(judge), **batch)

    calls = oracle.stats()["calls"]
    assert calls.pop("preflight") == 2  # once for the text model, once with an image
    assert calls == {"decompose": 4 + 2, "verify": 4, "cover": 4, "linguistic": 4}


def test_equal_captions_of_one_prompt_are_judged_once(oracle):
    score(rewards(judge_at(oracle)), **batch_of([SCENE] * 8, [CAPTION] * 8))

    calls = oracle.stats()["calls"]
    # The caption is the reference here, so even its decomposition is shared.
    assert {name: n for name, n in calls.items() if name != "preflight"} == {
        "decompose": 1,
        "verify": 1,
        "cover": 1,
        "linguistic": 1,
    }


def test_the_fused_profile_asks_two_questions_a_rollout(oracle):
    rng = random.Random(1)
    captions = [describe(random_scene(rng)) for _ in range(3)]
    judge, fused = judge_at(oracle), judge_at(oracle, profile="fused")
    batch = batch_of([SCENE] * 3, captions)
    four = score(rewards(judge), **batch)
    oracle.reset_stats()

    assert score(rewards(fused), **batch) == four
    calls = oracle.stats()["calls"]
    assert {name: n for name, n in calls.items() if name != "preflight"} == {
        "decompose": 1,  # the reference
        "look": 3,
        "read": 3,
    }


def test_what_start_began_is_joined_by_the_call(oracle):
    judge = judge_at(oracle)
    functions = rewards(judge)
    batch = batch_of([SCENE] * 2, [CAPTION, "A cat sleeps."])

    for function in functions:
        function.start(completion_ids=[[1], [2]], **batch)
    before = score(functions, **batch)

    assert before == score(rewards(judge_at(oracle)), **batch)
    assert judge.stats.calls_of == {"decompose": 2, "verify": 2, "cover": 2, "linguistic": 2}


def test_a_batch_takes_two_round_trips():
    # First all decompositions with the linguistic questions, then verify and cover side by side.
    # How long that takes is measured by benchmarks/judge.py; here, that nothing waits in line.
    rng = random.Random(2)
    captions = [describe(random_scene(rng)) for _ in range(8)]
    with serve(latency=1.0) as server:
        score(rewards(judge_at(server)), **batch_of([SCENE] * 8, captions))
        assert server.stats()["max_in_flight"] >= 8 + 8


def test_the_limit_binds(oracle):
    rng = random.Random(3)
    captions = [describe(random_scene(rng)) for _ in range(8)]
    with serve(latency=0.02) as server:
        score(rewards(judge_at(server, max_concurrency=3)), **batch_of([SCENE] * 8, captions))
        assert server.stats()["max_in_flight"] <= 3

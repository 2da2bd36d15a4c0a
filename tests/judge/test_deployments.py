"""Several deployments: how load is spread, and what a dead one costs."""

import asyncio
import random

from tests.judge.exact_judge import CAPTION, SCENE, batch_of, judge_at, rewards, score
from trl_balcap import Judge
from trl_balcap.judge import Linguistic
from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.server_faults import ServerFaults
from trl_balcap.scenes.world import random_scene


def test_load_is_spread_and_a_dead_deployment_costs_no_reward():
    rng = random.Random(4)
    captions = [describe(random_scene(rng)) for _ in range(12)]
    batch = batch_of([SCENE] * 12, captions)
    dead = ServerFaults(dead_after=10)
    with serve() as first, serve(faults=dead) as second, serve() as single:
        judge = Judge([{"model": "openai/oracle", "api_base": s.url} for s in (first, second)])
        scores = score(rewards(judge), **batch)
        assert second.stats()["faults"]["dead"] >= 1
        assert sum(first.stats()["calls"].values()) > sum(second.stats()["calls"].values())

        assert scores == score(rewards(judge_at(single)), **batch)


def test_one_working_deployment_is_enough_at_start(oracle):
    router = [
        {"model_name": "judge", "litellm_params": {"model": "openai/oracle", "api_base": url}}
        for url in ("http://127.0.0.1:9/v1", oracle.url)
    ]
    judge = Judge(router, max_retries=1)

    asyncio.run(judge.preflight())
    assert asyncio.run(judge.linguistic(CAPTION)) == Linguistic(10.0, 10.0, 10.0)

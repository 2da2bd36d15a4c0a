"""What the engine spares litellm, and that each seam in litellm that it needs for that is there."""

import asyncio
import gc
import threading
from functools import partial

import pytest

from trl_balcap import Judge
from trl_balcap.judge import background
from trl_balcap.judge.collector import fewer_collections
from trl_balcap.judge.litellm_module import litellm_module
from trl_balcap.scenes.server import serve

litellm = litellm_module()  # imported as the judge does, without a price table from the network
CAPTION = "At the top left there is a large red circle."


@pytest.fixture
def prices_sought(monkeypatch):
    """Models whose price litellm looked up for a reply, one entry a look."""
    sought = []
    search = litellm.response_cost_calculator

    def recorded(**call):
        sought.append(call["model"])
        return search(**call)

    monkeypatch.setattr(litellm, "response_cost_calculator", recorded)
    return sought


async def test_the_price_of_a_reply_is_not_looked_up_by_litellm(prices_sought):
    with serve() as server:
        grades = await Judge("openai/oracle", api_base=server.url).linguistic(CAPTION)
    assert grades == (10.0, 10.0, 10.0)
    assert prices_sought == []


async def test_a_callback_of_the_users_own_gets_its_price_and_its_record(
    prices_sought, monkeypatch
):
    received = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def callback(kwargs, response, start_time, end_time):
        loop.call_soon_threadsafe(received.set)

    monkeypatch.setattr(litellm, "_async_success_callback", [callback])
    with serve() as server:
        await Judge("openai/oracle", api_base=server.url).linguistic(CAPTION)
        await asyncio.wait_for(received.wait(), 10)
    assert "openai/oracle" in prices_sought


@pytest.fixture
def prepared_in(monkeypatch):
    """Names of the threads in which litellm prepared requests."""
    threads = []
    prepare = litellm.main.completion

    def recorded(*args, **kwargs):
        threads.append(threading.current_thread().name)
        return prepare(*args, **kwargs)

    monkeypatch.setattr(litellm.main, "completion", recorded)
    return threads


async def test_a_request_that_waits_for_nothing_is_prepared_on_the_judge_loop(prepared_in):
    with serve() as server:
        await Judge("openai/oracle", api_base=server.url).linguistic(CAPTION)
    assert prepared_in == ["trl-balcap-judge"]


async def test_other_providers_keep_their_thread(prepared_in):
    await Judge("scenes/oracle").linguistic(CAPTION)
    (thread,) = prepared_in
    assert thread.startswith("trl-balcap-judge-pool")


def test_only_what_was_bound_to_its_arguments_runs_in_place():
    # asyncio looks a host's address up through a plain function, and that waits for the network.
    async def where(function):
        background.in_place.set(True)
        loop = asyncio.get_running_loop()
        return (await loop.run_in_executor(None, function)).name

    bound = background.submit(where(partial(threading.current_thread))).result(10)
    plain = background.submit(where(threading.current_thread)).result(10)
    assert bound == "trl-balcap-judge"
    assert plain.startswith("trl-balcap-judge-pool")


@pytest.fixture
def thresholds():
    """Sets the collector, and puts it back."""
    before = gc.get_threshold()
    yield gc.set_threshold
    gc.set_threshold(*before)


def test_the_collector_is_slowed_down_until_the_last_question_is_answered(thresholds):
    thresholds(700, 10, 10)
    with fewer_collections():
        with fewer_collections():
            assert gc.get_threshold() == (20_000, 10, 10)
        assert gc.get_threshold() == (20_000, 10, 10)
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("chosen", [(0, 10, 10), (50_000, 20, 20)])
def test_a_collector_that_is_off_or_slower_is_left_alone(thresholds, chosen):
    thresholds(*chosen)
    with fewer_collections():
        assert gc.get_threshold() == chosen
    assert gc.get_threshold() == chosen


def test_a_threshold_that_someone_set_meanwhile_stays(thresholds):
    thresholds(700, 10, 10)
    with fewer_collections():
        thresholds(5000, 5, 5)
    assert gc.get_threshold() == (5000, 5, 5)

"""The adaptive limit: what it does to a burst, and how it compares with fixed limits.

Time is virtual: the event loop's clock jumps to the next timer, so minutes of judging take no time.
"""

import asyncio
import random
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_balcap.judge.limiter import AdaptiveLimit


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    _ready: Collection[asyncio.Handle]  # the base class's own
    _scheduled: Sequence[Any]

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def time(self):
        return self.now

    def _run_once(self):
        loop: Any = super()  # what it keeps is private, and typed nowhere
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0]._when)
        loop._run_once()


@pytest.fixture
def run():
    loop = VirtualTimeLoop()
    yield loop.run_until_complete
    loop.close()


def clocked(maximum):
    return AdaptiveLimit(maximum, clock=asyncio.get_running_loop().time)


async def taken(limit, places):
    return [await limit.acquire() for _ in range(places)]


def refused(limit, epochs):
    for epoch in epochs:
        limit.push_back(epoch)
        limit.release()


def test_one_burst_of_refusals_is_one_cut(run):
    async def scenario():
        limit = clocked(10)
        epochs = await taken(limit, 10)
        fallen = []
        for epoch in epochs[:4]:
            refused(limit, [epoch])
            fallen.append(limit.limit)
        return fallen, limit.epoch, limit.in_flight

    # One in ten may be chance. Two are one too many; two more leave 6 that the judge took.
    assert run(scenario()) == ([10.0, 9.0, 7.0, 6.0], 1, 6)


def test_a_second_burst_of_refusals_cuts_deeper(run):
    async def scenario():
        limit = clocked(10)
        refused(limit, (await taken(limit, 10))[:2])
        for _ in range(60):
            limit.answered()
        climbed = limit.limit
        refused(limit, await taken(limit, 2))  # 10 under way again
        return climbed, limit.limit

    assert run(scenario()) == (10.0, 8.0)


def test_one_failure_in_a_hundred_is_no_reason_to_ask_less(run):
    async def scenario():
        limit = clocked(100)
        lowest = 100.0
        for _ in range(200):
            epochs = await taken(limit, 100)
            refused(limit, epochs[:1])
            for _ in epochs[1:]:
                limit.answered()
                limit.release()
            lowest = min(lowest, limit.limit)
        return lowest, limit.epoch

    assert run(scenario()) == (100.0, 0)


def limit_after(run, *, answered=0, called_off=0, refusals):
    """The limit, 16 at first, after a burst of 16 questions that end in this order."""

    async def scenario():
        limit = clocked(16)
        epochs = await taken(limit, 16)
        for _ in range(answered):
            limit.answered()
            limit.release()
        for _ in range(called_off):
            limit.release()
        refused(limit, epochs[answered + called_off :][:refusals])
        return limit.limit

    return run(scenario())


def test_an_eighth_of_a_round_is_chance_and_one_more_is_not(run):
    assert limit_after(run, refusals=2) == 16.0
    assert limit_after(run, refusals=3) == 15.0


def test_timeouts_at_the_end_of_a_batch_leave_the_limit_to_the_next(run):
    # The last 3 time out with nothing else under way: that does not mean that 3 are too many.
    assert limit_after(run, answered=13, refusals=3) == 15.0


def test_timeouts_beside_questions_that_were_called_off_count_as_what_they_are(run):
    # 11 were neither answered nor refused, so nothing says that the judge could not take those.
    assert limit_after(run, called_off=11, refusals=5) == 10.0


def test_a_burst_that_is_still_being_sent_is_judged_by_what_was_sent(run):
    async def scenario(refusals):
        limit = clocked(256)
        refused(limit, (await taken(limit, 40))[:refusals])
        return limit.limit

    assert run(scenario(8)) == 256.0  # an eighth of 64
    assert run(scenario(9)) == 39.0  # 40 were too many


def test_a_round_that_ends_near_the_end_of_a_batch_does_not_forget_how_many_were_asked(run):
    # 10 questions, 8 at a time: the eighth answer ends the round, with 3 under way. Then 2 time
    # out.
    async def scenario():
        limit = clocked(8)
        epochs = await taken(limit, 8)
        for answer in range(8):
            limit.answered()
            limit.release()
            if answer < 2:
                epochs += await taken(limit, 1)
        refused(limit, epochs[8:])
        return limit.limit

    assert run(scenario()) == 7.0


def test_a_timeout_from_before_the_last_two_cuts_says_nothing_new(run):
    async def scenario():
        limit = clocked(10)
        stalled, *epochs = await taken(limit, 10)
        refused(limit, epochs[:2])
        for _ in range(2):
            refused(limit, await taken(limit, 1))
        before = limit.limit
        refused(limit, [stalled])
        return limit.epoch, before == limit.limit

    assert run(scenario()) == (2, True)


def test_a_late_timeout_of_a_burst_that_was_cut_for_changes_nothing(run):
    async def scenario():
        limit = clocked(10)
        stalled, *epochs = await taken(limit, 10)
        refused(limit, epochs[:2])
        for _ in range(30):
            limit.answered()
        before = limit.limit
        refused(limit, [stalled])
        return before, limit.limit

    assert run(scenario()) == (10.0, 10.0)


@given(
    maximum=st.integers(1, 40),
    outcomes=st.lists(st.tuples(st.sampled_from("?+-"), st.integers(0, 39)), max_size=120),
)
def test_refusals_never_raise_the_limit_and_answers_never_lower_it(maximum, outcomes):
    async def scenario():
        limit, under_way = clocked(maximum), []
        for kind, which in outcomes:
            before = limit.limit
            if kind == "?":
                if limit.in_flight < int(limit.limit):
                    under_way.append(await limit.acquire())
            elif under_way:
                epoch = under_way.pop(which % len(under_way))
                if kind == "+":
                    limit.answered()
                    assert limit.limit >= before
                else:
                    limit.push_back(epoch)
                    assert limit.limit <= before
                limit.release()
            assert 1.0 <= limit.limit <= maximum
            assert limit.in_flight == len(under_way)

    loop = VirtualTimeLoop()
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()


def test_a_place_belongs_to_the_time_when_it_was_given(run):
    # The second question gets its place before the first is refused, and goes on after.
    async def scenario():
        limit = clocked(7)
        first = await limit.acquire()
        waiting = asyncio.ensure_future(limit.acquire())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(limit.push_back, first)
        return first, await waiting, limit.epoch

    assert run(scenario()) == (0, 0, 1)


def test_the_limit_climbs_back_to_the_maximum(run):
    async def scenario():
        limit = clocked(7)
        refused(limit, await taken(limit, 1))
        fallen = limit.limit
        for _ in range(200):
            limit.answered()
        return fallen, limit.limit

    fallen, risen = run(scenario())
    assert fallen < 2.0
    assert risen == 7.0


def test_priority_decides_among_those_who_wait(run):
    async def scenario():
        limit, served = clocked(1), []

        async def ask(name, priority):
            await limit.acquire(priority)
            served.append(name)
            await asyncio.sleep(1)
            limit.release()

        await asyncio.gather(ask("linguistic", 2), ask("verify", 1), ask("decompose", 0))
        return served

    assert run(scenario()) == ["decompose", "verify", "linguistic"]


def test_at_one_at_a_time_a_refusal_makes_all_wait_as_long_as_the_judge_says(run):
    async def scenario():
        limit = clocked(1)
        limit.push_back(await limit.acquire(), retry_after=30)
        limit.release()
        await limit.acquire()
        return asyncio.get_running_loop().time()

    assert run(scenario()) == pytest.approx(30)


def test_a_waiter_that_is_cancelled_takes_no_place(run):
    async def scenario():
        limit = clocked(1)
        await limit.acquire()
        waiting = asyncio.ensure_future(limit.acquire())
        await asyncio.sleep(0)
        waiting.cancel()
        limit.release()
        await asyncio.sleep(0)
        await asyncio.wait_for(limit.acquire(), 1)
        return limit.in_flight

    assert run(scenario()) == 1


class Fixed:
    """A limit that learns nothing."""

    def __init__(self, places):
        self.places = asyncio.Semaphore(places)

    async def acquire(self, priority):
        await self.places.acquire()
        return 0

    def release(self):
        self.places.release()

    def answered(self):
        pass

    def push_back(self, epoch):
        pass


async def all_answered(questions, capacity_at, limit, by_chance=0.0):
    """Seconds and refusals until a judge has answered all, with `capacity_at(time)` places.

    `by_chance` is the share that it refuses whatever its load.
    """
    loop, rng = asyncio.get_running_loop(), random.Random(0)
    limit = Fixed(limit) if isinstance(limit, int) else limit
    under_way = refused = 0

    async def ask():
        nonlocal under_way, refused
        for tries in range(1000):
            epoch = await limit.acquire(-tries)
            answered = under_way < capacity_at(loop.time()) and rng.random() >= by_chance
            if answered:
                under_way += 1
                await asyncio.sleep(rng.uniform(0.8, 1.2))
                under_way -= 1
            else:
                refused += 1
                await asyncio.sleep(0.05)
            limit.answered() if answered else limit.push_back(epoch)
            limit.release()
            if answered:
                return
            await asyncio.sleep(min(30, 0.5 * 2**tries) * rng.uniform(0.5, 1))

    await asyncio.gather(*(ask() for _ in range(questions)))
    return loop.time(), refused


def test_it_finds_the_capacity_that_nobody_told_it():
    # 2000 questions of 1 s at a judge with 32 places: 62.5 s at best.
    seconds = {}
    for name, make in {"adaptive": lambda: clocked(256), 256: lambda: 256, 16: lambda: 16}.items():
        loop = VirtualTimeLoop()

        async def scenario(make=make):
            return await all_answered(2000, lambda _: 32, make())

        seconds[name], refused = loop.run_until_complete(scenario())
        loop.close()
        if name == "adaptive":
            assert refused < 500  # 224 of the first burst; a fixed 256 meets 12,000

    assert seconds["adaptive"] < 1.25 * 62.5
    assert seconds["adaptive"] < 0.8 * seconds[256]
    assert seconds["adaptive"] < 0.8 * seconds[16]


def test_it_follows_a_capacity_that_changes(run):
    async def scenario():
        return await all_answered(2000, lambda time: 128 if time < 10 else 16, clocked(256))

    seconds, _ = run(scenario())
    # 10 s x 128 + 45 s x 16 = 2000.
    assert seconds < 1.3 * 55


def test_a_judge_that_fails_by_chance_is_asked_as_fast_as_one_that_does_not(run):
    async def scenario():
        return await all_answered(5000, lambda _: 1000, clocked(256), by_chance=0.06)

    seconds, refused = run(scenario())
    # 5000 questions of 1 s, 256 at a time: 19.5 s, and the waits of what was refused at the end.
    assert refused > 250
    assert seconds < 1.2 * 19.5

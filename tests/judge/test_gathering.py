"""Rows of a batch that wait for each other: who, for whom, and never for good."""

import asyncio

from trl_balcap.judge.gathering import Gathering, seat_of
from trl_balcap.judge.images import EncodedImage


async def encode(image):
    await asyncio.sleep(0)
    if image == "broken":
        raise ValueError("broken")
    return (EncodedImage("", image[0]),)


def gathered(rows, patience=30.0):
    """What each row was told that its image's rows ask, by rows of image, texts and delay."""

    async def work(image, texts, delay):
        await asyncio.sleep(delay)
        if texts is None:
            return None
        seat = seat_of(image)
        assert seat is not None
        return await seat.bring(texts, patience)

    async def batch():
        gathering = Gathering(encode)
        tasks = [gathering.start(row[0], work(*row)) for row in rows]
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert gathering.expected == []
        return done

    return asyncio.run(batch())


def test_rows_of_one_image_are_told_what_all_of_them_ask():
    rows = [("a1", ["x"], 0.02), ("b1", ["y"], 0), ("a2", ["z"], 0), ("b2", None, 0.01)]
    assert gathered(rows) == [[["x"], ["z"]], [["y"]], [["x"], ["z"]], None]


def test_a_broken_image_is_nobody_elses():
    rows = [("a1", ["x"], 0), ("broken", ["y"], 0.01), ("a2", ["z"], 0)]
    assert gathered(rows) == [[["x"], ["z"]], [["y"]], [["x"], ["z"]]]


def test_those_who_do_not_come_in_time_are_left_behind():
    rows = [("a1", ["x"], 0), ("a2", ["y"], 0), ("a3", ["z"], 0.3)]
    assert gathered(rows, patience=0.1) == [[["x"], ["y"]], [["x"], ["y"]], [["z"]]]


def test_a_row_that_is_called_off_before_its_first_step_is_not_waited_for():
    async def work():
        seat = seat_of("a1")
        assert seat is not None
        return await seat.bring(["x"], 30.0)

    async def batch():
        gathering = Gathering(encode)
        stays, goes = gathering.start("a1", work()), gathering.start("a2", work())
        goes.cancel()
        return await asyncio.wait_for(stays, 5)

    assert asyncio.run(batch()) == [["x"]]


def test_a_task_that_rows_wait_for_does_not_wait_for_them():
    """As where one of an image's rows asks for all of them."""
    shared = []

    async def for_all():
        return seat_of("a1")

    async def row():
        if not shared:
            shared.append(asyncio.ensure_future(for_all()))
        return await shared[0]

    async def batch():
        gathering = Gathering(encode)
        tasks = [gathering.start("a1", row()), gathering.start("a2", row())]
        return await asyncio.wait_for(asyncio.gather(*tasks), 5)

    assert asyncio.run(batch()) == [None, None]


def test_a_row_is_waited_for_once():
    """Its second question goes on its own, at once."""

    async def twice():
        seat = seat_of("a1")
        assert seat is not None
        return [await seat.bring(["x"], 30.0), await seat.bring(["y"], 30.0)]

    async def slow():
        seat = seat_of("a2")
        assert seat is not None
        said = await seat.bring(["z"], 30.0)
        await asyncio.sleep(0.05)
        return said

    async def batch():
        gathering = Gathering(encode)
        tasks = [gathering.start("a1", twice()), gathering.start("a2", slow())]
        return await asyncio.wait_for(asyncio.gather(*tasks), 5)

    assert asyncio.run(batch()) == [[[["x"], ["z"]], [["y"]]], [["x"], ["z"]]]

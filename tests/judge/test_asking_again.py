"""Which answers are asked for again, and how long that is waited for."""

import asyncio
import time

import pytest

from tests.judge.endpoint_judge import CAPTION, error_of, judge_at
from tests.judge.servers import Answer, endpoint
from trl_balcap.judge import INFRASTRUCTURE_REASONS, REASONS, JudgeError
from trl_balcap.judge.deadline import within


@pytest.mark.parametrize(
    ("status", "reason", "calls"),
    [
        (400, "refused", 1),
        (401, "denied", 1),
        (402, "denied", 1),
        (403, "denied", 1),
        (404, "denied", 1),
        (413, "refused", 1),
        (422, "refused", 1),
        (429, "rate_limited", 2),
        (500, "server_error", 2),
        (503, "server_error", 2),
    ],
)
def test_a_status_is_asked_again_only_where_that_can_help(status, reason, calls):
    with endpoint(lambda _: Answer(status=status, error="no")) as server:
        error = error_of(judge_at(server, max_retries=1))
    assert (error.reason, len(server.requests)) == (reason, calls)


def test_infrastructure_is_what_the_next_row_would_meet_too():
    assert set(INFRASTRUCTURE_REASONS) == {"timeout", "rate_limited", "server_error", "denied"}
    assert set(INFRASTRUCTURE_REASONS) < set(REASONS)


@pytest.mark.parametrize("wish", ["1e9", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_wish_for_more_than_is_left_ends_the_question_and_not_the_batch(wish):
    answers = iter([Answer(status=429, headers={"Retry-After": wish}, error="no")])
    with endpoint(lambda _: next(answers, Answer())) as server:
        judge = judge_at(server, max_concurrency=1, batch_deadline=20.0)
        begin = time.monotonic()
        assert error_of(judge).reason == "rate_limited"
        assert time.monotonic() - begin < 10.0
        # The next batch does not wait for the end of that wish either.
        assert judge.engine().text[0].limit.paused_for() <= 30.0


def test_a_date_is_waited_for():
    from email.utils import formatdate

    begin = time.time()
    wish = {"Retry-After": formatdate(begin + 3, usegmt=True)}
    answers = iter([Answer(status=429, headers=wish, error="no")])
    with endpoint(lambda _: next(answers, Answer())) as server:
        assert asyncio.run(judge_at(server).linguistic(CAPTION)) == (5.0, 5.0, 5.0)
    assert time.time() >= int(begin + 3)  # the date has whole seconds


def test_what_is_left_is_counted_from_the_batch():
    answers = iter([Answer(status=429, headers={"Retry-After": "5"}, error="no")])
    with endpoint(lambda _: next(answers, Answer())) as server:
        judge = judge_at(server)

        async def in_a_batch():
            with within(2.0):
                await judge.linguistic(CAPTION)

        begin = time.monotonic()
        from trl_balcap.judge.background import submit

        with pytest.raises(JudgeError, match="rate_limited"):
            submit(in_a_batch()).result()
        assert time.monotonic() - begin < 2.0


def test_a_timeout_is_asked_again_twice_and_no_more():
    def answer(_):
        time.sleep(3)
        return Answer()

    with endpoint(answer) as server:
        error = error_of(judge_at(server, timeout=0.2))
        assert error.reason == "timeout"
        assert len(server.requests) == 3

"""Several samples of one prompt."""

import asyncio

import pytest

from tests.judge.endpoint_judge import judge_at
from tests.judge.servers import Answer, endpoint, tokens
from trl_balcap.judge import JudgeError

MESSAGES = [{"role": "user", "content": "Name a colour."}]


def samples_of(judge, n, **options):
    return asyncio.run(judge.complete(MESSAGES, n=n, temperature=1.0, **options))


def test_samples_of_one_prompt_are_one_request(tmp_path):
    numbers = iter(range(100))

    def answer(request):
        texts = tuple(f"colour {next(numbers)}" for _ in range(request.body.get("n", 1)))
        return Answer(texts=texts, usage=tokens(500, 10))

    with endpoint(answer) as server:
        judge = judge_at(server, cache=tmp_path)
        assert samples_of(judge, 3) == ["colour 0", "colour 1", "colour 2"]
        assert [request.body.get("n") for request in server.requests] == [3]
        assert judge.stats.prompt_tokens == 500

        # Another process, which wants one more: only that one is asked for.
        again = judge_at(server, cache=tmp_path)
        assert samples_of(again, 4) == ["colour 0", "colour 1", "colour 2", "colour 3"]
        assert [request.body.get("n") for request in server.requests] == [3, None]
        assert again.stats.disk_hits == 3


@pytest.mark.parametrize("refuses", [True, False])
def test_a_server_that_knows_no_n_is_asked_one_by_one(refuses):
    def answer(request):
        if refuses and request.body.get("n", 1) > 1:
            return Answer(status=400, error="n must be 1")
        return Answer(texts=("red",))

    with endpoint(answer) as server:
        judge = judge_at(server)
        assert samples_of(judge, 3) == ["red"] * 3
        first = len(server.requests)
        assert samples_of(judge, 3, first_sample=3) == ["red"] * 3

    assert first == (4 if refuses else 3)
    assert len(server.requests) - first == 3  # it is not tried again


def test_a_sample_that_is_refused_leaves_the_others():
    def answer(request):
        return Answer(texts=("red", "", "blue"))

    with endpoint(answer) as server:
        judge = judge_at(server)
        with pytest.raises(JudgeError, match="unreadable"):
            samples_of(judge, 3)
        assert [samples_of(judge, 1, first_sample=i) for i in (0, 2)] == [["red"], ["blue"]]
    assert len(server.requests) == 1

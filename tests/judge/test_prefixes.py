"""One question of an image ahead of the others: who waits, for whom, and who does not."""

import asyncio
import json
import threading

from PIL import Image

from benchmarks.prefix_cache import BLOCK, PrefixCache, blocks_of
from tests.judge.servers import Answer, Request, endpoint
from trl_balcap import Judge
from trl_balcap.judge import JudgeError

RED, BLUE = (Image.new("RGB", (40, 40), colour) for colour in ("red", "blue"))


class Arrivals:
    """Answers verify questions when told to, and counts how many are waiting."""

    def __init__(self, status: int = 200):
        self.status = status
        self.arrived = threading.Semaphore(0)
        self.go = threading.Event()
        self.order: list[str] = []

    def __call__(self, request: Request) -> Answer:
        asked = json.loads(request.body["messages"][1]["content"][1]["text"])
        self.order.append(asked["assertions"][0]["text"])
        self.arrived.release()
        assert self.go.wait(30)
        verdicts = [{"id": 1, "correct": True, "pointable": True}]
        text = json.dumps({"verdicts": verdicts, "ticket": asked["ticket"]})
        return Answer(texts=(text,), status=self.status, error=None if self.status == 200 else "no")

    def waiting(self) -> int:
        """How many have come once the first has been there for a moment."""
        assert self.arrived.acquire(timeout=30)
        threading.Event().wait(0.5)
        return len(self.order)


def verify_four(server, arrivals, **options):
    """Ask about two images, twice each; returns how many were sent before the first answer."""
    judge = Judge("openai/m", api_base=server.url, max_retries=0, **options)

    async def ask():
        asked = ((RED, "1"), (RED, "2"), (BLUE, "3"), (BLUE, "4"))
        questions = (judge.verify(image, [text]) for image, text in asked)
        return await asyncio.gather(*questions, return_exceptions=True)

    sent = []
    watcher = threading.Thread(target=lambda: (sent.append(arrivals.waiting()), arrivals.go.set()))
    watcher.start()
    outcomes = asyncio.run(ask())
    watcher.join()
    return sent[0], outcomes


def test_the_first_question_of_each_image_goes_ahead():
    arrivals = Arrivals()
    with endpoint(arrivals) as server:
        sent, outcomes = verify_four(server, arrivals, prefix_first=True)
    assert sent == 2
    assert sorted(arrivals.order[:2]) == ["1", "3"]
    assert [o[0].correct for o in outcomes if not isinstance(o, BaseException)] == [True] * 4


def test_by_default_nobody_waits():
    arrivals = Arrivals()
    with endpoint(arrivals) as server:
        sent, _ = verify_four(server, arrivals)
    assert sent == 4


def test_a_first_question_that_fails_holds_nobody_back():
    arrivals = Arrivals(status=400)
    with endpoint(arrivals) as server:
        _, outcomes = verify_four(server, arrivals, prefix_first=True)
    assert all(isinstance(outcome, JudgeError) for outcome in outcomes)
    assert len(arrivals.order) == 4


def test_the_modelled_cache_counts_whole_blocks_from_its_least_prefix_on():
    same, other = "x" * 4 * BLOCK * 3, "y" * 4 * BLOCK
    first = blocks_of([{"role": "user", "content": same}])
    second = blocks_of([{"role": "user", "content": same + other}])

    cache = PrefixCache(at_once=False, least=BLOCK)
    assert cache.read(first) == 0
    assert cache.read(second) == 0  # the first was not answered yet
    cache.answered(first)
    assert cache.read(second) == 3 * BLOCK

    at_once = PrefixCache(at_once=True, least=4 * BLOCK)
    assert at_once.read(second) == 0
    assert at_once.read(first) == 0  # three blocks are too few
    assert at_once.read(second) == 4 * BLOCK

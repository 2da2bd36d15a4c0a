"""Loops, threads and processes: who may ask, and what stays behind at the end."""

import asyncio
import pickle
import subprocess
import sys
import threading
import time

from tests.judge.exact_judge import CAPTION, judge_at
from tests.judge.servers import Answer, endpoint
from trl_balcap.judge import Linguistic


def test_any_loop_and_any_thread_may_ask(oracle):
    judge = judge_at(oracle)
    found = []

    def from_thread(caption):
        found.append(asyncio.run(judge.linguistic(caption)))

    threads = [threading.Thread(target=from_thread, args=(f"Caption {i}.",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(judge.linguistic("Caption 0."))

    assert len(found) == 4
    assert oracle.stats()["calls"] == {"linguistic": 4}


def test_a_judge_is_pickled_without_its_connections_and_its_answers(oracle):
    judge = judge_at(oracle, max_concurrency=7)
    asyncio.run(judge.linguistic(CAPTION))

    copy = pickle.loads(pickle.dumps(judge))

    assert copy.settings == judge.settings
    assert copy.stats.calls == 0
    assert asyncio.run(copy.linguistic(CAPTION)) == Linguistic(10.0, 10.0, 10.0)


FORK_AND_EXIT = """
import asyncio, os, sys
from trl_balcap import Judge
assert "litellm" not in sys.modules  # seconds of import, not before the first question
judge = Judge("openai/oracle", api_base=sys.argv[1])
asyncio.run(judge.linguistic("Before the fork."))
child = os.fork()
if child == 0:
    print("child", asyncio.run(judge.linguistic("In the child."))[0], flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("parent", asyncio.run(judge.linguistic("In the parent."))[0], flush=True)
"""


def test_a_forked_process_asks_on_its_own_and_nothing_stays_open_at_exit(oracle):
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::ResourceWarning",
            "-c",
            FORK_AND_EXIT,
            oracle.url,
        ],
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )

    assert done.stdout.split() == ["child", "0.0", "parent", "0.0"]
    assert "Unclosed" not in done.stderr
    assert "never awaited" not in done.stderr
    assert "Traceback" not in done.stderr


FORKED = """
import asyncio, logging, os, sys
from trl_balcap import Judge
logging.basicConfig()
judge = Judge("openai/m", api_base=sys.argv[1], budget_calls=100)
asyncio.run(judge.linguistic("Before."))
child = os.fork()
if child == 0:
    asyncio.run(judge.linguistic("In the child."))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_process_says_that_it_counts_its_own_budget():
    with endpoint() as server:
        done = run_python(FORKED, server.url)
    assert done.stderr.count("counts its budget from zero") == 1


GIVEN_UP = """
import asyncio, sys
from trl_balcap import Judge
judge = Judge("openai/m", api_base=sys.argv[1])
async def main():
    first = asyncio.ensure_future(judge.linguistic("First."))
    others = [asyncio.ensure_future(judge.linguistic(f"Caption {i}.")) for i in range(9)]
    await asyncio.gather(first, *others)
asyncio.run(main())
"""


def test_a_process_that_gives_up_leaves_no_task_behind():
    def answer(request):
        if "First." in str(request.body):
            return Answer(status=400, error="no")
        time.sleep(100)
        return Answer()

    with endpoint(answer) as server:
        begin = time.monotonic()
        done = run_python(GIVEN_UP, server.url, code=1)
    assert "JudgeError: refused" in done.stderr
    for complaint in ("Task was destroyed", "never retrieved", "never awaited", "Unclosed"):
        assert complaint not in done.stderr
    assert time.monotonic() - begin < 100


def run_python(text, *arguments, code=0):
    command = [sys.executable, "-c", text, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == code, done.stderr
    return done

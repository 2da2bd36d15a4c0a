"""Verdicts on disk: what is in their key, who shares them, and what survives a kill."""

import asyncio
import contextlib
import json
import logging
import os
import pickle
import signal
import sqlite3
import subprocess
import sys

import diskcache
import pytest
from diskcache.core import MODE_PICKLE, MODE_TEXT
from PIL import Image

from trl_balcap import Judge, LinguisticReward
from trl_balcap.judge import JudgeConfigError, Linguistic, cache, questions
from trl_balcap.judge.questions import prompts_hash
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.world import Scene, Thing, draw

TEXT = "At the top left there is a large red circle."


@pytest.fixture
def server():
    with serve() as handle:
        yield handle


def judge_at(server, folder, **options):
    arguments = {"model": "openai/oracle", "api_base": server.url, "cache": folder}
    return Judge(**(arguments | options))


def test_a_second_process_asks_nothing_again(server, tmp_path):
    first, second = judge_at(server, tmp_path), judge_at(server, tmp_path)

    verdict = asyncio.run(first.linguistic(TEXT))
    assert asyncio.run(second.linguistic(TEXT)) == verdict

    assert server.stats()["total"] == 1
    assert (second.stats.calls, second.stats.cache_hits, second.stats.disk_hits) == (0, 1, 1)


def test_what_can_change_the_answer_is_in_the_key_and_nothing_else(server, tmp_path, monkeypatch):
    asyncio.run(judge_at(server, tmp_path).linguistic(TEXT))

    def asks_again(text=TEXT, **options):
        before = server.stats()["total"]
        asyncio.run(judge_at(server, tmp_path, **options).linguistic(text))
        return server.stats()["total"] - before == 1

    assert not asks_again(timeout=5, max_concurrency=2, max_retries=1, api_key="another")
    assert not asks_again(budget_calls=10, price=(1.0, 1.0), max_pixels=3136, max_unscored=0.1)
    assert not asks_again(vision_model="openai/oracle", extra={"timeout": 3})
    assert asks_again(text=TEXT + " ")
    assert asks_again(temperature=0.5)
    assert asks_again(max_tokens=500)
    assert asks_again(structured=True)
    assert asks_again(extra={"seed": 1})
    assert asks_again(model="openai/scenes/oracle")
    monkeypatch.setattr(questions, "prompt", lambda name: f"Another prompt for {name}.")
    assert asks_again()


def test_images_are_in_the_key_by_what_is_sent(tmp_path):
    def answer(_):
        return '{"verdicts": [{"id": 1, "correct": true, "pointable": true}]}'

    with serve(answer=answer) as server:
        judge = judge_at(server, tmp_path)

        def calls_for(image):
            before = judge.stats.calls
            asyncio.run(judge.verify(image, ["A wall."]))
            return judge.stats.calls - before

        red = Image.new("RGB", (40, 40), "red")
        assert calls_for(red) == 1
        assert calls_for(red.copy()) == 0
        assert calls_for(Image.new("RGB", (40, 40), "blue")) == 1


def test_unreadable_replies_are_not_kept(tmp_path):
    replies = iter(["Hm.", "Hm.", '{"clarity": 5, "fluency": 5, "coherency": 5}'])
    with serve(answer=lambda _: next(replies)) as server:
        reward = LinguisticReward(judge_at(server, tmp_path))
        reward._preflight_done = True
        assert asyncio.run(reward([""], [TEXT])) == [None]
        assert asyncio.run(reward([""], [TEXT])) == [0.5]


def test_a_stored_reply_is_stamped_and_holds_no_question(server, tmp_path):
    asyncio.run(judge_at(server, tmp_path).linguistic(TEXT))

    with diskcache.Cache(str(tmp_path)) as stored:
        (key,) = stored
        text = stored[key]
    assert isinstance(text, str)
    value = json.loads(text)
    assert value["prompts"] == prompts_hash()
    assert value["model"] == "openai/oracle"
    assert json.loads(value["text"])["clarity"] == 10.0
    assert all(TEXT.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_the_folder_has_a_bound(tmp_path):
    async def fill():
        kept = cache.ReplyCache(str(tmp_path), 200_000)
        for i in range(400):
            await kept.set(f"key {i}", "x" * 2000, "openai/oracle")
        return await kept.get("key 0"), await kept.get("key 399")

    oldest, newest = asyncio.run(fill())
    assert oldest is None
    assert newest is not None
    assert newest.text == "x" * 2000
    with diskcache.Cache(str(tmp_path)) as stored:
        assert stored.volume() < 400_000  # 800,000 were written


def test_a_folder_that_cannot_be_used_is_an_error_at_start(server, tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(JudgeConfigError, match=r"cannot be used as a folder.*cache=None"):
        asyncio.run(judge_at(server, file / "cache").preflight())


def verdicts_without_cache(server, folder, caplog):
    """Ask a judge whose cache cannot be used; there must be one warning of it."""
    judge = judge_at(server, folder)
    with caplog.at_level(logging.WARNING):
        for text in (TEXT, TEXT.replace("red", "blue"), TEXT):
            assert asyncio.run(judge.linguistic(text)) == Linguistic(10.0, 10.0, 10.0)
    assert caplog.text.count("Continuing without it") == 1


def test_a_folder_that_is_gone_later_costs_the_cache_and_no_verdict(server, tmp_path, caplog):
    # On another machine than the one that asked the preflight, say.
    file = tmp_path / "file"
    file.write_text("not a folder")
    verdicts_without_cache(server, file / "cache", caplog)


def test_a_corrupt_cache_costs_no_verdict(server, tmp_path, caplog):
    (tmp_path / "cache.db").write_bytes(b"this is no database" * 100)
    verdicts_without_cache(server, tmp_path, caplog)


DAMAGE = {
    "a number": "update Cache set value = 5, mode = 1",
    "bytes of no file": "update Cache set value = x'fffe00', mode = 2",
    "a file that is not text": "update Cache set value = null, filename = 'x.val', mode = 3",
    "another row": """update Cache set value = '{"text": 5, "prompts": "", "model": ""}'""",
    "a list": "update Cache set value = '[]'",
}


@pytest.mark.parametrize("profile", ["questions", "united"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_row_is_asked_for_again(tmp_path, damage, profile):
    """Whatever is in its place: it costs a question, and neither a verdict nor the run."""
    image = draw(Scene((Thing("red", "circle", "large", "top", "left"),)))
    first, second = (Judge("scenes/oracle", cache=str(tmp_path), profile=profile) for _ in range(2))
    verdict = asyncio.run(first.verify(image, [TEXT]))
    (tmp_path / "x.val").write_bytes(b"\xff\xfe\x00")
    with contextlib.closing(sqlite3.connect(tmp_path / "cache.db")) as database, database:
        assert database.execute(DAMAGE[damage]).rowcount >= 1

    assert asyncio.run(second.verify(image, [TEXT])) == verdict
    assert second.stats.calls == 1


def test_a_damaged_reply_to_messages_is_asked_for_again(tmp_path):
    messages = [{"role": "user", "content": '{"question": "preflight"}'}]
    first, second = (Judge("scenes/oracle", cache=str(tmp_path)) for _ in range(2))
    replies = asyncio.run(first.complete(messages))
    with contextlib.closing(sqlite3.connect(tmp_path / "cache.db")) as database, database:
        database.execute(DAMAGE["another row"])
    assert asyncio.run(second.complete(messages)) == replies


def test_a_corrupt_cache_is_told_at_start_and_stops_nothing(server, tmp_path, caplog):
    (tmp_path / "cache.db").write_bytes(b"this is no database" * 100)
    with caplog.at_level(logging.WARNING):
        asyncio.run(judge_at(server, tmp_path).preflight())
    assert "Continuing without it" in caplog.text


LOCKED = """
import asyncio, sys
from trl_balcap import Judge
judge = Judge("openai/oracle", api_base=sys.argv[1], cache=sys.argv[2])
async def ask():
    await asyncio.gather(*(judge.linguistic(f"Caption {i}.") for i in range(40)))
asyncio.run(ask())
print("answered", flush=True)
"""


def test_a_locked_cache_holds_neither_the_batch_nor_the_exit(server, tmp_path):
    diskcache.Cache(str(tmp_path)).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        command = [sys.executable, "-c", LOCKED, server.url, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "answered\n", done.stderr
    assert done.stderr.count("Continuing without it") == 1


def test_a_planted_row_runs_no_code_and_touches_no_file(server, tmp_path):
    folder, outside = tmp_path / "cache", tmp_path / "outside"
    outside.write_text("mine")
    asyncio.run(judge_at(server, folder).linguistic(TEXT))

    class Planted:
        def __reduce__(self):
            return os.unlink, (str(outside),)

    for mode, value, filename in (
        (MODE_PICKLE, pickle.dumps(Planted()), None),
        (MODE_TEXT, None, "../outside"),
    ):
        with contextlib.closing(sqlite3.connect(folder / "cache.db")) as database:
            planted = (mode, value, filename)
            database.execute("UPDATE Cache SET mode = ?, value = ?, filename = ?", planted)
            database.commit()
        server.reset_stats()
        # Not believed, asked anew, and overwritten: which would remove the file of the old row.
        assert asyncio.run(judge_at(server, folder).linguistic(TEXT)).clarity == 10.0
        assert server.stats()["total"] == 1
        assert outside.read_text() == "mine"


def test_a_full_disk_costs_the_cache_and_no_verdict(server, tmp_path, monkeypatch, caplog):
    def full(*args, **kwargs):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(diskcache.Cache, "set", full)
    judge = judge_at(server, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert asyncio.run(judge.linguistic(TEXT)) == Linguistic(10.0, 10.0, 10.0)
        assert asyncio.run(judge.linguistic(TEXT + " More.")) is not None
    assert caplog.text.count("Continuing without it") == 1


JUDGE_UNTIL_KILLED = """
import asyncio, sys
from trl_balcap import Judge
judge = Judge("openai/oracle", api_base=sys.argv[1], cache=sys.argv[2], max_concurrency=4)
async def ask(i):
    await judge.linguistic(f"Caption {i}.")
    print(i, flush=True)
async def main():
    await asyncio.gather(*(ask(i) for i in range(1000)))
asyncio.run(main())
"""


def test_a_killed_run_asks_nothing_again_that_was_answered(tmp_path):
    with serve(latency=0.01) as server:
        command = [sys.executable, "-c", JUDGE_UNTIL_KILLED, server.url, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
            assert killed.stdout is not None
            answered = [int(killed.stdout.readline()) for _ in range(40)]
            os.kill(killed.pid, signal.SIGKILL)
            answered += [int(line) for line in killed.stdout]
        server.reset_stats()

        resumed = judge_at(server, tmp_path)

        async def again():
            await asyncio.gather(*(resumed.linguistic(f"Caption {i}.") for i in answered))

        asyncio.run(again())
        assert len(answered) >= 40
        assert server.stats()["total"] == 0


def test_several_processes_write_at_once(tmp_path):
    code = JUDGE_UNTIL_KILLED.replace("range(1000)", "range(25)")
    with serve() as server:
        command = [sys.executable, "-c", code, server.url, str(tmp_path)]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
        for process in running:
            assert len(process.communicate(timeout=280)[0].split()) == 25
            assert process.returncode == 0
    with diskcache.Cache(str(tmp_path)) as stored:
        assert len(list(stored)) == 25
        assert not stored.check()

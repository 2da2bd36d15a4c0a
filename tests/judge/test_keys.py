"""Keys are shown nowhere."""

import asyncio
import logging

import pytest

from tests.judge.exact_judge import CAPTION, judge_at
from trl_balcap.judge import JudgeConfigError, JudgeError
from trl_balcap.scenes.server import serve


def test_keys_are_in_no_log_report_error_or_cache(tmp_path, caplog, capfd, monkeypatch):
    key, named = "sk-secret-0123456789", "sk-named-9876543210"
    monkeypatch.setenv("OTHER_API_KEY", named)
    caplog.set_level(logging.DEBUG)

    def answer(messages):
        return f"Your keys are {key} and {named}."

    with serve(answer=answer) as server:
        judge = judge_at(server, api_key=key, cache=tmp_path / "cache", max_retries=0)
        with pytest.raises(JudgeError) as unreadable:
            asyncio.run(judge.linguistic(CAPTION))
    with serve(api_key="another") as server:
        refusing = judge_at(server, api_key=key, cache=tmp_path / "cache")
        with pytest.raises(JudgeConfigError) as wrong:
            asyncio.run(refusing.preflight())

    shown = [repr(judge), repr(judge.settings), str(unreadable.value), repr(unreadable.value.reply)]
    shown += [str(wrong.value), *capfd.readouterr(), caplog.text]
    files = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert key not in "".join(shown)
    assert named not in "".join(shown)
    assert key.encode() not in files

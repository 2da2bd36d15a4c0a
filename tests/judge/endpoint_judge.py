"""A judge at an endpoint of `servers`, and the error that it raises there."""

import asyncio

import pytest

from trl_balcap import Judge
from trl_balcap.judge import JudgeError

CAPTION = "A dog."


def judge_at(server, **options):
    return Judge(**({"model": "openai/m", "api_base": server.url} | options))


def error_of(judge, caption=CAPTION):
    with pytest.raises(JudgeError) as caught:
        asyncio.run(judge.linguistic(caption))
    return caught.value

"""The exact judge as a provider of litellm."""

import asyncio
import json
import os
import random
import subprocess
import sys

import pytest

from tests.scenes.questions import DISC_SAID, HOSTILE, REFERENCE, chat
from tests.scenes.things import TWO
from trl_balcap.scenes.grammar import Faults, describe, faulty_caption
from trl_balcap.scenes.oracle import answer, score
from trl_balcap.scenes.world import draw, random_scene


@pytest.fixture(scope="module")
def litellm():
    from trl_balcap.scenes import provider

    provider.register()
    provider.register()  # again: nothing changes
    import litellm

    assert [item["provider"] for item in litellm.custom_provider_map].count("scenes") == 1
    return litellm


async def test_the_provider_answers_through_litellm(litellm):
    questions = [
        ({"question": "decompose", "text": REFERENCE}, None),
        ({"question": "look", "text": "The top left shows a small red circle."}, draw(TWO)),
        ({"question": "linguistic", "text": REFERENCE}, None),
    ]
    replies = await asyncio.gather(
        *(
            litellm.acompletion("scenes/oracle", chat(question, image), temperature=0.0)
            for question, image in questions
        )
    )
    for reply, (question, image) in zip(replies, questions, strict=True):
        assert json.loads(reply.choices[0].message.content) == answer(question, image)
        assert reply.choices[0].finish_reason == "stop"
        assert reply.usage.prompt_tokens > 0
        assert reply.usage.completion_tokens > 0
    # the image costs its nine cells, on top of four characters a token
    characters = sum(len(json.dumps(q)) for q, _ in questions[1:2]) + len("You judge captions.")
    assert replies[1].usage.prompt_tokens == characters // 4 + 9


def test_the_provider_answers_synchronously(litellm):
    reply = litellm.completion("scenes/oracle", chat({"question": "preflight"}))
    assert json.loads(reply.choices[0].message.content) == {"ready": True}


async def test_the_provider_has_a_noisy_judge(litellm):
    question = chat({"question": "linguistic", "text": DISC_SAID + " The mood is cosy."})
    model = "scenes/oracle+linguistic=0.5,flip=0.1,seed=4"
    replies = [await litellm.acompletion(model, question) for _ in range(3)]
    assert len({reply.choices[0].message.content for reply in replies}) == 3


@pytest.mark.parametrize("profile", ["questions", "fused"])
async def test_the_rewards_of_the_real_judge_are_the_scores(litellm, profile):
    from trl_balcap import Judge, LinguisticReward, PrecisionReward, RecallReward

    rng = random.Random(0)
    faults = Faults(0.3, 0.3, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3, 0.1, 0.1)
    rows = [(scene := random_scene(rng), faulty_caption(scene, rng, faults)) for _ in range(20)]
    rows += [(TWO, text) for text in (*HOSTILE, "", f"{DISC_SAID} {HOSTILE[0]} {HOSTILE[1]}")]
    captions = [caption for _, caption in rows]
    columns = {
        "image": [draw(scene) for scene, _ in rows],
        "reference": [describe(scene) for scene, _ in rows],
    }
    judge = Judge("scenes/oracle", profile=profile)
    expected = [score(text, describe(scene), scene) for scene, text in rows]
    for number, reward in enumerate((PrecisionReward, RecallReward, LinguisticReward)):
        rewards = await reward(judge)([""] * len(rows), captions, **columns)
        assert rewards == [scores[number] for scores in expected]


async def test_the_providers_errors_are_litellms(litellm):
    with pytest.raises(litellm.NotFoundError, match="no model 'owl'"):
        await litellm.acompletion("scenes/owl", chat({"question": "preflight"}))
    with pytest.raises(litellm.BadRequestError, match="one JSON object"):
        await litellm.acompletion("scenes/oracle", [{"role": "user", "content": "hello"}])


@pytest.mark.slow  # a process that imports all of litellm and torch
def test_importing_the_provider_needs_no_network():
    code = (
        "import socket, trl_balcap\n"
        "def refuse(*args): raise OSError('the network was used')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from trl_balcap.scenes import provider; provider.register()\n"
        "import os; print(os.environ['LITELLM_LOCAL_MODEL_COST_MAP'])\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "LITELLM_LOCAL_MODEL_COST_MAP"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
    assert "fetch" not in done.stderr  # litellm warns where it cannot fetch its price table

"""The exact judge made to err."""

import json
import pickle

import pytest

from tests.scenes.questions import chat
from tests.scenes.things import TWO
from trl_balcap.scenes.noise import Noise
from trl_balcap.scenes.oracle import Oracle


def test_the_ticket_is_repeated_last_and_changes_no_error():
    question = {"question": "linguistic", "text": "The mood is cosy."}
    noisy = Oracle(Noise(linguistic=2.0, seed=1))

    plain, first, second = (
        json.loads(noisy(chat(question | ticket, None)))
        for ticket in ({}, {"ticket": "bcdfghjk"}, {"ticket": "zxwvtsrq"})
    )

    assert list(first.items()) == [*plain.items(), ("ticket", "bcdfghjk")]
    assert second == plain | {"ticket": "zxwvtsrq"}


def test_noise_has_the_size_it_is_given():
    question = {"question": "linguistic", "text": "The mood is cosy."}
    exact = {"clarity": 5.0, "fluency": 5.0, "coherency": 5.0}
    noise = Noise(linguistic=0.5)
    drawn = [noise.spoil(question, exact, call=call)["clarity"] - 5.0 for call in range(2000)]
    mean = sum(drawn) / len(drawn)
    spread = (sum((x - mean) ** 2 for x in drawn) / len(drawn)) ** 0.5
    assert abs(mean) < 0.05  # 4 standard errors
    assert spread == pytest.approx(0.5, rel=0.1)


def test_noise_flips_as_often_as_it_is_told():
    question = {"question": "cover"}
    exact = {"verdicts": [{"id": n, "covered": True} for n in range(4000)]}
    spoilt = Noise(flip=0.25).spoil(question, exact)["verdicts"]
    assert sum(not verdict["covered"] for verdict in spoilt) == pytest.approx(1000, rel=0.15)
    assert [verdict["id"] for verdict in spoilt] == list(range(4000))
    assert all(verdict["covered"] for verdict in exact["verdicts"])  # the answer itself is intact


def test_noise_is_the_same_by_question_and_anew_by_call_where_asked():
    question = chat({"question": "linguistic", "text": "The mood is cosy."})
    steady = Oracle(Noise(linguistic=1.0))
    assert len({steady(question) for _ in range(5)}) == 1
    moody = Oracle(Noise(linguistic=1.0, every_call=True))
    assert len({moody(question) for _ in range(5)}) == 5
    assert Oracle(Noise(linguistic=1.0, seed=1))(question) != steady(question)


def test_noise_says_what_is_wrong_with_its_numbers():
    with pytest.raises(ValueError, match=r"flip must be a probability between 0 and 1, got 1\.5"):
        Noise(flip=1.5)
    with pytest.raises(ValueError, match="linguistic is a standard deviation"):
        Noise(linguistic=-1)


def test_scenes_and_noise_survive_pickling():
    assert pickle.loads(pickle.dumps((TWO, Noise(flip=0.1)))) == (TWO, Noise(flip=0.1))

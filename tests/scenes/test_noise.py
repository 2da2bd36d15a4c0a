"""The exact judge made to err."""

import json
import math
import pickle

import pytest

from tests.scenes.questions import chat
from tests.scenes.things import TWO
from trl_balcap.scenes.noise import Noise
from trl_balcap.scenes.oracle import Oracle, score


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


def test_a_judge_that_likes_long_captions_adds_to_the_grades_by_the_word():
    exact = {"clarity": 5.0, "fluency": 5.0, "coherency": 9.5}
    noise = Noise(long_bonus=2.0)
    for words, grades in ((0, (5.0, 5.0, 9.5)), (50, (6.0, 6.0, 10.0)), (100, (7.0, 7.0, 10.0))):
        question = {"question": "linguistic", "text": "word " * words}
        assert tuple(noise.spoil(question, exact).values()) == grades


HEDGED, PLAIN = "Perhaps the background is pink.", "The background is pink."


def test_a_lenient_judge_lets_wrong_claims_pass_if_they_are_hedged():
    said = [{"id": 1, "text": HEDGED}, {"id": 2, "text": PLAIN}]
    wrong = {"verdicts": [{"id": n, "correct": False, "pointable": True} for n in (1, 2)]}
    question = {"question": "verify", "assertions": said}
    spoilt = Noise(lenience=1.0).spoil(question, wrong)["verdicts"]
    assert [verdict["correct"] for verdict in spoilt] == [True, False]
    looked = {"assertions": [PLAIN, HEDGED], **wrong}
    spoilt = Noise(lenience=1.0).spoil({"question": "look", "text": "..."}, looked)["verdicts"]
    assert [verdict["correct"] for verdict in spoilt] == [False, True]


def test_a_judge_can_be_weaker_on_small_things():
    units = [
        {"id": 1, "text": "The top far left shows a tiny star."},
        {"id": 2, "text": "The top far left shows a huge star."},
    ]
    exact = {"verdicts": [{"id": 1, "covered": True}, {"id": 2, "covered": True}]}
    question = {"question": "cover", "assertions": [{"id": 1, "text": "A tiny dog."}]}
    spoilt = Noise(small_flip=1.0).spoil({**question, "units": units}, exact)["verdicts"]
    assert [verdict["covered"] for verdict in spoilt] == [False, True]


def test_failures_grow_with_the_length_of_what_is_asked():
    noise = Noise(failures=0.5)

    def share(words: int) -> float:
        question = {"question": "linguistic", "text": " ".join(["word"] * words)}
        return sum(noise.fails(question, call=call) for call in range(1000)) / 1000

    assert share(0) == 0.0
    assert share(20) == pytest.approx(0.1, abs=0.04)  # 4 standard errors
    assert share(100) == pytest.approx(0.5, abs=0.065)
    assert share(200) == 1.0


def test_a_failure_is_half_a_reply_and_no_score():
    question = {"question": "linguistic", "text": "word " * 100}
    reply = Oracle(Noise(failures=1.0))(chat(question))
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply)
    caption = "The top left shows a large red circle. " * 15  # 120 words in one assertion of 8
    scores = score(caption, "There are two things.", TWO, noise=Noise(failures=1.0))
    assert all(map(math.isnan, (scores.precision, scores.linguistic)))
    assert score(caption, "There are two things.", TWO, noise=Noise(lenience=1.0)).precision == 1.0


@pytest.mark.parametrize(
    "values",
    [{"long_bonus": -1.0}, {"failures": float("nan")}, {"lenience": 1.1}, {"small_flip": -0.1}],
)
def test_every_bias_says_what_is_wrong_with_its_number(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))} must be"):
        Noise(**values)


def test_errors_on_small_things_are_at_most_certain():
    with pytest.raises(ValueError, match=r"at most 1, got 0\.6 \+ 0\.6"):
        Noise(flip=0.6, small_flip=0.6)

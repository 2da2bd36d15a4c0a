"""Recall without references, by hand: what more than half of an image's rollouts say."""

import asyncio
import json
import pickle
from typing import Any

import pytest

from trl_balcap import Judge
from trl_balcap.data import load_captions
from trl_balcap.rewards import AgreedRecallReward
from trl_balcap.scenes.oracle import Oracle
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.world import Scene, Thing, draw

CIRCLE = "At the top left there is a large red circle."
STAR = "In the middle right sits a small blue star."
TWO = "There are two things."
IMAGE = draw(
    Scene(
        (
            Thing("red", "circle", "large", "top", "left"),
            Thing("blue", "star", "small", "middle", "right"),
        )
    )
)
OTHER = draw(Scene((Thing("green", "square", "large", "top", "left"),)))
GROUP = [
    f"{TWO} {CIRCLE}",
    f"{TWO} The top left shows a large red circle. {STAR}",
    f"{TWO} {STAR}",
    f"There are three things. {CIRCLE} This adds depth to the picture.",
]
# Two things: 3 of 4. The circle: 3 of 4, in two wordings. The star: 2 of 4, no majority. Three
# things are wrong, and depth points at nothing.


def score(captions, judge: Judge | str = "scenes/oracle", **columns: Any):
    reward = AgreedRecallReward(judge)
    columns = {"image": [IMAGE] * len(captions)} | columns
    scores = asyncio.run(reward([""] * len(captions), captions, **columns))
    return scores, reward


def test_units_that_most_rollouts_cover_are_what_is_to_be_covered():
    scores, reward = score(GROUP)
    assert scores == [1.0, 1.0, 0.5, 0.5]
    assert reward.observations()[2]["units"] == [
        {"text": TWO, "covered": True},
        {"text": CIRCLE, "covered": False},
    ]


def test_with_the_bases_caption_only_its_units_are_agreed_on():
    base = f"{STAR} {TWO} The bottom left shows a small green square."  # the last is wrong
    assert score(GROUP, reference=[base] * 4)[0] == [1.0, 1.0, 1.0, 0.0]


def test_each_image_has_its_own_group():
    captions = [*GROUP, "The top left shows a large green square.", "There is one thing."]
    scores, _ = score(captions, image=[IMAGE] * 4 + [OTHER.copy(), OTHER.copy()])
    assert scores[:4] == [1.0, 1.0, 0.5, 0.5]
    assert scores[4:] == [None, None]  # one of two is no majority


def test_an_empty_caption_counts_as_a_rollout_and_scores_nothing():
    assert score([TWO, TWO, "", " "])[0] == [None, None, 0.0, 0.0]
    assert score([TWO, TWO, TWO, ""])[0] == [1.0, 1.0, 1.0, 0.0]


def test_a_group_that_collapsed_has_full_marks():
    """The risk that the docstring names: the reward itself does not mind."""
    scores, reward = score([TWO] * 4)
    assert scores == [1.0] * 4
    assert len(reward.observations()[0]["units"]) == 1


@pytest.mark.parametrize("reference", [None, f"{TWO} {CIRCLE}"])
def test_who_stands_alone_agrees_with_nobody(reference):
    """As where each rank has one rollout of a group: it would have full marks for every caption."""
    scores, reward = score([TWO], reference=[reference])
    assert scores == [None]
    report = reward.take_report()
    assert report is not None
    assert (report.asked, report.unscored) == (0, {"no_group": 1})


def test_what_the_base_captioned_is_loaded_as_its_references(tmp_path):
    IMAGE.save(tmp_path / "a.png")
    row = {"id": "a.png", "image": "a.png", "caption": f"{STAR} {TWO}", "model": "m", "prompt": "?"}
    (tmp_path / "base.jsonl").write_text(json.dumps(row) + "\n")
    loaded: Any = load_captions(tmp_path / "base.jsonl")[0]
    assert (loaded["reference"], loaded["prompt"][0]["content"]) == (row["caption"], "?")
    columns: Any = {"image": [loaded["image"]] * 4, "reference": [loaded["reference"]] * 4}
    assert score(GROUP, **columns)[0] == [1.0, 1.0, 1.0, 0.0]


def test_nothing_agreed_is_no_score_and_no_outage():
    scores, reward = score([TWO, CIRCLE, STAR, "The mood is cosy."])
    assert scores == [None] * 4
    report = reward.take_report()
    assert report is not None
    assert (report.asked, report.unscored) == (0, {"no_agreement": 4})


@pytest.mark.parametrize("profile", ["questions", "fused", "united"])
def test_a_failure_takes_its_own_row_and_no_more(profile):
    exact = Oracle()

    def fails_on_three(messages):
        content = messages[-1]["content"]
        text = content if isinstance(content, str) else content[-1]["text"]
        asked = json.loads(text)
        if asked["question"] in ("decompose", "look", "parse") and "three" in asked["text"]:
            return "I would rather not."
        return exact(messages)

    with serve(answer=fails_on_three) as server:
        judge = Judge("openai/judge", api_base=server.url, api_key="k", profile=profile)
        scores, reward = score(GROUP, judge)
    # Of the three that are left all say two things, two the circle and two the star: the second
    # rollout has all three units.
    assert scores == [pytest.approx(2 / 3), 1.0, pytest.approx(2 / 3), None]
    report = reward.take_report()
    assert report is not None
    assert report.unscored == {"unreadable": 1}


def test_the_rollouts_of_an_image_are_verified_together_where_the_profile_unites():
    judge = Judge("scenes/oracle", profile="united")
    scores, _ = score(GROUP, judge)
    calls = {k: n for k, n in judge.stats.calls_of.items() if k != "preflight"}
    assert calls == {"parse": 4, "verify": 1, "cover": 4}
    assert scores == score(GROUP)[0]


def test_one_question_of_coverage_a_rollout_and_survives_pickling():
    judge = Judge("scenes/oracle")
    _, reward = score(GROUP, judge)
    calls = {k: n for k, n in judge.stats.calls_of.items() if k != "preflight"}
    assert calls == {"decompose": 4, "verify": 4, "cover": 4}
    copy = pickle.loads(pickle.dumps(reward))
    assert asyncio.run(copy([""] * 4, GROUP, image=[IMAGE] * 4)) == [1.0, 1.0, 0.5, 0.5]

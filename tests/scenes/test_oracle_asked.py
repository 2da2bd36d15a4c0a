"""The exact judge asked in messages: one by one, and wrongly."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.scenes.questions import chat, data_url, numbered, scenes
from tests.scenes.things import TWO, seeds
from trl_balcap.scenes.grammar import Faults, describe, faulty_caption
from trl_balcap.scenes.noise import Noise
from trl_balcap.scenes.oracle import Oracle, QuestionError, Scores, answer, question_name, score
from trl_balcap.scenes.world import draw


@given(scene=scenes, seed=seeds, junk=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("noise", [None, Noise(linguistic=1.0, flip=0.2, seed=3)])
def test_score_agrees_with_the_questions_asked_one_by_one(noise, scene, seed, junk):
    rng = random.Random(seed)
    faults = Faults(0.3, 0.3, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3, 0.1, 0.1)
    caption = f"{faulty_caption(scene, rng, faults)} {junk}"
    reference = describe(scene, rng)
    image = draw(scene)
    oracle = Oracle(noise)

    def ask(question: dict, shown: Image.Image | None = None) -> dict:
        return json.loads(oracle(chat(question, shown)))

    assertions = numbered(ask({"question": "decompose", "text": caption})["assertions"])
    units = numbered(ask({"question": "decompose", "text": reference})["assertions"])
    verified = ask({"question": "verify", "assertions": assertions}, image)["verdicts"]
    covered = ask({"question": "cover", "assertions": assertions, "units": units})["verdicts"]
    read = ask({"question": "linguistic", "text": caption})
    scores = score(caption, reference, scene, noise=noise)
    true_positives = [v for v in verified if v["correct"] and v["pointable"]]
    if caption.strip():
        assert scores.precision == len(true_positives) / len(assertions)
        assert scores.recall == sum(v["covered"] for v in covered) / len(units)
        grades = read["clarity"] + read["fluency"] + read["coherency"]
        assert scores.linguistic == grades / 30.0
    else:
        assert scores == Scores(0.0, 0.0, 0.0)
    if noise is None:  # the fused questions say the same
        looked = ask({"question": "look", "text": caption}, image)
        assert looked == {"assertions": [a["text"] for a in assertions], "verdicts": verified}
        fused = ask({"question": "read", "text": caption, "units": units})
        assert fused == {"verdicts": covered, **read}


@pytest.mark.parametrize(
    ("question", "image", "message"),
    [
        ({"question": "paint"}, None, "unknown question 'paint'"),
        ({"question": "decompose"}, None, "asks about 'text'"),
        ({"question": "linguistic", "text": 3}, None, "got 3"),
        ({"question": "verify", "assertions": []}, None, "needs an image"),
        ({"question": "verify"}, draw(TWO), "'assertions'"),
        ({"question": "verify", "assertions": ["A."]}, draw(TWO), "id and text"),
        ({"question": "cover", "assertions": [], "units": [{"id": 1, "text": 2}]}, None, "string"),
        ({"question": "look", "text": "A."}, Image.new("RGB", (9, 9)), "not a scene"),
    ],
)
def test_a_bad_question_is_told_what_is_wrong(question, image, message):
    with pytest.raises(QuestionError, match=message):
        answer(question, image)


def test_bad_messages_are_told_what_is_wrong():
    with pytest.raises(QuestionError, match="one JSON object with a 'question'"):
        Oracle()([{"role": "user", "content": "Is it good?"}])
    look = {"type": "text", "text": '{"question": "look", "text": "A."}'}
    for url, message in [
        ("https://example.org/a.png", "base64 data URL"),
        ("data:image/png;base64,AAAA", "cannot be decoded"),
        ("data:image/png;base64,%", "cannot be decoded"),
    ]:
        content = [look, {"type": "image_url", "image_url": {"url": url}}]
        with pytest.raises(QuestionError, match=message):
            Oracle()([{"role": "user", "content": content}])
    content = [look, *[{"type": "image_url", "image_url": {"url": data_url(draw(TWO))}}] * 2]
    with pytest.raises(QuestionError, match="one image can be looked at, got 2"):
        Oracle()([{"role": "user", "content": content}])
    assert question_name([{"role": "user", "content": "Is it good?"}]) == "other"
    assert question_name(chat({"question": "read"})) == "read"


def test_a_question_asked_again_after_a_bad_reply_is_found():
    messages = [
        *chat({"question": "preflight"}),
        {"role": "assistant", "content": "Ready!"},
        {"role": "user", "content": "Answer with the JSON object alone."},
    ]
    assert json.loads(Oracle()(messages)) == {"ready": True}


def test_a_question_that_is_not_about_the_image_takes_any():
    messages = chat({"question": "preflight"}, Image.new("RGB", (1, 1)))
    assert json.loads(Oracle()(messages)) == {"ready": True}

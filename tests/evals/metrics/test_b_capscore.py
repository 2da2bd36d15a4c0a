"""b-CapScore with the exact judge: 1.0 for perfect captions, the exact fraction for each planted
fault."""

import asyncio
import io
import json
import random

import pytest
from PIL import Image

from trl_balcap.cli import main
from trl_balcap.data.scored import Caption
from trl_balcap.evals.asking import ask_judge
from trl_balcap.evals.metrics.b_capscore import BCapScore
from trl_balcap.evals.run import evaluate_captions
from trl_balcap.judge import Judge
from trl_balcap.metrics import b_capscore
from trl_balcap.rewards import LinguisticReward, PrecisionReward, RecallReward
from trl_balcap.scenes.grammar import Faults, describe, faulty_caption
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.world import Scene, Thing, draw, random_scene

SCENE = Scene(
    (
        Thing("red", "circle", "large", "top", "left"),
        Thing("blue", "square", "small", "middle", "centre"),
        Thing("green", "star", "large", "bottom", "right"),
    )
)
COUNT = "There are three things."
RED = "At the top left there is a large red circle."
BLUE = "At the middle centre there is a small blue square."
GREEN = "At the bottom right there is a large green star."
REFERENCE = " ".join((COUNT, RED, BLUE, GREEN))  # four units


@pytest.fixture(scope="module")
def judge():
    return Judge("scenes/oracle")


def evaluate(captions, judge, scene=SCENE, reference=REFERENCE):
    rows = [
        Caption(str(place), text, draw(scene), reference) for place, text in enumerate(captions)
    ]
    return asyncio.run(evaluate_captions(rows, judge))


@pytest.mark.parametrize("profile", ["questions", "fused", "united"])
def test_perfect_captions_score_one(profile):
    rng = random.Random(0)
    scenes = [random_scene(rng) for _ in range(5)]
    rows = [
        Caption(str(place), describe(scene, rng), draw(scene), describe(scene, rng))
        for place, scene in enumerate(scenes)
    ]
    result, verdicts = asyncio.run(evaluate_captions(rows, Judge("scenes/oracle", profile=profile)))
    assert [row["score"] for row in verdicts] == [1.0] * 5
    assert result["b-CapScore"].value == 100.0
    assert result["b-CapScore of means"].value == 100.0
    assert (result["b-CapScore"].low, result["b-CapScore"].high) == (100.0, 100.0)


@pytest.mark.parametrize(
    ("caption", "precision", "recall"),
    [
        pytest.param(REFERENCE, 1.0, 1.0, id="perfect"),
        pytest.param(REFERENCE.replace("red", "blue"), 3 / 4, 3 / 4, id="one_wrong_attribute"),
        pytest.param(
            REFERENCE.replace("red", "blue").replace("star", "circle"), 2 / 4, 2 / 4, id="two_wrong"
        ),
        pytest.param(f"{COUNT} {RED} {BLUE}", 1.0, 3 / 4, id="one_omission"),
        pytest.param(
            f"{REFERENCE} At the top right there is a small red star.", 4 / 5, 1.0, id="invention"
        ),
        pytest.param(
            f"{REFERENCE} The colours create a sense of harmony.", 4 / 5, 1.0, id="meta_commentary"
        ),
        pytest.param(REFERENCE.replace("three", "four"), 3 / 4, 3 / 4, id="wrong_count"),
        pytest.param(RED, 1.0, 1 / 4, id="too_short"),
        pytest.param(f"{COUNT} {RED} {RED} {BLUE} {GREEN}", 1.0, 1.0, id="repetition"),
    ],
)
def test_each_planted_fault_costs_its_exact_fraction(judge, caption, precision, recall):
    result, (row,) = evaluate([caption], judge)
    assert (row["precision"], row["recall"]) == (precision, recall)
    grades = (row["clarity"] + row["fluency"] + row["coherency"]) / 30
    assert row["linguistic"] == pytest.approx(grades, rel=1e-12)
    expected = 3 / (1 / precision + 1 / recall + 1 / grades)
    assert row["score"] == pytest.approx(expected, rel=1e-12)
    assert result.score == pytest.approx(100 * expected, rel=1e-12)


def test_faults_of_language_cost_linguistic_alone(judge):
    broken = "Three thing are there. " + " ".join((RED, RED, BLUE, GREEN))
    _, (perfect, repeated) = evaluate([REFERENCE, broken], judge)
    assert perfect["linguistic"] == 1.0
    assert repeated["linguistic"] < 1.0
    assert repeated["score"] < perfect["score"]


def test_the_rewards_of_training_are_the_scores_of_evaluation(judge):
    rng = random.Random(1)
    faults = Faults(wrong=0.4, omit=0.3, meta=0.3, repeat=0.2, broken=0.2)
    scenes = [random_scene(rng) for _ in range(6)]
    captions = [faulty_caption(scene, rng, faults) for scene in scenes]
    images, references = [draw(s) for s in scenes], [describe(s, rng) for s in scenes]
    rows = [
        Caption(str(i), *row)
        for i, row in enumerate(zip(captions, images, references, strict=True))
    ]
    result, verdicts = asyncio.run(evaluate_captions(rows, judge))

    async def rewards():
        prompts = [""] * 6
        return [
            await PrecisionReward(judge)(prompts, captions, image=images),
            await RecallReward(judge)(prompts, captions, reference=references),
            await LinguisticReward(judge)(prompts, captions),
        ]

    of_training = list(zip(*asyncio.run(rewards()), strict=True))
    of_evaluation = [(row["precision"], row["recall"], row["linguistic"]) for row in verdicts]
    assert of_evaluation == of_training
    assert [row["score"] for row in verdicts] == [b_capscore(*reward) for reward in of_training]
    means = [sum(column) / 6 for column in zip(*of_training, strict=True)]
    of_means = b_capscore(*means)
    assert of_means is not None
    assert result["precision"].value == pytest.approx(100 * means[0])
    assert result["b-CapScore of means"].value == pytest.approx(100 * of_means)


def test_an_empty_caption_scores_zero_and_asks_nothing():
    judge = Judge("scenes/oracle")
    result, (row,) = evaluate([" \u200b"], judge)
    assert (row["score"], row["precision"], result.score) == (0.0, 0.0, 0.0)
    assert set(judge.engine().stats.calls_of) <= {"preflight"}


def test_a_judge_that_is_down_for_one_view_leaves_the_others():
    def answer(messages):
        text = messages[-1]["content"]
        if isinstance(text, list):
            return "no verdict"
        question = json.loads(text)
        return json.dumps(
            {
                "preflight": {"ready": True},
                "decompose": {"assertions": ["A cup."]},
                "cover": {"verdicts": [{"id": 1, "covered": True}]},
                "linguistic": {"clarity": 9, "fluency": 6, "coherency": 3},
            }[question["question"]]
        )

    with serve(answer=answer) as server:
        judge = Judge("openai/scripted", vision_model="openai/seer", api_base=server.url)
        metric = BCapScore(judge)
        caption = Caption("1", "A cup.", draw(SCENE), "A cup.")
        row = asyncio.run(metric.score(caption, ask_judge(judge)))
    assert (row["score"], row["reason"]) == (None, "unreadable")
    assert (row["precision"], row["recall"]) == (None, 1.0)
    assert row["linguistic"] == pytest.approx(0.6)
    statistics = {s.name: s for s in BCapScore.statistics([row])}
    assert statistics["recall"].scored.tolist() == [True]
    assert statistics["b-CapScore"].scored.tolist() == [False]


def test_an_image_that_breaks_when_it_is_decoded_leaves_the_other_captions(judge):
    buffer = io.BytesIO()
    draw(SCENE).save(buffer, "PNG")
    broken = Image.open(io.BytesIO(buffer.getvalue()[:-30]))  # its header is whole
    rows = [Caption("broken", RED, broken, REFERENCE), Caption("whole", RED, draw(SCENE), RED)]
    result, verdicts = asyncio.run(evaluate_captions(rows, judge))
    assert [row["score"] for row in verdicts] == [None, 1.0]
    assert result.missing == {"bad_image": 1}
    assert verdicts[0]["errors"] == ["image file is truncated"]


def test_captions_that_are_not_judged_in_time_are_unscored():
    rows = [Caption("1", REFERENCE, draw(SCENE), REFERENCE), Caption("2", "", None, REFERENCE)]
    with serve(latency=5.0) as server:
        judge = Judge("openai/oracle", api_base=server.url)
        judge.preflight = _ready  # type: ignore[method-assign]
        result, verdicts = asyncio.run(evaluate_captions(rows, judge, deadline=0.3))
    assert [row["reason"] for row in verdicts] == ["timeout", None]
    assert (result.n_scored, result.missing, result.score) == (1, {"timeout": 1}, 0.0)


async def _ready(*, vision=True):
    return None


def test_the_command_over_http_gives_the_same(tmp_path, capsys):
    draw(SCENE).save(tmp_path / "a.png")
    draw(SCENE).save(tmp_path / "b.png")
    captions = tmp_path / "captions.jsonl"
    rows = [
        {"image": "a.png", "caption": REFERENCE, "reference": REFERENCE},
        {"image": "b.png", "caption": f"{COUNT} {RED} {BLUE}", "reference": REFERENCE},
    ]
    captions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serve() as server:
        command = ["score", str(captions), "--judge", "openai/oracle", "--api-base", server.url]
        assert main([*command, "--out", str(tmp_path / "out"), "--yes"]) == 0
    shown = capsys.readouterr().out
    # One caption at 1, one at 3 / (1 + 4/3 + 1) = 0.9.
    assert "95.00" in shown
    assert "Scored 2 of 2 captions." in shown
    assert "b-CapScore of" in shown
    report = (tmp_path / "out" / "summary.md").read_text()
    assert "| b-capscore, questions | b-CapScore | 95.00 | 90.00 to 100.00 | 2/2 |" in report

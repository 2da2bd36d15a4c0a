"""Questions about images: written, filtered, resumed, trained by."""

import asyncio
import json

import pytest

from trl_balcap import Judge, UtilityReward, load_captions
from trl_balcap.captioning.questions import QuestionsRecipe, questions_cost
from trl_balcap.cli import main
from trl_balcap.judge.choices import Choice, read_choice
from trl_balcap.scenes.make import scene_rows, write_scenes
from trl_balcap.scenes.oracle import Oracle
from trl_balcap.scenes.server import serve

EXACT = Oracle()


@pytest.fixture
def photos(tmp_path):
    """Three drawn scenes, without their captions."""
    write_scenes(tmp_path / "scenes", 3)
    return tmp_path / "scenes" / "images"


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def command(photos, out, *more) -> list[str]:
    return ["make-questions", str(photos), "--judge", "scenes/oracle", "--out", str(out), *more]


def test_a_folder_of_photos_becomes_questions_to_train_by(photos, tmp_path, capsys):
    out = tmp_path / "questions.jsonl"
    (photos / "broken.png").write_bytes(b"")
    assert main(command(photos, out, "--count", "3")) == 0
    shown = capsys.readouterr().out
    # 4 images: 1 to write, and 3 questions x 4 orders, with the image and without.
    assert "4 images, 0 already done: at most 100 calls, 52 of them with an image" in shown
    assert "broken.png: the file is empty" in shown
    assert "questions about 3 images written, 0 already there, 1 images without any" in shown

    whole = out.read_text()
    lines = whole.splitlines(keepends=True)
    out.write_text("".join(lines[:2]) + lines[2][:30])  # as a killed run leaves it
    assert main(command(photos, out, "--count", "3")) == 0
    assert "questions about 1 images written, 2 already there" in capsys.readouterr().out
    assert out.read_text() == whole

    loaded = load_captions(out, references=False).sort("id")  # lines stand as they were ready
    captions = [row["reference"] for row in scene_rows(3)]
    scores = asyncio.run(
        UtilityReward(Judge("scenes/oracle"))(
            prompts=[""] * 3, completions=captions, questions=loaded["questions"]
        )
    )
    assert scores == [1.0] * 3


def test_only_questions_that_need_the_image_are_kept(photos, tmp_path, capsys):
    """Each image gets one good question, one that gives itself away, one without right answer."""
    good: list[str] = []

    def judge(messages):
        reply = json.loads(EXACT(messages))
        if "questions" in reply:
            [first, second, *_] = reply["questions"]
            good.append(first["question"])
            given_away = {
                "question": "What colour is the red thing?",
                "choices": ["blue", "red", "green", "black"],
                "answer": 2,
            }
            wrong = {**second, "answer": second["answer"] % 4 + 1}
            reply["questions"] = [given_away, first, wrong]
        return json.dumps(reply)

    out = tmp_path / "questions.jsonl"
    with serve(answer=judge) as server:
        words = ["make-questions", str(photos), "--judge", "openai/any", "--out", str(out)]
        assert main([*words, "--api-base", server.url, "--yes"]) == 0
    assert "price unknown" in capsys.readouterr().out
    found = rows(out)
    assert len(found) == 3
    assert sorted(row["questions"][0]["question"] for row in found) == sorted(good)
    for row in found:
        assert [read_choice(one) for one in row["questions"]]
        assert len(row["questions"]) == 1
        assert row["left_out"] == {"guessed": 1, "not answered": 1}


def test_questions_are_not_added_to_a_file_made_in_another_way(photos, tmp_path, capsys):
    out = tmp_path / "questions.jsonl"
    assert main(command(photos, out, "--count", "1")) == 0
    with pytest.raises(SystemExit):
        main(command(photos, out, "--count", "2"))
    assert "was made with count 1, but this run has 2" in capsys.readouterr().err


def test_a_cost_is_asked_about_before_anything_is_spent(photos, tmp_path, capsys):
    out = tmp_path / "questions.jsonl"
    with pytest.raises(SystemExit):
        main(command(photos, out, "--price", "1", "1"))
    assert "Pass --yes to accept it" in capsys.readouterr().err
    assert not out.exists()


def test_the_cost_is_that_of_writing_and_of_answering():
    judge = Judge("scenes/oracle", price=(1_000_000.0, 0.0))  # a dollar a token of a prompt
    cost = questions_cost(10, QuestionsRecipe("any", count=2, shuffles=3), judge)

    assert (cost.calls, cost.calls_with_image) == (10 + 60 + 60, 10 + 60)
    assert cost.usd is not None
    assert cost.usd > 70 * 1000  # the images alone, at a thousand tokens


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--count", "0"], "count must be 1 or more, got 0"),
        (["--shuffles", "0"], "shuffles must be 1 or more, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(photos, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit):
        main(command(photos, tmp_path / "questions.jsonl", *more))
    assert message in capsys.readouterr().err


def test_shuffled_options_keep_the_answer():
    choice = Choice("Which?", ("a", "b", "c", "d"), 2)
    orders = [choice.shuffled(sample) for sample in range(8)]

    assert all(order.choices[order.answer] == "c" for order in orders)
    assert len({order.choices for order in orders}) > 4
    assert orders[3] == choice.shuffled(3)

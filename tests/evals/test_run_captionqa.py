"""CaptionQA, from files of captions and questions to the table."""

import json

import pytest
from datasets import Dataset

from tests.evals.scripted import QUESTIONS, Scripted, captionqa_rule, rows, score, scores, summary
from trl_balcap.cli import main
from trl_balcap.evals.questions import load_questions
from trl_balcap.scenes.server import serve


def test_captionqa_end_to_end(folder, questions, capsys):
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"nat_1": "A red cup.", "doc_1": "A blue cup."}))
    judge = Scripted(captionqa_rule)
    out = folder / "out"
    with serve(answer=judge) as server:
        more = ("--metrics", "captionqa", "--data", f"captionqa={questions}")
        assert score(captions, server, out, *more) == 0
    # nat_1: red is right, the side is not told (1/3 + 0.05 = 0.3833), "?" for yes or no is wrong;
    # doc_1: blue is wrong.
    found = scores(out, "captionqa")
    assert found["mean of questions"] == pytest.approx(100 * 1.3833 / 4)
    assert found["mean of domains"] == pytest.approx(100 * (1.3833 / 3 + 0) / 2)
    assert found["accuracy"] == 25.0
    assert found["cannot answer"] == 25.0
    assert len(judge.asked) == 4
    assert "34.58" in capsys.readouterr().out
    part = summary(out, "captionqa")["breakdown"]["Kind - One"]
    assert (part["n"], part["score"]) == (3, pytest.approx(100 * 1.3833 / 3))
    assert (part["accuracy"], part["cannot answer"]) == (pytest.approx(100 / 3),) * 2
    first = rows(out, "captionqa")[0]["questions"][1]
    assert first["answer"] == "Cannot answer from the caption"
    assert first["score"] == 0.3833


def test_captionqa_strict_leaves_an_unreadable_reply_unscored(folder, questions):
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"nat_1": "A red cup.", "doc_1": "A blue cup."}))
    judge = Scripted(captionqa_rule)
    out = folder / "out"
    with serve(answer=judge) as server:
        more = ("--metrics", "captionqa", "--data", f"captionqa={questions}", "--mode", "strict")
        assert score(captions, server, out, *more) == 0
    # "?" is asked once more and then left out of the three others.
    assert len(judge.asked) == 5
    assert scores(out, "captionqa")["mean of questions"] == pytest.approx(
        100 * (1 + 1 / 3 + 0.05) / 3
    )
    assert any(
        "1 of 4 questions have no score: 1 unreadable" in n
        for n in summary(out, "captionqa")["notes"]
    )


def test_official_prompts_official_judge_official_rules_compare(folder, questions):
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"nat_1": "A red cup.", "doc_1": "A blue cup."}))
    checkout = folder / "CaptionQA"
    checkout.mkdir()
    (checkout / "qa.py").write_text(
        'def evaluate_qa_with_captions(args):\n    system_prompt = "One letter."\n'
    )
    judge = Scripted(captionqa_rule)
    out = folder / "out"
    with serve(answer=judge) as server:
        code = main(
            [
                "score",
                str(captions),
                "--metrics",
                "captionqa",
                "--out",
                str(out),
                "--yes",
                "--data",
                f"captionqa={questions}",
                "--official-prompts",
                str(checkout),
                "--judge",
                "hosted_vllm/Qwen/Qwen2.5-72B-Instruct",
                "--api-base",
                server.url,
            ]
        )
    assert code == 0
    assert {messages[0]["content"] for messages in judge.asked} == {"One letter."}
    result = summary(out, "captionqa")
    assert result["comparable"]
    assert result["prompts"] == f"official, from {checkout / 'qa.py'}"


def test_published_numbers_need_scores_and_not_captions(folder, questions):
    """With every question refused nothing compares, though every caption is there."""
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"nat_1": "A red cup.", "doc_1": "A blue cup."}))
    checkout = folder / "CaptionQA"
    checkout.mkdir()
    (checkout / "qa.py").write_text(
        'def evaluate_qa_with_captions(args):\n    system_prompt = "One letter."\n'
    )
    out = folder / "out"
    command = ["score", str(captions), "--metrics", "captionqa", "--out", str(out), "--yes"]
    command += ["--judge", "hosted_vllm/Qwen/Qwen2.5-72B-Instruct", "--budget-calls", "1"]
    command += ["--data", f"captionqa={questions}", "--official-prompts", str(checkout)]
    with serve(answer=Scripted(captionqa_rule)) as server:
        assert main([*command, "--api-base", server.url]) == 1
    result = summary(out, "captionqa")
    assert not result["comparable"]
    assert "scores for 2 more images" in result["comparison"]


def test_domains_come_from_the_dataset_and_an_id_is_no_domain(folder):
    """Ids "1", "2": without their domain each would be a stratum of its own, and no interval
    wide."""
    path = folder / "questions.json"
    ids = [str(number) for number in range(6)]
    path.write_text(
        json.dumps(
            [
                {
                    "id": i,
                    "questions": [QUESTIONS[0]],
                    "domain": "document" if i < "3" else "natural",
                }
                for i in ids
            ]
        )
    )
    captions = folder / "captions.json"
    captions.write_text(json.dumps({i: "red" if i in "024" else "blue" for i in ids}))
    out = folder / "out"
    with serve(answer=Scripted(captionqa_rule)) as server:
        more = ("--metrics", "captionqa", "--data", f"captionqa={path}")
        assert score(captions, server, out, *more) == 0
    found = summary(out, "captionqa")
    # document: red, blue, red (2 of 3); natural: blue, red, blue (1 of 3).
    assert found["breakdown"]["domain document"]["score"] == pytest.approx(200 / 3)
    assert found["scores"][1]["value"] == pytest.approx(50)
    assert found["scores"][0]["low"] < 50 < found["scores"][0]["high"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "row 0 must be an object, not int"),
        ('[{"id": "a", "questions": "none"}]', '"questions" must be a list of objects'),
        (
            '[{"id": "a", "questions": [{"question": 1, "choices": ["x", "y"], "answer": "x"}]}]',
            'question 0: "question" must be text',
        ),
        ('"text"', "must be a list of rows, or one object"),
        ("{", "questions.json:1: not JSON"),
    ],
)
def test_question_files_of_another_form(folder, capsys, content, message):
    path = folder / "questions.json"
    path.write_text(content)
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"a": "A red cup."}))
    command = ["score", str(captions), "--metrics", "captionqa", "--judge", "scenes/oracle"]
    with pytest.raises(SystemExit):
        main([*command, "--out", str(folder / "out"), "--data", f"captionqa={path}"])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("form", ["jsonl", "saved", "dict"])
def test_captionqa_questions_come_in_several_forms(folder, form):
    data = [{"id": "nat_1", "questions": QUESTIONS, "domain": "natural"}]
    if form == "saved":
        path = folder / "dataset"
        Dataset.from_list([data[0] | {"image": "not needed"}]).save_to_disk(str(path))
    elif form == "jsonl":
        path = folder / "questions.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in data))
    else:
        path = folder / "questions.json"
        path.write_text(json.dumps({"nat_1": QUESTIONS}))
    (row,) = load_questions(path)
    assert row["id"] == "nat_1"
    assert [q["answer"] for q in row["questions"]] == ["red", "top", "yes"]
    if form == "jsonl":
        assert load_questions(path, split="natural") == [row]
        with pytest.raises(ValueError, match="split 'document'\\) has no question"):
            load_questions(path, split="document")

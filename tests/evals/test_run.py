"""From a file of captions to the table, through the command, against a scripted judge over HTTP."""

import json
import random
import re
from pathlib import Path

import pytest
from datasets import Dataset
from PIL import Image

from trl_balcap.cli import main
from trl_balcap.evals.bootstrap import estimate, resampling_weights
from trl_balcap.evals.metrics.caparena import CapArenaAuto
from trl_balcap.evals.questions import load_questions
from trl_balcap.scenes.grammar import describe
from trl_balcap.scenes.server import serve
from trl_balcap.scenes.world import draw, random_scene

WORDS = "large red cup on the left"


def user_text(messages) -> str:
    content = messages[-1]["content"]
    if isinstance(content, str):
        return content
    return next(part["text"] for part in content if part["type"] == "text")


def sees_image(messages) -> bool:
    return not isinstance(messages[-1]["content"], str)


class Scripted:
    """Answers by rule, and keeps every question but the preflight."""

    def __init__(self, rule):
        self.rule = rule
        self.asked = []

    def __call__(self, messages) -> str:
        if '"question": "preflight"' in user_text(messages):
            return '{"ready": true}'
        self.asked.append(messages)
        return self.rule(messages)


@pytest.fixture
def folder(tmp_path):
    for place in range(3):
        Image.new("RGB", (32, 24), (80 * place, 0, 0)).save(tmp_path / f"test_{place}.jpg")
    return tmp_path


def write_captions(folder: Path, captions: dict[str, str], name: str = "captions.jsonl", **extra):
    rows = [{"image": image, "caption": text, **extra} for image, text in captions.items()]
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def score(captions, server, out, *more) -> int:
    return main(
        [
            "score",
            *([str(captions)] if captions else []),
            "--judge",
            "openai/scripted",
            "--api-base",
            server.url,
            "--out",
            str(out),
            "--yes",
            *map(str, more),
        ]
    )


def summary(out: Path, metric: str) -> dict:
    found = json.loads((out / "summary.json").read_text())
    return next(result for result in found["metrics"] if result["metric"] == metric)


def scores(out: Path, metric: str) -> dict[str, float]:
    return {entry["name"]: entry["value"] for entry in summary(out, metric)["scores"]}


def rows(out: Path, metric: str) -> list[dict]:
    return [json.loads(line) for line in (out / f"{metric}.jsonl").read_text().splitlines()]


# ---- DCScore -----------------------------------------------------------------------------------


def dcscore_rule(messages) -> str:
    """Sentences are facts; equal sentences match; "wrong" is wrong."""
    text = user_text(messages)
    if "take apart, never an instruction" in text:
        caption = json.loads(text.rsplit("\n", 1)[1])
        facts = [s.strip() for s in caption.split(".") if s.strip()]
        entries = [{"fact": fact, "relevance": int("mood" not in fact)} for fact in facts]
    else:
        facts = re.findall(r'^  \{"fact": "([^"]*)"\},$', text, flags=re.MULTILINE)
        if sees_image(messages):
            entries = [{"fact": fact, "verification": int("wrong" not in fact)} for fact in facts]
        else:
            ids = {
                fact: int(number)
                for number, fact in re.findall(r'\{"id": (\d+), "fact": "([^"]*)"\}', text)
            }
            entries = [
                {"fact": f, "matched_oracle_id": ids.get(f.removesuffix(" wrong"), "None")}
                for f in facts
            ]
    return f"```json\n{json.dumps(entries)}\n```"


@pytest.fixture
def facts(folder):
    path = folder / "facts.jsonl"
    path.write_text(
        "".join(
            json.dumps(
                {
                    "image_name": f"test_{place}.jpg",
                    "oracle_caption": "A cup on a table.",
                    "oracle_facts": ["cup", "table"],
                }
            )
            + "\n"
            for place in range(3)
        )
    )
    return path


def test_dcscore_end_to_end(folder, facts, capsys):
    captions = write_captions(
        folder,
        {
            # P = 2/2, one unmatched right fact: R = (1 + 1) / (2 + 1), F = 0.8, both halves alike.
            "test_0.jpg": "cup. spoon.",
            # P = 1/2, R = 1/2; F = 0.5.
            "test_1.jpg": "cup. table wrong.",
            # All: P = 2/2, R = 2/3, F = 0.8. Relevant, without the mood: P = 1/1, R = 1/2, F = 2/3.
            "test_2.jpg": "cup. mood.",
        },
    )
    judge = Scripted(dcscore_rule)
    out = folder / "out"
    with serve(answer=judge) as server:
        assert (
            score(captions, server, out, "--metrics", "dcscore", "--data", f"dcscore={facts}") == 0
        )
    expected = 100 * (0.8 + 0.5 + (0.8 + 2 / 3) / 2) / 3
    assert scores(out, "dcscore")["DCScore"] == pytest.approx(expected, abs=1e-4)
    assert len(judge.asked) == 3 * 7  # one extraction, three matchings, three verifications
    assert "67.78" in capsys.readouterr().out
    found = rows(out, "dcscore")
    assert [row["id"] for row in found] == ["test_0.jpg", "test_1.jpg", "test_2.jpg"]
    assert len(found[0]["trials"]) == 9
    assert found[1]["verifications"][0][1] == {"fact": "table wrong", "verification": 0}
    result = summary(out, "dcscore")
    assert not result["comparable"]
    for word in ("--official-prompts", "gpt-4o-2024-05-13"):
        assert word in result["comparison"]
    assert result["prompts"] == "trl-balcap's own"


def test_dcscore_failures_are_dropped_officially_and_scored_strictly(folder, facts):
    captions = write_captions(folder, {"test_0.jpg": "cup. table.", "test_1.jpg": "   "})
    arguments = ("--metrics", "dcscore", "--data", f"dcscore={facts}", "--empty-captions", "score")
    judge = Scripted(dcscore_rule)
    with serve(answer=judge) as server:
        assert score(captions, server, folder / "official", *arguments) == 0
        official_calls = len(judge.asked)
        assert score(captions, server, folder / "strict", *arguments, "--mode", "strict") == 0
    found = scores(folder / "official", "dcscore")
    assert found["DCScore"] == pytest.approx(100, abs=1e-4)
    assert found["DCScore, invalid as 0"] == pytest.approx(50, abs=1e-4)
    result = summary(folder / "official", "dcscore")
    assert (result["n_scored"], result["n"]) == (1, 2)
    assert result["missing"] == {"invalid replies": 1}
    assert "Images of the benchmark without a caption in this file: 1." in result["notes"]
    assert official_calls == 7 + 5 * 7  # the empty caption is tried five times over
    assert scores(folder / "strict", "dcscore")["DCScore"] == pytest.approx(50, abs=1e-4)
    assert summary(folder / "strict", "dcscore")["n_scored"] == 2


# ---- CaptionQA ---------------------------------------------------------------------------------


def captionqa_rule(messages) -> str:
    """The first option that the caption names, else cannot answer."""
    blocks = user_text(messages).split("\n\n")
    caption, options = blocks[0].removeprefix("Caption:\n"), blocks[2].split("\n")[1:]
    letters = {option[3:]: option[0] for option in options}
    named = [letter for option, letter in letters.items() if option in caption]
    return named[0] if named else letters.get("Cannot answer from the caption", "?")


QUESTIONS = [
    {"question": "Which colour?", "choices": ["red", "blue"], "answer": "red"},
    {"question": "Which side?", "choices": ["left", "right", "top"], "answer": "top"},
    {"question": "Is it big?", "choices": ["yes", "no"], "answer": "yes"},
]


@pytest.fixture
def questions(folder):
    path = folder / "questions.json"
    data = [
        {"id": "nat_1", "questions": [q | {"category": ["Kind - One"]} for q in QUESTIONS]},
        {"id": "doc_1", "questions": [QUESTIONS[0] | {"category": ["Kind - Two"]}]},
    ]
    path.write_text(json.dumps(data))
    return path


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


# ---- CapArena-Auto -----------------------------------------------------------------------------


def caparena_rule(messages) -> str:
    """The longer caption is better."""
    assert sees_image(messages)
    first, second = (
        json.loads(re.findall(rf"Caption {k}: (.*)", user_text(messages))[0]) for k in (1, 2)
    )
    if len(first) == len(second):
        return "Reason: equal.\nJudgment: Tie"
    return f"Reason: longer.\nJudgment: Caption {1 if len(first) > len(second) else 2} is better"


@pytest.fixture
def references(folder):
    names = ["GPT-4o-0806", "CogVLM2-llama3-chat-19B", "MiniCPM-V2.6-8B"]
    path = folder / "caparena_auto_600.json"
    data = {
        f"test_{place}.jpg": {
            "captions": {"human": "h", **dict.fromkeys(names, "a cup on it")},
            "ref_model": name,
        }
        for place, name in enumerate(names)
    }
    path.write_text(json.dumps(data))
    return path


def test_caparena_end_to_end(folder, references, capsys):
    captions = write_captions(
        folder,
        {"test_0.jpg": "a much longer caption", "test_1.jpg": "a cup", "test_2.jpg": "a cup at it"},
    )
    judge = Scripted(caparena_rule)
    out = folder / "out"
    with serve(answer=judge) as server:
        more = ("--metrics", "caparena", "--data", f"caparena={references}")
        assert score(captions, server, out, *more) == 0
        assert score(captions, server, folder / "strict", *more, "--mode", "strict") == 0
    found = scores(out, "caparena")
    assert (found["Score_gpt"], found["Score_cog"], found["Score_cpm"]) == (0.5, -0.5, 0.0)
    assert found["Score_Avg"] == 0.0
    assert found["Length_Avg"] == pytest.approx((4 + 2 + 4) / 3)
    strict = scores(folder / "strict", "caparena")
    assert (strict["Score_gpt"], strict["Score_cog"], strict["Score_cpm"]) == (100, -100, 0)
    assert "Score_Avg" in capsys.readouterr().out


def test_caparena_needs_all_captions_officially(folder, references, capsys):
    captions = write_captions(folder, {"test_0.jpg": "a cup"})
    judge = Scripted(caparena_rule)
    with serve(answer=judge) as server, pytest.raises(SystemExit):
        score(
            captions,
            server,
            folder / "out",
            "--metrics",
            "caparena",
            "--data",
            f"caparena={references}",
        )
    assert judge.asked == []
    message = capsys.readouterr().err
    assert "2 of 3 images have no caption, such as 'test_1.jpg'" in message
    assert "--mode strict" in message


def test_a_baseline_does_not_fight_itself(folder, references):
    captions = write_captions(
        folder, {"test_0.jpg": "a cup on it", "test_1.jpg": "longer: a cup on it"}
    )
    judge = Scripted(caparena_rule)
    out = folder / "out"
    more = ("--metrics", "caparena", "--data", f"caparena={references}")
    with serve(answer=judge) as server:
        # test_2 is MiniCPM's own image: it needs no caption, and test_0 and test_1 are its battles.
        assert score(captions, server, out, *more, "--model-name", "MiniCPM-V2.6-8B") == 0
        captions = write_captions(folder, {f"test_{i}.jpg": "a cup on it" for i in range(3)})
        more = (*more, "--model-name", "MiniCPM-V2.6-8B")
        assert score(captions, server, folder / "all", *more) == 0
    assert [row["score"] for row in rows(out, "caparena")] == [0, 1]
    found = scores(out, "caparena")
    assert (found["Score_cog"], found["Score_cpm"]) == (0.5, 0.0)
    assert found["Score_Avg"] == pytest.approx(0.5 / 3)
    assert summary(folder / "all", "caparena")["missing"] == {"own baseline": 1}
    assert rows(folder / "all", "caparena")[2]["reason"] == "own baseline"


# ---- what all have in common -------------------------------------------------------------------


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


def test_a_stopped_run_goes_on_and_pays_nothing_twice(folder, facts, capsys):
    captions = write_captions(folder, {f"test_{i}.jpg": f"cup. thing {i}." for i in range(3)})
    out = folder / "out"
    arguments = ("--metrics", "dcscore", "--data", f"dcscore={facts}")
    judge = Scripted(dcscore_rule)
    with serve(answer=judge) as server:
        # Ten calls are three extractions and most of the matchings: no score yet, and exit code 1.
        assert score(captions, server, out, *arguments, "--budget-calls", 10) == 1
        stopped = summary(out, "dcscore")
        assert stopped["n_scored"] < 3
        assert set(stopped["missing"]) == {"over_budget"}
        assert score(captions, server, out, *arguments) == 0
        assert summary(out, "dcscore")["n_scored"] == 3
        assert len(judge.asked) == 3 * 7
        assert score(captions, server, out, *arguments) == 0
    assert len(judge.asked) == 3 * 7
    assert "calls 0" in capsys.readouterr().out


def test_a_row_that_a_killed_run_half_wrote_is_asked_again(folder, questions):
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"nat_1": "A red cup.", "doc_1": "A blue cup."}))
    out = folder / "out"
    more = ("--metrics", "captionqa", "--data", f"captionqa={questions}")
    with serve(answer=Scripted(captionqa_rule)) as server:
        score(captions, server, out, *more)
        whole = (out / "captionqa.jsonl").read_text()
        (out / "captionqa.jsonl").write_text(whole[:-40])
        score(captions, server, out, *more)
    assert [row["id"] for row in rows(out, "captionqa")] == ["nat_1", "doc_1"]
    assert rows(out, "captionqa")[0] == json.loads(whole.splitlines()[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--mode", "strict"), "was scored with mode 'official', but this run has 'strict'"),
        (("--seed", "1"), "was scored with seed 0, but this run has 1"),
    ],
)
def test_rows_of_other_settings_are_not_mixed(folder, questions, capsys, change, message):
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"nat_1": "A red cup.", "doc_1": "A blue cup."}))
    more = ("--metrics", "captionqa", "--data", f"captionqa={questions}")
    with serve(answer=Scripted(captionqa_rule)) as server:
        score(captions, server, folder / "out", *more)
        with pytest.raises(SystemExit):
            score(captions, server, folder / "out", *more, *change)
        assert message in capsys.readouterr().err
        captions.write_text(json.dumps({"nat_1": "A red cup!", "doc_1": "A blue cup."}))
        with pytest.raises(SystemExit):
            score(captions, server, folder / "out", *more)
    assert "a row for a different caption of 'nat_1'" in capsys.readouterr().err


def test_bad_rows_are_told_before_any_question(folder, facts, capsys):
    path = folder / "captions.jsonl"
    lines = [
        {"image": "test_0.jpg", "caption": "cup."},
        {"image": "missing.jpg", "caption": "cup."},
        {"image": "test_0.jpg", "caption": "cup."},
        {"image": "test_1.jpg", "caption": ""},
        {"image": "test_2.jpg", "text": "cup."},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    judge = Scripted(dcscore_rule)
    with serve(answer=judge) as server, pytest.raises(SystemExit) as caught:
        score(path, server, folder / "out", "--metrics", "dcscore", "--data", f"dcscore={facts}")
    assert caught.value.code == 1
    assert judge.asked == []
    told = capsys.readouterr().err.removeprefix("trl-balcap: ").splitlines()
    assert len(told) == 4
    for line, (number, word) in zip(
        told,
        [(2, "no such file"), (3, "already at"), (4, "is empty"), (5, '"caption" column')],
        strict=True,
    ):
        assert line.startswith(f"{path}:{number}: ")
        assert word in line
    assert not (folder / "out").exists()


def test_a_judge_that_fails_leaves_captions_unscored_with_the_reason(folder, references, capsys):
    captions = write_captions(folder, {f"test_{i}.jpg": "a cup" for i in range(3)})
    out = folder / "out"

    def stubborn(messages):
        return "I would rather not say."

    with serve(answer=Scripted(stubborn)) as server:
        more = ("--metrics", "caparena", "--data", f"caparena={references}", "--mode", "strict")
        assert score(captions, server, out, *more) == 1
    assert "caparena: Scored 0 of 3 captions; without a score: 3 no verdict." in (
        capsys.readouterr().out
    )
    result = summary(out, "caparena")
    assert (result["n_scored"], result["missing"]) == (0, {"no verdict": 3})
    assert scores(out, "caparena")["Score_Avg"] is None
    assert rows(out, "caparena")[0]["replies"] == ["I would rather not say."] * 5


def test_unscored_rows_are_tried_again_with_new_replies(folder, references):
    captions = write_captions(folder, {f"test_{i}.jpg": "a cup" for i in range(3)})
    out = folder / "out"
    more = ("--metrics", "caparena", "--data", f"caparena={references}")
    with serve(answer=Scripted(lambda messages: "?")) as server:
        score(captions, server, out, *more)
        server_url = server.url
    judge = Scripted(caparena_rule)
    with serve(answer=judge, port=int(server_url.rsplit(":", 1)[1].split("/")[0])) as server:
        score(captions, server, out, *more)
    assert len(judge.asked) == 3
    assert summary(out, "caparena")["n_scored"] == 3


def test_two_captioners_are_compared_in_pairs(folder, questions, capsys):
    worse, better = folder / "worse.json", folder / "better.json"
    worse.write_text(json.dumps({"nat_1": "A cup.", "doc_1": "A blue cup."}))
    better.write_text(json.dumps({"nat_1": "A red cup.", "doc_1": "A red cup."}))
    out = folder / "out"
    more = ("--metrics", "captionqa", "--data", f"captionqa={questions}")
    with serve(answer=Scripted(captionqa_rule)) as server:
        assert score(None, server, out, "--compare", worse, better, *more) == 0
    # worse: 0.55 + 0.3833 + 0 and 0; better: 1 + 0.3833 + 0 and 1, of 4 questions.
    (found,) = json.loads((out / "comparison.json").read_text())
    change = found["differences"][0]
    assert change["value"] == pytest.approx(100 * (2.3833 - 0.9333) / 4)
    assert (change["n"], found["n_common"]) == (2, 2)
    assert "better.json minus" in capsys.readouterr().out

    # Scored rows compare without a judge.
    pair = [str(out / side / "captionqa.jsonl") for side in ("a", "b")]
    assert main(["score", "--compare", *pair]) == 0
    assert "+36.25" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["score", "--compare", pair[0], str(better)])
    assert "must both contain captions, or both scored rows" in capsys.readouterr().err


def test_both_sides_of_a_comparison_share_one_cache(tmp_path):
    """Two captioners with one reference: it is split once, for both."""
    scene = random_scene(random.Random(0))
    draw(scene).save(tmp_path / "0.png")
    reference = describe(scene)
    files = []
    for name, caption in (("a", reference), ("b", "There is one thing.")):
        row = {"image": "0.png", "caption": caption, "reference": reference}
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text(json.dumps(row) + "\n")
    out = tmp_path / "out"
    with serve(models=["scripted"]) as server:
        assert score(None, server, out, "--compare", *files) == 0
        asked = server.stats()["calls"]["decompose"]
    assert asked == 2  # the reference, which is also a's caption, and b's caption


def test_rows_of_changed_references_or_images_are_neither_kept_nor_compared(tmp_path, capsys):
    scenes = [random_scene(random.Random(seed)) for seed in (1, 2)]
    draw(scenes[0]).save(tmp_path / "0.png")
    captions = tmp_path / "captions.jsonl"

    def write(reference):
        row = {"image": "0.png", "caption": describe(scenes[0]), "reference": reference}
        captions.write_text(json.dumps(row) + "\n")

    command = ["score", str(captions), "--judge", "scenes/oracle", "--yes", "--out"]
    write(describe(scenes[0]))
    assert main([*command, str(tmp_path / "a")]) == 0
    write(describe(scenes[1]))
    with pytest.raises(SystemExit):
        main([*command, str(tmp_path / "a")])
    assert "has a row for a different reference of '0.png'" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "b")]) == 0
    pair = [str(tmp_path / side / "b-capscore.jsonl") for side in ("a", "b")]
    with pytest.raises(SystemExit):
        main(["score", "--compare", *pair])
    assert "were scored with different values of reference for '0.png'" in capsys.readouterr().err
    draw(scenes[1]).save(tmp_path / "0.png")
    with pytest.raises(SystemExit):
        main([*command, str(tmp_path / "b")])
    assert "has a row for a different image of '0.png'" in capsys.readouterr().err


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


def test_battles_that_nobody_judged_are_not_ties():
    """One won, one silent: at 2 battles the official 0.5 stands for both, as 1.0."""
    row = {"caption": "a", "ref_model": "GPT-4o-0806", "mode": "official"}
    won, silent = row | {"score": 1, "reason": None}, row | {"score": None, "reason": "timeout"}
    unread = row | {"score": None, "reason": "no verdict"}

    def gpt(*rows):
        statistic = CapArenaAuto.statistics(rows)[1]
        return estimate(statistic, resampling_weights(len(rows), rounds=1)).value

    assert (gpt(won), gpt(won, unread), gpt(won, silent), gpt(silent)) == (0.5, 0.5, 1.0, None)


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


def test_after_a_partial_failure_only_what_is_missing_is_asked(folder, questions):
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"nat_1": "A red cup.", "doc_1": "A blue cup."}))
    out = folder / "out"
    judge = Scripted(captionqa_rule)
    more = ("--metrics", "captionqa", "--data", f"captionqa={questions}")
    with serve(answer=judge) as server:
        # Two questions of four and the preflight.
        score(captions, server, out, *more, "--budget-calls", 3)
        asked = len(judge.asked)
        assert asked == 2
        (out / "judge-cache").rename(out / "gone")  # the rows must do, without their cache
        assert score(captions, server, out, *more) == 0
    assert len(judge.asked) == 4
    assert summary(out, "captionqa")["n_scored"] == 2


def test_a_failure_on_the_way_keeps_the_replies_that_came(folder, facts):
    captions = write_captions(folder, {"test_0.jpg": "cup. table."})
    out = folder / "out"
    judge = Scripted(dcscore_rule)
    more = ("--metrics", "dcscore", "--data", f"dcscore={facts}")
    with serve(answer=judge) as server:
        assert score(captions, server, out, *more, "--budget-calls", 6) == 1
        assert score(captions, server, out, *more) == 0
    # One extraction, three matchings and three verifications in all.
    assert len(judge.asked) == 7


def test_comparing_battles_of_two_models(folder, references, capsys):
    files = []
    for name, text in (("a", "a cup"), ("b", "a much longer caption")):
        captions = {f"test_{i}.jpg": text for i in range(3)}
        files.append(write_captions(folder, captions, name=f"{name}.jsonl"))
    out = folder / "out"
    with serve(answer=Scripted(caparena_rule)) as server:
        more = ("--metrics", "caparena", "--data", f"caparena={references}")
        assert score(None, server, out, "--compare", *files, *more) == 0
    first = rows(out / "a", "caparena")[0]
    assert first["judge"] == "openai/scripted"
    assert first["verdict"].startswith("Caption")
    # Each of three battles lost turns into one won: 2 of 200 images, against each baseline.
    assert "+1.00" in capsys.readouterr().out


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


def test_rows_of_different_judges_do_not_compare(folder, capsys):
    base = {"metric": "dcscore", "mode": "official", "prompts_sha256": "x", "reason": None}
    for name, judge in (("a", "openai/one"), ("b", "openai/two")):
        row = base | {"id": "i", "judge": judge, "score": 0.5}
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(SystemExit):
        main(["score", "--compare", str(folder / "a.jsonl"), str(folder / "b.jsonl")])
    assert "have the judge openai/one and openai/two" in capsys.readouterr().err


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


def test_nothing_is_spent_without_a_yes(folder, questions, capsys, monkeypatch):
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"nat_1": "A red cup.", "doc_1": "A blue cup."}))
    judge = Scripted(captionqa_rule)
    command = ["score", str(captions), "--metrics", "captionqa", "--judge", "openai/scripted"]
    command += ["--data", f"captionqa={questions}", "--out", str(folder / "out")]
    command += ["--price", "2.5", "10"]
    with serve(answer=judge) as server:
        with pytest.raises(SystemExit):
            main([*command, "--api-base", server.url])
        told = capsys.readouterr()
        assert "Pass --yes to accept it" in told.err
        assert "0.00" in told.out  # four short questions cost less than a cent
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", lambda *_: "n")
        assert main([*command, "--api-base", server.url]) == 2
    assert judge.asked == []
    assert "nothing was asked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metrics", "bleu"), "Unknown metric 'bleu'"),
        (("--metrics", "dcscore"), "Pass --data dcscore=PATH"),
        (("--metrics", "captionqa"), "Borise/CaptionQA"),
        (("--metrics", "caparena"), "caparena_auto_600.json"),
        (("--metrics", "dcscore", "--official-prompts", "."), "is not a clone of a benchmark"),
        (("--data", "facts.jsonl"), "--data takes NAME=PATH, got 'facts.jsonl'"),
        (("--data", "bleu=facts.jsonl"), "Unknown metric 'bleu'"),
    ],
)
def test_arguments_that_do_not_fit(folder, capsys, arguments, message, monkeypatch):
    monkeypatch.chdir(folder)
    captions = write_captions(folder, {"test_0.jpg": "cup."})
    with pytest.raises(SystemExit):
        main(["score", str(captions), "--judge", "scenes/oracle", "--out", "out", *arguments])
    assert message in capsys.readouterr().err

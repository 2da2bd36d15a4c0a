"""References by a strong model: written, picked among several, resumed, paid for knowingly."""

import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from trl_balcap.captioning.pick import pick_best
from trl_balcap.captioning.recaption import Recaption, recaption_cost
from trl_balcap.cli import main
from trl_balcap.data import load_captions
from trl_balcap.judge import Judge, JudgeError
from trl_balcap.judge.replies import Linguistic, Verification
from trl_balcap.scenes.make import scene_rows, write_scenes
from trl_balcap.scenes.server import serve

REFUSAL = "I'm sorry, but I can't help with that."


@pytest.fixture
def photos(tmp_path):
    """Four drawn scenes, without their captions."""
    write_scenes(tmp_path / "scenes", 4)
    return tmp_path / "scenes" / "images"


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def pixels(image: Image.Image) -> bytes:
    return image.convert("RGB").tobytes()


class Writer:
    """Answers with one of its texts for the image that it is shown, each in turn."""

    def __init__(self, texts):
        self.texts = {
            pixels(row["image"]): texts(place, row["reference"])
            for place, row in enumerate(scene_rows(4))
        }
        self.asked = []

    def __call__(self, messages):
        [picture, text] = messages[0]["content"]
        data = base64.b64decode(picture["image_url"]["url"].partition(",")[2])
        image = Image.open(io.BytesIO(data))
        if pixels(image) not in self.texts:
            return "A white square."  # the preflight's
        self.asked.append(text["text"])
        mine = self.texts[pixels(image)]
        mine.append(mine.pop(0))
        return mine[-1]


def command(photos, out, server, *more) -> list[str]:
    words = ["recaption", str(photos), "--model", "openai/writer", "--out", str(out), "--yes"]
    return [*words, "--model-api-base", server.url, *more]


def test_a_folder_of_photos_becomes_a_file_to_train_on(photos, tmp_path, capsys):
    out = tmp_path / "refs.jsonl"
    writer = Writer(lambda place, reference: [f" {reference} \n"])
    (photos / "broken.png").write_bytes(b"")
    with serve(answer=writer) as server:
        assert main(command(photos, out, server, "--words", "80")) == 0
        shown = capsys.readouterr().out
        # Resumed: nothing is asked again, and half a row is written anew.
        kept = out.read_text().splitlines(keepends=True)
        out.write_text("".join(kept[:3]) + kept[3][:40])
        assert main(command(photos, out, server, "--words", "80")) == 0
    assert len(writer.asked) == 5
    assert writer.asked[0].startswith("Describe this image in about 80 words")
    assert "5 images, 0 already done: 5 captions by openai/writer, price unknown" in shown
    assert "broken.png: the file is empty" in shown
    assert "4 references written, 0 already there, 1 images without one" in shown
    assert "1 references written, 3 already there" in capsys.readouterr().out
    loaded = load_captions(out, references=True)
    assert sorted(loaded["reference"]) == sorted(row["reference"] for row in scene_rows(4))
    assert loaded[0]["prompt"][0]["content"] == "Describe the image in detail."


def test_a_run_is_not_resumed_in_another_way(photos, tmp_path, capsys):
    out = tmp_path / "refs.jsonl"
    with serve(answer=Writer(lambda place, reference: [reference])) as server:
        assert main(command(photos, out, server)) == 0
        with pytest.raises(SystemExit):
            main(command(photos, out, server, "--prompt", "Say what you see."))
    assert "was made with prompt 'Describe" in capsys.readouterr().err


def test_a_refusal_is_no_reference(photos, tmp_path, capsys):
    out = tmp_path / "refs.jsonl"
    writer = Writer(lambda place, reference: [REFUSAL if place == 0 else reference])
    with serve(answer=writer) as server:
        assert main(command(photos, out, server)) == 0
    assert len(rows(out)) == 3
    assert "000.png: the model refused: \"I'm sorry" in capsys.readouterr().out


def test_the_best_of_three_by_the_judge_is_kept(photos, tmp_path, capsys):
    """The oracle knows the scenes: what describes it beats what is invented or says little."""
    out = tmp_path / "refs.jsonl"
    wrong = "There is a large purple crown in the middle. There is a tiny orange crown."
    writer = Writer(lambda place, reference: [wrong, reference, REFUSAL])
    more = ["--samples", "3", "--judge", "scenes/oracle"]
    with serve(answer=writer) as server:
        assert main(command(photos, out, server, *more)) == 0
    # 4 images x 3 samples: split, look and grade each; 4 x 3 x 2 coverages.
    assert "12 captions by openai/writer, 60 questions to scenes/oracle" in capsys.readouterr().out
    references = {row["reference"] for row in scene_rows(4)}
    for row in rows(out):
        assert row["reference"] in references
        assert sorted(row["candidates"]) == sorted([wrong, row["reference"]])
        assert row["picked"]["precision"] == 1.0


def test_a_wrong_port_is_said_before_any_image(photos, tmp_path, capsys):
    out = tmp_path / "refs.jsonl"
    words = ["recaption", str(photos), "--model", "openai/writer", "--out", str(out), "--yes"]
    with pytest.raises(SystemExit):
        main([*words, "--api-base", "http://127.0.0.1:9/v1"])
    assert (
        "captioner openai/writer at http://127.0.0.1:9/v1 does not work" in capsys.readouterr().err
    )
    assert not out.exists()


def test_a_budget_ends_the_run_and_another_goes_on(photos, tmp_path, capsys):
    out = tmp_path / "refs.jsonl"
    with serve(answer=Writer(lambda place, reference: [reference])) as server:
        assert main(command(photos, out, server, "--budget-calls", "2")) == 0
        shown = capsys.readouterr().out
        assert "The budget of 2 judge calls is spent. Rerun to continue from here." in shown
        assert len(rows(out)) == 2
        assert main(command(photos, out, server)) == 0
    assert len(rows(out)) == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--samples", "3"], "--samples 3 needs --judge MODEL"),
        (["--judge", "scenes/oracle"], "pass --samples too, such as 4"),
        (["--samples", "0"], "samples must be 1 or more, got 0"),
        (["--words", "0"], "words must be 1 or more, got 0"),
        (
            ["--samples", "2", "--judge", "scenes/oracle", "--sampling-temperature", "0"],
            "would all be the same",
        ),
        (["--prompt", " "], "The prompt is empty"),
        (["--out", "."], "is a folder. Pass a file"),
    ],
)
def test_wrong_arguments_cost_nothing(photos, tmp_path, more, message, capsys):
    words = ["recaption", str(photos), "--model", "openai/writer", "--out", str(tmp_path / "o")]
    with pytest.raises(SystemExit):
        main([*words, "--yes", *more])
    assert message in capsys.readouterr().err


def test_the_cost_is_an_estimate_of_tokens_at_the_given_price():
    """
    100 images at 1000 tokens and a prompt of 400 characters (100 tokens), 1 $/M: 0.11 $; replies of
    100 words (135 tokens), 2 $/M: 0.027 $. Three samples take three times that, and the judge's
    questions: 3 a sample, and each pair of them.
    """
    how = Recaption("scenes/oracle", "x" * 400)
    writer = Judge("scenes/oracle", price=(1.0, 2.0))
    cost = recaption_cost(100, how, 100, writer, None)
    assert (cost.writer_calls, cost.judge_calls) == (100, 0)
    assert cost.usd == pytest.approx(0.11 + 0.027)

    best = Recaption("scenes/oracle", "x" * 400, samples=3, temperature=0.8)
    cost = recaption_cost(100, best, 100, writer, Judge("scenes/oracle"))  # a judge that is free
    assert (cost.writer_calls, cost.judge_calls) == (300, 3 * 300 + 100 * 3 * 2)
    assert cost.usd == pytest.approx(3 * 0.137)
    paid = recaption_cost(100, best, 100, writer, writer)
    assert paid.usd is not None
    assert paid.usd > 4 * 0.137
    unpriced = Judge("openai/x", api_base="http://a.b")
    assert recaption_cost(1, Recaption("openai/x", "Look."), 100, unpriced, None).usd is None


# ---- picking, by hand --------------------------------------------------------------------------


class Scripted(Judge):
    """A judge that knows its verdicts: assertions by caption, facts behind assertions, grades."""

    def __init__(self, captions, wrong=(), grades=None, dead=(), blind=(), reason: Any = "timeout"):
        super().__init__("scenes/oracle")
        self.captions, self.wrong, self.grades, self.dead = captions, wrong, grades or {}, dead
        self.blind, self.reason = blind, reason

    async def decompose(self, text):
        if text in self.dead:
            raise JudgeError(self.reason, "no answer")
        return self.captions[text]

    async def verify(self, image, assertions):
        return [Verification(correct=a not in self.wrong, pointable=True) for a in assertions]

    async def linguistic(self, text):
        return Linguistic(*[self.grades.get(text, 9)] * 3)

    async def cover(self, assertions, units):
        for who in self.blind:
            if any(text.endswith(f"/{who}") for text in (*assertions, *units)):
                raise JudgeError(self.reason, "no answer")
        facts = {assertion.split("/")[0] for assertion in assertions}  # "dog/A" and "dog/B" agree
        return [unit.split("/")[0] in facts for unit in units]


async def test_the_harmonic_mean_of_precision_language_and_agreement():
    """
    A says dog, mat; B says dog, cat (wrong); C says dog. Agreed by more than half: dog alone.
    A: P 1, agreement 1, L 0.9: 3 / (1 + 1 + 1 / 0.9) = 0.9643. B: P 0.5. C: L 0.6.
    """
    captions = {"A": ["dog/A", "mat/A"], "B": ["dog/B", "cat/B"], "C": ["dog/C"]}
    judge = Scripted(captions, wrong=["cat/B"], grades={"C": 6})
    picked = await pick_best(judge, None, ["C", "B", "A"])
    assert (picked.place, picked.precision, picked.agreement) == (2, 1.0, 1.0)
    assert picked.score == pytest.approx(3 / (2 + 1 / 0.9))


async def test_a_caption_that_leaves_out_what_others_agree_on_loses():
    """A and B say dog and mat, C says cup: agreed are A's two units and B's two; C covers none."""
    captions = {"C": ["cup/C"], "A": ["dog/A", "mat/A"], "B": ["dog/B", "mat/B"]}
    assert (await pick_best(Scripted(captions), None, ["C", "A", "B"])).place == 1
    by_precision = await pick_best(Scripted(captions), None, ["C", "A", "B"], by="precision")
    assert (by_precision.place, by_precision.agreement) == (0, None)  # a tie: the first


async def test_a_sample_that_cannot_be_judged_is_not_picked():
    captions = {"A": ["dog/A"], "B": ["dog/B"]}
    assert (await pick_best(Scripted(captions, dead=["A"]), None, ["A", "B"])).place == 1
    with pytest.raises(JudgeError, match="timeout"):
        await pick_best(Scripted(captions, dead=["A", "B"]), None, ["A", "B"])


async def test_a_sample_that_cannot_be_compared_takes_no_other_along():
    """A's words make the judge fail, on whichever side they stand; B and C agree on the dog."""
    captions = {"A": ["dog/A", "mat/A"], "B": ["dog/B"], "C": ["dog/C"]}
    picked = await pick_best(Scripted(captions, blind=["A"]), None, ["A", "B", "C"])
    assert (picked.place, picked.agreement) == (1, 1.0)
    with pytest.raises(JudgeError, match="timeout"):  # no comparison worked
        await pick_best(Scripted(captions, blind=["A", "B", "C"]), None, ["A", "B", "C"])


@pytest.mark.parametrize("failing", ["dead", "blind"])
async def test_no_pick_is_made_of_what_a_spent_budget_left(failing):
    captions = {"A": ["dog/A"], "B": ["dog/B"], "C": ["dog/C"]}
    spent = Scripted(captions, **{failing: ["C"]}, reason="over_budget")
    with pytest.raises(JudgeError, match="over_budget"):
        await pick_best(spent, None, ["A", "B", "C"])

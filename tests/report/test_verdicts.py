"""Verdict rows kept as Parquet: what is written is read, also behind a kill and a resume."""

import os
import signal
import subprocess
import sys
import textwrap

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trl_balcap.data.images import DEFAULT_MAX_PIXELS, open_image
from trl_balcap.report import VERDICT_SCHEMA, VerdictWriter, read_thumbnails, read_verdicts
from trl_balcap.report.thumbnails import image_digest, thumbnail


def row(step=1, split="train", id="0", **fields):
    return {"step": step, "split": split, "id": id, "completion": "A dog.", **fields}


def written(folder, *rows, **options):
    with VerdictWriter(folder, **options) as writer:
        writer.write(rows)


def completions(folder):
    return [(found["step"], found["completion"]) for found in read_verdicts(folder)]


def test_a_row_comes_back_as_it_was_written(tmp_path):
    given = {
        "step": 7,
        "split": "train",
        "id": "7-3",
        "group": "7-0",
        "prompt": "Describe the image.",
        "completion": "A red circle. It adds depth.",
        "reference": "A red circle above a blue square.",
        "assertions": [
            {"text": "There is a red circle.", "correct": True, "pointable": True},
            {"text": "It adds depth.", "correct": True, "pointable": False},
        ],
        "units": [{"text": "There is a blue square.", "covered": False}],
        "clarity": 9.0,
        "fluency": 8.0,
        "coherency": 10.0,
        "length_ratio": 0.4,
        "gated": True,
        "rewards": {"precision_reward": 0.5, "recall_reward": None, "linguistic_reward": 0.9},
        "gated_rewards": {"precision_reward": 0.5, "linguistic_reward": 0.0},
        "reasons": {"recall_reward": "timeout"},
        "advantage_shares": {"precision_reward": -0.25},
        "advantage": -1.5,
        "tokens": 9,
        "latency": 1.25,
        "usd": 0.0004,
        "extra": {"brevity": {"words": 6}},
    }
    written(tmp_path, given)
    assert read_verdicts(tmp_path) == [given | {"image": None}]


def test_what_was_not_judged_differs_from_what_asserts_nothing(tmp_path):
    written(tmp_path, row(id="a"), row(id="b", assertions=[]))
    assert [found["assertions"] for found in read_verdicts(tmp_path)] == [None, []]


def test_an_image_is_kept_once(tmp_path):
    red, blue = Image.new("RGB", (84, 84), "red"), Image.new("RGB", (84, 84), "blue")
    with VerdictWriter(tmp_path) as writer:
        writer.write([row(1, id="0", group="a", image=red), row(1, id="1", group="a", image=red)])
        writer.write([row(2, image=red.copy()), row(2, id="1", image=blue)])
    written(tmp_path, row(3, image=blue))  # a resumed run knows what is there
    assert len(list(tmp_path.glob("images-*.parquet"))) == 2
    assert read_thumbnails(tmp_path).keys() == {image_digest(red), image_digest(blue)}
    digests = [found["image"] for found in read_verdicts(tmp_path)]
    assert digests == [image_digest(image) for image in (red, red, red, blue, blue)]


def test_an_image_may_be_a_path(tmp_path):
    Image.new("RGB", (84, 84), "red").save(tmp_path / "red.png")
    written(tmp_path / "kept", row(image=str(tmp_path / "red.png")))
    assert len(read_thumbnails(tmp_path / "kept")) == 1


def test_drawings_keep_their_pixels_and_photographs_become_small():
    drawing, photo = Image.new("RGB", (84, 63), "red"), Image.effect_noise((1200, 900), 60)
    assert thumbnail(drawing).media_type == "image/png"
    small = thumbnail(photo)
    # 401,408 pixels at most, both sides multiples of 28: 728 x 532; then 448 on the longer side.
    assert (small.media_type, small.width, small.height) == ("image/jpeg", 448, 327)
    assert drawing.size == (84, 63)
    assert photo.size == (1200, 900)


def test_an_image_has_one_digest_in_a_run_and_in_a_folder_of_scores():
    file = Image.effect_noise((1200, 900), 60)
    trained_on = open_image(file, DEFAULT_MAX_PIXELS)  # what a dataset gives to the trainer
    assert image_digest(file) == image_digest(trained_on)
    assert image_digest(file) != image_digest(trained_on.rotate(180))


def test_a_bounded_sample_keeps_whole_groups(tmp_path):
    rows = [row(id=f"{group}-{k}", group=group) for k in range(2) for group in "abc"]
    written(tmp_path, *rows, max_groups=2)
    assert [found["id"] for found in read_verdicts(tmp_path)] == ["a-0", "b-0", "a-1", "b-1"]


def test_a_resumed_run_takes_the_place_of_the_steps_that_it_makes_again(tmp_path):
    with VerdictWriter(tmp_path) as writer:
        for step in (10, 20, 30):
            writer.write([row(step, completion="first"), row(step, id="1", completion="first")])
        writer.write([row(30, "eval", completion="first")])
    written(tmp_path, row(20, completion="again"))  # resumed from step 10, and killed at 20
    assert completions(tmp_path) == [
        (10, "first"),
        (10, "first"),
        (20, "again"),
        (30, "first"),  # the evaluation's, which has not been made again
    ]


def test_scores_that_are_asked_again_take_the_place_of_their_own_row_alone(tmp_path):
    written(tmp_path, row(0, "score", "a"), row(0, "score", "b", reasons={"score": "timeout"}))
    written(tmp_path, row(0, "score", "b", completion="A cat."))
    assert completions(tmp_path) == [(0, "A dog."), (0, "A cat.")]


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_any_text_comes_back(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("any")
    written(folder, row(completion=text, rewards={text: 1.0}, extra={text: text}))
    found = read_verdicts(folder)[0]
    assert (found["completion"], found["rewards"], found["extra"]) == (
        text,
        {text: 1.0},
        {text: text},
    )


def test_half_a_surrogate_pair_is_kept_as_a_question_mark(tmp_path):
    written(tmp_path, row(assertions=[{"text": "a\ud800b", "correct": True, "pointable": True}]))
    assert read_verdicts(tmp_path)[0]["assertions"][0]["text"] == "a?b"


def test_a_killed_run_leaves_files_that_can_be_read(tmp_path):
    script = """
        import sys
        from trl_balcap.report import VerdictWriter
        writer = VerdictWriter(sys.argv[1])
        step = 0
        while True:
            step += 1
            rows = [{"step": step, "split": "train", "id": str(k), "completion": "word " * 500}
                    for k in range(64)]
            writer.write(rows)
            print(step, flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 10:
            # It goes on to write while this line is read, so the kill falls somewhere in a file.
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    rows = read_verdicts(tmp_path)
    assert len(rows) >= 10 * 64
    assert len(rows) % 64 == 0  # every call is there in whole or not at all
    written(tmp_path, row(11, completion="resumed"))
    assert completions(tmp_path)[-1] == (11, "resumed")


def test_half_a_file_of_a_killed_run_is_not_seen(tmp_path):
    written(tmp_path, row())
    whole = next(tmp_path.glob("rows-*.parquet"))
    (tmp_path / f".{whole.name}").write_bytes(whole.read_bytes()[:100])
    assert len(read_verdicts(tmp_path)) == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(reward=1.0), "no column 'reward'.*put fields of your own into `extra`"),
        (row(split="test"), "one of train, eval, score"),
        (row() | {"step": None}, "needs a step"),
        (row(id=""), "an id"),
    ],
)
def test_a_row_that_cannot_be_kept_says_why(tmp_path, bad, message):
    with pytest.raises(ValueError, match=message):
        written(tmp_path, bad)


def test_a_sample_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="max_groups must be at least 1, got 0"):
        VerdictWriter(tmp_path, max_groups=0)


def test_a_folder_without_verdicts_says_what_to_give(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no verdicts\. .*rows-\*.parquet"):
        read_verdicts(tmp_path)


def test_files_open_in_any_parquet_reader(tmp_path):
    written(tmp_path, row())
    table = pq.read_table(next(tmp_path.glob("rows-*.parquet")))
    assert table.schema.equals(VERDICT_SCHEMA)
    assert table["completion"].to_pylist() == ["A dog."]


@pytest.mark.parametrize("kind", ["rows", "images"])
def test_a_file_that_was_cut_off_is_named(tmp_path, kind):
    row = {"step": 1, "split": "train", "id": "a", "image": Image.new("RGB", (8, 8))}
    VerdictWriter(tmp_path).write([row])
    [file] = tmp_path.glob(f"{kind}-*.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"{file.name} is not a complete Parquet file"):
        (read_verdicts if kind == "rows" else read_thumbnails)(tmp_path)

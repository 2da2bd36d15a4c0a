"""Files of captions: what is read, and one error per bad row that names file, line and way out."""

import json

import pytest
from PIL import Image

from trl_balcap.data.rows import BadRowsError
from trl_balcap.data.scored import read_captions


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"")
    return tmp_path


def write(folder, *rows) -> str:
    path = folder / "captions.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


GOOD = {"image": "a.png", "caption": "A cup.", "reference": "A red cup."}


def test_rows_are_read_in_order(folder):
    path = write(folder, GOOD, {"id": 7, "image": "b.png", "caption": "  Zwei Stühle 椅子 "})
    first, second = read_captions(path, need_images=True)
    assert (first.id, first.reference, first.where) == ("a.png", "A red cup.", f"{path}:1")
    assert (second.id, second.caption, second.image) == (
        "7",
        "  Zwei Stühle 椅子 ",
        folder / "b.png",
    )


def test_a_json_object_of_captions_is_read(folder):
    path = folder / "captions.json"
    path.write_text(json.dumps({"a.png": "A cup.", "b.png": "A chair."}))
    assert [caption.id for caption in read_captions(path, need_images=True)] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param(GOOD | {"image": "no.png", "id": "2"}, "there is no such file", id="no_image"),
        pytest.param(GOOD | {"image": "broken.png"}, "the file is empty", id="broken_image"),
        pytest.param(GOOD, "the id 'a.png' is already at", id="duplicate_id"),
        pytest.param(GOOD | {"id": 1, "caption": " "}, "the caption of '1' is empty", id="empty"),
        pytest.param({"image": "b.png", "text": "x"}, 'has no "caption" column', id="column"),
        pytest.param(
            {"image": "b.png", "caption": ["x"]}, 'must have text in its "caption"', id="list"
        ),
        pytest.param({"caption": "x"}, 'has neither "id" nor "image"', id="no_id"),
        pytest.param({"id": 3, "caption": "x"}, 'has no "image" column', id="no_image_column"),
        pytest.param({"image": "b.png", "caption": "x"}, "no reference caption", id="no_reference"),
        pytest.param("{'image': 'b.png'}", "not JSON", id="not_json"),
        pytest.param("[1]", "must be a JSON object, not list", id="not_an_object"),
    ],
)
def test_a_bad_row_gets_one_error(folder, row, message):
    path = write(folder, GOOD, row)
    with pytest.raises(BadRowsError) as caught:
        read_captions(path, need_images=True, need_references=True)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{path}:2: ")
    assert message in caught.value.problems[0]


def test_every_bad_row_is_told_at_once(folder):
    path = write(folder, GOOD, {"image": "no.png", "caption": "x"}, GOOD, {"image": "b.png"})
    with pytest.raises(BadRowsError) as caught:
        read_captions(path, need_images=True)
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        f"{path}:{line}" for line in (2, 3, 4)
    ]


def test_what_no_metric_needs_is_not_asked_for(folder):
    path = write(folder, {"id": "nat_1", "caption": "x"}, {"id": "nat_2", "caption": ""})
    assert len(read_captions(path, allow_empty=True)) == 2


def test_files_that_are_not_there_or_empty(folder):
    with pytest.raises(FileNotFoundError, match=r"File not found: .*none\.jsonl"):
        read_captions(folder / "none.jsonl")
    with pytest.raises(BadRowsError, match="no captions in this file"):
        read_captions(write(folder, ""))

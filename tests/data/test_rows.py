"""One reader of JSONL, one rule of columns: all that read rows read the same rows."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.data.photos import write_jsonl
from trl_balcap.captioning.run import list_images
from trl_balcap.data import BadRowsError, load_captions, read_captions
from trl_balcap.data.rows import read_jsonl

ROW = {"image": "pictures/red.png", "caption": "Un café fermé."}


def all_readers(file: Path) -> list[str]:
    """The caption or the image of the first row, by whoever reads such a file."""
    row = load_captions(file)[0]
    [scored] = read_captions(file, need_images=True)
    [listed] = list_images(file)
    size = Image.open(listed.path).size
    assert row["image"].size == size == Image.open(scored.image).size  # type: ignore[arg-type]
    return [
        row["reference"],
        scored.caption,
        listed.reference or "",
        read_jsonl(file)[0][1]["caption"],
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_read_by_everyone(folder, encoding):
    file = folder / "captions.jsonl"
    file.write_text(json.dumps(ROW, ensure_ascii=False) + "\n", encoding=encoding)
    assert all_readers(file) == [ROW["caption"]] * 4


@pytest.mark.parametrize("reader", [load_captions, read_captions, list_images, read_jsonl])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            json.dumps(ROW, ensure_ascii=False).encode("latin-1"),
            r":1: not UTF-8 \(byte 0xe9\).*Latin",
        ),
        (json.dumps(ROW).encode("utf-16-le"), "contains NUL characters. UTF-16 files need"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not a text file"),
        (b'{"image": "a.png"}\n{"image": \n', r"captions\.jsonl:2: not JSON"),
        (b'\n["image"]\n', r"captions\.jsonl:2: a row must be a JSON object, not list"),
        (b"[" * 100_000, r":1: not JSON \(too deep"),
    ],
)
def test_other_content_is_named_by_everyone(folder, reader, content, message):
    file = folder / "captions.jsonl"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        reader(file)


def test_a_row_with_two_image_columns_is_one_image_to_everyone(folder):
    """`file_name` before `image_path`: 60 x 40, not 40 x 60."""
    row = {"image_path": "pictures/clear.png", "file_name": "pictures/red.png", "caption": "Red."}
    file = write_jsonl(folder / "captions.jsonl", [row])
    assert all_readers(file) == ["Red."] * 4
    assert load_captions(file)[0]["image"].size == (60, 40)


def test_rows_may_name_their_images_in_different_columns(folder):
    rows = [
        {"image_path": "pictures/clear.png", "caption": "Clear."},
        {"file_name": "pictures/red.png", "caption": "Red."},
    ]
    file = write_jsonl(folder / "captions.jsonl", rows)
    assert [image.size for image in load_captions(file)["image"]] == [(40, 60), (60, 40)]
    assert [row.path.name for row in list_images(file)] == ["clear.png", "red.png"]


@pytest.mark.parametrize(
    "name", ["../outside.png", "pictures/../../outside.png", "https://a.b/c.png"]
)
def test_a_row_names_no_file_outside_its_folder_and_no_url(folder, name):
    Image.new("RGB", (8, 8)).save(folder / "outside.png")
    file = write_jsonl(folder / "inner" / "captions.jsonl", [{"image": name, "caption": "x"}])
    for reader in (load_captions, list_images, lambda f: read_captions(f, need_images=True)):
        with pytest.raises(BadRowsError, match=r"is a URL|is outside") as caught:
            reader(file)
        assert caught.value.problems[0].startswith(f"{file}:1: ")


def test_what_a_row_may_name(folder):
    """A path beneath its folder, an absolute one, one beneath a folder that the user names."""
    absolute = {"image": str(folder / "pictures" / "red.png"), "caption": "Red."}
    file = write_jsonl(folder / "inner" / "captions.jsonl", [absolute])
    assert all_readers(file) == ["Red."] * 4
    write_jsonl(file, [{"image": "pictures/red.png", "caption": "Red."}])
    assert load_captions(file, image_folder=folder)[0]["image"].size == (60, 40)
    assert read_captions(file, images=folder, need_images=True)[0].id == "red.png"


def test_a_caption_may_hold_any_line_separator_of_unicode(folder):
    file = write_jsonl(folder / "captions.jsonl", [ROW | {"caption": "One.\u2028Two.\x85Three."}])
    file.write_text(file.read_text().replace("\\u2028", "\u2028").replace("\\u0085", "\x85"))
    assert all_readers(file) == ["One.\u2028Two.\x85Three."] * 4

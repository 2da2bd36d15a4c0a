"""`caption --shard` and `merge`: seven images in three shards, and nothing lost or doubled."""

import json
import shutil

import pytest
from PIL import Image

from trl_balcap.captioning.run import caption_images
from trl_balcap.captioning.shards import merge_shards, shard_place
from trl_balcap.cli import main
from trl_balcap.data.rows import BadRowsError
from trl_balcap.scenes.server import serve

DEALT = {1: ["0", "3", "6"], 2: ["1", "4"], 3: ["2", "5"]}


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for place in range(7):
        Image.new("RGB", (16, 16), (30 * place, 0, 0)).save(tmp_path / "images" / f"{place}.png")
    return tmp_path / "images"


@pytest.fixture(scope="module")
def url():
    with serve(answer=lambda messages: "A square.") as server:
        yield server.url


@pytest.fixture
def shards(images, tmp_path, url):
    """The three files, each in a folder of its own, as machines may have them."""
    files = [tmp_path / f"machine-{i}" / "captions.jsonl" for i in (1, 2, 3)]
    for number, file in enumerate(files, start=1):
        caption_images("openai/x", images, file, api_base=url, shard=f"{number}/3")
    return files


def ids(path) -> list[str]:
    return [json.loads(line)["id"].removesuffix(".png") for line in path.read_text().splitlines()]


def without(file, *places):
    """Remove the lines at these places from a file."""
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for n, line in enumerate(lines) if n not in places))


def test_shards_deal_out_the_images_in_turn_and_merge_in_their_order(shards, images, tmp_path):
    for number, file in enumerate(shards, start=1):
        assert sorted(ids(file)) == DEALT[number]
    out = tmp_path / "captions.jsonl"
    assert main(["merge", *map(str, reversed(shards)), "--out", str(out)]) == 0
    assert ids(out) == list("0123456")
    first = json.loads(out.read_text().splitlines()[0])
    assert first["image"] == "images/0.png"  # relative to the merged file
    assert {"caption": "A square.", "model": "openai/x"}.items() <= first.items()
    with pytest.raises(ValueError, match=r"captions\.jsonl already exists"):
        merge_shards(shards, out)


def test_a_killed_shard_is_named_and_goes_on_where_it_stopped(
    shards, images, tmp_path, url, capsys
):
    killed = shards[1]
    lost = ids(killed)[1]
    without(killed, 1)
    killed.write_text(killed.read_text() + '{"id": "ha')  # killed in the middle of a row
    command = ["caption", "openai/x", str(images), "--api-base", url, "--shard", "2/3"]
    assert main([*command, "--out", str(killed)]) == 0
    assert "1 captions written, 1 already there" in capsys.readouterr().out
    assert sorted(ids(killed)) == DEALT[2]

    without(killed, ids(killed).index(lost))
    with pytest.raises(BadRowsError, match=rf"no row of '{lost}\.png' \(shard 2/3\)"):
        merge_shards(shards, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    merged = merge_shards(shards, tmp_path / "out.jsonl", allow_missing=True)
    assert (merged.written, merged.missing) == (6, [f"{lost}.png"])


def test_missing_and_repeated_shards_are_named(shards, tmp_path):
    out = tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match="Shards are missing: 1/3, 3/3"):
        merge_shards(shards[1:2], out)
    copied = shutil.copytree(shards[0].parent, tmp_path / "copy") / "captions.jsonl"
    with pytest.raises(ValueError, match="are both shard 1/3"):
        merge_shards([*shards, copied], out)
    with pytest.raises(FileNotFoundError, match=r"is no shard: list\.jsonl\.shard\.json"):
        merge_shards([tmp_path / "list.jsonl"], out)


def test_rows_that_are_doubled_or_of_another_shard_are_named(shards, tmp_path):
    first, second = (file.read_text().splitlines(keepends=True) for file in shards[:2])
    shards[0].write_text("".join([*first, first[0], second[0]]))
    with pytest.raises(BadRowsError) as raised:
        merge_shards(shards, tmp_path / "out.jsonl")
    assert [problem.rpartition(": ")[2] for problem in raised.value.problems] == [
        f"{json.loads(first[0])['id']!r} is there twice.",
        f"{json.loads(second[0])['id']!r} is no image of shard 1/3.",
    ]


def test_shards_of_other_images_or_settings_are_refused(shards, images, tmp_path, url):
    how = {"api_base": url, "shard": "3/3"}
    out = tmp_path / "out.jsonl"
    other = tmp_path / "other.jsonl"
    caption_images("openai/x", images, other, **how, prompt="Say.")
    with pytest.raises(ValueError, match=r"other\.jsonl was made with prompt 'Say\.'"):
        merge_shards([*shards[:2], other], out)
    Image.new("RGB", (16, 16), "blue").save(images / "00.png")  # the list grows under way
    late = tmp_path / "late.jsonl"
    caption_images("openai/x", images, late, **how)
    with pytest.raises(ValueError, match="are not shards of the same list of images"):
        merge_shards([*shards[:2], late], out)
    with pytest.raises(ValueError, match="was begun as another shard, or with other images"):
        caption_images("openai/x", images, shards[2], **how)


def test_a_file_without_shards_is_not_continued_as_one(images, tmp_path, url):
    caption_images("openai/x", images, tmp_path / "all.jsonl", api_base=url)
    with pytest.raises(ValueError, match="has rows of no shard"):
        caption_images("openai/x", images, tmp_path / "all.jsonl", api_base=url, shard="1/2")


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "1/0", "-1/3", "1/3/4", ""])
def test_shards_that_do_not_exist_are_refused(shard):
    with pytest.raises(ValueError, match="shard must be I/N"):
        shard_place(shard)


def test_more_shards_than_images_are_refused(images, tmp_path, url):
    with pytest.raises(ValueError, match="7 rows cannot make 8 shards: use 7 or fewer"):
        caption_images("openai/x", images, tmp_path / "out.jsonl", api_base=url, shard="1/8")

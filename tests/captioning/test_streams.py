"""Captions of datasets that are streamed: WebDataset shards, Parquet, and what breaks in them."""

import io
import json
import tarfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trl_balcap.captioning.listing import list_images, open_images
from trl_balcap.captioning.run import caption_images
from trl_balcap.captioning.shards import merge_shards
from trl_balcap.cli import main
from trl_balcap.data.rows import BadRowsError, read_jsonl
from trl_balcap.scenes.server import serve


def picture(red: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (red, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_tar(path, samples: dict[str, bytes], said: str = "Red.") -> None:
    """A WebDataset shard: an image and a `json` for each key."""
    with tarfile.open(path, "w") as tar:
        for key, image in samples.items():
            for name, content in (
                (f"{key}.png", image),
                (f"{key}.json", json.dumps({"reference": said}).encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def tars(tmp_path):
    """Three shards of two samples, whose keys begin anew in each; a fourth one is empty."""
    folder = tmp_path / "tars"
    folder.mkdir()
    write_tar(folder / "0000.tar", {})
    for number in (1, 2, 3):
        write_tar(folder / f"000{number}.tar", {k: picture(number) for k in ("a", "b")})
    return folder


@pytest.fixture
def parquet(tmp_path):
    """Seven images without ids."""
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = [{"image": {"bytes": picture(k), "path": None}, "text": f"{k}."} for k in range(7)]
    dataset = datasets.Dataset.from_list(rows, features=features)
    (tmp_path / "parquet").mkdir()
    for number in (0, 1):  # four and three
        part = dataset.shard(2, number)
        part.to_parquet(tmp_path / "parquet" / f"train-{number:05}-of-00002.parquet")
    return tmp_path / "parquet"


@pytest.fixture(scope="module")
def url():
    with serve(answer=lambda messages: "A square.") as server:
        yield server.url


def rows(path) -> list[dict]:
    return [row for _, row in read_jsonl(path)]


def ids(path) -> list[str]:
    return [row["id"] for row in rows(path)]


def caption(source, out, url, *more: str) -> int:
    command = ["caption", "openai/x", str(source), "--out", str(out), "--api-base", url]
    return main([*command, *more])


def test_webdataset_shards_are_dealt_out_by_file_and_merged_in_order(tars, tmp_path, url):
    """Three files with rows for two machines: the first takes two of them."""
    outs = [tmp_path / "one" / "captions.jsonl", tmp_path / "two" / "captions.jsonl"]
    for number, out in enumerate(outs, start=1):
        assert caption(tars / "*.tar", out, url, "--shard", f"{number}/2") == 0
    assert sorted(ids(outs[0])) == ["0001/a", "0001/b", "0002/a", "0002/b"]
    assert sorted(ids(outs[1])) == ["0003/a", "0003/b"]
    merged = merge_shards(outs[::-1], tmp_path / "captions.jsonl")
    assert ids(merged.out) == [f"000{n}/{key}" for n in (1, 2, 3) for key in ("a", "b")]
    first = rows(merged.out)[0]
    image = tmp_path / first["image"]
    assert image == tmp_path / "one" / "captions-images" / "0001" / "a.png"
    assert image.read_bytes() == picture(1)  # as it was stored
    assert (first["caption"], first["reference"]) == ("A square.", "Red.")


def test_rows_without_ids_are_dealt_out_in_turn(parquet, tmp_path, url):
    outs = [tmp_path / f"{number}.jsonl" for number in (1, 2, 3)]
    for number, out in enumerate(outs, start=1):
        assert caption(parquet, out, url, "--shard", f"{number}/3") == 0
    assert sorted(ids(outs[0])) == ["0", "3", "6"]
    merged = merge_shards(outs, tmp_path / "captions.jsonl")
    assert ids(merged.out) == list("0123456")
    assert [row["reference"] for row in rows(merged.out)][:2] == ["0.", "1."]


def test_only_rows_of_this_shard_that_have_no_caption_are_written_to_files(parquet, tmp_path, url):
    out = tmp_path / "out.jsonl"
    assert caption(parquet, out, url, "--shard", "2/3") == 0
    images = tmp_path / "out-images"
    assert sorted(file.name for file in images.iterdir()) == ["1.png", "4.png"]
    lines = out.read_text().splitlines(keepends=True)
    out.write_text(lines[0])
    for file in images.iterdir():
        file.unlink()
    assert caption(parquet, out, url, "--shard", "2/3") == 0
    assert sorted(ids(out)) == ["1", "4"]
    assert [file.name for file in images.iterdir()] == [f"{json.loads(lines[1])['id']}.png"]


def test_nothing_is_read_before_it_is_needed(tars):
    """The rows of the first shard come before a later one is found to be damaged."""
    whole = (tars / "0003.tar").read_bytes()
    (tars / "0003.tar").write_bytes(whole[:700])  # cut in the first image
    read = open_images(tars, store=tars / "store").read(1, 1)
    assert [next(read)[0] for _ in range(4)] == ["0001/a", "0001/b", "0002/a", "0002/b"]
    assert not (tars / "store").exists()
    with pytest.raises(ValueError, match="read after '0002/b', its row 3: unexpected end"):
        next(read)


def test_a_damaged_shard_ends_the_run_and_is_taken_up_when_it_is_repaired(tars, tmp_path, url):
    whole = (tars / "0003.tar").read_bytes()
    (tars / "0003.tar").write_bytes(whole[:700])
    out = tmp_path / "out.jsonl"
    with pytest.raises(SystemExit):
        caption(tars, out, url, "--shard", "1/1")
    with pytest.raises(ValueError, match="stopped before all of its rows were read"):
        merge_shards([out], tmp_path / "all.jsonl")
    (tars / "0003.tar").write_bytes(whole)
    assert caption(tars, out, url, "--shard", "1/1") == 0
    assert merge_shards([out], tmp_path / "all.jsonl").written == 6


def test_a_broken_image_in_a_shard_is_skipped_and_named(tars, tmp_path, url, capsys):
    write_tar(tars / "0002.tar", {"a": b"no image", "b": picture(2)})
    out = tmp_path / "out.jsonl"
    assert caption(tars, out, url) == 0
    assert len(ids(out)) == 5
    said = capsys.readouterr().out
    assert "0002/a.bin: it is not an image that Pillow can read" in " ".join(said.split())


def test_an_id_that_is_there_twice_is_captioned_once_and_named(tmp_path, url, capsys):
    features = datasets.Features({"id": datasets.Value("string"), "image": datasets.Image()})
    twice = [{"id": k, "image": {"bytes": picture(1), "path": None}} for k in ("a", "b", "a")]
    path = tmp_path / "rows.parquet"
    datasets.Dataset.from_list(twice, features=features).to_parquet(path)
    out = tmp_path / "out.jsonl"
    assert caption(path, out, url, "--shard", "1/1") == 0
    assert "a: an earlier row has the same id" in capsys.readouterr().out
    assert ids(merge_shards([out], tmp_path / "all.jsonl").out) == ["a", "b"]
    with pytest.raises(BadRowsError, match="the id 'a' is there more than once"):
        list_images(path, store=tmp_path / "store")


def test_an_id_of_two_files_cannot_be_merged(tmp_path, url):
    features = datasets.Features({"id": datasets.Value("string"), "image": datasets.Image()})
    row = {"id": "a", "image": {"bytes": picture(1), "path": None}}
    for number in (0, 1):
        one = datasets.Dataset.from_list([row], features=features)
        one.to_parquet(tmp_path / f"{number}.parquet")
        out = tmp_path / f"{number}.jsonl"
    for number in (0, 1):
        out = tmp_path / f"{number}.jsonl"
        assert caption(tmp_path / "*.parquet", out, url, "--shard", f"{number + 1}/2") == 0
    outs = [tmp_path / "0.jsonl", tmp_path / "1.jsonl"]
    with pytest.raises(BadRowsError, match="the id 'a' is also in shard 1/2"):
        merge_shards(outs, tmp_path / "all.jsonl")


def test_a_shard_may_have_no_row(parquet, tmp_path, url, capsys):
    """Only reading tells that seven rows do not make nine shards."""
    outs = [tmp_path / f"{number}.jsonl" for number in range(9)]
    for number, out in enumerate(outs, start=1):
        assert caption(parquet, out, url, "--shard", f"{number}/9") == 0
    assert "0 captions written" in capsys.readouterr().out
    assert merge_shards(outs, tmp_path / "all.jsonl").written == 7


@pytest.mark.parametrize("name", ["none.tar", "*.tar", "zeros.tar"])
def test_a_source_without_rows_is_named(tmp_path, url, name):
    (tmp_path / "empty").mkdir()
    if name == "zeros.tar":
        (tmp_path / "empty" / name).write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="There are no rows in"):
        open_images(tmp_path / "empty" / name, store=tmp_path / "store")


def test_ids_that_look_like_paths_stay_in_the_store(tmp_path, url):
    """And no two of them share a file."""
    names = ["../up", "a b", "a_b", "/etc/x", "..", "x" * 300]
    features = datasets.Features({"id": datasets.Value("string"), "image": datasets.Image()})
    listed = [
        {"id": name, "image": {"bytes": picture(k), "path": None}} for k, name in enumerate(names)
    ]
    path = tmp_path / "rows.parquet"
    datasets.Dataset.from_list(listed, features=features).to_parquet(path)
    read = open_images(path, store=tmp_path / "store").read(1, 1)
    files = [make().path for _, make in read]
    assert [file.read_bytes() for file in files] == [picture(k) for k in range(len(names))]
    assert all((tmp_path / "store").resolve() in file.resolve().parents for file in files)


def test_captions_of_numbered_rows_are_not_taken_for_those_of_another_dataset(
    parquet, tmp_path, url
):
    out = tmp_path / "out.jsonl"
    caption_images("openai/x", open_images(parquet, store=tmp_path / "s"), out, api_base=url)
    (parquet / "train-00001-of-00002.parquet").unlink()
    other = open_images(parquet, store=tmp_path / "s")
    with pytest.raises(ValueError, match="was captioned with dataset"):
        caption_images("openai/x", other, out, api_base=url)


def test_images_that_are_no_content_and_no_path_in_the_dataset_are_named(tmp_path, url, capsys):
    """A path is relative to the dataset, and stays in its folder."""
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    values = ["a.png", "gone.png", "../up.png", "http://x/a.png", None]
    table = pa.table({"id": list("abcde"), "image": values})
    pq.write_table(table, tmp_path / "paths.parquet")
    out = tmp_path / "out" / "captions.jsonl"
    assert caption(tmp_path / "paths.parquet", out, url) == 0
    assert [row["image"] for row in rows(out)] == [str(tmp_path / "a.png")]
    said = " ".join(capsys.readouterr().out.split())
    assert "gone.png: there is no such file" in said
    assert "c: the image '../up.png' is outside" in said
    assert "d: the image 'http://x/a.png' is a URL" in said
    assert "1 captions written, 0 already there, 4 images skipped" in said
    pq.write_table(pa.table({"image": [1, 2]}), tmp_path / "numbers.parquet")
    assert caption(tmp_path / "numbers.parquet", tmp_path / "none.jsonl", url) == 1
    assert "0: the image is a int, not a path" in " ".join(capsys.readouterr().out.split())

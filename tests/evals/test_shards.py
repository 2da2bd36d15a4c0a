"""`score --shard` and `merge`: the same rows and the same table as in one run, asked once."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.evals.scripted import (
    Scripted,
    captionqa_rule,
    dcscore_rule,
    rows,
    score,
    summary,
    write_captions,
)
from trl_balcap.captioning.shards import shard_place
from trl_balcap.cli import main
from trl_balcap.data.caption_file import open_captions
from trl_balcap.data.rows import BadRowsError, only_writer
from trl_balcap.evals.merging import merge_scores
from trl_balcap.report.verdicts import read_verdicts
from trl_balcap.scenes.server import serve


@pytest.fixture
def captions(folder):
    return write_captions(folder, {f"test_{i}.jpg": f"cup. thing {i}." for i in range(3)})


@pytest.fixture
def arguments(facts):
    return ("--metrics", "dcscore", "--data", f"dcscore={facts}")


def merge(folder, *shards) -> int:
    return main(["merge", *map(str, shards), "--out", str(folder / "merged")])


def test_merged_shards_have_the_rows_and_the_table_of_one_run(folder, captions, arguments):
    judge = Scripted(dcscore_rule)
    shards = [folder / "one", folder / "two"]
    with serve(answer=judge) as server:
        for number, out in enumerate(shards, start=1):
            assert score(captions, server, out, *arguments, "--shard", f"{number}/2") == 0
        assert [len(rows(out, "dcscore")) for out in shards] == [2, 1]
        assert merge(folder, *shards[::-1]) == 0
        verdicts = read_verdicts(folder / "merged" / "verdicts" / "dcscore")
        assert sorted(row["id"] for row in verdicts) == [f"test_{i}.jpg" for i in range(3)]
        asked = len(judge.asked)
        assert asked == 3 * 7
        assert score(captions, server, folder / "merged", *arguments) == 0
        assert len(judge.asked) == asked  # the table costs nothing
        assert score(captions, server, folder / "whole", *arguments) == 0
    assert rows(folder / "merged", "dcscore") == rows(folder / "whole", "dcscore")
    assert summary(folder / "merged", "dcscore") == summary(folder / "whole", "dcscore")


def test_questions_of_a_shard_are_shuffled_as_in_one_run(folder, questions):
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"nat_1": "A red cup.", "doc_1": "A blue cup."}))
    more = ("--metrics", "captionqa", "--data", f"captionqa={questions}")
    with serve(answer=Scripted(captionqa_rule)) as server:
        score(captions, server, folder / "whole", *more)
        for number in (1, 2):
            score(captions, server, folder / f"{number}", *more, "--shard", f"{number}/2")
    merge_scores([folder / "1", folder / "2"], folder / "merged")
    assert rows(folder / "merged", "captionqa") == rows(folder / "whole", "captionqa")


def test_a_stopped_shard_is_named_and_goes_on(folder, captions, arguments):
    judge = Scripted(dcscore_rule)
    shards = [folder / "one", folder / "two"]
    with serve(answer=judge) as server:
        for number, out in enumerate(shards, start=1):
            score(captions, server, out, *arguments, "--shard", f"{number}/2")
        file = shards[0] / "dcscore.jsonl"
        first, second = file.read_text().splitlines(keepends=True)
        file.write_text(first + second[:50])  # killed in the middle of a row
        with pytest.raises(BadRowsError, match="not JSON"):
            merge_scores(shards, folder / "merged")
        file.write_text(first)
        with pytest.raises(BadRowsError, match=r"no row of 'test_2\.jpg' \(shard 1/2\)"):
            merge_scores(shards, folder / "merged")
        assert not (folder / "merged").exists()
        assert score(captions, server, shards[0], *arguments, "--shard", "1/2") == 0
    assert merge_scores(shards, folder / "merged")["dcscore"].written == 3
    assert len(judge.asked) == 3 * 7  # the cache knew the row


def test_a_folder_of_another_shard_or_list_is_not_continued(folder, captions, arguments, capsys):
    out = folder / "out"
    with serve(answer=Scripted(dcscore_rule)) as server:
        score(captions, server, out, *arguments, "--shard", "1/2")
        for wrong in ("2/2", "1/3"):
            with pytest.raises(SystemExit):
                score(captions, server, out, *arguments, "--shard", wrong)
            assert "was begun as another shard" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            score(captions, server, folder / "new", *arguments, "--shard", "1/4")
        assert "3 rows cannot make 4 shards: use 3 or fewer" in capsys.readouterr().err


def test_two_runs_do_not_score_into_one_folder(folder, captions, arguments, capsys):
    out = folder / "out"
    with (
        serve(answer=Scripted(dcscore_rule)) as server,
        only_writer(out),
        pytest.raises(SystemExit),
    ):
        score(captions, server, out, *arguments)
    assert "Another run is writing to" in capsys.readouterr().err


@pytest.mark.parametrize("shard", ["0/2", "3/2", "a/b", "1.0/2", "१/२", "1/2\n", " 1/2"])
def test_numbers_of_shards_are_plain(shard):
    with pytest.raises(ValueError, match="shard must be I/N"):
        shard_place(shard)


def test_captions_of_a_file_stay_on_disk(folder):
    """With blank lines, which have no place but a number."""
    path = folder / "captions.jsonl"
    path.write_text(
        '\n{"image": "test_0.jpg", "caption": "A cup."}\n\n{"id": "b", "caption": "B."}'
    )
    captions = open_captions(path)
    assert not isinstance(captions, list)
    assert [(one.id, one.where) for one in captions] == [
        ("test_0.jpg", f"{path}:2"),
        ("b", f"{path}:4"),
    ]
    assert captions[1] == captions[0:2][1] == list(captions)[1]
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))  # lines that only text mode splits
    assert [one.id for one in open_captions(path)] == ["test_0.jpg", "b"]
    path.write_text(path.read_text(), encoding="utf-16")
    assert [one.id for one in open_captions(path)] == ["test_0.jpg", "b"]


def test_captions_in_parquet_are_scored_with_their_images(folder, arguments):
    """As those of a list: the images are the bytes that are stored."""
    images = [(folder / f"test_{i}.jpg").read_bytes() for i in range(3)]
    columns = {
        "id": [f"test_{i}" for i in range(3)],
        "image": [{"bytes": image, "path": None} for image in images],
        "caption": [f"cup. thing {i}." for i in range(3)],
    }
    pq.write_table(pa.table(columns), folder / "captions.parquet")
    out = folder / "out"
    with serve(answer=Scripted(dcscore_rule)) as server:
        for _ in range(2):  # the second run asks nothing
            assert score(folder / "captions.parquet", server, out, *arguments) == 0
        assert server.stats()["total"] == 3 * 7 + 2  # and the check of the judge
    assert (out / "images" / "test_2.jpg").read_bytes() == images[2]
    assert [row["id"] for row in rows(out, "dcscore")] == columns["id"]

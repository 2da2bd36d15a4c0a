"""Rows on disk: whole or not there, and read one by one."""

import json
import os
import resource

import pytest

from trl_balcap.data.row_file import RowFile, appending
from trl_balcap.data.rows import BadRowsError, cut_half_row


def test_a_full_disk_leaves_whole_rows_and_is_named(tmp_path):
    """A file may have 8192 bytes here: the second row of 6000 fits in part."""
    path = tmp_path / "captions.jsonl"
    row = {"id": "a", "caption": "x" * 6000}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with appending(path) as append:
        append(row)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
        try:
            with pytest.raises(OSError, match="make room and run again") as raised:
                append(row)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert raised.value.filename == str(path)
        assert list(RowFile(path)) == [row]
        append({"id": "b"})
    assert [one["id"] for one in RowFile(path)] == ["a", "b"]


@pytest.mark.parametrize(
    "half", [b'{"id": "b', b"\xc3", b"\0\0\0", b'{"id": "b", "x": "' + b"y" * 99]
)
def test_a_half_row_is_cut_off_wherever_it_was_broken_off(tmp_path, half, monkeypatch):
    """In the middle of a letter, after a power cut, or longer than what is read at once."""
    monkeypatch.setattr("trl_balcap.data.rows._TAIL", 16)
    path = tmp_path / "captions.jsonl"
    for whole in (b"", '{"id": "ä"}\n'.encode()):
        path.write_bytes(whole + half)
        cut_half_row(path)
        assert path.read_bytes() == whole
        cut_half_row(path)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("line", ["{", "[1]", '{"id": "\udcff"}'])
def test_a_line_that_is_no_row_is_named(tmp_path, line):
    path = tmp_path / "captions.jsonl"
    path.write_bytes(b'{"id": 1}\n\n' + os.fsencode(line) + b"\n")
    rows = RowFile(path)
    assert rows[0] == {"id": 1}
    with pytest.raises(BadRowsError, match=r"captions\.jsonl:3: "):
        list(rows)


def test_a_row_is_where_it_was_when_the_file_was_opened(tmp_path):
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps({"id": n}) + "\n" for n in range(5)))
    rows = RowFile(path)
    path.open("a").write('{"id": 5}\n')
    assert (len(rows), [row["id"] for row in rows]) == (5, [0, 1, 2, 3, 4])
    assert [row["id"] for row in rows[3:]] == [3, 4]

"""`trl-balcap scenes`: a folder of scenes, a judge over HTTP, and what they refuse."""

import socket
import subprocess
import sys

import pytest

from trl_balcap.cli import main
from trl_balcap.data import load_captions
from trl_balcap.scenes.server import serve


def test_scenes_are_written_as_a_dataset(tmp_path, capsys):
    assert main(["scenes", "make", "--n", "2", "--out", str(tmp_path), "--seed", "4"]) == 0
    assert capsys.readouterr().out.startswith("2 scenes in ")
    assert len(load_captions(tmp_path)) == 2


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--faults", '{"stall": 2}', "add up to 2"),
        ("--faults", '{"earthquake": 1}', "JSON object with keys from"),
        ("--faults", "stall", "--faults is not valid JSON"),
        ("--noise", '{"flip": 2}', "got 2"),
        ("--noise", '{"flip": "much"}', "--noise takes numbers as values"),
        ("--port", "99999", "port must be from 0 (any free port) to 65535, got 99999"),
        ("--latency", "-1", "latency must be 0 seconds or more, got -1"),
    ],
)
def test_serve_says_in_one_line_what_cannot_be(flag, value, message, capsys):
    with pytest.raises(SystemExit, match="1"):
        main(["scenes", "serve", flag, value])
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_port_that_is_taken_is_said_in_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit, match="1"):
        main(["scenes", "serve", "--port", str(taken.getsockname()[1])])
    assert "address already in use" in capsys.readouterr().err


def test_the_servers_process_starts_light_and_ends_with_its_parent():
    code = (
        "import sys, trl_balcap.scenes.server as server\n"
        "slow = {'torch', 'litellm', 'rich', 'datasets'} & set(sys.modules)\n"
        "print(sorted(slow))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with serve(process=True, api_key="secret", latency=0.01) as server:
        assert server.stats()["total"] == 0

"""`trl-balcap examples`: from a clone (the wheel's are in test_wheel), into a new folder only."""

from pathlib import Path

import pytest

from trl_balcap.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_examples_are_written_and_never_over_files(tmp_path, capsys):
    out = tmp_path / "mine"
    assert main(["examples", "--out", str(out)]) == 0
    written = capsys.readouterr().out.splitlines()
    assert str(out / "train_qwen.py") in written
    recipe = "configs/qwen2.5-vl-3b.yaml"
    assert (out / recipe).read_text() == (EXAMPLES / recipe).read_text()

    with pytest.raises(SystemExit, match="1"):
        main(["examples", "--out", str(out)])
    assert f"{out} already contains files" in capsys.readouterr().err

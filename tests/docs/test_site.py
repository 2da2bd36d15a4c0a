"""The site's own pages: their code runs, and the settings' page has every setting."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from trl_balcap.judge.settings import SETTINGS

ROOT = Path(__file__).parents[2]


def test_the_site_has_no_broken_link_and_every_setting(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs-material is in the dev group")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    page = (tmp_path / "settings" / "index.html").read_text(encoding="utf-8")
    from trl_balcap.config import BalCapConfig, CaptioningArguments

    ours = {field.name for field in dataclasses.fields(CaptioningArguments)}
    ours = {name for name in ours if name.removeprefix("judge_") not in SETTINGS}
    ours |= set(SETTINGS) | (
        BalCapConfig.__dataclass_fields__.keys() & {"length_gate", "log_verdicts"}
    )
    missing = {name for name in ours if f"<code>{name}</code>" not in page}
    assert missing == set()

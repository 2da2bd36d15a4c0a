"""README's shell blocks, typed in their order in one shell, from a bare folder.

The network is what is missing: packages come from the environment that runs the tests, and the
repository's address leads to a copy of the working tree. Slow commands are shortened by options
that they document.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from trl_balcap.cli import build_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = "https://github.com/trl-balcap/trl-balcap"

SHORTENED = {
    "make demo": "make demo STEPS=1",
    "make test": "make test TESTS=tests/test_metrics.py",
    "accelerate launch examples/train_qwen.py": (
        "accelerate launch examples/train_qwen.py --max_steps 1 --per_device_train_batch_size 8 "
        "--max_completion_length 32 --bf16 false --report_to none --output_dir runs/short"
    ),
}

# `python3 -m venv` without the download that would follow: the new environment sees the packages of
# the one that runs the tests, and nothing else of it.
PYTHON = """#!/bin/sh
if [ "$1 $2" != "-m venv" ]; then exec {python} "$@"; fi
{python} -m venv --without-pip "$3" || exit 1
for packages in "$3"/lib/python*/site-packages; do echo {site} > "$packages"/elsewhere.pth; done
for command in pip:pip._internal.cli.main accelerate:accelerate.commands.accelerate_cli; do
    printf '#!%s\\nfrom %s import main\\nmain()\\n' \
        "$PWD/$3/bin/python" "${{command#*:}}" > "$3/bin/${{command%:*}}"
    chmod +x "$3/bin/${{command%:*}}"
done
"""


def shell_lines() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    text = "".join(blocks).replace("\\\n", " ")
    return [line.split("  #")[0].strip() for line in text.splitlines() if line.strip()]


def test_what_is_shortened_is_in_the_readme():
    assert set(SHORTENED) <= set(shell_lines())
    assert "`make demo STEPS=10`" in README
    assert "`make test TESTS=" in README


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("trl-balcap")])
def test_every_command_parses(line):
    words = line.split()[1:]
    if words != ["--help"]:
        assert callable(build_parser().parse_args(words).run)


def test_the_files_that_the_readme_names_exist():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    paths = re.findall(r"\bexamples/[\w./-]+\.(?:yaml|py|sh)", README)
    assert len(links) > 10
    assert [path for path in {*links, *paths} if not (ROOT / path).exists()] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_shell_blocks_run_in_their_order(tmp_path):
    repository = working_tree(tmp_path / "repository")
    shims = tmp_path / "shims"
    shims.mkdir()
    python = shims / "python3"
    python.write_text(PYTHON.format(python=sys.executable, site=sysconfig.get_path("purelib")))
    python.chmod(0o755)
    lines = [SHORTENED.get(line, line) for line in shell_lines()]
    bare = tmp_path / "bare"
    bare.mkdir()
    (tmp_path / "readme.sh").write_text("\n".join(["set -ex", *lines]) + "\n")
    environ = {
        "PATH": os.pathsep.join([str(shims), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(tmp_path),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository}.insteadOf",
        "GIT_CONFIG_VALUE_0": ADDRESS,
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # sic: pip reads it as "no isolation"
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", str(tmp_path / "readme.sh")],
        cwd=bare,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    clone = bare / "trl-balcap"
    assert (clone / "runs/demo/reward_curves.png").exists()
    assert (clone / "runs/demo/checkpoint/README.md").exists()
    assert (clone / "runs/short/model.safetensors").exists()
    assert "b-CapScore" in (clone / "scores/comparison.md").read_text()


def working_tree(folder: Path) -> Path:
    """The files of this tree as a repository of one commit."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], [*author, "commit", "-qm", "tree"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder

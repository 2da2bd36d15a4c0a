"""The wheel holds all that the package needs, and works away from the source tree."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_wheel_works_from_elsewhere(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = set(archive.namelist())
    source = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "trl_balcap").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert source <= names
    assert "trl_balcap/judge/prompts/verify.txt" in names
    assert "trl_balcap/scenes/captioner/model.safetensors" in names
    assert "trl_balcap/examples/configs/qwen2.5-vl-3b.yaml" in names
    assert wheel.stat().st_size < 5_000_000

    [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
    page = archive.read(metadata).decode()
    assert "Project-URL: Homepage, https://" in page
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page)
    links = re.findall(r"\]\(([^)#][^)]*)\)", page)
    assert pictures
    assert len(links) > 10
    assert [link for link in links if not link.startswith("https://")] == []

    archive.extractall(tmp_path / "site")
    code = (
        "import trl_balcap; from trl_balcap.judge.questions import prompt; "
        "from trl_balcap.scenes.captioner import captioner_path; "
        "assert (captioner_path() / 'model.safetensors').exists(); "
        "print(trl_balcap.__file__, len(prompt('verify')) > 100)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "site/trl_balcap/__init__.py"), "True"]

    done = subprocess.run(
        [sys.executable, "-P", "-m", "trl_balcap", "examples"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    written = {path.relative_to(tmp_path) for path in (tmp_path / "examples").rglob("*.*")}
    kept = {path.relative_to(ROOT) for path in (ROOT / "examples").rglob("*.*")}
    assert written == {path for path in kept if path.suffix != ".pyc"}

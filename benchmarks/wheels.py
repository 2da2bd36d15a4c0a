"""Packages of `benchmarks.gpu` for a machine that has torch but cannot reach an index.

    python -m pip list --format=freeze > have.txt             # there: list its packages
    python -m benchmarks.wheels wheels --have have.txt --python 3.12   # here: get the rest
    python -m pip install --no-index --no-deps --target site wheels/*.whl   # there
    PYTHONPATH=site OUT=results python -m benchmarks.gpu      # there; restart to continue

This gets what the benchmark imports and its dependencies, in the versions installed here, except
what the other machine has in any version. DeepSpeed has no wheel on the index, so one is built
without the compiled parts, which it compiles where it runs.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

NEEDED = ("trl", "peft", "accelerate", "datasets", "deepspeed", "litellm", "aiohttp", "diskcache")
NEEDED += ("qwen-vl-utils", "matplotlib", "rich", "scipy", "jinja2", "psutil")
BUILT = "deepspeed"
# av is only for videos, boto3 only for judges on Bedrock: 60 MB together.
LEFT_OUT = ("torch", "torchvision", "triton", "av", "boto3")
PLATFORMS = [f"manylinux_2_{glibc}_x86_64" for glibc in (17, 24, 27, 28, 31, 34)]
PLATFORMS += ["manylinux1_x86_64", "manylinux2014_x86_64"]


def normal(name: str) -> str:
    """A package's name, normalised as on the index."""
    return re.sub(r"[-_.]+", "-", name).lower()


def missing(needed: Iterable[str], have: Iterable[str]) -> dict[str, str]:
    """
    Packages that are needed but missing there, with their dependencies, in the versions here.

    Example:

    ```python
    >>> sorted(missing(["aiosignal"], have=["typing_extensions"]))
    ['aiosignal', 'frozenlist']

    ```
    """
    there = {normal(name) for name in (*have, *LEFT_OUT)}
    found: dict[str, str] = {}
    waiting = [normal(name) for name in needed]
    while waiting:
        name = waiting.pop()
        if name in there or name in found or name.startswith("nvidia-"):
            continue
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # for another platform or Python version
            continue
        for line in requires(name) or ():
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                waiting.append(normal(one.name))
    return found


def bring(folder: Path, have: list[str], python: str) -> None:
    """Download or build the wheels of missing packages into `folder`."""
    packages = missing(NEEDED, have)
    pip = [sys.executable, "-m", "pip"]
    platforms = [word for one in PLATFORMS for word in ("--platform", one)]
    exact = [f"{name}=={packages[name]}" for name in sorted(packages.keys() - {BUILT})]
    download = ["download", "--quiet", "--no-deps", "--only-binary=:all:", *platforms]
    subprocess.run(
        [*pip, *download, "--python-version", python, "--dest", str(folder), *exact], check=True
    )
    if BUILT in packages:
        build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run(
            [*pip, *build, "--wheel-dir", str(folder), f"{BUILT}=={packages[BUILT]}"],
            check=True,
            env={**os.environ, "DS_BUILD_OPS": "0"},
        )
    wheels = sorted(folder.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels) / 1e6
    print(f"{len(wheels)} wheels, {size:.0f} MB, in {folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--have", type=Path, help="`pip list --format=freeze` of the other machine")
    parser.add_argument("--python", default="3.12", help="its Python (default: 3.12)")
    options = parser.parse_args()
    lines = options.have.read_text().split() if options.have else []
    bring(options.folder, [line.partition("==")[0] for line in lines], options.python)

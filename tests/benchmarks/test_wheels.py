"""What is brought to a machine without an index: all that is needed and not there."""

from importlib.metadata import version

from benchmarks.wheels import NEEDED, missing


def test_what_a_package_requires_comes_along_unless_it_is_there():
    # datasets needs multiprocess, which needs dill; both need nothing else.
    found = missing(["multiprocess"], have=[])
    assert found == {"multiprocess": version("multiprocess"), "dill": version("dill")}
    assert missing(["multiprocess"], have=["Dill"]).keys() == {"multiprocess"}


def test_torch_is_never_brought_and_extras_are_not():
    found = missing(NEEDED, have=["numpy"])
    assert {"trl", "datasets", "deepspeed", "litellm", "pydantic-core"} <= found.keys()
    assert not {"torch", "numpy", "boto3", "pytest"} & found.keys()
    assert not any(name.startswith("nvidia-") for name in found)

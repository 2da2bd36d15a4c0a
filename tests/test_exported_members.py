"""What a room says that it exports is there, and what its `__init__` brings in is said."""

import importlib
import pkgutil
from types import ModuleType

import pytest

import trl_balcap

ROOMS = ["trl_balcap"] + [
    f"trl_balcap.{module.name}"
    for module in pkgutil.iter_modules(trl_balcap.__path__)
    if module.name != "__main__"
]


def exporting() -> list[str]:
    return [name for name in ROOMS if hasattr(importlib.import_module(name), "__all__")]


@pytest.mark.parametrize("name", exporting())
def test_what_is_exported_can_be_imported(name):
    room = importlib.import_module(name)
    assert sorted(set(room.__all__)) == sorted(room.__all__)
    missing = [member for member in room.__all__ if not hasattr(room, member)]
    assert missing == []


@pytest.mark.parametrize("name", [name for name in exporting() if name != "trl_balcap"])
def test_a_rooms_init_brings_in_no_more_than_it_exports(name):
    room = importlib.import_module(name)
    own = [value for value in vars(room).values() if getattr(value, "__module__", "") == name]
    if own:  # code, whose imports are for itself
        return
    public = {
        member
        for member, value in vars(room).items()
        if not member.startswith("_")
        and not isinstance(value, ModuleType)
        # Of this package: Any, Callable and the like are how it is written.
        and str(getattr(value, "__module__", "")).startswith("trl_balcap")
    }
    assert public <= set(room.__all__)

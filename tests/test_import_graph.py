"""Imports run one way: no circle, no arrow back up, and the drawing shows what is there."""

import ast
from pathlib import Path

import pytest

import trl_balcap
from tests.import_graph import LAYERS, LAZY, drawing, drawn, module_graph, room_imports

HEIGHT = {room: -depth for depth, layer in enumerate(LAYERS) for room in layer}
FILES = sorted(Path(trl_balcap.__file__).parent.rglob("*.py"))


def test_every_room_has_its_layer():
    rooms = {room for pair in room_imports() for room in pair}
    assert rooms <= HEIGHT.keys(), f"name the layer of {sorted(rooms - HEIGHT.keys())}"


def test_no_room_imports_from_above():
    up = {(a, b) for a, b in room_imports() - LAZY if HEIGHT[a] < HEIGHT[b]}
    assert up == set()


def test_rooms_of_one_layer_form_no_circle():
    imports = room_imports() - LAZY
    assert {(a, b) for a, b in imports if (b, a) in imports} == set()


def test_only_the_command_line_and_the_demo_import_the_trainer():
    importers = {a for a, b in room_imports() if b == "trainer"}
    assert importers <= {"demo", "commands"}


def test_no_circle_among_modules():
    graph = module_graph()
    graph.remove_import(importer="trl_balcap.judge.client", imported="trl_balcap.scenes.provider")
    circles = [
        (importer, imported)
        for importer in graph.modules - {"trl_balcap"}  # whose members are imported on first use
        for imported in graph.find_modules_directly_imported_by(importer)
        if graph.chain_exists(importer=imported, imported=importer)
    ]
    assert circles == []


@pytest.mark.parametrize("name", ["argparse", "rich"])
def test_only_the_command_line_reads_flags_and_draws(name):
    outside = [
        str(file)
        for file in FILES
        if file.parent.name != "commands" and file.name != "cli.py" and name in _imported(file)
    ]
    assert outside == []


def test_no_module_is_longer_than_400_lines():
    long = {str(file): n for file in FILES if (n := len(file.read_text().splitlines())) > 400}
    assert long == {}


def test_the_drawing_in_contributing_is_of_this_code():
    assert drawn() == drawing(), "run `python -m tests.import_graph`"


def _imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found

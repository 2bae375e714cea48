"""The house: imports point down a list of rooms, in which data flows up; no circle, nothing shadowed."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import pgjax

ROOT = Path(pgjax.__file__).parent
# From the ground floor up: what stands in a line imports from lines above it, or from its own room.
ROOMS = [
    "errors",
    "checks paths progress devices trees moments",
    "trajectory hyperparameters descent",
    "environments",
    "policies",
    "batching placement",
    "segments rollout",
    "penalty off_policy agreement",
    "estimators",
    "algorithms",
    "exact",
    "imitation",
    "analysis",
    "sweeps",
    "text",
    "rlhf",
]
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms.split()}
MODULES = [module.name for module in pkgutil.walk_packages([str(ROOT)], "pgjax.")]
FILES = [name for name in MODULES if not (ROOT.parent / name.replace(".", "/")).is_dir()]


def imported(source: str, inside_functions: bool = False):
    """The modules of pgjax that a file imports from, at its top or within functions."""
    tree = ast.parse(source)
    top = {node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom) or (node in top) == inside_functions:
            continue
        names = [alias.name for alias in node.names]
        origin = getattr(node, "module", None)
        for name in names:
            whole = name if origin is None else f"{origin}.{name}"
            if whole.split(".")[0] == "pgjax":
                found.add(whole if whole in MODULES else origin)
    return found


def source_of(module: str) -> str:
    return (ROOT.parent / (module.replace(".", "/") + ".py")).read_text()


ARROWS = {module: imported(source_of(module)) for module in FILES}


def test_every_file_has_a_room():
    assert {module.split(".")[1] for module in MODULES} == set(FLOOR)


def test_imports_point_down():
    up = [
        (module, other)
        for module, others in ARROWS.items()
        for other in others
        if other.split(".")[1] != module.split(".")[1] and FLOOR[other.split(".")[1]] >= FLOOR[module.split(".")[1]]
    ]
    assert not up


def test_files_import_files_and_not_the_list_of_a_room():
    assert not [(module, other) for module, others in ARROWS.items() for other in others if other not in FILES]


def test_no_circle_of_files():
    left = {module: set(others) for module, others in ARROWS.items()}
    while ready := [module for module, others in left.items() if not others & left.keys()]:
        for module in ready:
            del left[module]
    assert not left


def test_nothing_of_pgjax_is_imported_within_a_function():
    assert not {module: found for module in FILES if (found := imported(source_of(module), inside_functions=True))}


def test_an_arrow_up_would_be_seen():
    assert imported("def f():\n    from pgjax.text import decoder", inside_functions=True) == {"pgjax.text.decoder"}
    assert imported("from pgjax import trees, maze\nimport pgjax.rollout") == {"pgjax.trees", "pgjax", "pgjax.rollout"}


ALONE = """
import importlib, sys, types
from pathlib import Path
root, modules = Path(sys.argv[1]), sys.argv[2:]
for module in modules:
    for name in [name for name in sys.modules if name.split(".")[0] == "pgjax"]:
        del sys.modules[name]
    for room in [root, *(path for path in root.iterdir() if path.is_dir() and path.name != "__pycache__")]:
        name = "pgjax" if room == root else f"pgjax.{room.name}"
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(room)]
    try:
        importlib.import_module(module)
    except ImportError as error:
        print(module, error)
"""


@pytest.mark.slow
def test_each_file_can_be_imported_first_and_without_the_lists_of_the_rooms():
    command = [sys.executable, "-c", ALONE, str(ROOT), *FILES]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""


@pytest.mark.parametrize("package", ["pgjax", *sorted(set(MODULES) - set(FILES))])
def test_what_is_public_is_there_and_shadows_no_module(package):
    room = importlib.import_module(package)
    assert room.__all__ == sorted(room.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert all(hasattr(room, name) for name in room.__all__)
    for module in MODULES:
        if module.rpartition(".")[0] == package:
            assert getattr(room, module.rpartition(".")[2]) is sys.modules[module]


def test_the_library_needs_neither_options_nor_tables():
    """Strings select things in experiments alone."""
    for module in FILES:
        assert not {"tyro", "pandas"} & {name for name in source_of(module).split() if name.isidentifier()}, module


def test_a_function_fits_on_a_screen_or_two_and_a_file_is_of_one_idea():
    functions = {
        f"{module}.{node.name}": node.end_lineno - node.lineno + 1
        for module in FILES
        for node in ast.walk(ast.parse(source_of(module)))
        if isinstance(node, ast.FunctionDef)
    }
    assert not {name: lines for name, lines in functions.items() if lines >= 100}
    assert not {module: lines for module in FILES if (lines := source_of(module).count("\n")) > 360}

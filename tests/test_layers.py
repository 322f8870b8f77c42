"""Layers: imports run downward, and the modules of quick commands import no TensorFlow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "tl_toolkit"

# A row a folder, lowest first: each may import itself and the rows above it.
LIGHT = [
    ["errors", "events", "keras_private", "runtime"],
    ["runs"],
    ["recipe"],
    ["catalog"],
    ["sources"],
    ["plan"],
    ["printing"],
]
HEAVY = [
    ["images"],
    ["architectures"],
    ["tasks"],
    ["transfer"],
    ["features"],
    ["training"],
    ["tuning"],
    ["evaluation"],
    ["export"],
    ["inspect"],
    ["api"],
    ["cli"],
]
LEVELS = {room: level for level, row in enumerate(LIGHT + HEAVY) for room in row}
HEAVY_LIBRARIES = ("tensorflow", "keras", "numpy")


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if room_of(path) != "__init__")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path):
    upward = [
        name
        for name in imports_of(path)
        if name.startswith("tl_toolkit.") and LEVELS[name.split(".")[1]] > LEVELS[room_of(path)]
    ]

    assert not upward


def test_what_must_answer_at_once_imports_no_tensorflow():
    rooms = [room for row in LIGHT for room in row] + ["api", "cli"]
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if room_of(path) in rooms or path.name in ("spec.py", "planning.py")
    ]
    code = (
        f"import sys, {', '.join(modules)}; "
        f"print([name for name in {HEAVY_LIBRARIES} if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    import tl_toolkit

    assert all(getattr(tl_toolkit, name) is not None for name in tl_toolkit.__all__)
    assert set(tl_toolkit.__all__) <= set(dir(tl_toolkit))

"""The house: imports run downward, and what must answer at once imports no TensorFlow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "tl_toolkit"

# Lowest first; modules on one line may import each other's line and everything above it.
LAYERS = [
    ["errors", "runtime", "progress"],
    ["recipe", "runs", "architectures.records", "architectures.registry", "architectures.imagenet",
     "architectures.catalog", "architectures.tap_units", "weight_files", "weight_matching"],
    ["data.listing", "data.folders", "data.tables", "data.glyphs", "data.builtin",
     "data.pairs", "data.sources", "data.manifest"],
    ["searching.space"],
    ["check", "starter"],
    ["architectures", "data"],
    ["tasks"],
    ["transfer"],
    ["feature_cache"],
    ["features"],
    ["training"],
    ["searching"],
    ["evaluation"],
    ["export"],
    ["api", "searching.verbs", "explore"],
    ["cli"],
]  # fmt: skip
LIGHT = {"errors", "runtime", "progress"} | {name for line in LAYERS[1:5] for name in line}


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def layer_of(name):
    found = [
        (len(entry), level)
        for level, line in enumerate(LAYERS)
        for entry in line
        if name == entry or name.startswith(f"{entry}.")
    ]
    assert found, f"{name} has no place in LAYERS"
    return max(found)[1]


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if module_name(path))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_run_downward(path):
    name = module_name(path)
    upward = [
        found
        for found in imports_of(path)
        if found.startswith("tl_toolkit.")
        and layer_of(found.removeprefix("tl_toolkit.")) > layer_of(name)
    ]

    assert not upward


@pytest.mark.parametrize(
    "module",
    ["tl_toolkit", "tl_toolkit.check", "tl_toolkit.starter", "tl_toolkit.api",
     "tl_toolkit.explore", "tl_toolkit.cli.models",
     "tl_toolkit.cli.main", "tl_toolkit.cli.recipes", "tl_toolkit.cli.training",
     "tl_toolkit.cli.using",
     "tl_toolkit.cli.cache",
     "tl_toolkit.searching.verbs", "tl_toolkit.cli.searching"],
)  # fmt: skip
def test_what_must_answer_at_once_imports_no_tensorflow(module):
    code = (
        f"import sys, {module}; "
        "print([n for n in ('tensorflow', 'keras', 'numpy') if n in sys.modules])"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"


def test_every_public_name_is_there():
    import tl_toolkit

    assert all(getattr(tl_toolkit, name) is not None for name in tl_toolkit.__all__)
    assert set(tl_toolkit.__all__) <= set(dir(tl_toolkit))

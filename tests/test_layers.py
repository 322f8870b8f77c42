"""Layers: imports run downward, and the modules of quick commands import no TensorFlow."""

import ast
import re
import subprocess
import sys
from functools import cache

import pytest

from tests.syntax import PACKAGE, nodes_of, parse_package

# A row a folder, lowest first: each may import itself and the rows above it.
LIGHT = [
    ["errors", "events", "keras_private", "runtime"],
    ["runs"],
    ["cluster"],
    ["recipe"],
    ["catalog"],
    ["sources"],
    ["plan"],
    ["printing"],
]
HEAVY = [
    ["images"],
    ["reports"],
    ["architectures"],
    ["tasks"],
    ["audit"],
    ["transfer"],
    ["features"],
    ["training"],
    ["tuning"],
    ["evaluation"],
    ["export"],
    ["inspect"],
    ["serving"],
    ["api"],
    ["cli"],
    ["__main__"],
]
LEVELS = {room: level for level, row in enumerate(LIGHT + HEAVY) for room in row}
# Doors: modules that are imported by a name, which no import statement shows. The first three lead
# upward, into what imports them; the others into their own folder.
DOORS = {
    ("plan/bases.py", "f'tl_toolkit.architectures.{module}'"): (
        "the record of a Keras model of the user's own is read off its graph, which takes Keras"
    ),
    ("recipe/tasks.py", "f'tl_toolkit.tasks.{kind}.spec'"): (
        "the fields of a task are its own; spec.py imports no more of recipes than tasks and fields"
    ),
    ("recipe/tasks.py", "self.shared_modules.get(name, own_module)"): (
        "plans, and all above them, ask for a room of the task that a recipe names"
    ),
    ("recipe/__init__.py", "f'{__name__}.{home}'"): "sections, when they are asked for",
    ("__init__.py", "f'{__name__}.{name}'"): "public modules, when they are asked for",
    ("__init__.py", "f'{__name__}.{_HOMES[name]}'"): "public names, when they are asked for",
    ("architectures/graph.py", "module"): "the builder that a record of the catalog names",
    ("export/formats.py", "f\"tl_toolkit.export.{name.replace('-', '_')}\""): (
        "a format, when it is written"
    ),
    ("cli/main.py", "f'tl_toolkit.cli.{_VERBS[cmd_name].module}'"): "a verb, when it is called",
}
# What rooms between plan and api import of recipes, and why: a file, or a pattern of files, and
# names. All else takes plain values, or small settings of its own.
SECTIONS = {
    "tasks/*/spec.py": ({"*"}, "defines the section of a task"),
    "tasks/*/planning.py": ({"FieldPath", "Masks", "Pixels"}, "the part of plans that a task owns"),
    "tasks/*/maps.py": ({"Recipe"}, "what `build` takes"),
    "tasks/*/task.py": ({"Recipe"}, "what `build` takes, and nothing else in the file"),
    "tasks/registry.py": ({"Recipe", "Section"}, "opens the task of a recipe"),
    "tasks/__init__.py": ({"TASKS", "find_task"}, "gives the sections of all tasks"),
    "architectures/edges.py": ({"EdgeKind"}, "one list of words, and no section"),
    "training/optimizers.py": ({"Optimizer", "Schedule"}, "sections that build themselves"),
    "tuning/cluster_executor.py": ({"Search"}, "what is searched is a recipe"),
    "tuning/engine.py": ({"Search"}, "what is searched is a recipe"),
    "tuning/hypermodel.py": ({"Recipe"}, "what is searched is a recipe"),
    "tuning/hyperparameters.py": ({"Dimension"}, "what is searched is a recipe"),
    "tuning/keras_oracles.py": ({"Search"}, "what is searched is a recipe"),
    "tuning/optuna_oracle.py": ({"Dimension", "Search"}, "what is searched is a recipe"),
    "tuning/oracle.py": ({"Search"}, "what is searched is a recipe"),
    "tuning/report.py": ({"Dimension"}, "what is searched is a recipe"),
    "tuning/trial_runner.py": ({"Search"}, "what is searched is a recipe"),
    "tuning/trainers.py": ({"Recipe", "replace_fields"}, "what is searched is a recipe"),
    "export/formats.py": ({"split_formats"}, "one table of words, and no section"),
    "export/publish.py": (
        {"EXPORT_FORMATS", "ExportFormat", "split_formats"},
        "one table of words, and no section",
    ),
    "printing/printer.py": ({"TaskSection"}, "a task words what is printed of it"),
    "printing/tables.py": ({"TaskSection"}, "a task words what is printed of it"),
}
HEAVY_LIBRARIES = ("tensorflow", "keras", "numpy")


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def import_statements(path):
    """The import statements of a module."""
    return [node for node in nodes_of(path) if isinstance(node, ast.Import | ast.ImportFrom)]


def imports_of(path):
    for node in import_statements(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if room_of(path) != "__init__")


def test_imports_run_downward():
    upward = [
        (str(path.relative_to(PACKAGE)), name)
        for path in MODULES
        for name in imports_of(path)
        if name.startswith("tl_toolkit.") and LEVELS[name.split(".")[1]] > LEVELS[room_of(path)]
    ]

    assert upward == []


def taken_from_recipes(path):
    """Returns the names that a module imports of `tl_toolkit.recipe`."""
    return {
        alias.name
        for node in import_statements(path)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tl_toolkit.recipe")
        for alias in node.names
    }


def test_sections_of_recipes_end_at_the_plan():
    below = [path for path in MODULES if LEVELS["plan"] < LEVELS[room_of(path)] < LEVELS["api"]]
    taken = {path.relative_to(PACKAGE): names for path in below
             if (names := taken_from_recipes(path))}  # fmt: skip

    allowed = {
        place: [names for pattern, (names, _) in SECTIONS.items() if place.match(pattern)]
        for place in taken
    }
    assert {
        place: names
        for place, names in taken.items()
        if not any(names <= most or most == {"*"} for most in allowed[place])
    } == {}
    assert all(any(place.match(pattern) for place in taken) for pattern in SECTIONS)


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("tasks/*/task.py")), ids=str)
def test_only_the_build_of_a_task_reads_a_recipe(path):
    tree = ast.parse(path.read_text())
    outside = [
        name.id
        for statement in tree.body
        if getattr(statement, "name", "") != "build"
        for name in ast.walk(statement)
        if isinstance(name, ast.Name)
    ]

    assert "Recipe" not in outside


def doors_of(tree):
    """Yields what is imported by a call, as it is written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.alias) and node.asname and node.name == "import_module":
            yield f"import_module as {node.asname}"
        name = getattr(node, "id", "") or getattr(node, "attr", "")
        if name in ("import_module", "__import__") and not isinstance(node, ast.alias):
            calls = [call for call in ast.walk(tree) if getattr(call, "func", None) is node]
            yield ast.unparse(calls[0].args[0]) if calls else f"{name}, not called"


def test_only_doors_import_by_name():
    found = {
        (path.relative_to(PACKAGE).as_posix(), door)
        for path, tree in parse_package().items()
        if re.search("import_module|__import__", path.read_text())
        for door in doors_of(tree)
    }

    assert found == set(DOORS)


def test_an_import_by_name_is_noticed_however_it_is_called():
    code = "importlib.import_module('a')\n__import__('b')\nload = import_module"
    renamed = "from importlib import import_module as load"

    doors = sorted(doors_of(ast.parse(code)))
    assert doors == ["'a'", "'b'", "import_module, not called"]
    assert list(doors_of(ast.parse(renamed))) == ["import_module as load"]


def test_the_specs_of_tasks_import_no_more_of_recipes_than_fields_and_tasks():
    """`recipe.schema` opens them while it is imported: more would be a circle."""
    specs = sorted((PACKAGE / "tasks").glob("*/spec.py"))
    imported = {name for path in specs for name in imports_of(path) if "tl_toolkit" in name}

    below = {"tl_toolkit.recipe.fields", "tl_toolkit.recipe.tasks"}
    assert specs and imported <= below | {"tl_toolkit.tasks.dense.spec"}


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


@pytest.mark.slow
def test_an_export_predicts_for_each_task_without_tensorflow():
    files = sorted(
        path for name in ("outputs", "maps") for path in PACKAGE.glob(f"tasks/*/{name}.py")
    )
    modules = ", ".join(f"tl_toolkit.tasks.{path.parent.name}.{path.stem}" for path in files)
    code = f"import sys, tl_toolkit.export.quick, {modules}; print('tensorflow' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert len(files) == 8 and done.stdout.strip() == "False"


def test_every_public_name_is_there():
    import tl_toolkit

    assert all(getattr(tl_toolkit, name) is not None for name in tl_toolkit.__all__)
    assert set(tl_toolkit.__all__) <= set(dir(tl_toolkit))

"""The contract of tasks, and that nobody outside their folder asks which one it is."""

import ast
import re
from pathlib import Path

import pytest

from tests.pixels import TASKS as DRAWN
from tests.pixels import make_recipe
from tests.syntax import PACKAGE, nodes_of, parse_package
from tl_toolkit.plan.network import resolve_head
from tl_toolkit.plan.tasks import TaskPlanning, plan_task
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.recipe.tasks import TASKS, find_task, task_of
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.dense.task import DenseTask
from tl_toolkit.tasks.image import ImageTask
from tl_toolkit.tasks.registry import build_task

DENSE = {name for name in TASKS if find_task(name).is_dense}
# Where strings outside the tasks name one, and why.
NAMING = {
    "recipe/tasks.py": "the table of tasks, and the one that recipes have by default",
    "recipe/schema.py": "examples of the field task",
    "recipe/pixels.py": "edges is a way to sample pixels, too; ImageSets/Segmentation, a folder",
    "sources/coco.py": "COCO calls the outline of an object so",
    "plan/preset.py": "logistic regression is no task",
}
NAMING_METRICS = {
    # Defaults of classes for those who build them without a recipe; a recipe's task sets its own.
    ("plan/training.py", "val_accuracy"),
    ("recipe/phase_schema.py", "val_accuracy"),
    ("recipe/search_schema.py", "val_accuracy"),
    ("training/checkpoint.py", "accuracy"),
    # What tasks with classes have in common.
    ("recipe/tasks.py", "per_class"),
}


def recipe_of(name):
    """A recipe of a task, with the least that it needs."""
    if name in DENSE:
        return build_recipe(make_recipe(name, Path())).recipe
    values = make_recipe("segmentation", Path()) | {"task": name}
    del values["pixels"], values["model"]["head"]
    if name == "classification":
        values["data"]["train"] = "photos"
    else:
        values["data"] = {"csv": "table.csv", "image_size": 32}
    return build_recipe(values).recipe


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_a_folder_with_a_section_a_planning_and_a_task(name):
    section = find_task(name)

    assert section().kind == name and task_of(name) is section
    assert section.__module__ == f"tl_toolkit.tasks.{name}.spec"
    assert isinstance(section.score, str) and section.score
    assert issubclass(section().open("planning").Planning, TaskPlanning)
    assert section().open("task").__name__ == f"tl_toolkit.tasks.{name}.task"


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_what_recipes_are_checked_by(name):
    recipe = resolve_head(recipe_of(name))
    section = find_task(name)

    task = build_task(recipe, ["a", "b"])

    assert recipe.task.kind == name
    assert isinstance(task, Task) and isinstance(task, DenseTask if section.is_dense else ImageTask)
    assert isinstance(task, DenseTask) == section.is_dense
    assert task.score == section.score
    if section.has_classes:
        assert task.classes == ("a", "b")
    if section.is_dense or section.has_classes:  # a regression has an output for each column
        assert (task.units == 2) == section.has_classes
    assert isinstance(plan_task(recipe), TaskPlanning)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_defines_what_the_contract_leaves_open(name):
    task = build_task(resolve_head(recipe_of(name)), ["a", "b"])

    for method in vars(Task):
        body = getattr(Task, method)
        if callable(body) and "NotImplementedError" in getattr(body, "__code__", body).co_names:
            assert getattr(type(task), method) is not body, method


def test_every_dense_task_is_drawn_for_tests():
    assert set(DRAWN) == DENSE


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_scored_by_what_is_better_the_higher_it_is(name):
    section = find_task(name)

    assert section.lower_is_better.isdisjoint({section.score})
    assert section.score not in section.ungraded


@pytest.fixture(scope="module")
def modules_outside():
    """The place of each module outside the tasks, and its nodes."""
    places = {path: path.relative_to(PACKAGE) for path in parse_package()}
    return [
        (place.as_posix(), nodes_of(path))
        for path, place in places.items()
        if place.parts[0] != "tasks"
    ]


def strings_of(nodes):
    """Yields the strings of a module, whole or parts of f-strings, but for docstrings."""
    documented = {
        id(statement.value)
        for node in nodes
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for statement in node.body
        if isinstance(statement, ast.Expr)
    }
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in documented:
                yield node.value


def named_in(text):
    return set(TASKS) & set(re.findall(r"\w+", text.lower()))


def test_no_file_outside_the_tasks_names_one(modules_outside):
    naming = {
        place: names
        for place, nodes in modules_outside
        if (names := set().union(*map(named_in, strings_of(nodes))))
    }

    assert set(naming) == set(NAMING)
    assert naming["recipe/pixels.py"] == {"edges", "segmentation"}


def test_a_name_inside_a_longer_text_is_noticed():
    tree = ast.parse('"""Of edges."""\nif "\\ntask: segmentation" in text: f"{x} of normals"')
    nodes = list(ast.walk(tree))

    assert [named_in(text) for text in strings_of(nodes) if named_in(text)] == [
        {"segmentation"},
        {"normals"},
    ]


def test_no_file_outside_the_tasks_names_a_metric_of_one(modules_outside):
    metrics = {name for kind in TASKS for name in (*find_task(kind).titles, find_task(kind).score)}
    columns = {f"per_{find_task(kind).grouped_by}" for kind in TASKS}
    wanted = {*metrics, *columns, *(f"val_{name}" for name in metrics)}

    naming = {
        (place, text)
        for place, nodes in modules_outside
        for text in strings_of(nodes)
        if text in wanted
    }

    assert naming <= NAMING_METRICS


def test_no_file_outside_the_tasks_imports_one(modules_outside):
    folders = {place.parent.name for place in (PACKAGE / "tasks").glob("*/__init__.py")}

    imported = {
        (place, node.module)
        for place, nodes in modules_outside
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tl_toolkit.tasks.")
    }

    assert folders == {*TASKS, "dense"}
    assert [pair for pair in imported if pair[1].split(".")[2] in folders] == []


def test_no_file_outside_the_tasks_asks_for_masks(modules_outside):
    """A section that is there says nothing of the task; `is_dense` does."""
    asking = {
        (place, ast.unparse(node))
        for place, nodes in modules_outside
        for node in nodes
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, ast.Is | ast.IsNot) for operator in node.ops)
        and getattr(node.left, "attr", "") in ("masks", "targets")
    }

    assert asking == set()

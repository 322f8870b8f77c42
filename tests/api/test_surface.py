"""The public names: recipes built in Python, models, errors, names of architectures."""

import ast
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tl_toolkit as tl
from tl_toolkit.recipe.fields import Section
from tl_toolkit.recipe.kinds import KindSection
from tl_toolkit.recipe.load import build_recipe, dump_recipe
from tl_toolkit.recipe.tasks import TASKS, TaskSection, find_task

VALUES = {
    "version": 1,
    "name": "x",
    "data": {"train": "photos", "image_size": 32},
    "model": {"base": "lenet5", "weights": "random"},
    "phases": [{"name": "head", "epochs": 1}],
}
_BASES = (Section, KindSection, TaskSection)


@pytest.fixture
def recipe(tmp_path, draw_photos, write_recipe):
    """Path of a small recipe."""
    return write_recipe(tmp_path / "r.yaml", draw_photos(tmp_path / "photos"))


@pytest.mark.slow
def test_a_loaded_recipe_is_taken_by_every_verb_that_takes_a_recipe(recipe, tmp_path):
    loaded = tl.load_recipe(recipe)

    plan = tl.validate(loaded)
    run = tl.finetune(loaded, overrides={"phases.head.epochs": 0}, root=tmp_path / "runs")
    search = tl.search(
        loaded,
        overrides={"search": {"space": {"seed": {"choices": [1]}}}},
        root=tmp_path / "runs",
    )

    assert plan.recipe.name == loaded.recipe.name
    assert plan.classes == run.classes == ("ants", "bees", "wasps")
    assert run.recipe.phases[0].epochs == 0
    assert search.trials[0].state == "completed"


def test_problems_of_a_loaded_recipe_are_placed_in_its_file(recipe):
    recipe.write_text(recipe.read_text().replace("lenet5", "lenet55"))

    with pytest.raises(tl.errors.RecipeError, match=r"r\.yaml:1:\d+  model\.base = 'lenet55'"):
        tl.validate(tl.load_recipe(recipe))


def test_validate_takes_overrides_and_names_all_problems(recipe):
    with pytest.raises(tl.ToolkitError) as caught:
        tl.validate(recipe, {"model.base": "lenet55", "data.train": "nowhere"})

    assert "lenet55" in str(caught.value) and "nowhere" in str(caught.value)


@pytest.mark.parametrize(
    "values, build",
    [
        (
            {"data": {"batch_size": 8}, "phases": [{"unfreeze": {"from": "f6"}}]},
            lambda R: {
                "data": R.Data(train=Path("photos"), image_size=(32, 32), batch_size=8),
                "phases": (R.Phase(name="head", epochs=1, unfreeze=R.UnfreezeFrom(unit="f6")),),
            },
        ),
        (
            {"task": "segmentation", "data": {"classes": ["sky", "sea"]}, "phases": [{}]},
            lambda R: {
                "task": "segmentation",
                "data": R.Data(train=Path("photos"), image_size=(32, 32), classes=("sky", "sea")),
                "phases": (R.Phase(name="head", epochs=1),),
            },
        ),
    ],
    ids=["classification", "segmentation"],
)
def test_a_recipe_of_sections_equals_that_of_a_file(values, build):
    phases = [{"name": "head", "epochs": 1, **phase} for phase in values["phases"]]
    data = {"train": "photos", "image_size": 32, **values["data"]}
    model = {"base": "lenet5", "weights": "random", "head": {"dropout": 0.1}}
    written = {"version": 1, "name": "x", **values, "data": data, "model": model}

    built = tl.Recipe(
        version=1,
        name="x",
        model=tl.recipe.Model(base="lenet5", weights="random", head=tl.recipe.Head(dropout=0.1)),
        **build(tl.recipe),
    )

    expected = build_recipe({**written, "phases": phases}).recipe
    assert built == expected
    assert dump_recipe(built) == dump_recipe(expected)


@pytest.mark.parametrize(
    ("section", "written"),
    [
        (lambda T: T.ClassificationSection(), "classification"),
        (lambda T: T.RegressionSection(), "regression"),
        (
            lambda T: T.RegressionSection(columns=("age",), loss="huber"),
            {"kind": "regression", "columns": ["age"], "loss": "huber"},
        ),
        (
            lambda T: T.MultilabelSection(threshold=0.5),
            {"kind": "multilabel", "threshold": 0.5},
        ),
    ],
)
def test_the_section_of_a_task_needs_no_kind(section, written):
    source = "train" if written == "classification" else "csv"
    rest = VALUES | {"data": {source: "photos", "image_size": 32}}

    built = tl.Recipe(task=section(tl.tasks), **rest)

    expected = build_recipe({"task": written, **rest}).recipe
    assert built == expected
    assert dump_recipe(built) == dump_recipe(expected)


def test_a_section_may_be_the_value_of_an_override():
    overrides = {"phases.head.optimizer": tl.recipe.AdamW(weight_decay=0.01)}

    recipe = build_recipe(VALUES, overrides).recipe

    assert recipe.phases[0].optimizer == tl.recipe.AdamW(weight_decay=0.01)


def test_every_section_of_a_recipe_is_a_public_class():
    sections = set(dir(tl.recipe))
    pending = [Section]
    while pending:
        section = pending.pop()
        pending += section.__subclasses__()
        if section.__module__.startswith("tl_toolkit.recipe.") and section not in _BASES:
            assert getattr(tl.recipe, section.__name__) is section
            assert section.__name__ in sections

    assert {"Data", "Phase", "Search", "Dimension", "AdamW", "CosineSchedule"} <= sections


def test_the_section_of_every_task_is_a_public_class_that_editors_complete():
    tree = ast.parse(Path(tl.tasks.__file__).read_text())
    (block,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    imported = {(line.module, alias.asname) for line in block.body for alias in line.names}

    for kind in TASKS:
        section = find_task(kind)
        assert getattr(tl.tasks, section.__name__) is section
        assert section.__name__ in dir(tl.tasks)
    assert imported == {(find_task(kind).__module__, find_task(kind).__name__) for kind in TASKS}


def test_what_is_no_section_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'RegressionSectoin'"):
        tl.tasks.RegressionSectoin  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'Phasee'"):
        tl.recipe.Phasee  # noqa: B018


def test_errors_and_sections_need_no_import_of_their_own():
    code = (
        "import sys, tl_toolkit as tl; "
        "print(tl.errors.RecipeError.exit_code, tl.recipe.Phase.__name__, "
        "len(tl.list_architectures()) > 20, 'tensorflow' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["2", "Phase", "True", "False"]


def test_architectures_are_listed_by_the_names_that_recipes_use(recipe):
    names = tl.list_architectures()

    assert names == sorted(set(names), key=names.index) and "lenet5" in names
    assert tl.describe_architecture("lenet5").parameters == 60856


@pytest.mark.slow
def test_the_model_before_training_is_that_from_which_finetune_starts(recipe, tmp_path):
    untrained = {"phases.head.epochs": 0}

    model = tl.build_model(recipe, overrides=untrained)
    run = tl.finetune(recipe, overrides=untrained, root=tmp_path / "runs")

    assert isinstance(model, keras.Model)
    assert not [layer for layer in model.layers if isinstance(layer, keras.Model)]
    for ours, theirs in zip(model.weights, run.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    pixels = np.zeros((1, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(model(pixels), run.model(pixels))


@pytest.mark.slow
def test_load_model_registers_the_layers_of_this_package(tmp_path):
    code = """
import sys
import tl_toolkit as tl
model = tl.load_model(sys.argv[1])
print([type(layer).__module__ for layer in model.layers if "tl_toolkit" in type(layer).__module__])
"""
    from tl_toolkit.architectures.sampling import PixelSample

    maps, pixels = keras.Input((4, 4, 2)), keras.Input((None, 2))
    keras.Model([maps, pixels], PixelSample(8)(maps, pixels)).save(tmp_path / "m.keras")

    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m.keras"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stdout.strip() == "['tl_toolkit.architectures.sampling']"


@pytest.mark.parametrize("content, what", [(None, "no such file"), (b"half", "is damaged")])
def test_a_model_that_cannot_be_loaded_is_an_error_of_data(tmp_path, content, what):
    if content is not None:
        (tmp_path / "m.keras").write_bytes(content)

    with pytest.raises(tl.errors.DataError, match=what):
        tl.load_model(tmp_path / "m.keras")


def test_dir_shows_public_names_alone():
    assert set(dir(tl)) == {*tl.__all__, "__version__"}


@pytest.mark.parametrize("unfreeze", [{"from": "f6"}, ["f6"], 1])
def test_an_architecture_takes_what_a_recipe_takes(unfreeze):
    square = tl.describe_architecture("lenet5", image_size=40, unfreeze=unfreeze)

    assert square.image_size == (40, 40) and square.trainable > 0
    assert (
        square.trainable
        == tl.describe_architecture(
            "lenet5", image_size=(40, 40), unfreeze=tl.recipe.UnfreezeFrom(unit="f6")
        ).trainable
    )


def test_what_no_architecture_takes_is_refused_in_words():
    with pytest.raises(tl.errors.RecipeError, match=r"unfreeze=\{'from': 'f6'\}"):
        tl.describe_architecture("lenet5", unfreeze="f6")
    with pytest.raises(tl.errors.RecipeError, match=r"got a Sequential(.|\n)*model\.save"):
        tl.probe_architecture(keras.Sequential())

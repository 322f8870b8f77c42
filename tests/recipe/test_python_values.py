"""Values of numpy in recipes made in Python, and what is said of objects of Keras and pandas."""

import keras
import numpy as np
import pytest

import tl_toolkit as tl
from tl_toolkit.errors import RecipeError
from tl_toolkit.recipe.load import build_recipe, dump_recipe

SCHEDULES = keras.optimizers.schedules


class Table:
    """As much of a DataFrame as the message reads."""

    def to_csv(self, path):
        """Writes it."""

    def __repr__(self):
        return "  path\n0 a.jpg"


def refuse(values, overrides):
    with pytest.raises(RecipeError) as caught:
        build_recipe(values, overrides)
    (problem,) = caught.value.problems
    return problem


def test_overrides_may_be_scalars_and_arrays_of_numpy(values):
    overrides = {
        "phases.head.epochs": np.int64(3),
        "phases.head.learning_rate": np.float32(0.25),
        "data.image_size": np.array([48, 64]),
        "data.convert": np.bool_(True),
    }

    recipe = build_recipe(values, overrides).recipe

    assert (recipe.phases[0].epochs, recipe.phases[0].learning_rate) == (3, 0.25)
    assert (recipe.data.image_size, recipe.data.convert) == ((48, 64), True)
    assert build_recipe(tl.Recipe(**{**values, "seed": np.int32(4)})).recipe.seed == 4


def test_sections_may_hold_scalars_and_arrays_of_numpy(values):
    phase = tl.recipe.Phase(name="head", epochs=np.int64(3))
    data = tl.recipe.Data(train="photos", image_size=(np.int64(48), np.int64(64)))

    recipe = build_recipe({**values, "data": data, "phases": [phase], "seed": np.int8(2)}).recipe

    assert "epochs: 3\n" in dump_recipe(recipe)
    assert (recipe.data.image_size, recipe.seed) == ((48, 64), 2)


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("learning_rate", SCHEDULES.CosineDecay(1e-2, 100), "CosineSchedule(initial=0.01)"),
        ("learning_rate", SCHEDULES.ExponentialDecay(0.1, 9, 0.9), "ExponentialSchedule("),
        ("learning_rate", SCHEDULES.PiecewiseConstantDecay([1], [2.0, 1.0]), "StepSchedule("),
        ("optimizer", keras.optimizers.SGD(), "SGD()"),
        ("optimizer", keras.optimizers.AdamW, "AdamW()"),
        ("optimizer", keras.optimizers.Nadam(), "Adam()"),
    ],
)
def test_an_object_of_keras_is_answered_by_the_section_in_its_place(values, field, value, hint):
    problem = refuse(values, {f"phases.head.{field}": value})

    assert problem.what.startswith(f"phases.head.{field} = <")
    assert " at 0x" not in str(problem)
    assert problem.hint.startswith(f"tl.recipe.{hint}")
    section = eval(problem.hint, {"tl": tl})
    recipe = build_recipe(values, {f"phases.head.{field}": section}).recipe
    assert getattr(recipe.phases[0], field) == section


@pytest.mark.parametrize("value", [Table(), ["a.jpg", "b.jpg"]])
def test_a_table_in_memory_or_a_list_of_files_is_written_first(values, value):
    problem = refuse(values, {"data.train": value})

    assert problem.what in ("data.train = <Table>", "data.train = ['a.jpg', 'b.jpg']")
    assert problem.hint == "write a table: df.to_csv('t.csv', index=False), data.csv=t.csv"

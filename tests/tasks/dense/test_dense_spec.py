"""Recipes of dense tasks: what depends on the task, and what it has not."""

import dataclasses

import pytest

from tl_toolkit.errors import RecipeError
from tl_toolkit.recipe.load import build_recipe, replace_fields
from tl_toolkit.recipe.schema import (
    Data,
    EarlyStopping,
    Masks,
    Model,
    Phase,
    Pixels,
    Recipe,
    Search,
)
from tl_toolkit.recipe.search_schema import Objective
from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.dense.spec import BATCH_SIZE
from tl_toolkit.tasks.segmentation.masks import MaskSettings

TASKS = {"segmentation": ["a", "b"], "edges": None, "normals": None}


@pytest.fixture(params=TASKS)
def pixel_values(request, values):
    """A recipe of each task."""
    data = {**values["data"], "classes": TASKS[request.param]}
    return {**values, "task": request.param, "data": data}


def of_task(values, task):
    return {**values, "task": task, "data": {**values["data"], "classes": TASKS[task]}}


@pytest.fixture
def values():
    return {
        "version": 1,
        "name": "flowers",
        "data": {"train": "photos", "image_size": 28},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 5}, {"name": "tune", "epochs": 2, "unfreeze": 1}],
    }


def refuse(values, **overrides):
    with pytest.raises(RecipeError) as caught:
        build_recipe(values, {key.replace("__", "."): one for key, one in overrides.items()})
    return str(caught.value)


def test_a_task_of_pixels_has_masks_pixels_and_a_smaller_batch(pixel_values):
    recipe = build_recipe(pixel_values).recipe

    assert recipe.data.masks is not None and recipe.pixels is not None
    assert recipe.data.batch_size == BATCH_SIZE


@pytest.mark.parametrize(
    ("task", "score", "loss", "class_weights"),
    [
        ("segmentation", "val_mean_iou", "cross_entropy", None),
        ("edges", "val_f_score", "cross_entropy", "balanced"),
        ("normals", "val_within_22_5", "angular", None),
    ],
)
def test_defaults_are_those_of_the_task(values, task, score, loss, class_weights):
    changed = of_task(values, task) | {"early_stopping": {}, "search": {}}

    recipe = build_recipe(changed).recipe

    assert recipe.early_stopping.monitor == recipe.search.objective.name == score
    assert (recipe.pixels.loss, recipe.pixels.class_weights) == (loss, class_weights)


@pytest.mark.parametrize("section", ["pixels", "data.masks"])
def test_null_stands_for_a_section_with_the_defaults_of_the_task(pixel_values, section):
    recipe = build_recipe(pixel_values, {section: None}).recipe

    assert recipe == build_recipe(pixel_values).recipe


def test_the_score_of_the_task_is_the_default_inside_a_section_too(values):
    changed = of_task(values, "edges") | {
        "early_stopping": {"patience": 2},
        "search": {"objective": {"direction": "max"}},
    }

    recipe = build_recipe(changed).recipe

    assert recipe.early_stopping.monitor == recipe.search.objective.name == "val_f_score"
    assert recipe.search.objective.direction == "max"


def build_in_python(values, **sections):
    return Recipe(
        version=1,
        name="flowers",
        task="normals",
        data=Data(train=values["data"]["train"], image_size=28, masks=Masks(ending="_n")),
        model=Model(base="lenet5", weights="random"),
        phases=[Phase(name="head", epochs=1)],
        **sections,
    )


def test_sections_built_in_python_take_the_defaults_of_the_task(values):
    recipe = build_in_python(
        values,
        pixels=Pixels(per_image=7),
        early_stopping=EarlyStopping(),
        search=Search(objective=Objective(direction="max")),
    )

    assert (recipe.pixels.loss, recipe.pixels.per_image) == ("angular", 7)
    assert (recipe.data.batch_size, recipe.data.masks.ending) == (BATCH_SIZE, "_n")
    assert recipe.early_stopping.monitor == recipe.search.objective.name == "val_within_22_5"


def test_what_a_section_built_in_python_was_given_is_not_replaced(values):
    with pytest.raises(RecipeError, match="expected angular for normals, got 'cross_entropy'"):
        build_in_python(values, pixels=Pixels(loss="cross_entropy"))


def test_a_resolved_recipe_is_read_again_as_it_is(pixel_values):
    recipe = build_recipe(pixel_values).recipe

    assert Recipe.model_validate(recipe.model_dump()) == recipe


def test_null_turns_the_balance_of_edges_off(values):
    recipe = build_recipe(of_task(values, "edges"), {"pixels.class_weights": None}).recipe

    assert recipe.pixels.class_weights is None
    assert replace_fields(recipe, {"seed": 3}).pixels.class_weights is None


@pytest.mark.parametrize(
    ("task", "field", "value", "expected"),
    [
        ("edges", "pixels.loss", "dice", "expected cross_entropy or focal for edges, got 'dice'"),
        ("normals", "pixels.loss", "focal", "expected angular for normals, got 'focal'"),
        ("segmentation", "pixels.loss", "angular", "expected cross_entropy or dice or focal"),
        ("edges", "pixels.class_weights", {"edge": 2.0}, "expected balanced or null for edges"),
        ("normals", "pixels.class_weights", "balanced", "expected null for normals"),
        ("normals", "pixels.sampling", "balanced", "expected uniform for normals"),
        ("normals", "pixels.sampling", "edges", "expected uniform for normals"),
        ("edges", "data.classes", ["a", "b"], "expected none for edges: no pixel has a class"),
        ("normals", "data.masks.ids", [0, 1], "expected none for normals: no pixel has a class"),
        ("edges", "data.masks.colors", [[0, 0, 0]], "expected none for edges: no pixel has a"),
        ("edges", "data.masks.ignore", [1, 2, 3], "expected a value from 0 to 255 for edges"),
        ("edges", "search.objective", "val_mean_iou", "expected val_f_score or val_loss for edges"),
        ("normals", "early_stopping.monitor", "val_accuracy", "expected val_within_22_5 or val_"),
        ("segmentation", "data.classes", None, "in the order of their ids, got none."),
        ("edges", "model.head.activation", "sigmoid", "each pixel has an output of its own"),
        ("classification", "pixels.per_image", 5, "with the tasks edges, normals, segmentation"),
    ],
)
def test_what_a_task_does_not_have_is_refused_in_words(values, task, field, value, expected):
    values = values if task == "classification" else of_task(values, task)

    message = refuse(values, **{field.replace(".", "__"): value})

    assert expected in message
    assert field.split(".")[-1] in message


@pytest.mark.parametrize("sampling", ["uniform", "balanced", "edges"])
def test_edges_may_be_drawn_in_every_way(values, sampling):
    recipe = build_recipe(of_task(values, "edges"), {"pixels.sampling": sampling}).recipe

    assert recipe.pixels.sampling == sampling


def test_a_value_that_no_task_has_is_told_once(pixel_values):
    message = refuse(pixel_values, pixels__loss="hinge")

    assert message.count("expected") == 1


def test_normals_may_ignore_a_colour(values):
    recipe = build_recipe(of_task(values, "normals"), {"data.masks.ignore": [0, 0, 0]}).recipe

    assert recipe.data.masks.ignore == (0, 0, 0)


SOME = {"ids": [3, 4]}
COLORS = {"colors": [[0, 0, 0], [9, 8, 7]]}


@pytest.mark.parametrize(
    ("masks", "ignore", "expected"),
    [
        ({}, 0, "expected another value than those of the classes, got 0 (0, 1, 2, ..."),
        (SOME, 3, "expected another value than those of the classes, got 3"),
        (COLORS, [9, 8, 7], "expected another colour than those of the classes"),
        (COLORS, 0, "expected another colour than those of the classes, got 0"),
        ({}, [0, 0, 0], "expected a value from 0 to 255, or data.masks.colors too"),
    ],
)
def test_what_is_ignored_must_be_no_class_and_lie_in_the_masks(values, masks, ignore, expected):
    changed = of_task(values, "segmentation")
    changed["data"]["masks"] = {**masks, "ignore": ignore}

    message = refuse(changed)

    assert "data.masks.ignore = " in message and expected in message
    assert message.count("expected") == 1


@pytest.mark.parametrize(
    ("masks", "ignore"), [({}, 2), (SOME, 0), (COLORS, [9, 8, 6]), (COLORS, 255)]
)
def test_what_is_no_class_may_be_ignored(values, masks, ignore):
    changed = of_task(values, "segmentation")
    changed["data"]["masks"] = {**masks, "ignore": ignore}

    recipe = build_recipe(changed).recipe

    assert recipe.data.masks.ignore == (tuple(ignore) if isinstance(ignore, list) else ignore)


def test_masks_of_at_most_255_classes_fit_their_8_bits(values):
    changed = of_task(values, "segmentation")
    changed["data"]["classes"] = [f"c{number}" for number in range(256)]

    message = refuse(changed)
    fewer = build_recipe(changed, {"data.classes": changed["data"]["classes"][1:]}).recipe

    assert "expected at most 255 classes for segmentation, got 256" in message
    assert len(fewer.data.classes) == 255


@pytest.mark.parametrize(
    "settings, section, beside",
    [(PixelSettings, Pixels, set()), (MaskSettings, Masks, {"images", "masks", "ending", "lists"})],
)
def test_settings_have_the_fields_of_their_section(settings, section, beside):
    fields = {field.name: field.default for field in dataclasses.fields(settings)}

    assert set(fields) == set(section.model_fields) - beside
    assert all(section.model_fields[name].default == default for name, default in fields.items())

"""What a recipe without phases gets, with a reason for each value."""

import keras
import pytest

from tests.conftest import draw_class_folders
from tests.models import plan_values
from tests.training.test_solving import MODEL, WEIGHTS
from tl_toolkit.architectures.heads import pool_features
from tl_toolkit.catalog.lookup import find_architecture
from tl_toolkit.errors import RecipeError
from tl_toolkit.plan.check import check_recipe, plan_baseline
from tl_toolkit.plan.network import resolve_head
from tl_toolkit.plan.preset import _FEATURES_OF_CELLS, replace_reasons, resolve_preset
from tl_toolkit.recipe.load import dump_recipe, load_recipe, read_recipe
from tl_toolkit.recipe.schema import Head
from tl_toolkit.recipe.tasks import TASKS, find_task

VALUES = {
    "version": 1,
    "name": "digits",
    "data": {"builtin": "digits", "classes": ["3", "5"], "validation": 0.2, "image_size": 32},
    "model": MODEL,
    "export": False,
}

MANY = {"builtin": "digits", "validation": 0.2, "image_size": 32}

WHOLE = MODEL | {"head": {"pooling": "statistics"}}
"""A model whose head a preset tunes: it reads no cells."""


def resolve(images=800, validation=200, outputs=10, start_head=None, counts=None, **changes):
    recipe = resolve_head(read_recipe(VALUES | changes).recipe)
    base = recipe.model.base
    resolved, choices = resolve_preset(
        recipe,
        find_architecture(base),
        images,
        validation,
        outputs=outputs,
        start_head=start_head,
        counts=counts,
    )
    return resolved, [f"{recipe.preset}: {choice.describe()}" for choice in choices]


def test_a_recipe_without_phases_gets_the_preset_auto():
    assert read_recipe(VALUES).recipe.preset == "auto"


@pytest.mark.parametrize(
    ("images", "taps"), [(399, "all"), (400, "inner"), (1000, "inner"), (1001, "all")]
)
def test_auto_solves_a_head_on_cells_of_many_maps(images, taps):
    recipe, reasons = resolve(images=images)

    head = recipe.model.head
    assert (head.taps, head.pooling, head.normalize) == (taps, "pyramid", True)
    assert head.solver == "auto" and head.dropout == 0
    assert recipe.phases == () and "none to tune the base" in reasons[-1]
    assert all(text.startswith("auto: ") for text in reasons) and len(reasons) == 5


@pytest.mark.parametrize("changes", [{"images": 3000}, {"model": WHOLE}])
def test_auto_solves_a_head_on_whole_maps_then_tunes_the_last_units(changes):
    recipe, reasons = resolve(**changes)

    head = recipe.model.head
    assert (head.taps, head.pooling, head.normalize) == ("all", "statistics", True)
    assert head.solver == "auto" and head.dropout == 0.5
    assert [phase.name for phase in recipe.phases] == ["tune"]
    assert recipe.phases[0].unfreeze.unit == "block3"
    assert all(text.startswith("auto: ") for text in reasons)


def test_features_of_cells_are_counted_as_a_pyramid_has_them():
    pooled = pool_features(keras.Input((9, 9, 7)), "pyramid")

    assert pooled.shape[-1] == 7 * _FEATURES_OF_CELLS


RESNET = {"base": "resnet50", "weights": "imagenet"}
"""15,168 channels at the ends of its units."""


@pytest.mark.parametrize(
    ("images", "validation", "preset", "taps", "pooling", "tunes"),
    [
        (200, 50, "auto", "all", "pyramid", False),
        (420, 105, "auto", "inner", "pyramid", False),
        (500, 125, "auto", "all", "pyramid", False),  # inner maps would be 167 million numbers
        (600, 149, "auto", "all", "pyramid", False),
        (600, 150, "auto", "all", "statistics", True),
        (600, 150, "fast", "all", "pyramid", False),
        (899, 150, "fast", "all", "pyramid", False),
        (900, 150, "fast", "all", "statistics", False),  # 150 million numbers
    ],
)
def test_a_large_base_reads_cells_where_few_images_could_judge_its_tuning(
    images, validation, preset, taps, pooling, tunes
):
    recipe, reasons = resolve(images, validation, model=RESNET, preset=preset)

    head = recipe.model.head
    assert (head.taps, head.pooling, bool(recipe.phases)) == (taps, pooling, tunes)
    assert (head.dropout > 0) == tunes
    if preset == "auto" and not tunes:
        assert "or folds (data.folds: 5), which all images judge" in reasons[-1]


@pytest.mark.parametrize(
    ("base", "images", "pooling"),
    [
        ("mobilenet", 2000, "pyramid"),
        ("mobilenet", 2001, "statistics"),
        ("nasnet_mobile", 1583, "pyramid"),
        ("nasnet_mobile", 1584, "statistics"),  # 94,732 features
    ],
)
def test_cells_are_left_out_where_their_features_would_fill_the_memory(base, images, pooling):
    recipe, _ = resolve(images, model={"base": base, "weights": "imagenet"})

    assert recipe.model.head.pooling == pooling


@pytest.mark.parametrize(
    ("pooling", "taps", "images"),
    [
        ("statistics", "all", 800),
        ("statistics", "inner", 3000),
        ("pyramid", "all", 800),
        ("pyramid", "inner", 3000),
    ],
)
def test_a_head_reads_and_pools_as_that_of_the_run_to_start_from(pooling, taps, images):
    recipe, _ = resolve(images=images, start_head=Head(taps=taps, pooling=pooling))

    assert (recipe.model.head.taps, recipe.model.head.pooling) == (taps, pooling)


@pytest.mark.parametrize(("most", "balance"), [(300, None), (301, "class_weights")])
def test_each_class_counts_alike_where_they_differ_much_in_number(most, balance):
    recipe, reasons = resolve(counts={"3": most, "5": 100})

    assert recipe.task.balance == balance
    assert ("auto: task.balance=class_weights: " in " ".join(reasons)) == (balance is not None)


def test_the_balance_of_a_recipe_and_of_other_tasks_stays():
    task = {"kind": "classification", "balance": None}
    recipe, reasons = resolve(task=task, counts={"3": 900, "5": 100})

    assert recipe.task.balance is None and not any("balance" in text for text in reasons)
    others = [find_task(kind) for kind in TASKS if kind not in ("classification", "regression")]
    assert {
        other.model_construct().choose_balance({"3": 900, "5": 100})[0] for other in others
    } == {""}


def test_classes_are_counted_where_the_data_is_listed(tmp_path):
    draw_class_folders(tmp_path, classes=["few"], count=4)
    draw_class_folders(tmp_path, classes=["many"], count=13)
    data = {"train": str(tmp_path), "validation": 0.25, "image_size": 32}

    plan, _ = plan_values({**VALUES, "data": data})

    assert plan.recipe.task.balance == "class_weights"


def test_logistic_regression_is_left_out_where_it_would_take_minutes():
    recipe, reasons = resolve(images=5000, outputs=100)

    assert recipe.model.head.solver == "ridge"
    assert any("would take minutes" in text for text in reasons)


@pytest.mark.parametrize("validation", [60, 200])
def test_widened_weights_train_from_their_first_convolution(validation):
    """Until it trains, all maps, and a head that is solved on them, see the sum of the bands."""
    data = {"train": "fields", "image_size": 32, "channels": 4}
    recipe, reasons = resolve(
        validation=validation,
        data=data,
        model={"base": "mobilenet", "weights": "imagenet"},
    )

    assert recipe.model.head.solver == "auto" and recipe.model.head.pooling == "statistics"
    assert [phase.unfreeze.unit for phase in recipe.phases] == ["conv1"]
    assert "see the sum of the bands alone" in reasons[-1]


def test_few_validation_images_choose_nothing():
    recipe, reasons = resolve(images=3000, validation=60)

    assert recipe.phases == () and recipe.model.head.solver == "auto"
    assert "60 validation images could not tell whether that helped" in reasons[-1]


def test_validation_images_are_counted_by_their_fraction():
    few, _ = plan_values({**VALUES, "model": WHOLE})
    all_digits = {**VALUES["data"], "classes": None}

    many, _ = plan_values({**VALUES, "model": WHOLE, "data": all_digits})

    assert not few.recipe.phases and few.reasons
    assert [phase.name for phase in many.recipe.phases] == ["tune"]


def test_folds_choose_by_all_images_that_train():
    """Of 365 digits 73 are left out at a time, and all of them once."""
    values = {**VALUES, "model": WHOLE}

    few, _ = plan_values(values)
    judged, _ = plan_values({**values, "data": {**VALUES["data"], "folds": 5}})

    assert not few.recipe.phases
    assert "or folds (data.folds: 5)" in few.reasons[-1]
    assert [phase.name for phase in judged.recipe.phases] == ["tune"]


@pytest.mark.parametrize(
    ("images", "data", "advises"),
    [(150, {}, True), (149, {}, False), (100, {"folds": 5}, False)],
)
def test_folds_are_advised_where_they_would_judge(images, data, advises):
    values = {"model": WHOLE, "data": VALUES["data"] | data}

    _, reasons = resolve(images, 100, **values)

    assert ("folds" in reasons[-1]) == advises


def test_a_large_base_that_pools_as_the_run_before_is_tuned_by_no_number_of_images():
    start = Head(pooling="pyramid", taps="all", normalize=True, solver="ridge")

    reasons = [
        resolve(600, validation, model=RESNET, start_head=start)[1][-1] for validation in (100, 200)
    ]

    assert reasons[0] == reasons[1]
    assert "from a head that reads cells" in reasons[0]


def test_fast_stops_at_the_probe():
    recipe, reasons = resolve(preset="fast")

    assert recipe.phases == () and recipe.model.head.solver == "auto"
    assert recipe.model.head.dropout == 0
    assert reasons[-1] == "fast: phases: none to tune the base, as preset is fast"


def test_fields_that_the_recipe_has_keep_their_values():
    head = {"pooling": "max", "dropout": 0.1}

    recipe, reasons = resolve(model={**MODEL, "head": head})

    assert recipe.model.head.pooling == "max" and recipe.model.head.dropout == 0.1
    assert not any("pooling" in text or "dropout" in text for text in reasons)


@pytest.mark.parametrize(
    ("changes", "images"),
    [
        ({"model": {**MODEL, "head": {"hidden": [{"units": 8}]}}}, 100),
        ({}, 50_000),
        ({"model": {"base": "vgg11", "weights": str(WEIGHTS), "head": "paper"}}, 100),
    ],
    ids=["hidden layers", "many images", "paper"],
)
def test_a_head_that_cannot_be_solved_is_trained(changes, images):
    recipe, reasons = resolve(images, **changes)

    assert recipe.model.head.solver is None
    assert [phase.name for phase in recipe.phases] == ["head", "tune"]
    assert reasons[0].startswith("auto: model.head: trained; ")


def test_random_weights_are_trained_as_a_whole():
    recipe, _ = resolve(model={"base": "lenet5", "weights": "random"})

    (phase,) = recipe.phases
    assert phase.unfreeze == 4 and recipe.model.head.solver is None


def test_the_resolved_recipe_is_read_back_as_it_is(tmp_path):
    plan, _ = plan_values(VALUES)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(plan.recipe))

    again = read_recipe(tmp_path / "recipe.yaml").recipe

    assert again == plan.recipe and again.preset is None


def test_the_plan_shows_what_was_chosen():
    plan, _ = plan_values(VALUES)

    text = plan.describe()

    assert "phases   probe (head, auto)" in text
    assert "chosen   auto: model.head.taps=all" in text
    assert plan.as_json()["reasons"] == list(plan.reasons)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "auto", "phases": [{"name": "head", "epochs": 1}]}, "none beside phases"),
        ({"preset": "slow"}, "'auto' or 'fast'"),
        ({"preset": "fast", "search": {}}, "a space of its own: the recipe has no phase"),
        ({"phases": []}, "at least one phase, or preset"),
    ],
)
def test_what_a_preset_cannot_do_is_refused_in_words(changes, message):
    with pytest.raises(RecipeError, match=message):
        plan_values(VALUES | changes)


def test_dense_tasks_need_phases(tmp_path):
    values = {**VALUES, "task": "edges", "data": {"train": str(tmp_path), "image_size": 32}}

    with pytest.raises(RecipeError, match="expected at least one phase"):
        plan_values(values)
    with pytest.raises(RecipeError, match="a preset is for tasks with one output per image"):
        plan_values({**values, "preset": "auto"})


def test_a_value_of_its_own_replaces_the_reason_of_its_field():
    reasons = (
        "auto: model.head.taps=all: tell more",
        "auto: model.head.solver=auto: errs less",
        "auto: model.head.dropout=0.5: learns more",
        "auto: phases.tune: the last 2 units",
    )
    values = {
        "model.head.solver": "ridge",
        "model.head.dropout": 0.2,
        "phases.tune.unfreeze": {"from": "c5"},
    }

    replaced = replace_reasons(reasons, values, word="search", why="of trial 3")

    assert replaced == (
        "auto: model.head.taps=all: tell more",
        "auto: phases.tune: the last 2 units",
        "search: model.head.solver=ridge: of trial 3",
        "search: model.head.dropout=0.2: of trial 3",
        'search: phases.tune.unfreeze={"from": "c5"}: of trial 3',
    )
    assert replace_reasons((), values, word="search", why="of trial 3") == ()


def test_a_baseline_changes_phases_that_the_preset_chooses():
    values = {**VALUES, "model": WHOLE, "data": MANY}
    plan, _ = plan_values({**values, "baseline": {"phases.tune.learning_rate": 1e-5}})

    baseline = plan_baseline(plan)

    assert [phase.learning_rate for phase in baseline.recipe.phases] == [1e-5]
    assert plan.recipe.phases[0].learning_rate.initial == 3e-4


def test_a_phase_that_the_preset_does_not_choose_is_no_phase_of_a_baseline(tmp_path):
    path = tmp_path / "x.yaml"
    text = dump_recipe(read_recipe({**VALUES, "model": WHOLE, "data": MANY}).recipe)
    path.write_text(f"{text}baseline: {{phases.tun.epochs: 3}}\n")

    with pytest.raises(RecipeError, match=r"x\.yaml:\d+:\d+  with its baseline(.|\n)*tune"):
        check_recipe(load_recipe(path))

"""Training that starts from a run: what is carried over, kept, new, dropped and refused."""

import json

import keras
import numpy as np
import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.models import plan_values
from tests.training.test_loop import digits_recipe
from tests.training.test_solving import MODEL
from tl_toolkit.errors import RecipeError
from tl_toolkit.plan.training import training_settings

TUNE = {"name": "tune", "epochs": 2, "unfreeze": 1, "learning_rate": 1e-2}


def tuned_recipe(phase=TUNE, **sections):
    return digits_recipe(model=MODEL, phases=[phase], yardsticks=False, **sections)


class Recorder(keras.callbacks.Callback):
    """Remembers the weights as the first phase begins."""

    weights = None

    def on_train_begin(self, logs=None):
        if self.weights is None:
            layers = self.model.layers
            self.weights = {layer.name: layer.get_weights() for layer in layers if layer.weights}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run of 3, 5 and 8."""
    return tl.finetune(tuned_recipe(), out=tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture(scope="module")
def runs(first):
    """The run, another of 8, 9 and 3 that starts from it, and its first weights."""
    folder = first.path.parent
    recorder, events = Recorder(), []
    values = {"data.classes": ["8", "9", "3"], "interpolate": True}
    second = tl.finetune(
        tuned_recipe(), overrides=values, start=first, out=folder / "second",
        callbacks=[recorder], progress=events.append,
    )  # fmt: skip
    return first, second, recorder.weights, events


@pytest.mark.slow
def test_a_preset_starts_from_a_run_without_cells(tmp_path):
    head = {"taps": "all", "pooling": "statistics", "normalize": True, "solver": "ridge"}
    model = {**MODEL, "head": head}
    first = tl.finetune(
        digits_recipe(model=model, phases=[], yardsticks=False, report=False), out=tmp_path
    )
    values = digits_recipe(model={**MODEL, "start": str(first.path)})
    del values["phases"]

    plan, _ = plan_values(values)

    assert plan.recipe.model.head.pooling == "statistics"


@pytest.mark.slow
def test_the_base_and_the_outputs_of_equal_classes_begin_as_the_run_left_them(runs):
    first, second, weights, _ = runs
    kernel, bias = first.model.get_layer("predictions").get_weights()

    assert (first.classes, second.classes) == (("3", "5", "8"), ("8", "9", "3"))
    for layer in sorted(weights.keys() - {"predictions"}):
        kept = first.model.get_layer(layer).get_weights()
        for value, expected in zip(weights[layer], kept, strict=True):
            np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(weights["predictions"][0][:, [0, 2]], kernel[:, [2, 0]])
    np.testing.assert_array_equal(weights["predictions"][1][[0, 2]], bias[[2, 0]])


@pytest.mark.slow
def test_the_output_of_a_new_class_begins_as_long_as_the_others_and_is_of_use(runs):
    second, weights = runs[1:3]
    lengths = np.linalg.norm(weights["predictions"][0], axis=0)
    start = second.history[0]

    assert lengths[1] == pytest.approx(lengths[[0, 2]].mean(), rel=1e-5)
    assert start["epoch"] == 0 and start["val_accuracy"] > 0.6  # 0.33 is luck


@pytest.mark.slow
def test_the_run_says_what_became_of_the_classes(runs):
    first, second, _, events = runs
    lock = json.loads(second.folder.lock.read_text())
    (text,) = [event.text for event in events if event.text.startswith("start: ")]

    assert "kept: 8, 3; new: 9 (from the means of their features); dropped: 5" in text
    assert lock["start"] == {
        "run": str(first.path), "kept": ["8", "3"], "new": ["9"], "dropped": ["5"]
    }  # fmt: skip
    assert lock["weights"] == str(first.folder.model)
    assert second.recipe.model.start == first.path


@pytest.mark.slow
def test_mixtures_begin_with_the_run_as_no_phase_trains_the_head_before(runs):
    rows = runs[1].history
    mixtures = [row for row in rows if row["phase"] == "interpolate"]

    assert mixtures[0]["val_loss"] == pytest.approx(rows[0]["val_loss"], rel=1e-6)


@pytest.mark.slow
def test_the_store_changes_no_bit_and_the_recipe_of_the_run_repeats_it(runs, tmp_path):
    recipe, digest = runs[1].folder.recipe, runs[1].metrics["weights_sha256"]

    again = tl.finetune(recipe, out=tmp_path / "again", overrides=["features.store=never"])

    assert again.metrics["weights_sha256"] == digest


@pytest.mark.slow
def test_a_base_of_the_users_own_is_carried_over_too(tmp_path):
    image = keras.Input((32, 32, 3))
    base = keras.Model(image, keras.layers.Conv2D(4, 3, strides=4, name="mine")(image))
    phase = {"name": "all", "epochs": 1, "unfreeze": 1}
    first = tl.finetune(tuned_recipe(phase), base=base, out=tmp_path / "first")
    recorder = Recorder()

    tl.finetune(first.folder.recipe, start=first, out=tmp_path / "second", callbacks=[recorder])

    kept, new = first.model.get_layer("mine").get_weights()[0], base.get_layer("mine").kernel
    np.testing.assert_array_equal(recorder.weights["mine"][0], kept)
    assert not np.array_equal(kept, new.numpy())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.base": "lenet5"}, "base vgg_tiny(.|\n)*the recipe's, lenet5"),
        ({"model.head": {"hidden": [{"units": 9}]}}, r"model\.head\.hidden = \[\]"),
        ({"model.head.activation": "sigmoid", "data.classes": ["3", "5"]}, "'softmax'"),
        ({"model.edge_filter": "sobel"}, r"model\.edge_filter = null(.|\n)*~model\.edge_filter"),
        ({"model.start": "nowhere"}, "is no run"),
    ],
)  # fmt: skip
def test_another_network_is_refused_by_name(first, changes, message):
    with pytest.raises(tl.errors.ToolkitError, match=message):
        plan_values(tuned_recipe(), {"model.start": str(first.path)} | changes)


def test_a_run_does_not_take_the_place_of_its_start(first):
    with pytest.raises(RecipeError, match="is the run that training starts from"):
        tl.finetune(tuned_recipe(), start=first, out=first.path, overwrite=True)

    assert first.folder.model.is_file()


@pytest.mark.parametrize("verb", [tl.curve, tl.search])
def test_nor_does_a_curve_or_a_search_that_starts_from_it(first, verb):
    overrides = {"model.start": str(first.path)}

    with pytest.raises(RecipeError, match="is the run that training starts from"):
        verb(tuned_recipe(), overrides=overrides, out=first.path, overwrite=True)

    assert first.folder.model.is_file()


def test_a_search_and_a_baseline_start_from_it_too(first):
    values = tuned_recipe(baseline={"~model.start": None, "seed": 1})
    values["search"] = {"space": {"phases.tune.learning_rate": {"choices": [1e-3, 1e-2]}}}
    plan, _ = plan_values(values, {"model.start": str(first.path)})

    trial = tl.plan.check.plan_trial(plan, {"phases.tune.learning_rate": 1e-3})

    assert training_settings(trial).carried == () == training_settings(plan).carried
    assert training_settings(tl.plan.check.plan_baseline(plan)).carried is None


def test_a_baseline_from_scratch_starts_from_no_run(first):
    plan, _ = plan_values(tuned_recipe(baseline="scratch"), {"model.start": str(first.path)})

    scratch = tl.plan.check.plan_baseline(plan)

    assert plan.weights_file == first.folder.model
    assert (scratch.start, scratch.weights_file, scratch.recipe.model.start) == (None, None, None)


def test_the_command_line_names_the_run(first, tmp_path):
    (tmp_path / "r.yaml").write_text(json.dumps(tuned_recipe()))

    refused = tltool("finetune", "r.yaml", "--from", "digits/7", cwd=tmp_path, code=None)
    valid = tltool("validate", "r.yaml", f"model.start={first.path}", cwd=tmp_path)

    assert "digits/7  is no run" in refused.stderr
    assert "base and head carried over; outputs kept: 3, 5, 8" in valid.stdout + valid.stderr

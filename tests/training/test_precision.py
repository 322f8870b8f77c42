"""bfloat16 while a base trains: float32 weights, features of its own, a float32 model kept."""

import json

import keras
import ml_dtypes
import numpy as np
import pytest

import tl_toolkit as tl
from tests.models import build_transfer, plan_values
from tests.training.test_loop import digits_recipe
from tl_toolkit.errors import RecipeError
from tl_toolkit.events import ignore
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.features.source import FeatureSource
from tl_toolkit.plan.training import feature_values, training_settings
from tl_toolkit.recipe.load import read_recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.training import prepare
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.transfer.precision import (
    choose_precision,
    in_precision,
    precision_of,
    time_precisions,
)


def recipe_of(precision, *phases, **sections):
    phases = [{"name": "head", "epochs": 1, "learning_rate": 1e-2}, *phases]
    sections = {"yardsticks": False} | sections
    return digits_recipe(precision=precision, phases=phases, **sections)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run in bfloat16."""
    tuned = {"name": "tune", "epochs": 1, "unfreeze": {"from": "f6"}, "learning_rate": 3e-3}
    recipe = recipe_of("bfloat16", tuned, features={"store": "always"})
    return tl.finetune(recipe, out=tmp_path_factory.mktemp("precision") / "run")


def features_of(trainer):
    _, features = trainer.features("train")
    return np.concatenate([np.asarray(batch) for batch, _ in features.chunks(np.arange(9), 9)])


@pytest.mark.slow
def test_features_are_those_of_bfloat16_stored_or_live(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    plan, task = plan_values(recipe_of("bfloat16", features={"store": "always"}))
    _, images = prepare.survey_images(plan, task, RunFolder(tmp_path), ignore)
    stored_settings = FeatureSettings.from_values(feature_values(plan.recipe))
    settings = training_settings(plan)
    transfer = prepare.assemble_model(plan, task, ignore)

    def train(precision, store):
        compiled = CompiledPhases(transfer, precision)
        trainer = prepare.build_trainer(compiled, stored_settings, images)
        if store == "never":
            live = FeatureSettings(stored_settings.image_size, "stretch", store="never")
            source = FeatureSource(transfer, live, images, ignore)
            trainer = trainer.with_images(source, images, ignore)
        result = trainer.train(settings)
        features = features_of(trainer)
        trainer._initial.restore(transfer)
        return features, result.weights_sha256

    full, of_full = train("float32", "always")  # fills the store: bfloat16 must not read it
    stored, of_stored = train("bfloat16", "always")
    live, of_live = train("bfloat16", "never")

    np.testing.assert_array_equal(stored, live)
    assert of_stored == of_live != of_full
    np.testing.assert_array_equal(stored, stored.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert 0 < np.abs(stored - full).max() < 0.05 * np.abs(full).max()


@pytest.mark.slow
def test_the_kept_model_and_what_is_measured_of_it_are_float32(trained):
    metrics, model = trained.metrics, trained.model

    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert trained.evaluate()["loss"] == metrics["validation"]["loss"]
    assert metrics["best"]["val_loss"] != metrics["validation"]["loss"]
    assert metrics["best"]["val_loss"] == pytest.approx(metrics["validation"]["loss"], rel=0.02)
    assert json.loads(trained.folder.lock.read_text())["numerics"]["precision"] == "bfloat16"


@pytest.mark.slow
def test_what_was_frozen_is_proved_frozen_in_bfloat16_too(trained):
    receipts = [
        json.loads((trained.path / f"phases/{name}/receipt.json").read_text())
        for name in ("1-head", "2-tune")
    ]

    for receipt, first in zip(receipts, ("head", "f6"), strict=True):
        moved = {
            part["block"]
            for part in receipt["parts"]
            if part["sha256_before"] != part["sha256_after"]
        }
        assert receipt["holds"] and first in moved and "c1" not in moved


def test_weights_stay_float32_and_the_head_computes_in_float32():
    transfer = build_transfer("vgg_tiny")
    before = [weight.numpy() for weight in transfer.model.weights]
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    exact = transfer.model(images, training=False).numpy()

    with in_precision(transfer, "bfloat16"):
        rounded = transfer.model(images, training=False)
        assert precision_of(transfer) == "bfloat16"
        assert keras.backend.standardize_dtype(rounded.dtype) == "float32"
        head = [layer for part in transfer.parts[-1:] for layer in part.layers]
        assert {layer.compute_dtype for layer in head} == {"float32"}

    assert 0 < np.abs(rounded.numpy() - exact).max() < 0.05
    np.testing.assert_array_equal(transfer.model(images, training=False).numpy(), exact)
    for weight, value in zip(transfer.model.weights, before, strict=True):
        assert weight.dtype == "float32"
        np.testing.assert_array_equal(weight.numpy(), value)


@pytest.mark.slow
def test_auto_measures_and_says_what_it_chose(tmp_path):
    texts = []

    run = tl.finetune(
        recipe_of("auto"), out=tmp_path / "run", progress=lambda event: texts.append(event.text)
    )

    measured = run.metrics["seconds_by_precision"]
    chosen = choose_precision(measured)
    assert set(measured) == {"float32", "bfloat16"} and min(measured.values()) > 0
    assert run.recipe.precision == chosen
    assert any(text.startswith(f"precision: {chosen}, as bfloat16 is") for text in texts)
    assert f"# auto: precision: {chosen}" in run.folder.recipe.read_text()


@pytest.mark.slow
def test_what_is_measured_changes_no_weight():
    transfer = build_transfer("vgg_tiny")
    before = [weight.numpy() for weight in transfer.model.weights]

    time_precisions(transfer, trains_base=True, batch_size=2)

    assert precision_of(transfer) == "float32"
    for weight, value in zip(transfer.model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


@pytest.mark.parametrize(
    ("ratio", "chosen"), [(0.6, "float32"), (1.05, "float32"), (1.2, "bfloat16")]
)
def test_bfloat16_must_be_faster_by_a_tenth(ratio, chosen):
    assert choose_precision({"float32": ratio, "bfloat16": 1.0}) == chosen


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "float64"}, "precision"),
        (
            {"precision": "float16", "phases.head.learning_rates": "auto_rgn"},
            "expected other rates than auto_rgn with precision: float16",
        ),
        ({"model.base": {"model": "own.keras"}}, "expected float32 with a base of your own"),
        ({"search": {"space": {"precision": ["float32", "auto"]}}}, "auto stands for one"),
    ],
)
def test_precisions_without_a_meaning_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        read_recipe(recipe_of("bfloat16"), changes)


def test_a_hypermodel_is_refused_what_it_would_measure_for_each_trial():
    with pytest.raises(RecipeError, match="measured once, for all trials"):
        tl.hypermodel(recipe_of("auto"))


@pytest.mark.slow
def test_trials_may_differ_in_precision(tmp_path):
    recipe = recipe_of(
        "float32", search={"algorithm": "grid", "space": {"precision": ["float32", "bfloat16"]}}
    )

    search = tl.search(recipe, out=tmp_path / "search")

    losses = {trial.values["precision"]: trial.best["val_loss"] for trial in search.trials}
    assert losses["float32"] != losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)

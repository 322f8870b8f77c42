"""A head on several maps that is solved: the model says what the solver says, and phases go on."""

import csv
import json
from pathlib import Path

import keras
import numpy as np
import pytest

import tl_toolkit as tl
from tests.models import build_trainer, plan_values
from tests.training.test_loop import digits_recipe
from tl_toolkit.architectures.heads import OUTPUT_LAYER, group_features
from tl_toolkit.catalog.lookup import resolve_unfreeze
from tl_toolkit.events import ignore
from tl_toolkit.plan.training import training_settings
from tl_toolkit.recipe.load import RecipeError
from tl_toolkit.tasks.standardized import Standardized
from tl_toolkit.training.prepare import assemble_model
from tl_toolkit.transfer.freezing import split_at

HEAD = {"taps": "all", "pooling": "statistics", "normalize": True, "solver": "ridge"}
WEIGHTS = Path(__file__).parents[2] / "models" / "digits_vgg_tiny.weights.h5"
MODEL = {"base": "vgg_tiny", "weights": str(WEIGHTS)}
TUNE = {"name": "tune", "epochs": 1, "learning_rate": 1e-4, "unfreeze": {"from": "block4"}}


def solved_recipe(head=HEAD, phases=(TUNE,), **sections):
    model = {**MODEL, "head": head}
    sections = {"yardsticks": False} | sections
    return digits_recipe(model=model, phases=list(phases), **sections)


def train_aside(tmp_path, values):
    """A trained model, its images, and the outcome."""
    plan, task = plan_values(values)
    tmp_path.mkdir(exist_ok=True)
    trainer, images = build_trainer(plan, task, tmp_path)
    return trainer, images, trainer.train(training_settings(plan))


def pooled_features(trainer, images):
    """What the solver was given: the features of the training images at the head's cut."""
    _, features = trainer.features("train")
    order = np.arange(len(images["train"]))
    return np.concatenate([np.asarray(batch) for batch, _ in features.chunks(order, 32)])


class Hooks(keras.callbacks.Callback):
    """Remembers how epochs begin and end."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append("begin")

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append("end")


@pytest.fixture(scope="module")
def hooks():
    return Hooks()


@pytest.fixture(scope="module")
def run(tmp_path_factory, hooks):
    out = tmp_path_factory.mktemp("solved") / "run"
    return tl.finetune(solved_recipe(), out=out, callbacks=[hooks])


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """A trainer that solved its head and trained nothing, its images and their features."""
    trainer, images, _ = train_aside(tmp_path_factory.mktemp("probe"), solved_recipe(phases=()))
    return trainer, images, pooled_features(trainer, images)


def test_the_probe_is_a_phase_of_one_epoch_before_the_others(run):
    rows = [(row["phase"], row["epoch"]) for row in run.history]

    assert rows == [("probe", 0), ("probe", 1), ("tune", 0), ("tune", 1)]
    assert run.history[1]["learning_rate"] == 0
    assert run.history[2]["val_loss"] == pytest.approx(run.history[1]["val_loss"], rel=1e-4)


def test_the_receipts_prove_the_base_frozen_while_the_head_is_solved(run):
    receipt = json.loads((run.path / "phases" / "1-probe" / "receipt.json").read_text())

    moved = {row["part"]: row["moved"] for row in receipt["parts"]}
    assert receipt["holds"] and moved.pop("head") == 4
    assert set(moved.values()) == {0}


def test_the_models_logits_are_the_solvers(solved):
    trainer, images, features = solved

    groups = group_features(trainer._transfer.parts[-1].layers)
    solution = trainer._transfer.task.solve(
        Standardized(features, groups), images["train"].targets, "ridge"
    )

    dense = trainer.model.get_layer(OUTPUT_LAYER)
    entering = trainer.model.get_layer("head_normalize")(features).numpy()
    logits = entering @ dense.kernel.numpy() + dense.bias.numpy()
    np.testing.assert_allclose(logits, features @ solution.kernel + solution.bias, atol=1e-5)


def test_features_are_standardized_by_the_training_images(solved):
    trainer, _, features = solved

    standard = trainer.model.get_layer("head_normalize")(features).numpy()

    expected = features.std(axis=0) / np.sqrt(features.var(axis=0) + 1e-6)
    assert expected.max() > 0.99
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(standard.std(axis=0), expected, atol=1e-4)


def test_maps_of_the_frozen_part_cross_a_cut_as_vectors():
    transfer = assemble_model(*plan_values(solved_recipe()), ignore)

    cut = split_at(transfer, resolve_unfreeze(transfer.architecture, 1)).cut

    shapes = [tuple(tensor.shape[1:]) for tensor in cut.tensors]
    assert cut.name == "block4" and len(shapes[-1]) == 3
    assert {len(shape) for shape in shapes[:-1]} == {1}


@pytest.mark.slow
@pytest.mark.parametrize("phases", [(), (TUNE,)], ids=["probe", "tuned"])
def test_the_store_changes_no_bit(tmp_path, phases):
    outcomes = [
        train_aside(tmp_path, solved_recipe(phases=phases, features={"store": store}))[2]
        for store in ("always", "never", "always")
    ]

    assert len({outcome.weights_sha256 for outcome in outcomes}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["generalized_mean", "both", "max", "flatten", "sum"])
def test_each_pooling_joins_several_maps_and_trains(tmp_path, pooling):
    head = {"taps": "all", "pooling": pooling, "normalize": True}
    model = {"base": "lenet5", "weights": "random", "head": head}
    phases = [{"name": "tune", "epochs": 1, "unfreeze": 1}]

    trainer, _, outcome = train_aside(tmp_path, digits_recipe(model=model, phases=phases))

    assert np.isfinite([epoch.val_loss for epoch in outcome.history]).all()
    exponents = [p for p in trainer.model.weights if p.name == "exponent"]
    assert [float(p) != 3 for p in exponents] == ([True] * len(exponents))
    assert len(exponents) == (2 if pooling == "generalized_mean" else 0)  # two units end in maps
    statistics = trainer.model.get_layer("head_normalize").moving_mean.numpy()
    assert np.abs(statistics).max() > 0  # without a solver too


@pytest.mark.slow
def test_trials_share_the_probe(tmp_path):
    search = {
        "algorithm": "grid",
        "space": {"model.head.dropout": {"choices": [0.0, 0.5]}},
    }
    events = []

    tl.search(solved_recipe(search=search), out=tmp_path / "search", progress=events.append)

    solved = [event for event in events if str(event.text).startswith("probe: ridge")]
    assert len(solved) == 1


@pytest.mark.slow
def test_the_saved_model_loads_in_keras_alone_and_is_equal(run, tmp_path):
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    loaded = keras.saving.load_model(run.path / "model.keras")

    expected = run.model(pixels)

    np.testing.assert_allclose(loaded(pixels), expected, atol=1e-6)


@pytest.mark.slow
def test_a_solved_head_is_exported_and_proved_equal(run):
    exported = run.export()

    assert exported["saved_model"].is_dir()


@pytest.mark.slow
def test_a_regression_is_solved_in_standardized_units(tmp_path):
    from PIL import Image

    random = np.random.default_rng(0)
    rows = []
    for number in range(24):
        level = int(random.integers(20, 230))
        Image.new("RGB", (32, 32), (level, level, 255 - level)).save(tmp_path / f"{number}.png")
        rows.append((f"{number}.png", 1000 + 3 * level))
    with open(tmp_path / "levels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "level"), *rows])
    data = {"csv": str(tmp_path / "levels.csv"), "validation": 0.25, "image_size": 32}
    values = solved_recipe(phases=(), task="regression", data=data)

    _, _, outcome = train_aside(tmp_path / "run", values)

    assert outcome.best.val_score > 0.9  # R2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": [{"units": 8}]}, "not convex"),
        ({"l2": 1e-4}, "chooses its penalty"),
        ({"pooling": "generalized_mean"}, "its exponent is trained"),
        ({"taps": ["block1", "block1"]}, "each name once"),
        ({"solver": "svm"}, "ridge"),
    ],
)
def test_what_a_solver_cannot_do_is_refused_in_words(changes, message):
    with pytest.raises(RecipeError, match=message):
        plan_values(solved_recipe({**HEAD, **changes}))


def test_no_phase_needs_a_solver():
    with pytest.raises(RecipeError, match=r"one phase, or preset, or model\.head\.solver"):
        plan_values(solved_recipe({}, ()))


def test_the_name_of_the_probe_is_taken():
    with pytest.raises(RecipeError, match="expected another name: probe"):
        plan_values(solved_recipe(phases=[{"name": "probe", "epochs": 1}]))


def test_an_unknown_tap_is_named_before_anything_starts():
    with pytest.raises(RecipeError, match=r"taps\[0\] = 'block33'(.|\n)*did you mean 'block3'"):
        plan_values(solved_recipe({"taps": ["block33"]}))


def test_units_behind_the_last_tap_cannot_train():
    with pytest.raises(RecipeError, match="expected block2 or a unit before it"):
        plan_values(solved_recipe({"taps": ["block1", "block2"]}))


def test_callbacks_see_the_probe_begin_and_end(run, hooks):
    assert hooks.seen == ["begin", "end"] * len({row["phase"] for row in run.history})


def test_a_head_that_is_solved_to_what_it_was_holds(tmp_path):
    first = tl.finetune(solved_recipe(phases=()), out=tmp_path / "first")
    values = solved_recipe(phases=())
    del values["model"]["weights"]

    again = tl.finetune(values, start=first, out=tmp_path / "again")

    receipt = json.loads((again.path / "phases/1-probe/receipt.json").read_text())
    assert receipt["holds"] and not any(part["moved"] for part in receipt["parts"])

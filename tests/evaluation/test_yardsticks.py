"""Simple predictors beside a run: on the features of the base before any training."""

import io
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifierCV
from sklearn.neighbors import KNeighborsClassifier

import tl_toolkit as tl
from tests.models import build_trainer, plan_values
from tests.training.test_loop import digits_recipe
from tests.training.test_solving import MODEL
from tl_toolkit.architectures.batches import FixedBatch
from tl_toolkit.evaluation.splits import Measured, evaluate_trained
from tl_toolkit.evaluation.yardsticks import add_yardsticks
from tl_toolkit.events import ignore
from tl_toolkit.plan.training import training_settings
from tl_toolkit.printing.tables import build_summary, open_console
from tl_toolkit.recipe.tasks import find_task
from tl_toolkit.tasks.multilabel.task import Multilabel
from tl_toolkit.training.prepare import assemble_model

HEAD = {"name": "head", "epochs": 1}
TUNE = {"name": "tune", "epochs": 1, "learning_rate": 1e-2, "unfreeze": {"from": "block4"}}


def tune(folder, store="always", head=None, phases=(HEAD, TUNE)):
    """A trainer whose base has moved, its images, its plan and its task."""
    values = digits_recipe(
        model={**MODEL, "head": head or {}}, phases=list(phases), features={"store": store}
    )
    plan, task = plan_values(values)
    folder.mkdir(exist_ok=True)
    trainer, images = build_trainer(plan, task, folder)
    trainer.train(training_settings(plan))
    return trainer, images, plan, task


def compute_averages(plan, task, images):
    """The averaged output of a base that was never trained."""
    transfer = assemble_model(plan, task, ignore)
    base = keras.Model(transfer.image, transfer.parts[-1].inputs[-1])
    order = np.arange(len(images))
    pixels = np.concatenate([batch for batch, _ in images.batches(order, 16)])
    return np.asarray(FixedBatch(base)(pixels)).mean(axis=(1, 2))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    return tune(tmp_path_factory.mktemp("tuned"))


def test_vectors_are_those_of_the_base_before_any_training(tuned):
    assert_vectors_are_untrained(*tuned)
    assert tuned[0].read_untrained(most_images=0) is not None


@pytest.mark.slow
def test_so_are_those_that_no_store_holds(tmp_path):
    trainer, images, plan, task = tune(tmp_path / "images", "never")

    assert_vectors_are_untrained(trainer, images, plan, task)
    assert trainer.read_untrained(most_images=sum(map(len, images.values())) - 1) is None


def assert_vectors_are_untrained(trainer, images, plan, task):
    after = [weight.numpy() for weight in trainer.model.weights]
    count = sum(map(len, images.values()))

    vectors = trainer.read_untrained(most_images=count)

    expected = compute_averages(plan, task, images["validation"])
    np.testing.assert_allclose(vectors["validation"], expected, rtol=1e-4, atol=1e-5)
    assert set(vectors) == set(images)
    for weight, kept in zip(trainer.model.weights, after, strict=True):
        np.testing.assert_array_equal(weight, kept)


@pytest.mark.slow
def test_of_a_head_on_several_maps_the_last_one_is_read(tmp_path):
    head = {"taps": "all", "pooling": "statistics", "solver": "ridge"}
    trainer, images, plan, task = tune(tmp_path / "images", head=head, phases=[TUNE])

    vectors = trainer.read_untrained(most_images=0)["validation"]

    expected = compute_averages(plan, task, images["validation"])
    np.testing.assert_allclose(vectors[:, : expected.shape[1]], expected, rtol=1e-4, atol=1e-5)
    assert vectors.shape[1] == 2 * expected.shape[1]  # averages, and deviations


def test_of_maps_pooled_by_weights_and_a_vector_the_vector_is_read(tmp_path):
    head = {"taps": "all", "pooling": "generalized_mean"}
    model = {"base": "lenet5", "weights": "random", "head": head}
    phases = [{"name": "head", "epochs": 1}]
    plan, task = plan_values(digits_recipe(model=model, phases=phases))
    trainer, _ = build_trainer(plan, task, tmp_path)
    trainer.train(training_settings(plan))

    vectors = trainer.read_untrained(most_images=10_000)["validation"]

    assert vectors.shape[1] == 84  # of f6_dense


def finetune(folder, **options):
    values = digits_recipe(model=MODEL, phases=[HEAD, TUNE], features={"store": "always"})
    return tl.finetune(values, out=folder / "run", **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run, and the same network from scratch beside it."""
    return finetune(tmp_path_factory.mktemp("beside"), versus="scratch")


def test_yardsticks_are_those_of_scikit_learn(run, tuned):
    trainer, images, _, _ = tuned
    vectors = trainer.read_untrained(most_images=0)
    train, test = (images[split].targets for split in ("train", "validation"))
    measured = run.metrics["validation"]

    near = [
        KNeighborsClassifier(number, metric="cosine", algorithm="brute")
        .fit(vectors["train"], train)
        .score(vectors["validation"], test)
        for number in (1, 3, 5, 10, 20)
    ]
    scaled = [(vectors[name] - vectors["train"].mean(0)) / np.sqrt(vectors["train"].var(0) + 1e-6)
              for name in ("train", "validation")]  # fmt: skip
    ridge = RidgeClassifierCV(np.logspace(-3, 6, 19)).fit(scaled[0], train)

    assert measured["neighbors"]["accuracy"] in [pytest.approx(score) for score in near]
    assert measured["probe"]["accuracy"] == pytest.approx(ridge.score(scaled[1], test), abs=0.03)
    assert "loss" not in measured["neighbors"] and measured["probe"]["loss"] > 0


def test_the_run_is_compared_with_the_probe_on_the_same_images(run):
    measured = run.metrics["validation"]

    found = measured["against"]["probe"]

    difference = measured["accuracy"] - measured["probe"]["accuracy"]
    assert (found["only_run"] - found["only_other"]) / measured["images"] == pytest.approx(
        difference
    )
    assert run.evaluate()["against"] == measured["against"]
    assert run.evaluate()["neighbors"] == measured["neighbors"]


@pytest.mark.parametrize(("accuracy", "rivals"), [(0.5, {"neighbors", "probe"}), (1.0, {"probe"})])
def test_the_run_is_compared_with_neighbours_that_score_higher(tuned, accuracy, rivals):
    trainer, images, _, task = tuned
    vectors = {split: np.eye(3)[images[split].targets] for split in images}  # as good as labels
    measured = evaluate_trained(trainer, task, images)
    measured.metrics["validation"]["accuracy"] = accuracy

    add_yardsticks(measured, vectors, task, images)

    found = measured.metrics["validation"]
    assert found["neighbors"]["accuracy"] == 1
    assert set(found["against"]) == rivals
    said = find_task("classification").describe_comparisons(found)
    assert any("the nearest neighbours: this run" in text for text in said) == (accuracy < 1)


def test_the_same_network_from_scratch_stands_beside_the_run(run):
    path = run.path / "baseline" / "phases" / "1-scratch"
    receipt = json.loads((path / "receipt.json").read_text())
    scratch = run.metrics["baseline"]

    assert run.recipe.baseline == scratch["word"] == "scratch"
    assert {row["state"] for row in receipt["parts"]} == {"trainable"}
    assert len((path / "history.csv").read_text().splitlines()) == 2 + 2  # the heading, epoch 0
    found = run.metrics["validation"]["against"]["scratch"]
    images = scratch["validation"]["images"]
    difference = run.metrics["validation"]["accuracy"] - scratch["validation"]["accuracy"]
    assert (found["only_run"] - found["only_other"]) / images == pytest.approx(difference)


@pytest.mark.slow
def test_the_summary_names_what_each_row_is_of(run):
    file = io.StringIO()

    open_console(file).print(build_summary(run.metrics, run.recipe.task))

    rows = [line.split("  ")[0].strip() for line in file.getvalue().splitlines()]
    assert rows[1:] == [
        "this run", "from scratch", "majority class", "nearest neighbours", "linear probe",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_recipe_leaves_them_out(tmp_path):
    values = digits_recipe(model=MODEL, phases=[{"name": "head", "epochs": 1}], yardsticks=False)

    measured = tl.finetune(values, out=tmp_path / "run").metrics["validation"]

    assert not {"neighbors", "probe", "against"} & set(measured)
    assert measured["majority"]["accuracy"] > 0


def test_yardsticks_choose_thresholds_on_their_own_validation_outputs():
    random = np.random.default_rng(0)
    vectors = {split: random.normal(size=(60, 4)) for split in ("train", "validation", "test")}
    images = {
        split: SimpleNamespace(targets=(values[:, :2] > 0.8).astype(np.int32))
        for split, values in vectors.items()
    }
    figures = []
    for threshold in (0.01, 0.99):  # the run's
        task = Multilabel(("a", "b"))
        task.thresholds = np.full(2, threshold, np.float32)
        measured = Measured({"test": {"micro_f1": 0.5}}, None, {})
        add_yardsticks(measured, vectors, task, images)
        figures.append({name: measured.metrics["test"][name] for name in ("probe", "neighbors")})

    assert figures[0] == figures[1]
    assert figures[0]["probe"]["micro_f1"] > 0.7

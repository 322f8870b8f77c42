"""What earlier versions wrote loads, predicts, goes on and is reported as it was.

tests/earlier/README.md says what lies there and which version wrote it.
"""

import csv
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tl_toolkit as tl
from tests.command import tltool
from tests.export.unequal import ask
from tl_toolkit.architectures.loading import remember_model
from tl_toolkit.sources.builtin import load_builtin_image

EARLIER = Path(__file__).parents[1] / "earlier"
RUNS = sorted({path.relative_to(EARLIER).parts[0] for path in EARLIER.glob("*/*")})
SEARCHES = sorted(path.parent.name for path in EARLIER.glob("*/search"))
EXPORTS = sorted(path.parent.name for path in EARLIER.glob("*/run.tar.xz"))


def rest(versions):
    """Versions of which the newest is asked in every run of the tests."""
    return [*(pytest.param(each, marks=pytest.mark.slow) for each in versions[:-1]), versions[-1]]


def copy_run(version, place):
    """Copies the run of a version, or unpacks it."""
    packed = EARLIER / version / "run.tar.xz"
    if not packed.is_file():
        return shutil.copytree(EARLIER / version, place)
    with tarfile.open(packed) as archive:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(place, **safely)
    return place


@pytest.fixture(scope="module", params=rest(RUNS))
def run(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("earlier") / "runs/digits/001"
    copy_run(request.param, place)
    remember_model(place / "model.keras")  # as training does
    return tl.load_run(place)


@pytest.mark.slow
@pytest.mark.parametrize("version", RUNS)
def test_its_model_is_loaded_where_it_was_not_trained(version, tmp_path):
    """In a process of its own first, which a model may end."""
    run = tl.load_run(copy_run(version, tmp_path / "run"))

    assert run.model.output_shape == (None, len(run.classes))


def read_predictions(run, count=8):
    """Returns the first predictions that a run wrote."""
    with open(run.folder.predictions, newline="") as file:
        return list(csv.DictReader(file))[:count]


@pytest.mark.slow
def test_it_predicts_the_same(run):
    rows = read_predictions(run)

    predictions = run.predict([load_builtin_image(row["path"]) for row in rows])

    assert [it.label for it in predictions] == [row["predicted"] for row in rows]
    # Another processor rounds otherwise.
    assert [it.probability for it in predictions] == pytest.approx(
        [float(row["probability"]) for row in rows], abs=1e-5
    )


def test_it_measures_the_same(run):
    before = run.metrics["test"]

    now = run.evaluate()

    assert now["accuracy"] == before["accuracy"]
    assert now["loss"] == pytest.approx(before["loss"], abs=1e-5)


def test_it_is_listed_and_finished(run):
    facts = tl.list_runs(run.path.parents[1])

    assert [it.state for it in facts] == ["done"]
    assert tl.describe_run(run.path).damaged == []
    again = tl.finetune(run.path / "recipe.yaml", out=run.path, resume=True)
    assert again.metrics == run.metrics


@pytest.fixture(scope="module", params=rest(EXPORTS))
def exported(request, tmp_path_factory):
    """A run with its export, and images that it predicted: names, pixels and probabilities."""
    run = tl.load_run(copy_run(request.param, tmp_path_factory.mktemp("exported") / "digits/001"))
    remember_model(run.folder.model)
    rows = read_predictions(run)
    side = run.recipe.data.image_size[0]
    with tf.device("CPU"):
        pixels = np.stack([
            np.asarray(tf.image.resize(load_builtin_image(row["path"]), (side, side)))
            for row in rows
        ]).round().astype(np.uint8)  # fmt: skip
    shares = [[float(row[f"probability_{name}"]) for name in run.classes] for row in rows]
    return run, [row["predicted"] for row in rows], pixels, np.array(shares)


def test_an_export_of_an_earlier_version_gives_what_its_run_predicted(exported):
    run, names, pixels, shares = exported
    served = tf.saved_model.load(str(run.folder.export / "saved_model/1"))

    outputs = served.signatures["serving_default"](image=tf.constant(pixels))

    assert [name.decode() for name in outputs["label"].numpy()] == names
    # The images are rounded to 8 bits here, and were not when the run predicted them.
    np.testing.assert_allclose(outputs["probabilities"], shares, atol=2e-3)


@pytest.mark.slow
def test_an_export_of_an_earlier_version_equals_the_model_that_today_reads(exported):
    run, _, pixels, _ = exported
    served = tf.saved_model.load(str(run.folder.export / "saved_model/1"))

    outputs = served.signatures["serving_default"](image=tf.constant(pixels))

    expected = run.model.predict(pixels.astype(np.float32), verbose=0)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)


@pytest.mark.slow
def test_an_export_of_an_earlier_version_is_asked_in_a_process_of_its_own(exported):
    """A process of its own: plain TensorFlow, as people serve it."""
    run, names, pixels, _ = exported
    files = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        files.append(buffer.getvalue())

    outputs = ask(run.folder.export / "saved_model/1", [pixels], files)

    assert outputs.class_names == tuple(run.classes)
    for sides in (outputs.pixels[0]["label"].tolist(), [it["label"] for it in outputs.encoded]):
        assert [str(np.ravel(name)[0]) for name in sides] == names


@pytest.mark.slow
def test_a_run_of_an_earlier_version_is_reported_again(exported):
    run, _, _, _ = exported

    text = tl.report(run.path).read_text()

    assert f"accuracy {run.metrics['test']['accuracy']:.3f} on test images" in text.lower()


@pytest.fixture(scope="module", params=rest(SEARCHES))
def search(request, tmp_path_factory):
    """The folder of a search that was interrupted after 2 of 4 trials."""
    place = tmp_path_factory.mktemp("searches") / "runs/digits-search/001"
    return shutil.copytree(EARLIER / request.param / "search", place)


def test_a_search_of_an_earlier_version_is_listed_and_shown(search):
    root = search.parents[1]

    shown = tltool("runs", "show", "digits-search/001", cwd=root.parent)

    assert [(it.kind, it.state, it.base) for it in tl.list_runs(root)] == [
        ("search", "interrupted", "lenet5")
    ]
    assert "interrupted" in shown.stdout


@pytest.mark.slow
def test_a_search_of_an_earlier_version_goes_on_with_the_trials_that_it_would_have_had(search):
    before = {path.name: path.read_bytes() for path in (search / "trials").iterdir()}

    found = tl.search(search / "recipe.yaml", out=search, resume=True)

    assert len(before) == 2
    for name, content in before.items():
        assert (search / "trials" / name).read_bytes() == content
    # That version chose these when it went on itself.
    assert [trial.values for trial in found.trials[2:]] == [
        {"model.head.dropout": 0.3, "phases.tune.unfreeze": {"from": "c5"}},
        {"model.head.dropout": 0.3, "phases.tune.unfreeze": {"from": "f6"}},
    ]
    assert {trial.state for trial in found.trials} == {"completed"}
    # Another processor rounds otherwise, and some images may be predicted otherwise then.
    assert [trial.score for trial in found.trials[2:]] == pytest.approx([0.667, 0.917], abs=0.1)
    assert json.loads((search / "summary.json").read_text())["best"]["score"] == max(
        trial.score for trial in found.trials
    )
    assert "val_accuracy" in tl.report(found).read_text()

"""A run's LiteRT export predicts for the run, without TensorFlow, as Keras does."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.command import tltool
from tests.export.test_export import CLASSES, build_model, finish
from tl_toolkit.api.run import Run
from tl_toolkit.architectures.loading import remember_model
from tl_toolkit.errors import RecipeError
from tl_toolkit.export.publish import publish
from tl_toolkit.export.quick import MOST_FILES
from tl_toolkit.recipe.load import build_recipe, dump_recipe
from tl_toolkit.runs.files import hash_file
from tl_toolkit.runs.folder import RunFolder

LIMIT = 1e-4
WITHOUT_TENSORFLOW = """
import sys
from tl_toolkit.cli.main import run
code = run(sys.argv[1:])
print(code, [name for name in ("tensorflow", "keras") if name in sys.modules], file=sys.stderr)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run's folder with a LiteRT export of its model."""
    path = tmp_path_factory.mktemp("run")
    recipe = build_recipe(
        {
            "version": 1,
            "name": "x",
            "data": {"train": str(path), "validation": 0.2, "image_size": [24, 32]},
            "model": {"base": "lenet5", "weights": "random"},
            "phases": [{"name": "head", "epochs": 1}],
        }
    ).recipe
    (path / "recipe.yaml").write_text(dump_recipe(recipe))
    (path / "classes.json").write_text(json.dumps(CLASSES))
    (path / "status.json").write_text('{"state": "done"}')
    model = build_model()
    model.save(path / "model.keras")
    remember_model(path / "model.keras")  # as training does
    publish(finish(model), RunFolder(path), files={}, formats=["litert"])
    photos = path / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for number, size in enumerate([(60, 80), (24, 32), (33, 21)]):
        pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.{'png' if number else 'jpg'}")
    return path


@pytest.fixture
def run(made):
    return Run(RunFolder(made))


def read_text(events):
    return "\n".join(event.text for event in events if event.text)


def predict(run, paths, engine, **options):
    events = []
    return run.predict(paths, engine=engine, progress=events.append, **options), read_text(events)


def test_the_predictions_are_those_of_keras(run, made):
    array = np.asarray(Image.open(made / "photos" / "0.jpg"))
    paths = [made / "photos", made / "missing.jpg", array]

    quick, said = predict(run, paths, "auto")
    keras, _ = predict(run, paths, "keras")

    assert "predicted by LiteRT" in said
    assert [item.path for item in quick] == [item.path for item in keras]
    assert [(item.label, item.error) for item in quick] == [
        (item.label, item.error) for item in keras
    ]
    for item, expected in zip(quick, keras, strict=True):
        assert item.probabilities == pytest.approx(expected.probabilities, abs=LIMIT)
    assert "missing.jpg" in quick[3].error


def test_a_process_of_its_own_starts_no_tensorflow(made):
    """It tells by its modules: this process has TensorFlow."""
    words = ["predict", str(made), str(made / "photos"), "--format", "csv", "--top", "1"]

    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, *words], capture_output=True, text=True
    )

    assert done.stderr.splitlines()[-1] == "0 []"
    assert [row[0] for row in csv.reader(done.stdout.splitlines())][1:] == [
        str(made / "photos" / name) for name in ("0.jpg", "1.png", "2.png")
    ]


def test_a_model_that_is_at_hand_predicts_itself(run, made):
    assert run.model is not None

    _, said = predict(run, made / "photos", "auto")

    assert "LiteRT" not in said


def test_many_images_are_for_keras_unless_asked_for(run, made, monkeypatch):
    monkeypatch.setattr("tl_toolkit.export.quick.MOST_FILES", 2)

    asked, said = predict(run, made / "photos", "litert")
    _, unasked = predict(run, made / "photos", "auto")

    assert MOST_FILES > 3 and len(asked) == 3
    assert "predicted by LiteRT" in said and "LiteRT" not in unasked


def test_an_image_that_takes_the_decoder_takes_keras_for_all(run, made, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.gif")

    predictions, said = predict(run, [made / "photos", tmp_path / "a.gif"], "auto")

    assert "predicted by Keras" in said and "a.gif takes the decoder of TensorFlow" in said
    assert [item.error for item in predictions] == [None] * 4
    with pytest.raises(RecipeError, match=r"engine litert .*a\.gif takes the decoder"):
        predict(run, tmp_path / "a.gif", "litert")


def test_what_takes_keras_is_told(run, made):
    _, said = predict(run, made / "photos" / "0.jpg", "auto", tta=True)

    assert "predicted by Keras: the LiteRT export has no --tta" in said
    with pytest.raises(RecipeError, match="has no tta|has no --tta"):
        predict(run, made / "photos", "litert", tta=True)


@pytest.fixture
def copied(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    return Run(RunFolder(tmp_path / "run"))


@pytest.mark.slow
def test_an_export_of_other_weights_does_not_predict(copied, made):
    model = build_model()
    model.get_layer("predictions").bias.assign([0.0, 1.0])
    model.save(copied.folder.model)
    remember_model(copied.folder.model)

    predictions, said = predict(copied, made / "photos" / "0.jpg", "auto")

    assert "predicted by Keras" in said and "not proved to be of this run as it is now" in said
    quick, _ = predict(Run(RunFolder(made)), made / "photos" / "0.jpg", "litert")
    assert predictions[0].probabilities != pytest.approx(quick[0].probabilities, abs=0.01)
    with pytest.raises(RecipeError, match="Try: tltool export .* --to litert"):
        predict(copied, made / "photos", "litert")


def test_an_export_of_another_temperature_does_not_predict(copied, made):
    (copied.folder.path / "task.json").write_text('{"temperature": 3.0}')

    predictions, said = predict(copied, made / "photos" / "0.jpg", "auto")

    assert "predicted by Keras" in said and "not proved" in said
    quick, _ = predict(Run(RunFolder(made)), made / "photos" / "0.jpg", "litert")
    label = quick[0].label
    assert predictions[0].probabilities[label] < quick[0].probabilities[label] - 0.001


def test_an_export_that_was_not_proved_does_not_predict(copied, made):
    export = copied.folder.export / "model.tflite"
    export.write_bytes(export.read_bytes() + b"\0")

    _, said = predict(copied, made / "photos" / "0.jpg", "auto")

    assert "not proved" in said


def test_a_run_without_an_export_is_silent_and_names_the_export_when_asked(copied, made):
    (copied.folder.export / "model.tflite").unlink()

    _, said = predict(copied, made / "photos" / "0.jpg", "auto")

    assert said == ""
    result = tltool(
        "predict", copied.path, made / "photos", "--engine", "litert", cwd=copied.path, code=2
    )
    assert "the run has no LiteRT export" in result.stderr
    assert "--to litert" in result.stderr


def test_without_its_runtime_the_extra_is_named(run, made, monkeypatch):
    monkeypatch.setattr("tl_toolkit.export.quick.RUNTIME", "no_such_runtime")

    _, said = predict(run, made / "photos" / "0.jpg", "auto")

    assert said == ""
    with pytest.raises(RecipeError, match=r"pip install 'tl-toolkit\[litert\]'"):
        predict(run, made / "photos", "litert")


def test_a_runtime_that_cannot_be_loaded_or_open_the_export_leaves_it_to_keras(
    copied, made, monkeypatch
):
    export, proof = (copied.folder.export / name for name in ("model.tflite", "parity.litert.json"))
    export.write_bytes(export.read_bytes()[:2000])
    report = json.loads(proof.read_text()) | {"sha256": hash_file(export)}
    proof.write_text(json.dumps(report))

    _, said = predict(copied, made / "photos" / "0.jpg", "auto")
    assert f"predicted by Keras: LiteRT cannot open {export}" in said

    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    _, said = predict(Run(RunFolder(made)), made / "photos" / "0.jpg", "auto")
    assert "predicted by Keras: LiteRT cannot open" in said and "ModuleNotFoundError" in said


def test_an_export_of_another_size_cannot_be_asked(copied, made):
    """As `recipe.yaml` is edited by hand: the runtime refuses the shape at the call."""
    size = copied.recipe.data.image_size
    data = copied.recipe.data.model_copy(update={"image_size": (size[0] + 4, size[1])})
    copied.recipe = copied.recipe.model_copy(update={"data": data})

    with pytest.raises(RecipeError, match=r"LiteRT .* cannot run the export: \w+Error"):
        predict(copied, made / "photos" / "0.jpg", "litert")

"""Runs to start from, teachers and own bases on object stores: copies, checked as local ones."""

import json
import shutil

import keras
import numpy as np
import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.stores import count_reads, recipe_of
from tl_toolkit.architectures.lenet import build_lenet5
from tl_toolkit.errors import DataError, RecipeError, WeightsError
from tl_toolkit.events import ignore
from tl_toolkit.plan.check import check_recipe, plan_trial
from tl_toolkit.recipe.load import dump_recipe, read_recipe
from tl_toolkit.recipe.remote import mirror_of, mirror_of_file
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.sources import remote
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.training.filling import FillContext, fill_part
from tl_toolkit.training.prepare import survey_images


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A file with LeNet-5's base, as a whole model."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((32, 32, 1))
    path = tmp_path_factory.mktemp("models") / "lenet.keras"
    keras.Model(pixels, build_lenet5(pixels)).save(path)
    return path


@pytest.fixture
def send(bucket):
    """Returns a function that sends a file or a folder, and returns its address."""

    def send(path, name):
        bucket[0].put(str(path), f"{bucket[1]}-{name}", recursive=path.is_dir())
        return f"{bucket[2]}-{name}"

    return send


@pytest.fixture
def run(bucket, send, model, tmp_path):
    """The address of what a check reads of a finished run, and a folder of its own."""
    folder = tmp_path / "first"
    (folder / "phases").mkdir(parents=True)
    (folder / "phases" / "history.csv").write_text("not needed")
    (folder / "status.json").write_text(json.dumps({"state": "done", "kind": "run"}))
    (folder / "classes.json").write_text(json.dumps(["ants", "bees"]))
    (folder / "recipe.yaml").write_text(dump_recipe(read_recipe(recipe_of(bucket[2])).recipe))
    base = keras.saving.load_model(model)
    x = base.output if len(base.output.shape) == 2 else keras.layers.Flatten()(base.output)
    outputs = keras.layers.Dense(2, name="predictions")(x)
    keras.Model(base.input, outputs).save(folder / "model.keras")
    return send(folder, "first")


def starting(address, start, *changes):
    return read_recipe({**recipe_of(address), "model": {"base": "lenet5", "start": start}}, changes)


def teaching(address, teacher):
    return read_recipe({**recipe_of(address), "teacher": teacher})


def owning(address, file):
    return read_recipe({**recipe_of(address), "model": {"base": {"model": file}}})


def test_a_run_to_start_from_is_copied_once(bucket, run, monkeypatch):
    read = count_reads(bucket[0], monkeypatch)

    plan = check_recipe(starting(bucket[2], f"{run}/"))
    first = [name.removeprefix(f"{bucket[1]}-first/") for name in read]
    check_recipe(starting(bucket[2], run))

    assert sorted(first) == ["classes.json", "model.keras", "recipe.yaml", "status.json"]
    assert len(read) == len(first)
    assert plan.weights_file == mirror_of(run) / "model.keras"
    assert plan.start.as_json() == {"run": run, "kept": ["ants", "bees"], "new": [], "dropped": []}
    assert plan.start.describe().startswith(f"{run}: base and head")
    assert read_recipe(plan.recipe).recipe == plan.recipe
    assert f'start: "{run}"' in dump_recipe(plan.recipe)


def test_a_run_that_was_replaced_is_copied_again(bucket, run):
    check_recipe(starting(bucket[2], run))
    bucket[0].pipe(f"{bucket[1]}-first/classes.json", b'["ants", "wasps"]')

    assert check_recipe(starting(bucket[2], run)).start.dropped == ("wasps",)


def test_what_a_run_lacks_is_named_with_the_field(bucket, run, tmp_path):
    bucket[0].rm(f"{bucket[1]}-first/model.keras")
    recipes = {
        "model.start": starting(bucket[2], run).recipe,
        "teacher.run": teaching(bucket[2], run).recipe,
    }

    for field, recipe in recipes.items():
        (tmp_path / "r.yaml").write_text(dump_recipe(recipe))
        text = tltool("validate", "r.yaml", cwd=tmp_path, code=3).stderr
        assert f"{field}: {run}" in text and "holds no model.keras" in text


def test_a_run_that_is_not_on_the_store_is_described_once(bucket, run):
    bucket[0].rm(f"{bucket[1]}-first", recursive=True)

    with pytest.raises(DataError) as caught:
        check_recipe(starting(bucket[2], run))

    assert str(caught.value).count("model.keras") == 1


@pytest.mark.parametrize("field", ["model.start", "teacher.run", "model.base.model"])
def test_credentials_in_the_address_of_a_model_are_refused_and_not_repeated(bucket, field):
    values = {field: "s3://me:hunter2@b/run.keras"}

    with pytest.raises(RecipeError, match=f"(?s){field}.*without credentials") as caught:
        read_recipe({**recipe_of(bucket[2]), "model": {"base": "lenet5"}}, values)

    assert "hunter2" not in str(caught.value)


def test_offline_the_copies_of_a_run_and_of_a_base_are_taken(bucket, send, run, model, monkeypatch):
    base = send(model, "base.keras")
    check_recipe(read_recipe(recipe_of(bucket[2])))
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    for recipe in (starting(bucket[2], run), teaching(bucket[2], run), owning(bucket[2], base)):
        with pytest.raises(DataError, match="is not in the cache"):
            check_recipe(recipe)
    monkeypatch.delenv("TL_TOOLKIT_OFFLINE")
    check_recipe(starting(bucket[2], run))
    check_recipe(owning(bucket[2], base))
    monkeypatch.setenv("TL_TOOLKIT_OFFLINE", "1")
    bucket[0].rm(f"{bucket[1]}-first", recursive=True)

    check_recipe(starting(bucket[2], run))
    check_recipe(teaching(bucket[2], run))
    check_recipe(owning(bucket[2], base))


def test_a_base_of_ones_own_is_copied_and_checked(bucket, send, model):
    base = send(model, "base.keras")

    plan = check_recipe(owning(bucket[2], base))

    assert plan.recipe.model.own_file == mirror_of_file(base)
    assert mirror_of_file(base).read_bytes() == model.read_bytes()
    assert f'model: "{base}"' in dump_recipe(plan.recipe)
    assert read_recipe(plan.recipe).recipe == plan.recipe


def test_a_damaged_base_is_named_by_its_address(bucket, send, tmp_path):
    (tmp_path / "junk").write_bytes(b"junk")
    base = send(tmp_path / "junk", "base.keras")

    with pytest.raises(WeightsError, match=rf"model\.base\.model: '{base}'"):
        check_recipe(owning(bucket[2], base))


def test_no_trial_asks_for_weights_that_its_search_has(bucket, send, run, model, monkeypatch):
    values = {**recipe_of(bucket[2]), "search": {"trials": 2}}
    weights = send(model, "weights.keras")
    models = [
        {"base": "lenet5", "weights": weights},
        {"base": "lenet5", "start": run},
        {"base": {"model": send(model, "base.keras")}},
    ]
    plans = [check_recipe(read_recipe({**values, "model": model})) for model in models]

    def fail(*arguments, **options):
        raise OSError("no route to the store")

    for name in ("info", "find", "get_file", "cat_file"):
        monkeypatch.setattr(type(bucket[0]), name, fail)

    for plan in plans:
        trial = plan_trial(plan, {"phases.head.epochs": 2})
        assert trial.weights_file == plan.weights_file
        with pytest.raises((DataError, WeightsError), match="no route"):
            check_recipe(read_recipe(plan.recipe))
    monkeypatch.setattr(remote, "_asked", set())  # another process, as a worker
    with pytest.raises(WeightsError, match="no route"):
        plan_trial(plans[0], {"phases.head.epochs": 2})


@pytest.mark.parametrize("kind", [pytest.param("start", marks=pytest.mark.slow), "base"])
def test_a_worker_that_fills_the_feature_store_has_a_model_of_its_own(
    bucket, send, run, model, kind, tmp_path, monkeypatch
):
    recipe = starting(bucket[2], run) if kind == "start" else None
    recipe = recipe or owning(bucket[2], send(model, "base.keras"))
    plan = check_recipe(read_recipe(recipe.recipe, ["features.store=always"]))
    manifest, _ = survey_images(
        plan, build_task(plan.recipe, plan.classes), RunFolder(tmp_path / "run"), ignore
    )
    context = FillContext.of(plan, manifest, ())
    shutil.rmtree(tmp_path / "cache")  # it is on the other host
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "other"))

    assert fill_part(context) is None
    assert [path.name for path in (tmp_path / "other" / "remote").glob("*/*.keras")] == [
        "model.keras" if kind == "start" else "photos-base.keras"
    ]


@pytest.mark.slow
def test_a_training_with_models_of_a_store_is_that_with_local_ones(bucket, send, model, tmp_path):
    data = tmp_path / "photos"
    first = tl.finetune(recipe_of(str(data)), out=tmp_path / "first")
    sent = send(first.path, "first")
    recipes = {
        "start": [starting(str(data), place) for place in (str(first.path), sent)],
        "teacher": [teaching(str(data), place) for place in (str(first.path), sent)],
        "base": [owning(str(data), place) for place in (str(model), send(model, "base.keras"))],
    }

    for name, pair in recipes.items():
        local, remote = (
            tl.finetune(recipe.recipe, out=tmp_path / f"{name}{place}")
            for place, recipe in enumerate(pair)
        )
        for layer in local.model.layers:
            for value, other in zip(
                layer.get_weights(), remote.model.get_layer(layer.name).get_weights(), strict=True
            ):
                np.testing.assert_array_equal(value, other)
        texts = [path.read_text() for path in remote.path.glob("*.[jy]*")]
        assert not any(str(mirror_of(bucket[2]).parent) in text for text in texts)
    for name in ("start", "teacher"):
        lock = json.loads((tmp_path / f"{name}1" / "lock.json").read_text())
        assert lock[name]["run"] == sent
    text = tltool("finetune", "base1/recipe.yaml", "--from", sent, cwd=tmp_path, code=2).stderr
    assert "model.start" in text
    assert "equal bit for bit" in tltool("reproduce", "start1", cwd=tmp_path).stderr


@pytest.mark.slow
def test_a_search_outlives_its_store(bucket, send, model, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("no route to the store")

    def cut_off(event):
        if event.kind == "trial_began":
            for name in ("info", "find", "get_file", "cat_file"):
                monkeypatch.setattr(type(bucket[0]), name, fail)

    values = {
        **recipe_of(str(tmp_path / "photos"), validation=0.2),
        "model": {"base": "lenet5", "weights": send(model, "weights.keras")},
        "search": {"trials": 2, "space": {"phases.head.learning_rate": [1e-3, 1e-2]}},
    }

    found = tl.search(values, out=tmp_path / "search", progress=cut_off)

    assert [trial.state for trial in found.trials] == ["completed", "completed"]

"""A Keras model of the user's own as the base: in Python, in recipes, and on the command line."""

import json
import shutil

import keras
import numpy as np
import pytest

import tl_toolkit as tl
from tests.architectures.own_models import build_crossing, build_toy, randomize
from tests.command import tltool
from tests.conftest import draw_class_folders
from tests.pixels import SIDE, draw_balls, make_recipe
from tl_toolkit.api.base import keep_base
from tl_toolkit.errors import RecipeError, WeightsError
from tl_toolkit.features.fingerprint import PrefixKeys
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.space import resolve_space
from tl_toolkit.recipe.load import build_recipe, load_recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.training.prepare import assemble_model
from tl_toolkit.transfer.freezing import digest_variables, split_at

HEAD = {"name": "head", "epochs": 1}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_class_folders(tmp_path_factory.mktemp("photos") / "all")


@pytest.fixture(scope="module")
def toy():
    return randomize(build_toy())


@pytest.fixture(scope="module")
def recipe(photos):
    return {
        "version": 1,
        "name": "own",
        "data": {"train": str(photos), "validation": 0.25, "test": 0.25, "image_size": 32}
        | {"batch_size": 8},
        "model": {"head": {"dropout": 0.1}},
        "phases": [{"name": "tune", "epochs": 1, "unfreeze": {"from": "add"}}],
        "export": False,
        "report": False,
        "yardsticks": False,
    }


@pytest.fixture(scope="module")
def run(recipe, toy, tmp_path_factory):
    return tl.finetune(recipe, base=toy, root=tmp_path_factory.mktemp("runs"))


def with_file(recipe, path, **base):
    return {**recipe, "model": {**recipe["model"], "base": {"model": str(path), **base}}}


def weights_of(model):
    """Values by (layer, index), of the layers of a base."""
    return {
        (layer.name, index): weight.numpy()
        for layer in model.layers
        for index, weight in enumerate(layer.weights)
        if layer.name != "predictions"
    }


def changed(before, after):
    """The layers of which a weight changed."""
    return {
        key[0] for key, value in after.items() if not np.array_equal(before[key], value)
    }  # a key that is missing is an error


# ----------------------------------------------------------------------------------------- training


def test_training_changes_the_chosen_units_and_nothing_else(run, recipe, toy):
    before = weights_of(tl.build_model(recipe, base=toy))

    after = weights_of(run.model)

    assert before.keys() == after.keys()
    assert changed(before, after) == {"conv2", "conv3", "base_head", "inner", "conv5"}
    inner, names = run.model.get_layer("inner"), [w.path for w in toy.get_layer("inner").weights]
    moved = {
        path.split("/")[-2]
        for path, old, new in zip(names, toy.get_layer("inner").weights, inner.weights, strict=True)
        if not np.array_equal(old, new)
    }
    assert moved == {"inner_conv"}  # BatchNormalization stays frozen inside nested models too


def test_training_leaves_the_weights_of_the_model_that_was_given(run, toy):
    before = randomize(build_toy())

    assert changed(weights_of(before), weights_of(toy)) == set()


@pytest.mark.slow
def test_the_model_that_was_given_is_untouched(recipe):
    model = randomize(build_toy(outputs=5))
    model.get_layer("conv1").trainable = False
    model.compile("sgd", "mse")
    before = [weight.numpy() for weight in model.weights]
    config, calls = model.get_config(), [len(layer._inbound_nodes) for layer in model.layers]

    tl.validate(recipe, base=model)
    tl.finetune(recipe, base=model, overrides={"phases.tune.epochs": 0}, root="runs")

    assert all(map(np.array_equal, before, model.weights))
    assert model.get_config() == config and not model.get_layer("conv1").trainable
    assert [len(layer._inbound_nodes) for layer in model.layers] == calls
    assert model.compiled


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_batch_normalization_trains_where_the_phase_says_so(recipe, toy):
    tune = {"phases.tune.batch_norm": "train"}

    run = tl.finetune(recipe, base=toy, overrides=tune, root="runs")

    before = weights_of(tl.build_model(recipe, base=toy))
    assert {"bn2"} == changed(before, weights_of(run.model)) & {"bn1", "bn2"}


@pytest.mark.parametrize(
    ("unfreeze", "units"),
    [
        (1, ["base_head", "inner", "conv5"]),
        ({"from": "inner"}, ["inner", "conv5"]),
        (["add"], ["add"]),
        (3, ["conv1", "add", "base_head", "inner", "conv5"]),
    ],
)
def test_units_are_named_by_number_layer_and_block(recipe, toy, unfreeze, units):
    plan = tl.validate(recipe, {"phases.tune.unfreeze": unfreeze}, base=toy)

    assert list(plan.units["tune"]) == units


@pytest.mark.slow
def test_prefix_and_suffix_are_the_whole_model_at_every_unit(recipe, toy, tmp_path):
    toy.save(tmp_path / "toy.keras")
    transfer = assemble_base(recipe, tmp_path / "toy.keras")
    images = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)

    whole = transfer.model(images, training=False)
    for unit in (part.name for part in transfer.parts[:-1]):
        split = split_at(transfer, [unit])
        parts = split.suffix.model(split.prefix.model(images), training=False)
        np.testing.assert_allclose(parts, whole, atol=1e-6)


@pytest.mark.slow
def test_a_base_that_cannot_be_cut_trains_whole_or_not_at_all(recipe):
    model = randomize(build_crossing())
    epoch = {"phases.tune.epochs": 1, "phases.tune.unfreeze": 1}

    sweep = tl.sweep(recipe, base=model, overrides=epoch, units=True, root="runs")

    assert [trial.trains for trial in sweep.trials] == ["head", "end to head"]
    with pytest.raises(RecipeError, match=r"crossing has 1 blocks \(end\)") as caught:
        tl.validate(recipe, {"phases.tune.unfreeze": 2}, base=model)
    assert "base.keras" not in str(caught.value)  # it is gone by now


# ---------------------------------------------------------------------------------------- the files


@pytest.mark.slow
def test_a_file_in_the_recipe_gives_the_run_of_the_model_bit_for_bit(run, recipe, toy, tmp_path):
    toy.save(tmp_path / "toy.keras")

    again = tl.finetune(with_file(recipe, tmp_path / "toy.keras"), root="runs")

    assert again.metrics["weights_sha256"] == run.metrics["weights_sha256"]
    assert again.metrics["test"] == run.metrics["test"]


@pytest.mark.slow
def test_a_run_keeps_a_copy_and_its_recipe_repeats_it_even_in_its_place(run, tmp_path):
    lock = json.loads(run.folder.lock.read_text())
    shutil.copytree(run.path, tmp_path / "run", ignore=shutil.ignore_patterns(".*"))
    base = {"model.base.model": str(tmp_path / "run/base.keras")}

    again = tl.finetune(run.folder.recipe, overrides=base, out=tmp_path / "run", overwrite=True)

    assert load_recipe(run.folder.recipe).recipe.model.own_file == run.path / "base.keras"
    assert lock["weights"] == str(run.path / "base.keras") and len(lock["weights_sha256"]) == 64
    assert again.recipe.model.own_file == tmp_path / "run/base.keras"
    assert again.metrics["weights_sha256"] == run.metrics["weights_sha256"]


@pytest.fixture
def reopened(run, tmp_path):
    """The run elsewhere, without its base."""
    shutil.copytree(run.path, tmp_path / "copy", ignore=shutil.ignore_patterns("base.keras", ".*"))
    return tl.load_run(tmp_path / "copy")


@pytest.mark.slow
def test_a_reopened_run_evaluates_and_predicts_without_its_base(reopened, run, photos):
    assert reopened.evaluate()["accuracy"] == run.metrics["test"]["accuracy"]
    assert reopened.predict(photos / "ants")[0].label in ("ants", "bees", "wasps")


@pytest.mark.slow
def test_a_reopened_run_exports_what_it_computes(reopened):
    exported = reopened.export(["saved_model", "weights"])

    assert exported["saved_model"].is_dir() and exported["weights"].is_file()
    assert json.loads(reopened.folder.parity.read_text())["holds"]


def test_a_model_of_a_run_is_a_base_of_the_next(run, recipe):
    model = keras.Model(run.model.input, run.model.get_layer("conv5").output)

    plan = tl.validate(recipe, base=model)

    assert [unit.name for unit in plan.architecture.units] == [
        "conv1", "add", "base_head", "inner", "conv5",
    ]  # fmt: skip


def key_of(recipe, model, path):
    """The key in the feature store of what enters the head."""
    model.save(path)
    transfer = assemble_base(recipe, path)
    digests = digest_variables(transfer)
    return PrefixKeys(transfer, {}).key(transfer.parts[-1].inputs, digests)


def assemble_base(recipe, path):
    plan = check_recipe(build_recipe(with_file(recipe, path)))
    return assemble_model(plan, build_task(plan.recipe, plan.classes), lambda event: None)


@pytest.mark.slow
def test_models_with_the_same_names_have_other_features_and_two_files_of_one_the_same(
    recipe, tmp_path
):
    models = [
        randomize(build_toy()),
        randomize(build_toy(), seed=1),
        randomize(build_toy(dilation=2)),
        randomize(build_toy(activation="tanh")),
    ]

    keys = [key_of(recipe, model, tmp_path / f"{n}.keras") for n, model in enumerate(models)]

    assert len(set(keys)) == len(models)
    assert key_of(recipe, models[0], tmp_path / "again.keras") == keys[0]


@pytest.mark.slow
def test_a_filled_store_changes_nothing_for_another_model_of_the_same_names(recipe, toy):
    head = {"phases": [HEAD], "features": {"store": "always"}, "yardsticks": True}
    other, events = randomize(build_toy(), seed=1), []
    tl.finetune(recipe | head, base=toy, out="toy")

    stored = tl.finetune(recipe | head, base=other, out="stored", progress=events.append)
    alone = tl.finetune(recipe | head | {"features": {"store": "never"}}, base=other, out="alone")

    assert "ran once for" in " ".join(event.text for event in events)
    yardsticks = {"neighbors", "probe", "against"}  # which only stored features give here
    metrics = stored.metrics["test"]
    assert {name: metrics[name] for name in metrics if name not in yardsticks} == alone.metrics[
        "test"
    ]


@pytest.mark.parametrize("fault", [NotImplementedError("no config"), ValueError("not plain")])
def test_a_base_that_keras_cannot_save_is_refused_with_its_reason(recipe, fault):
    class Closed(keras.layers.Layer):
        def call(self, x):
            return x

        def get_config(self):
            raise fault

    image = keras.Input((32, 32, 3))
    model = keras.Model(image, Closed(name="closed")(image))

    with pytest.raises(RecipeError, match=f"model.base: the model cannot be saved: {fault}"):
        tl.validate(recipe, base=model)


def test_a_file_of_a_base_that_is_gone_is_not_called_unwritable(recipe, toy, tmp_path):
    toy.save(tmp_path / "toy.keras")
    plan = check_recipe(build_recipe(with_file(recipe, tmp_path / "toy.keras")))
    (tmp_path / "toy.keras").unlink()

    with pytest.raises(WeightsError, match=r"toy\.keras' cannot be read: No such file"):
        keep_base(plan, RunFolder(tmp_path / "run"))


# -------------------------------------------------------------------------------------- other verbs


@pytest.mark.slow
def test_a_search_over_unfreeze_goes_on_with_its_model_and_no_other(recipe, toy):
    space = {"phases.tune.unfreeze": {"choices": [0, 1, {"from": "add"}]}}
    search = {"search": {"trials": 1, "space": space}}
    begun = tl.search(recipe, base=toy, overrides=search, root="runs")
    begun.path.parents[1].rename("moved")
    go_on = {"overrides": {"search": search["search"] | {"trials": 2}}, "resume": True}

    with pytest.raises(RecipeError, match="the search was begun with another base"):
        tl.search(recipe, base=randomize(build_toy(), 3), root="moved", **go_on)
    search = tl.search(recipe, base=toy, root="moved", **go_on)
    winner = tl.finetune(search.best_recipe, root="runs")

    assert search.path.parts[-2:] == begun.path.parts[-2:] and len(search.trials) == 2
    assert winner.metrics["weights_sha256"] == search.summary["best"]["weights_sha256"]


def test_the_default_search_goes_through_its_blocks(recipe, toy):
    plan = tl.validate(recipe, {"search": {}}, base=toy)

    assert list(resolve_space(plan.recipe)["phases.tune.unfreeze"].values) == [0, 1, 2, 3]
    assert "12 trials over model.head.dropout, phases.tune.unfreeze" in plan.describe()


@pytest.mark.slow
def test_a_hypermodel_builds_the_base_for_each_trial(recipe, toy):
    import keras_tuner

    space = {"phases.tune.unfreeze": {"choices": [0, 1]}}
    hypermodel = tl.hypermodel(recipe, base=toy, overrides={"search": {"space": space}})
    values = keras_tuner.HyperParameters()

    first, second = hypermodel.build(values), hypermodel.build(values)

    assert first is not second and weights_of(first).keys() == weights_of(second).keys()


@pytest.mark.slow
def test_the_command_line_takes_a_file_beside_the_recipe(recipe, toy, tmp_path):
    (tmp_path / "place").mkdir()
    toy.save(tmp_path / "place/toy.keras")
    values = with_file(recipe, "toy.keras", preprocessing="tf")
    (tmp_path / "place/own.yaml").write_text(json.dumps(values))

    valid = tltool("validate", "place/own.yaml", cwd=tmp_path)
    tltool("finetune", "place/own.yaml", "phases.tune.epochs=0", "--out", "run", cwd=tmp_path)
    shown = tltool(
        "models", "show", "place/toy.keras", "--units", "--unfreeze", "bn2", cwd=tmp_path
    )

    assert f"base     {tmp_path / 'place/toy.keras'}; weights its own" in valid.stderr
    assert tl.load_run("run").recipe.model.base.preprocessing == "tf"
    rows = {line.split()[1]: line.split()[-1] for line in shown.stdout.splitlines() if "%" in line}
    assert rows == {
        "conv1": "0%",
        "add": "95%",
        "base_head": "100%",
        "inner": "69%",
        "conv5": "100%",
    }


@pytest.mark.slow
def test_pixels_are_read_from_its_maps(tmp_path):
    model = randomize(build_toy(size=SIDE))
    balls = draw_balls(tmp_path / "balls", train=4, validation=2)
    tune = {"name": "tune", "epochs": 1, "unfreeze": {"from": "add"}}
    recipe = make_recipe("segmentation", balls, phases=[tune], export=False)

    run = tl.finetune(recipe, base=model, root="runs")

    before = weights_of(tl.build_model(recipe, base=model))
    moved = changed(before, weights_of(run.model))
    assert {"conv2", "conv5"} < moved and not {"conv1", "bn1", "bn2"} & moved
    taps = [layer.name for layer in run.model.layers if layer.name.startswith("head_tap")]
    assert len([name for name in taps if "bn" not in name]) == 3
    assert run.predict(balls / "segmentation/validation/images")[0].maps


# ------------------------------------------------------------------------------------------- errors


def test_problems_are_placed_in_the_recipe(recipe, toy, tmp_path):
    toy.save(tmp_path / "toy.keras")
    path = tmp_path / "own.yaml"

    def refuse(error, **changes):
        path.write_text(json.dumps(with_file(recipe, "toy.keras"), indent=1))
        with pytest.raises(error) as caught:
            tl.validate(path, changes)
        return str(caught.value)

    assert "data.image_size = [40, 40]\n  toy was built for" in refuse(
        RecipeError, **{"data.image_size": 40}
    )
    assert "toy has 3 blocks (conv1, add, block3)" in refuse(
        RecipeError, **{"phases.tune.unfreeze": 4}
    )
    missing = refuse(WeightsError, **{"model.base.model": "nowhere.keras"})
    assert f"model.base.model: '{tmp_path / 'nowhere.keras'}' is not there" in missing
    assert "its paper has no classifier" in refuse(RecipeError, **{"model.head": "paper"})


def test_what_is_no_functional_model_is_refused_before_a_folder_is_made(recipe):
    with pytest.raises(RecipeError, match="model.base: the model is no model but a str"):
        tl.finetune(recipe, base="mobilenet", root="runs")

    with pytest.raises(RecipeError, match="the model was not built"):
        tl.finetune(recipe, base=keras.Sequential([keras.layers.Dense(3)]), root="runs")


def test_the_base_takes_the_place_of_an_architecture_with_its_weights(recipe, toy):
    model = {"base": "mobilenet", "weights": "imagenet", "arguments": {"alpha": 0.25}}

    plan = tl.validate({**recipe, "model": model}, {"model.base.preprocessing": "tf"}, base=toy)

    assert plan.recipe.model.weights is None and not plan.recipe.model.arguments
    assert plan.recipe.model.base.preprocessing == "tf"
    assert plan.architecture.name == "toy"


def test_a_base_is_not_given_twice(recipe, toy):
    with pytest.raises(
        RecipeError, match=r"model\.base is given twice.*\n.*\n.*preprocessing=unit"
    ):
        tl.validate(recipe, {"model.base": "lenet5"}, base=toy)

    plan = tl.validate(recipe, {"model.base.preprocessing": "unit"}, base=toy)
    assert plan.recipe.model.base.preprocessing == "unit"


@pytest.mark.slow
def test_a_run_warns_of_a_classifier_that_was_left_in_its_base(recipe, tmp_path):
    events = []

    tl.finetune(
        recipe, base=build_toy(outputs=7), out=tmp_path / "run", progress=events.append,
        overrides={"phases.tune.epochs": 1},
    )  # fmt: skip

    texts = [event.text for event in events if event.kind == "warning"]
    assert sum("looks like its classifier (predictions)" in text for text in texts) == 1
    assert "model.get_layer('head_pool').output" in "".join(texts)


def test_regularizers_of_a_base_that_are_left_out_are_a_warning(recipe):
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, name="plain", kernel_constraint="non_neg")(image)
    base = keras.Model(image, keras.layers.Conv2D(4, 3, kernel_regularizer="l2", name="own")(x))
    tune = {"phases.tune.unfreeze": 2}

    (actual,) = tl.validate(recipe, tune, base=base).warnings

    assert "kernel_regularizer is left out (own): the recipe's l1 and l2 are 0" in actual
    assert not tl.validate(recipe, {**tune, "model.l2": 1e-4}, base=base).warnings


@pytest.mark.slow
def test_constraints_of_a_base_hold_where_it_trains(recipe):
    image = keras.Input((32, 32, 3))
    conv = keras.layers.Conv2D(4, 3, name="plain", kernel_constraint="non_neg")

    run = tl.finetune(
        recipe, overrides={"phases.tune.unfreeze": 1}, base=keras.Model(image, conv(image)),
        root="runs",
    )  # fmt: skip

    assert float(run.model.get_layer("plain").kernel.numpy().min()) >= 0


@pytest.mark.slow
def test_the_state_of_a_layer_moves_where_it_trains_and_nowhere_else(recipe):
    image = keras.Input((32, 32, 3))
    conv = keras.layers.Conv2D(4, 3, name="conv")
    base = keras.Model(image, keras.layers.SpectralNormalization(conv, name="normal")(image))
    phases = [HEAD, {"name": "tune", "epochs": 1, "unfreeze": 1}]

    run = tl.finetune({**recipe, "phases": phases}, base=base, root="runs")

    moved = [
        run.folder.read_json(run.folder.phase(index, name) / "receipt.json")["parts"][0]["moved"]
        for index, name in enumerate(["head", "tune"])
    ]
    assert moved[0] == 0 < moved[1]


def test_the_plan_of_a_model_in_python_names_it_and_no_file(recipe, toy):
    plan = tl.validate(recipe, base=toy)

    assert plan.describe().splitlines()[0] == "base     toy; weights its own"
    assert plan.as_json()["base"]["model"] == "toy"
    assert "base.keras" not in f"{plan.describe()} {plan.as_json()}"


@pytest.mark.parametrize("verb", [tl.search, tl.sweep])
def test_callbacks_of_a_search_are_refused_with_the_verbs_that_take_them(recipe, verb, tmp_path):
    callback = keras.callbacks.TerminateOnNaN()

    with pytest.raises(
        RecipeError, match=r"callbacks are given(.|\n)*tl\.finetune(.|\n)*hypermodel"
    ):
        verb(recipe, callbacks=[callback], out=tmp_path / "search")

    assert not (tmp_path / "search").exists()

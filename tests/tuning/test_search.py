"""Whole searches: what they share changes nothing, and what is killed goes on."""

import csv
import json
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import tl_toolkit as tl
from tests.architectures.own_models import build_toy
from tests.command import TLTOOL, tltool, tltool_process
from tests.conftest import draw_class_folders
from tests.models import build_trainer, plan_values
from tests.pixels import draw_balls, make_recipe
from tests.runs.listed import assert_all_are_listed
from tests.training.test_loop import digits_recipe
from tests.training.test_solving import MODEL
from tl_toolkit.api.search import open_search
from tl_toolkit.errors import NonFiniteError, RecipeError, SearchError, ToolkitError, WeightsError
from tl_toolkit.plan.training import training_settings
from tl_toolkit.printing.words import describe_refit
from tl_toolkit.recipe.load import dump_recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.classification.task import class_probabilities
from tl_toolkit.training.optimizers import tabulate_rate

SPACE = {
    "model.head.dropout": {"choices": [0.0, 0.3, 0.6]},
    "phases.tune.unfreeze": {"choices": [0, {"from": "f6"}, {"from": "c5"}]},
}


def recipe_of(photos):
    """LeNet-5 on photos: 3 classes of 7 and 2 images, two phases, and a search."""
    return {
        "version": 1,
        "name": "photos",
        "data": {"train": str(photos), "validation": 0.25, "image_size": 32, "batch_size": 8},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [
            {"name": "head", "epochs": 2, "learning_rate": 1e-2},
            {"name": "tune", "epochs": 2, "learning_rate": 3e-3},
        ],
        "features": {"store": "always"},
        "search": {"trials": 6, "space": SPACE},
    }


@pytest.fixture
def recipe(tmp_path, draw_photos):
    return recipe_of(draw_photos(tmp_path / "photos", count=9))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search by the command, from its first trial to its last, for tests that only read it."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = recipe_of(draw_class_folders(folder / "photos", count=9))
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    overrides = ("search.refit=2", "search.trials=2")
    tltool("search", "recipe.yaml", *overrides, "--out", "search", cwd=folder)
    return tl.SearchRun(RunFolder(folder / "search"))


@pytest.fixture
def unplotted(monkeypatch):
    """Searches draw no plots, which take longer than a small trial."""
    leave_out_plots(monkeypatch)


def leave_out_plots(patch):
    for name in ("plot_fields", "plot_time"):
        patch.setattr(f"tl_toolkit.tuning.report.{name}", lambda *_, **__: None)


def rows_of(path):
    with open(path) as file:
        return list(csv.DictReader(file))


class Listener:
    def __init__(self):
        self.passes = 0
        self.ended = []
        self.sentences = []

    def handle(self, event):
        if event.text:
            self.sentences.append(event.text)
        if event.kind == "features_computed":
            self.passes += event.done == event.total
        elif event.kind == "trial_ended":
            self.ended.append((event.facts["number"], event.is_best))


@pytest.mark.parametrize(
    ("store", "run"),
    [
        ("never", tltool),
        pytest.param("always", tltool, marks=pytest.mark.slow),
        pytest.param("never", tltool_process, marks=pytest.mark.slow),
    ],
)
def test_the_best_recipe_gives_the_best_trial_again(tmp_path, whole, store, run):
    arguments = ["export=false", "yardsticks=false", f"features.store={store}"]
    run("finetune", whole.best_recipe, *arguments, "--out", tmp_path / "run", cwd=tmp_path)

    best = whole.summary["best"]
    metrics = tl.load_run(tmp_path / "run").metrics
    assert metrics["weights_sha256"] == best["weights_sha256"]
    assert metrics["best"]["val_accuracy"] == best["score"]
    assert metrics["best"] == best["best"]
    assert best["score"] == max(trial.score for trial in whole.trials)


def test_a_search_has_a_report(whole):
    text = tl.report(whole).read_text()

    best = whole.summary["best"]
    assert f"number {best['number']}, val_accuracy {best['score']:.4f} on validation" in text
    charts = {path.stem for path in whole.folder.report.glob("*.svg")}
    assert charts >= {"parallel", "trials-time", "field-1"}
    assert "best.yaml" in text


@pytest.mark.slow
def test_every_trial_is_what_finetune_makes_of_its_recipe(tmp_path, recipe):
    """With dropout 0 too, where a run of its own draws no dropout layer at all."""
    from tl_toolkit.plan.space import trial_recipe

    recipe["search"] = {"algorithm": "grid", "space": SPACE}
    actual = tl.search(recipe, out=tmp_path / "search")
    loaded = tl.load_recipe(actual.folder.recipe).recipe

    for trial in actual.trials[::2]:
        one = trial_recipe(loaded, trial.values)
        run = tl.finetune(one, overrides=["export=false"], out=tmp_path / str(trial.number))
        assert run.metrics["weights_sha256"] == trial.weights_sha256, trial.values


@pytest.mark.slow
def test_equal_first_phases_are_trained_once(tmp_path, recipe, monkeypatch):
    from tl_toolkit.training.phase import PhaseRun

    began = []
    epochs = PhaseRun.epochs
    monkeypatch.setattr(
        PhaseRun,
        "epochs",
        lambda self, *rest, **more: began.append(self._phase.name) or epochs(self, *rest, **more),
    )
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    recipe["search"] = {"algorithm": "grid", "space": SPACE}
    listener = Listener()

    tl.search(recipe, out=tmp_path / "search", progress=listener.handle)

    assert listener.passes == 1
    assert began.count("head") == 3  # once for each dropout
    assert began.count("tune") == 9


def test_a_search_leaves_tables_and_plots(whole):
    rows = rows_of(whole.path / "trials.csv")
    assert [row["number"] for row in rows] == list("12")
    assert {row["phases.tune.unfreeze"] for row in rows} <= {"0", "{from: f6}", "{from: c5}"}
    assert all(row["state"] == "completed" and float(row["seconds"]) > 0 for row in rows)
    for name in ("fields.svg", "time.svg"):
        assert "</svg>" in (whole.path / name).read_text()
    assert len(list(whole.folder.tensorboard.glob("*/events*"))) == 2
    refit = whole.summary["refit"]
    assert len(refit["scores"]) == 2 and refit["min"] <= refit["mean"] <= refit["max"]
    assert json.loads(whole.folder.status.read_text())["state"] == "done"


def test_a_trial_that_fails_is_recorded_and_ends_nothing(tmp_path, recipe, unplotted):
    space = {"phases.head.learning_rate": {"choices": [1e-3, 1e38]}}
    recipe["phases"] = [{"name": "head", "epochs": 3, "optimizer": "sgd"}]

    actual = tl.search(recipe, overrides={"search.space": space}, out=tmp_path / "search")

    states = {trial.values["phases.head.learning_rate"]: trial.state for trial in actual.trials}
    assert states == {1e-3: "completed", 1e38: "failed"}
    (failed,) = [trial for trial in actual.trials if trial.state == "failed"]
    assert "phase 'head'" in failed.error
    assert actual.summary["failed"] == 1


@pytest.fixture
def failing_seeds(monkeypatch):
    """Seeds with which training fails, none at first: no recipe can be made to fail by its seed."""
    from tl_toolkit.training.loop import Trainer

    seeds = set()
    train = Trainer.train

    def train_or_fail(self, recipe, *rest, **settings):
        if recipe.seed in seeds:
            raise NonFiniteError("the loss is not a number")
        return train(self, recipe, *rest, **settings)

    monkeypatch.setattr(Trainer, "train", train_or_fail)
    return seeds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fails", "told"),
    [({1}, r"with 2 other seeds: mean .* to .*, 1 failed"), ({1, 2}, "with 2 other seeds: all f")],
)
def test_a_seed_of_the_winner_that_fails_is_told_and_ends_nothing(
    tmp_path, recipe, failing_seeds, fails, told
):
    failing_seeds |= fails
    recipe["search"] = {"trials": 1, "space": SPACE, "refit": 2}
    listener = Listener()

    actual = tl.search(recipe, out=tmp_path / "search", progress=listener.handle)

    refit = actual.summary["refit"]
    assert [score is None for score in refit["scores"]] == [seed in fails for seed in (1, 2)]
    assert refit["mean"] == refit["scores"][1]
    assert any("seed 1 failed: the loss is not a number" in text for text in listener.sentences)
    assert re.match(told, describe_refit(refit))


def remover(path):
    """Returns a handler that deletes a file when the first trial begins."""

    def handle(event):
        if event.kind == "trial_began":
            path.unlink(missing_ok=True)

    return handle


@pytest.fixture
def base_weights(tmp_path):
    """A file of LeNet-5's base."""
    import keras

    from tl_toolkit.architectures.lenet import build_lenet5

    pixels = keras.Input((32, 32, 1))
    keras.Model(pixels, build_lenet5(pixels)).save_weights(tmp_path / "lenet.weights.h5")
    return tmp_path / "lenet.weights.h5"


@pytest.mark.slow
def test_weights_that_no_trial_can_load_end_the_search(tmp_path, recipe, base_weights):
    recipe["model"]["weights"] = str(base_weights)

    with pytest.raises(WeightsError, match=r"lenet\.weights\.h5") as caught:
        tl.search(recipe, out=tmp_path / "search", progress=remover(base_weights))

    assert caught.value.exit_code == 3
    assert json.loads((tmp_path / "search" / "status.json").read_text())["state"] == "failed"


@pytest.mark.slow
def test_weights_that_one_trial_cannot_load_end_that_trial(tmp_path, recipe, base_weights):
    choices = {"choices": [str(base_weights), "random"]}
    recipe["search"] = {"space": {"model.weights": choices}}

    actual = tl.search(recipe, out=tmp_path / "search", progress=remover(base_weights))

    states = {trial.values["model.weights"]: trial.state for trial in actual.trials}
    assert states == {str(base_weights): "failed", "random": "completed"}


@pytest.mark.slow
def test_a_search_of_the_batch_size_looks_at_the_images_once(tmp_path, recipe):
    def spoil(event):
        if event.kind == "trial_began":
            (tmp_path / "photos" / "bees" / "torn.jpg").write_bytes(b"torn")

    recipe["search"] = {"space": {"data.batch_size": {"choices": [4, 8]}}}

    actual = tl.search(recipe, out=tmp_path / "search", progress=spoil)

    assert [trial.state for trial in actual.trials] == ["completed"] * 2


@pytest.mark.slow
def test_what_a_handler_raises_in_a_trial_ends_the_search(tmp_path, recipe):
    def handle(event):
        if event.text.startswith("features: "):  # computed, or read from the store
            raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$"):
        tl.search(recipe, out=tmp_path / "search", progress=handle)

    assert not (tmp_path / "search" / "trials.csv").exists()


@pytest.mark.slow
def test_a_search_without_a_completed_trial_is_exit_code_5(tmp_path, recipe):
    recipe["phases"][0] |= {"optimizer": "sgd", "unfreeze": 4}
    recipe["search"] = {"space": {"phases.head.learning_rate": {"choices": [1e37, 1e38]}}}

    with pytest.raises(
        SearchError, match=r"none of 2 trials was completed(.|\n)*phase 'head'"
    ) as e:
        tl.search(recipe, out=tmp_path / "search")

    assert e.value.exit_code == 5
    assert len(rows_of(tmp_path / "search" / "trials.csv")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["bayesian", "tpe", "grid"])
def test_a_search_of_another_algorithm_goes_on_where_it_stopped(tmp_path, recipe, algorithm):
    recipe["search"]["algorithm"] = algorithm

    assert_it_goes_on(recipe, tl.search(recipe, out=tmp_path / "whole"), tmp_path)


def test_a_search_goes_on_where_it_stopped(tmp_path, whole, unplotted):
    assert_it_goes_on(recipe_of(whole.path.parent / "photos"), whole, tmp_path)


def assert_it_goes_on(recipe, whole, tmp_path):
    """Stops after half of the trials, goes on, and comes to those of a search in one go."""
    done = len(whole.trials) // 2
    recipe["search"]["trials"] = len(whole.trials)

    def stop(event):
        if event.kind == "trial_ended" and event.facts["number"] == done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tl.search(recipe, out=tmp_path / "search", progress=stop)
    assert json.loads((tmp_path / "search" / "status.json").read_text())["state"] == "interrupted"
    listener = Listener()
    actual = tl.search(recipe, out=tmp_path / "search", resume=True, progress=listener.handle)

    assert [number for number, _ in listener.ended] == [*range(done + 1, len(whole.trials) + 1)]
    assert [trial.weights_sha256 for trial in actual.trials] == [
        trial.weights_sha256 for trial in whole.trials
    ]
    assert actual.best_recipe.read_text() == whole.best_recipe.read_text()


@pytest.mark.slow
def test_a_search_that_is_killed_loses_the_running_trial_at_most(tmp_path, recipe):
    path = tmp_path / "recipe.yaml"
    recipe["phases"][1]["epochs"] = 40
    path.write_text(json.dumps(recipe))
    command = [TLTOOL, "search", str(path), "--out", str(tmp_path / "search")]
    trials = tmp_path / "search" / "trials"

    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while len(list(trials.glob("[0-9]*.json"))) < 2 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    before = {one.name: one.read_text() for one in trials.glob("[0-9]*.json")}
    done = subprocess.run([*command, "--resume", "--json"], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert 2 <= len(before) <= 6
    assert json.loads(done.stdout)["trials"] == 6
    assert all((trials / name).read_text() == text for name, text in before.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"phases.head.epochs": 3}, r"phases\.head\.epochs\n"),
        ({"search.space": {"model.head.dropout": {"choices": [0.1]}}}, r"search\.space"),
        ({"search.seed": 4}, r"search\.seed"),
    ],
)
def test_a_search_does_not_go_on_with_another_recipe(tmp_path, recipe, change, named):
    recipe["search"]["trials"] = 1
    tl.search(recipe, out=tmp_path / "search")

    with pytest.raises(RecipeError, match=rf"begun with another (.|\n)*{named}") as caught:
        tl.search(recipe, overrides=change, out=tmp_path / "search", resume=True)

    out = tmp_path / "search"
    (problem,) = caught.value.problems
    assert problem.hint.startswith(f"tltool search {out}/recipe.yaml --resume --out {out}, which")


def digest_folder(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def add_tiff(search, photos):
    """Adds an image, of a kind that is re-encoded into the folder of the search."""
    Image.new("RGB", (40, 40)).save(photos / "bees" / "new.tiff")
    return {"data.train": str(photos), "data.convert": True}


def change_values(search, photos):
    """Lets the first trial have values that the oracle does not choose first."""
    path = search / "trials" / "00001.json"
    trial = json.loads(path.read_text())
    trial["values"]["model.head.dropout"] = 0.9
    path.write_text(json.dumps(trial))
    return {"search.trials": 7}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda search, photos: {"phases.head.epochs": 3}, r"phases\.head\.epochs\n"),
        (add_tiff, "images"),
        (change_values, "trial 1 is not the one"),
    ],
)
def test_a_resume_that_is_refused_changes_nothing(tmp_path, whole, change, named):
    photos, search = tmp_path / "photos", tmp_path / "search"
    shutil.copytree(whole.path.parent / "photos", photos)
    shutil.copytree(whole.path, search)
    overrides = change(search, photos)
    before = digest_folder(search)

    with pytest.raises(ToolkitError, match=named):
        tl.search(
            recipe_of(whole.path.parent / "photos"), overrides=overrides, out=search, resume=True
        )

    assert digest_folder(search) == before


@pytest.mark.parametrize(
    ("done", "trials", "text"),
    [
        (1, 2, "resuming after 1 trial that is done, of 2"),
        (2, 2, "resuming after 2 trials that are done: none is left to run"),
    ],
)
def test_a_resumed_search_says_what_is_left_and_drops_a_report_that_becomes_stale(
    tmp_path, whole, unplotted, done, trials, text
):
    search = tmp_path / "search"
    shutil.copytree(whole.path, search)
    for path in sorted((search / "trials").glob("[0-9]*.json"))[done:]:
        path.unlink()
    page = tl.report(tl.SearchRun(RunFolder(search)))
    listener = Listener()

    tl.search(
        recipe_of(whole.path.parent / "photos"), overrides={"search.trials": trials},
        out=search, resume=True, progress=listener.handle,
    )  # fmt: skip

    assert text in listener.sentences
    assert len(listener.ended) == trials - done
    assert page.is_file() == (done == trials)  # with another trial it would be stale


def test_a_resume_with_a_base_of_the_users_own_changes_nothing(whole):
    recipe = recipe_of(whole.path.parent / "photos")
    recipe["search"] = {"space": {"model.head.dropout": SPACE["model.head.dropout"]}}
    before = digest_folder(whole.path)

    with pytest.raises(RecipeError, match="begun with another base"):
        tl.search(recipe, base=build_toy(), out=whole.path, resume=True)

    assert digest_folder(whole.path) == before


def test_a_resume_that_is_interrupted_before_it_began_changes_nothing(tmp_path, whole):
    def interrupt(event):
        if event.kind == "images_inspected":
            raise KeyboardInterrupt

    before = digest_folder(whole.path)

    with pytest.raises(KeyboardInterrupt):
        tl.search(
            recipe_of(whole.path.parent / "photos"),
            out=whole.path, resume=True, progress=interrupt,
        )  # fmt: skip

    assert digest_folder(whole.path) == before


@pytest.mark.slow
def test_a_search_does_not_go_on_with_other_images(tmp_path, recipe, draw_photos):
    recipe["search"]["trials"] = 1
    tl.search(recipe, out=tmp_path / "search")
    draw_photos(tmp_path / "more", count=1, seed=7)
    (tmp_path / "more" / "bees" / "0.jpg").rename(tmp_path / "photos" / "bees" / "new.jpg")

    with pytest.raises(RecipeError, match="begun with another images"):
        tl.search(recipe, out=tmp_path / "search", resume=True)


@pytest.mark.slow
def test_more_trials_may_be_asked_for_later(tmp_path, recipe):
    recipe["search"]["trials"] = 2
    tl.search(recipe, out=tmp_path / "search")

    actual = tl.search(recipe, overrides={"search.trials": 3}, out=tmp_path / "search", resume=True)

    assert len(actual.trials) == 3


@pytest.mark.slow
def test_fewer_trials_than_are_done_are_enough(tmp_path, recipe):
    recipe["search"]["trials"] = 2
    tl.search(recipe, out=tmp_path / "search")
    table = tmp_path / "search" / "trials.csv"
    whole = table.read_text()
    table.write_text("".join(whole.splitlines(keepends=True)[:-1]))  # as after a kill

    listener = Listener()
    actual = tl.search(
        recipe,
        overrides={"search.trials": 1},
        out=tmp_path / "search",
        resume=True,
        progress=listener.handle,
    )

    assert listener.ended == []
    assert actual.summary["trials"] == len(actual.trials) == 2
    assert table.read_text() == whole


@pytest.mark.slow
def test_a_folder_that_holds_a_search_is_not_begun_anew_by_mistake(tmp_path, recipe):
    recipe["search"]["trials"] = 1
    tl.search(recipe, out=tmp_path / "search")

    with pytest.raises(RecipeError, match=r"holds a search already\n.*\n  Try: resume=True"):
        tl.search(recipe, out=tmp_path / "search")
    assert len(tl.search(recipe, out=tmp_path / "search", overwrite=True).trials) == 1
    with pytest.raises(RecipeError, match="holds no search"):
        tl.search(recipe, out=tmp_path / "nothing", resume=True)


@pytest.mark.slow
def test_resume_takes_the_newest_search_of_the_recipe(tmp_path, recipe):
    recipe["search"]["trials"] = 1
    tl.search(recipe, root=tmp_path / "runs")
    second = tl.search(recipe, root=tmp_path / "runs")

    with open_search(
        tl.load_recipe(second.folder.recipe).recipe.name,
        tmp_path / "runs", None, resume=True, overwrite=False,
    ) as folder:  # fmt: skip
        pass

    assert folder.path == second.path == tmp_path / "runs" / "photos-search" / "002"


@pytest.mark.slow
def test_a_search_over_data_and_the_base_rebuilds_what_it_must(tmp_path, recipe):
    recipe["search"] = {
        "algorithm": "grid",
        "space": {
            "data.image_size": {"choices": [32, 40]},
            "data.batch_size": {"choices": [4, 8]},
            "model.arguments.pooling": {"choices": ["average", "max"]},
        },
    }

    actual = tl.search(recipe, out=tmp_path / "search")

    assert {trial.state for trial in actual.trials} == {"completed"}
    assert len({trial.weights_sha256 for trial in actual.trials}) == 8


@pytest.mark.slow
def test_a_sweep_goes_from_the_head_alone_to_the_whole_base(tmp_path, recipe):
    del recipe["search"]

    actual = tl.sweep(recipe, out=tmp_path / "sweep")

    rows = rows_of(actual.path / "sweep.csv")
    assert [row["depth"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row["trains"] for row in rows][:2] == ["head", "f6 to head"]
    parameters = [int(row["parameters"]) for row in rows]
    assert parameters == sorted(set(parameters))
    assert "</svg>" in (actual.path / "sweep.svg").read_text()
    assert_all_are_listed(actual.folder)


@pytest.mark.slow
def test_a_sweep_of_units_or_of_another_phase(tmp_path, recipe):
    actual = tl.sweep(recipe, phase="head", units=True, out=tmp_path / "sweep")

    depths = [row["depth"] for row in rows_of(actual.path / "sweep.csv")]
    assert depths == ["0", "{from: f6}", "{from: c5}", "{from: c3}", "{from: c1}"]
    with pytest.raises(RecipeError, match="'heads' is no phase of the recipe"):
        tl.sweep(recipe, phase="heads")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("units", "depths"),
    [(False, ["0", "5"]), (True, ["0", "{from: conv_dw_1}", "{from: conv1}"])],
)
def test_a_sweep_leaves_out_what_lies_behind_the_last_tap(tmp_path, units, depths):
    recipe = make_recipe("edges", draw_balls(tmp_path / "balls", train=2, validation=1))
    recipe["model"] |= {"base": "mobilenet", "arguments": {"alpha": 0.25}}
    recipe["pixels"] |= {"taps": ["conv1_relu", "conv_pw_1_relu"], "per_image": 50}
    recipe["phases"] = [{"name": "head", "epochs": 1, "batch_norm": "train"}]

    actual = tl.sweep(recipe, units=units, out=tmp_path / "sweep")

    assert [row["depth"] for row in rows_of(actual.path / "sweep.csv")] == depths
    assert all(trial.score is not None for trial in actual.trials)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # KerasTuner calls names that Python has deprecated
def test_a_hypermodel_decodes_images_once_for_all_trials(tmp_path, recipe):
    import keras_tuner

    recipe["features"] = {"store": "never"}
    hypermodel, values = tl.hypermodel(recipe), keras_tuner.HyperParameters()
    first = hypermodel.fit(values, hypermodel.build(values))
    shutil.rmtree(tmp_path / "photos")

    assert hypermodel.fit(values, hypermodel.build(values)) == first


class Epochs(keras.callbacks.Callback):
    """Counts epochs, and keeps the head's kernel as each phase finds it."""

    def __init__(self):
        super().__init__()
        self.count = 0
        self.kernels = []

    def on_train_begin(self, logs=None):
        self.kernels.append(np.array(self.model.get_layer("predictions").kernel))

    def on_epoch_end(self, epoch, logs=None):
        self.count += 1


@pytest.mark.filterwarnings("ignore")  # KerasTuner calls names that Python has deprecated
def test_a_hypermodel_trains_the_epochs_that_a_tuner_asks_for(recipe):
    import keras_tuner

    hypermodel, values = tl.hypermodel(recipe), keras_tuner.HyperParameters()
    first, then = Epochs(), Epochs()
    model = hypermodel.build(values)

    hypermodel.fit(values, model, epochs=3, initial_epoch=0, callbacks=[first], verbose=0)
    kernel = np.array(model.get_layer("predictions").kernel)
    hypermodel.fit(values, model, epochs=6, initial_epoch=3, callbacks=[then])

    # Of 2 + 2 epochs: 2 + 1; then the last one of the second phase, which grows by 2.
    assert (first.count, len(first.kernels)) == (3, 2)
    assert (then.count, len(then.kernels)) == (3, 1)
    np.testing.assert_array_equal(then.kernels[0], kernel)


@pytest.mark.filterwarnings("ignore")  # KerasTuner calls names that Python has deprecated
def test_a_hypermodel_returns_the_recipe_of_the_values_that_a_tuner_shows(recipe):
    import keras_tuner

    hypermodel, values = tl.hypermodel(recipe), keras_tuner.HyperParameters()
    hypermodel.recipe(values)
    values.values |= {"model.head.dropout": 0.3, "phases.tune.unfreeze": "from c5"}

    actual = hypermodel.recipe(values)

    assert actual.model.head.dropout == 0.3
    assert actual.phases[1].unfreeze.model_dump(by_alias=True) == {"from": "c5"}
    assert actual.search is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # KerasTuner calls names that Python has deprecated
def test_data_for_a_tuner_are_refused_and_end_its_search(tmp_path, recipe):
    import keras_tuner

    tuner = keras_tuner.RandomSearch(
        tl.hypermodel(recipe), objective="val_accuracy", max_trials=1, directory=tmp_path
    )

    with pytest.raises(tl.errors.RecipeError, match="x, y, class_weight: the hypermodel trains by"):
        tuner.search(np.zeros(1), np.zeros(1), class_weight={0: 1}, verbose=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # KerasTuner calls names that Python has deprecated
def test_epochs_that_end_before_a_searched_phase_are_a_warning(recipe, caplog):
    import keras_tuner

    hypermodel, values = tl.hypermodel(recipe), keras_tuner.HyperParameters()

    for epochs in (2, 3):
        hypermodel.fit(values, hypermodel.build(values), epochs=epochs)

    assert "epochs=2 ends before phase 'tune', which is searched" in caplog.text
    assert "epochs=3" not in caplog.text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # KerasTuner calls names that Python has deprecated
def test_the_hyperband_of_keras_tuner_trains_what_it_asks_for_and_returns_its_best(
    tmp_path, recipe, monkeypatch
):
    import keras_tuner

    from tl_toolkit.training.loop import Trainer

    counts = []
    train = Trainer.train

    def count(self, settings, *rest, **options):
        counts.append(sum(phase.epochs for phase in settings.phases))
        return train(self, settings, *rest, **options)

    monkeypatch.setattr(Trainer, "train", count)
    tuner = keras_tuner.Hyperband(
        tl.hypermodel(recipe),
        objective=keras_tuner.Objective("val_loss", "min"),
        max_epochs=4,
        factor=2,
        hyperband_iterations=1,
        directory=tmp_path,
        project_name="tuner",
        seed=1,
    )

    tuner.search(verbose=0)
    (model,) = tuner.get_best_models(1)

    asked = [trial.hyperparameters.values for trial in tuner.oracle.trials.values()]
    assert counts == [one["tuner/epochs"] - one["tuner/initial_epoch"] for one in asked]
    assert any(one["tuner/initial_epoch"] for one in asked)
    # The weights are those of the score.
    images, labels = _read_validation(recipe)
    best = tuner.oracle.get_best_trials(1)[0]
    loss = keras.losses.sparse_categorical_crossentropy(labels, model.predict(images, verbose=0))
    assert float(np.mean(loss)) == pytest.approx(best.score, abs=1e-4)


def _read_validation(recipe):
    """The validation images of a recipe, and their labels."""
    plan, task = plan_values(recipe)
    with tempfile.TemporaryDirectory() as folder:
        _, images = build_trainer(plan, task, Path(folder))
        split = images["validation"]
        return split.load(range(len(split))).astype(np.float32), split.targets


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # KerasTuner calls names that Python has deprecated
def test_a_tuner_of_keras_tuner_takes_the_hypermodel(tmp_path, recipe):
    import keras_tuner

    recipe["search"]["trials"] = 3
    tuner = keras_tuner.RandomSearch(
        tl.hypermodel(recipe),
        objective=keras_tuner.Objective("val_accuracy", "max"),
        max_trials=3,
        directory=tmp_path,
        project_name="tuner",
        seed=1,
    )

    tuner.search(verbose=0)

    trials = tuner.oracle.get_best_trials(3)
    assert len(trials) == 3 and all(trial.score is not None for trial in trials)
    assert set(trials[0].hyperparameters.values) == set(SPACE)


@pytest.mark.filterwarnings("ignore")  # KerasTuner calls names that Python has deprecated
@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "activation"),
    [(["ants", "bees", "wasps"], "softmax"), (["ants", "bees"], "sigmoid")],
)
def test_the_model_of_a_hypermodel_is_compiled_as_the_last_phase_trains_it(
    recipe, classes, activation
):
    import keras_tuner

    recipe["data"]["classes"] = classes
    recipe["model"]["head"] = {"activation": activation}
    recipe["phases"][1]["unfreeze"] = 1
    recipe["search"] = {"space": {"model.head.dropout": {"choices": [0.1, 0.2]}}}
    model = tl.hypermodel(recipe).build(keras_tuner.HyperParameters())
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    labels = np.array([0, 1, 1, 0])

    actual = model.evaluate(images, labels, verbose=0, return_dict=True)

    probabilities = class_probabilities(model.predict(images, verbose=0))
    expected = -np.log(probabilities[np.arange(4), labels]).mean()
    assert actual["loss"] == pytest.approx(expected, rel=1e-4)
    assert actual["accuracy"] == (probabilities.argmax(axis=1) == labels).mean()
    trained = {layer.name for layer in model.layers if layer.trainable_weights}
    assert trained == {"f6_dense", "predictions"}


@pytest.mark.slow
def test_the_commands_say_what_was_found(tmp_path, recipe):
    path = tmp_path / "recipe.yaml"
    recipe["search"] = {
        "algorithm": "bayesian", "space": {"model.head.dropout": {"choices": [0.1, 0.2]}}
    }  # fmt: skip
    path.write_text(json.dumps(recipe))

    done = tltool("search", path, "--out", "found", cwd=tmp_path)

    assert "all 2 combinations of the space were tried: the search ends before" in done.stderr
    assert "trial 1  dropout" in done.stderr and "best: trial" in done.stderr
    assert done.stderr.count("features: ") == 1
    assert "tltool finetune found/best.yaml" in done.stderr


def preset_recipe(**search):
    """A recipe whose preset solves a head and tunes nothing, as it has few validation images."""
    recipe = digits_recipe(preset="auto", model=MODEL, search=search)
    return {key: value for key, value in recipe.items() if key != "phases"}


@pytest.mark.slow
def test_the_winner_keeps_the_reasons_of_a_preset_but_of_what_was_searched(tmp_path):
    space = {"model.head.solver": ["ridge"]}

    found = tl.search(preset_recipe(trials=1, space=space), out=tmp_path / "search")

    before, after = (
        [line for line in path.read_text().splitlines() if line.startswith("# ")]
        for path in (found.folder.recipe, found.best_recipe)
    )
    assert [line for line in before if "solver" in line][0].startswith("# auto: model.head.solver=")
    assert after == [
        *(line for line in before if "solver" not in line),
        "# search: model.head.solver=ridge: of trial 1, the best of 1 by val_accuracy",
    ]
    assert len(after) > 3


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({}, "no phase, whose unfreezing the default space searches"),
        (
            {"algorithm": "hyperband", "space": {"model.head.solver": ["ridge", "logistic"]}},
            "expected one to pause in",
        ),
    ],
)
def test_a_head_that_is_solved_alone_needs_a_space_of_its_own(search, message):
    with pytest.raises(RecipeError, match=message):
        plan_values(preset_recipe(**search))


@pytest.mark.parametrize(
    "search",
    [
        {},
        {"space": {"phases.tune.unfreeze": [0, 1]}},
        {"space": {"phases.0.unfreeze": [0, 1]}},
        {"space": {"model.head.dropout": [0.1, 0.3]}, "soup": True},
    ],
)
def test_what_a_search_without_phases_is_told_to_try_works_as_typed(search):
    recipe = preset_recipe(**search)
    with pytest.raises(RecipeError) as caught:
        plan_values(recipe)
    (problem,) = caught.value.problems

    plan_values(recipe, shlex.split(problem.hint))


@pytest.mark.parametrize("preset", [{}, {"preset": "fast"}])
def test_a_search_of_a_head_that_is_solved_is_told_a_space_that_works_as_typed(preset):
    recipe = digits_recipe(model=MODEL, search={"trials": 2}, **preset)
    recipe["phases"] = []
    if not preset:  # as tltool init writes it
        recipe["model"] = {**MODEL, "head": {"solver": "auto"}}
    with pytest.raises(RecipeError) as caught:
        plan_values(recipe)
    (problem,) = caught.value.problems

    plan_values(recipe, shlex.split(problem.hint))


def test_the_recipe_of_a_search_without_phases_is_read_again(tmp_path):
    """As a report and a search that is resumed read it."""
    plan = plan_values(preset_recipe(space={"model.head.solver": ["ridge", "logistic"]}))[0]
    (tmp_path / "recipe.yaml").write_text(dump_recipe(plan.recipe, plan.reasons))

    read = tl.load_recipe(tmp_path / "recipe.yaml").recipe

    assert plan_values(read)[0].recipe == plan.recipe


def test_a_sweep_without_phases_is_told_what_adds_one():
    recipe = preset_recipe()
    del recipe["search"]
    with pytest.raises(RecipeError, match="no phase to sweep") as caught:
        tl.sweep(recipe)
    (problem,) = caught.value.problems

    actual = plan_values(recipe, shlex.split(problem.hint))[0].recipe

    assert [phase.name for phase in actual.phases] == ["tune"]


def test_a_phase_in_a_space_that_the_recipe_lacks_is_told_once_with_those_it_has(recipe):
    recipe["search"] = {"space": {"phases.tunes.unfreeze": [0, 1]}}

    with pytest.raises(RecipeError) as caught:
        plan_values(recipe)

    (problem,) = caught.value.problems
    assert problem.what == "search.space: phases.tunes.unfreeze is no field"
    assert problem.hint == "phases.tune.unfreeze in place of phases.tunes.unfreeze"


def test_a_whole_phase_in_a_space_is_refused_where_the_recipe_lacks_it(recipe):
    space = {"phases.tunes": [0, 1]}
    recipe["search"] = {"space": space}
    solved = preset_recipe() | {"search": {"space": space}}

    with pytest.raises(RecipeError, match="phases.tune in place of phases.tunes"):
        plan_values(recipe)
    with pytest.raises(RecipeError, match="phases.tunes is no field, as the recipe has no phase"):
        plan_values(solved)


@pytest.mark.filterwarnings("ignore")  # KerasTuner calls names that Python has deprecated
@pytest.mark.parametrize(
    ("window", "epochs"), [((0, 9), [1, 1, 7]), ((3, 9), [6]), ((0, 2), [1, 1])]
)
def test_a_schedule_of_several_parts_runs_over_the_epochs_of_a_window(recipe, window, epochs):
    from tl_toolkit.tuning.hypermodel import _Window

    cosine = {"kind": "cosine", "initial": 0.5}
    recipe["phases"] = [
        {"name": "head", "epochs": 1},
        {"name": "tune", "epochs": 3, "unfreeze": {"gradual": 2}, "learning_rate": cosine},
    ]
    settings = training_settings(plan_values(recipe)[0])

    phases = _Window(*window).cut(settings).phases

    assert [phase.epochs for phase in phases] == epochs
    parts = [phase for phase in phases if phase.name != "head"]
    rates = [rate for phase in parts for rate in tabulate_rate(phase, 1)[:-1]]
    count = len(rates)
    expected = [0.25 * (1 + np.cos(np.pi * epoch / count)) for epoch in range(count)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)

"""The trainers that trials share, and the model that is built before the first of them."""

import threading
import time

import pytest

import tl_toolkit as tl
from tests.training.test_solving import MODEL
from tests.tuning.test_search import recipe_of
from tl_toolkit.events import message
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.recipe.load import read_recipe
from tl_toolkit.tuning import trainers
from tl_toolkit.tuning.trainers import FirstModel


@pytest.fixture
def recipe(tmp_path, draw_photos):
    return recipe_of(draw_photos(tmp_path / "photos", count=9)) | {"model": MODEL}


@pytest.fixture
def assembled(monkeypatch):
    """Names of the threads in which models are assembled."""
    names = []
    assemble = trainers.assemble_model

    def note(*arguments):
        names.append(threading.current_thread().name)
        return assemble(*arguments)

    monkeypatch.setattr(trainers, "assemble_model", note)
    return names


def search(recipe, place, **space):
    """Runs two trials."""
    recipe["search"] = {"trials": 2, "space": space}
    return tl.search(recipe, out=place)


def test_the_first_model_is_built_while_images_are_read(recipe, tmp_path, assembled, monkeypatch):
    read = threading.Event()
    builds = trainers.assemble_model

    def wait(*arguments):
        assert read.wait(60)
        return builds(*arguments)

    monkeypatch.setattr(trainers, "assemble_model", wait)

    def handle(event):
        if event.kind == "images_inspected":
            read.set()

    recipe["search"] = {
        "trials": 2,
        "space": {"phases.tune.learning_rate": {"choices": [1e-3, 1e-2]}},
    }
    run = tl.search(recipe, out=tmp_path / "search", progress=handle)

    assert [trial.state for trial in run.trials] == ["completed"] * 2
    assert len(assembled) == 1
    assert assembled != [threading.main_thread().name]


@pytest.mark.slow  # two searches; a trial that equals a run is in test_search.py
def test_a_model_built_ahead_changes_no_trial(recipe, tmp_path, monkeypatch):
    space = {"model.head.dropout": {"choices": [0.0, 0.5]}}
    ahead = search(recipe, tmp_path / "ahead", **space)
    monkeypatch.setattr(FirstModel, "of", lambda *_: None)
    later = search(recipe, tmp_path / "later", **space)

    sums = [[trial.weights_sha256 for trial in run.trials] for run in (ahead, later)]
    assert sums[0] == sums[1]
    assert len(set(sums[0])) == 2


@pytest.mark.parametrize(
    ("field", "is_ahead"),
    [
        ("phases.tune.learning_rate", True),
        ("data.batch_size", True),
        ("model.head.dropout", True),
        ("model.head.l2", False),
        ("data.image_size", False),
        ("model.weights", False),
    ],
)
def test_no_model_is_built_ahead_for_what_a_search_may_change(recipe, field, is_ahead):
    choices = {
        "data.batch_size": [4, 8],
        "data.image_size": [32, 40],
        "model.weights": [MODEL["weights"], "random"],
    }
    recipe["search"] = {"space": {field: {"choices": choices.get(field, [1e-3, 1e-2])}}}
    plan = check_recipe(read_recipe(recipe))

    first = FirstModel.of(plan, print)

    assert (first is not None) == is_ahead
    if first is not None:
        first.abandon()


def test_a_fault_of_the_images_ends_the_building(recipe, tmp_path, monkeypatch):
    abandoned, abandon = [], FirstModel.abandon
    monkeypatch.setattr(FirstModel, "abandon", lambda self: abandoned.append(self) or abandon(self))

    def handle(event):
        if event.kind == "images_inspected":
            raise KeyboardInterrupt

    recipe["search"] = {"trials": 2, "space": {"phases.tune.learning_rate": {"choices": [1, 2]}}}
    with pytest.raises(KeyboardInterrupt):
        tl.search(recipe, out=tmp_path / "search", progress=handle)

    assert len(abandoned) == 1


def download_for_ever(plan, task, report):
    while True:
        report(message("a piece"))
        time.sleep(0.01)


def test_the_building_ends_with_a_search_whose_trials_are_done(recipe, tmp_path, monkeypatch):
    space = {"phases.tune.learning_rate": {"choices": [1e-3, 1e-2]}}
    search(recipe, tmp_path / "search", **space)
    monkeypatch.setattr(trainers, "assemble_model", download_for_ever)
    events = []

    tl.search(recipe, out=tmp_path / "search", resume=True, progress=events.append)
    heard = len(events)
    time.sleep(0.2)

    assert len(events) == heard


def test_an_interrupt_before_the_first_trial_ends_the_building(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(trainers, "assemble_model", download_for_ever)
    events = []

    def handle(event):
        events.append(event)
        if event.kind == "trial_began":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe["search"] = {"trials": 2, "space": {"phases.tune.learning_rate": [1e-3, 1e-2]}}
        tl.search(recipe, out=tmp_path / "search", progress=handle)
    heard = len(events)
    time.sleep(0.2)

    assert len(events) == heard


def test_no_model_of_random_weights_is_built_ahead(recipe):
    """Their stream is Python's `random`, which names the trials meanwhile."""
    recipe["search"] = {"space": {"phases.tune.learning_rate": {"choices": [1e-3, 1e-2]}}}
    recipe["model"] = {"base": "lenet5", "weights": "random"}

    assert FirstModel.of(check_recipe(read_recipe(recipe)), print) is None


def test_a_trial_that_needs_another_model_waits_for_the_end_of_the_first(recipe, monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(trainers, "assemble_model", lambda *_: time.sleep(0.3) or over.set())
    recipe["search"] = {"space": {"phases.tune.learning_rate": {"choices": [1e-3, 1e-2]}}}
    first = FirstModel.of(check_recipe(read_recipe(recipe)), print)

    assert first.take("another") is None
    assert over.is_set()


def test_a_fault_of_the_first_model_fails_one_trial(recipe, tmp_path, monkeypatch):
    builds = trainers.assemble_model

    def build(*arguments):
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError("no room")
        return builds(*arguments)

    monkeypatch.setattr(trainers, "assemble_model", build)

    run = search(
        recipe, tmp_path / "search", **{"phases.tune.learning_rate": {"choices": [1e-3, 1e-2]}}
    )

    assert [trial.state for trial in run.trials] == ["failed", "completed"]
    assert run.trials[0].error == "MemoryError: no room"

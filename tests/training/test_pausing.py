"""Paused and gone on is the same as never paused, whatever is trained in between."""

import numpy as np
import pytest

from tl_toolkit.events import ignore
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import start_tensorflow

RECIPE = {
    "version": 1,
    "name": "digits",
    "data": {
        "builtin": "digits",
        "classes": ["3", "5", "8"],
        "examples_per_class": 7,
        "validation": 0.1,
        "image_size": 32,
        "batch_size": 8,
    },
    "model": {
        "base": "lenet5",
        "weights": "random",
        "l2": 1e-4,
        "head": {"dropout": 0.3, "hidden": [{"units": 12, "dropout": 0.4}]},
    },
    "phases": [
        {"name": "all", "epochs": 2, "unfreeze": 4, "learning_rate": 3e-3},
        {"name": "tune", "epochs": 5, "unfreeze": 2, "learning_rate": 3e-3},
    ],
    "augment": {"rotation": 0.05},
}


@pytest.fixture(scope="module")
def make_trainer(tmp_path_factory):
    """The function that makes a trainer of its own for a recipe."""
    start_tensorflow(deterministic=True)
    from tl_toolkit.training.compiled import CompiledPhases
    from tl_toolkit.training.loop import Trainer
    from tl_toolkit.training.prepare import assemble_model, load_images, survey_images

    folder = RunFolder(tmp_path_factory.mktemp("images"))

    def make(recipe):
        manifest, decoded = survey_images(recipe, folder, ignore)
        images = load_images(recipe, manifest, decoded)
        transfer = assemble_model(recipe, manifest.classes, ignore)
        return Trainer(CompiledPhases(transfer), recipe, images)

    return make


def recipe_with(**changes):
    return build_recipe(RECIPE, changes).recipe


def outcome(training):
    return training.history, training.best, training.weights_sha256, training.receipts


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"phases.tune.optimizer": "sgd", "phases.tune.momentum": 0.9},
        pytest.param(
            {"phases.tune.optimizer": "adamw", "early_stopping": {"monitor": "val_loss"}},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_training_that_goes_on_is_the_one_without_a_pause(make_trainer, changes):
    recipe = recipe_with(**changes)
    other = recipe_with(**{"phases.tune.learning_rate": 1e-2, "model.head.dropout": 0.6})
    whole = make_trainer(recipe).train(recipe)
    trainer = make_trainer(recipe)

    first = trainer.train(recipe, pause_after=1)
    trainer.train(other)
    second = trainer.train(recipe, pause_after=3, paused=first.paused)
    stranger = make_trainer(recipe)
    stranger.train(other, pause_after=2)
    last = stranger.train(recipe, paused=second.paused)

    assert len(first.history) == 3 + 2 and len(second.history) == 3 + 4
    assert first.history == whole.history[:5] and second.history == whole.history[:7]
    assert whole.paused is None and last.paused is None
    assert outcome(last) == outcome(whole)


def test_a_paused_training_is_judged_by_its_best_state_so_far(make_trainer):
    recipe = recipe_with()
    trainer = make_trainer(recipe)

    short = trainer.train(recipe, pause_after=2)

    assert short.best in short.history
    assert short.best.val_score == max(epoch.val_score for epoch in short.history)
    assert short.paused.phase.epochs[-1].epoch == 2


def test_a_pause_can_be_gone_on_from_twice(make_trainer):
    recipe = recipe_with()
    trainer = make_trainer(recipe)
    paused = trainer.train(recipe, pause_after=1).paused

    once, again = trainer.train(recipe, paused=paused), trainer.train(recipe, paused=paused)

    assert outcome(once) == outcome(again)


def test_a_phase_that_stops_early_before_its_pause_is_over(make_trainer):
    rule = {"patience": 2, "min_delta": 0.9}
    recipe = recipe_with(early_stopping=rule)
    trainer = make_trainer(recipe)
    whole = trainer.train(recipe)
    assert whole.history[-1].epoch == 2  # epoch 0 is the improvement, 1 and 2 are none

    paused = trainer.train(recipe, pause_after=1)
    at_the_stop = trainer.train(recipe, pause_after=2)
    gone_on = trainer.train(recipe, pause_after=4, paused=paused.paused)

    assert paused.paused is not None and at_the_stop.paused is None
    assert outcome(gone_on) == outcome(at_the_stop) == outcome(whole)


def test_what_goes_on_in_a_new_trainer_leaves_nothing_to_later_recipes(make_trainer):
    recipe, other = recipe_with(), recipe_with(seed=1)
    paused = make_trainer(recipe).train(recipe, pause_after=1).paused
    trainer = make_trainer(recipe)

    trainer.train(recipe, paused=paused)

    assert outcome(trainer.train(other)) == outcome(make_trainer(recipe).train(other))


def test_a_state_knows_what_it_takes(make_trainer):
    recipe = recipe_with()

    paused = make_trainer(recipe).train(recipe, pause_after=1).paused

    weights = sum(np.asarray(value).nbytes for value in paused.phase.weights.values())
    assert paused.size > 2 * weights > 0

"""Paused and gone on is the same as never paused, whatever is trained in between."""

import zipfile

import numpy as np
import pytest

from tests.models import build_trainer, plan_values
from tl_toolkit.errors import DataError
from tl_toolkit.plan.training import training_settings
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import numerics, start_tensorflow
from tl_toolkit.training.resume import StateSettings, find_paused, load_paused, save_paused

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
        {"name": "tune", "epochs": 5, "unfreeze": 2, "learning_rate": 3e-3, "feature_noise": 0.1},
    ],
    "augment": {"rotation": 0.05, "mixup": 0.3},
}


SMALL = {
    "phases.all.unfreeze": 1,
    "phases.all.learning_rate": 1e-5,  # so that an epoch of the last phase is the best
    "phases.tune.unfreeze": 1,
    "augment": None,
}
"""What trains the last unit alone, on images as they are."""

PLATEAU = {"kind": "plateau", "initial": 3e-3, "patience": 2, "min_delta": 0.9}


@pytest.fixture(scope="module")
def make_trainer(tmp_path_factory):
    """The function that makes a trainer of its own for a recipe."""
    start_tensorflow()
    folder = tmp_path_factory.mktemp("images")

    def make(recipe):
        return build_trainer(*plan_values(recipe), folder)[0]

    with numerics(deterministic=True):
        yield make


@pytest.fixture(scope="module")
def trainer(make_trainer):
    """A trainer of the small recipe, for tests that need none of their own."""
    return make_trainer(recipe_with(**SMALL))


@pytest.fixture(scope="module")
def paused(trainer):
    """The small recipe's training, paused after the first epoch of its last phase."""
    return trainer.train(settings_of(recipe_with(**SMALL)), pause_after=1).paused


def recipe_with(**changes):
    return build_recipe(RECIPE, changes).recipe


def settings_of(recipe):
    return training_settings(plan_values(recipe)[0])


def outcome(training):
    return training.history, training.best, training.weights_sha256, training.receipts


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),  # by default a pause on disk shows the same
        pytest.param(
            {"phases.tune.optimizer": "sgd", "phases.tune.momentum": 0.9}, marks=pytest.mark.slow
        ),
        pytest.param(
            {"phases.tune.optimizer": "adamw", "early_stopping": {"monitor": "val_loss"}},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {
                "phases.tune.learning_rates": "auto_rgn",
                "phases.tune.optimizer": {"kind": "adam", "ema": 0.9},
            },
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_training_that_goes_on_is_the_one_without_a_pause(make_trainer, changes):
    recipe = recipe_with(**changes)
    other = recipe_with(**{"phases.tune.learning_rate": 1e-2, "model.head.dropout": 0.6})
    trainer = make_trainer(recipe)
    whole = trainer.train(settings_of(recipe))

    first = trainer.train(settings_of(recipe), pause_after=1)
    trainer.train(settings_of(other))
    second = trainer.train(settings_of(recipe), pause_after=3, paused=first.paused)
    stranger = make_trainer(recipe)
    stranger.train(settings_of(other), pause_after=2)
    last = stranger.train(settings_of(recipe), paused=second.paused)

    assert len(first.history) == 3 + 2 and len(second.history) == 3 + 4
    assert first.history == whole.history[:5] and second.history == whole.history[:7]
    assert whole.paused is None and last.paused is None
    assert outcome(last) == outcome(whole)


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        pytest.param(  # by default a run that goes on shows the same
            {"kind": "adamw", "accumulate": 2, "ema": 0.9}, PLATEAU, marks=pytest.mark.slow
        ),
        pytest.param(
            {"kind": "sgd", "momentum": 0.9},
            {"kind": "cosine", "initial": 3e-3, "warmup_epochs": 1},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_state_that_was_on_disk_is_resumed_bit_for_bit(
    make_trainer, tmp_path, optimizer, schedule
):
    recipe = recipe_with(
        **{"phases.tune.optimizer": optimizer, "phases.tune.learning_rate": schedule}
    )
    trainer = make_trainer(recipe)
    whole = trainer.train(settings_of(recipe))
    paused = trainer.train(settings_of(recipe), pause_after=2).paused

    save_paused(paused, tmp_path / "state.npz", batch_size=8)
    loaded, batch_size = load_paused(tmp_path / "state.npz")
    last = make_trainer(recipe).train(settings_of(recipe), paused=loaded)

    assert (
        batch_size == 8
        and loaded.epochs == paused.epochs
        and loaded.phase.digests == paused.phase.digests
    )
    assert outcome(last) == outcome(whole)
    if schedule == PLATEAU:  # no epoch is better by 0.9
        rates = [epoch.learning_rate for epoch in whole.history if epoch.phase == "tune"]
        assert rates == pytest.approx([3e-3, 3e-3, 3e-3, 3e-4, 3e-4, 3e-5])
        # Three batches an epoch, so that each pause falls between two gradients of one sum.
        counts = [whole.receipts[-1][name] for name in ("steps", "updates", "unused")]
        assert counts == [15, 7, 1] and "updates" not in whole.receipts[0]


def test_a_state_holds_plain_arrays_and_damage_is_told(paused, tmp_path):
    path = tmp_path / "state.npz"
    save_paused(paused, path, batch_size=8)

    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    kinds = {name.partition("/")[0] for name in arrays}
    assert kinds == {"metadata", "best", "done", "phase"}
    name = next(name for name in arrays if name.startswith("phase/weights/"))
    np.savez(path, **arrays | {name: arrays[name] + 1e-7})
    with pytest.raises(DataError, match="its checksum or its version differs"):
        load_paused(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="holds no state of a training"):
        load_paused(path)
    with pytest.raises(DataError, match=r"missing\.npz"):
        load_paused(tmp_path / "missing.npz")


def test_a_training_that_is_over_is_not_trained_again(trainer, paused, tmp_path):
    kept, folder = StateSettings("1 epoch", 8, "this one"), RunFolder(tmp_path)
    settings = settings_of(recipe_with(**SMALL))
    whole = trainer.train(settings, paused=paused, checkpoints=kept.open(folder))
    losses, outputs = trainer.assess(*join_validation(trainer))

    state, texts = find_paused(kept.open(folder), settings.phases)
    trainer.train(settings, pause_after=0)
    again = trainer.train(settings, paused=state, checkpoints=kept.open(folder))

    assert len(state.done) == 2 and state.phase is None
    assert texts == ["phase tune is over: nothing is trained again"]
    assert outcome(again) == outcome(whole)
    assert [values.tolist() for values in trainer.assess(*join_validation(trainer))] == [
        losses.tolist(), outputs.tolist()
    ]  # fmt: skip
    assert len(list(folder.states.iterdir())) == 1
    other, texts = StateSettings("1 epoch", 8, "another").open(folder).read()
    assert other is None and "the recipe of this training, or its weights, were others" in texts[0]


def join_validation(trainer):
    """Returns the features of the validation images joined with their targets, and their number."""
    _, features = trainer.features("validation")
    targets = trainer._images["validation"].targets
    return trainer.transfer.task.join_targets(features, targets, seed=0, transform=None), len(
        targets
    )


def test_a_paused_training_is_judged_by_its_best_state_so_far(trainer):
    short = trainer.train(settings_of(recipe_with(**SMALL)), pause_after=2)

    assert short.best in short.history
    assert short.best.val_score == max(epoch.val_score for epoch in short.history)
    assert short.paused.phase.epochs[-1].epoch == 2


def test_a_pause_can_be_gone_on_from_twice(trainer, paused):
    recipe = recipe_with(**SMALL)

    once, again = (
        trainer.train(settings_of(recipe), paused=paused),
        trainer.train(settings_of(recipe), paused=paused),
    )

    assert outcome(once) == outcome(again)


@pytest.mark.slow
def test_a_phase_that_stops_early_before_its_pause_is_over(make_trainer):
    rule = {"patience": 2, "min_delta": 0.9}
    recipe = recipe_with(early_stopping=rule)
    trainer = make_trainer(recipe)
    whole = trainer.train(settings_of(recipe))
    assert whole.history[-1].epoch == 2  # epoch 0 is the improvement, 1 and 2 are none

    paused = trainer.train(settings_of(recipe), pause_after=1)
    at_the_stop = trainer.train(settings_of(recipe), pause_after=2)
    gone_on = trainer.train(settings_of(recipe), pause_after=4, paused=paused.paused)

    assert paused.paused is not None and at_the_stop.paused is None
    assert outcome(gone_on) == outcome(at_the_stop) == outcome(whole)


@pytest.mark.slow
def test_what_goes_on_in_a_new_trainer_leaves_nothing_to_later_recipes(make_trainer, paused):
    recipe, other = recipe_with(**SMALL), recipe_with(**SMALL, seed=1)
    trainer = make_trainer(recipe)

    trainer.train(settings_of(recipe), paused=paused)

    assert outcome(trainer.train(settings_of(other))) == outcome(
        make_trainer(recipe).train(settings_of(other))
    )


def test_a_state_knows_what_it_takes(paused):
    weights = sum(np.asarray(value).nbytes for value in paused.phase.weights.values())
    assert paused.size > 2 * weights > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "rate", ["auto", {"kind": "one_cycle", "peak": "auto"}], ids=["number", "one_cycle"]
)
def test_a_phase_that_finds_its_rate_is_the_one_with_that_rate(trainer, rate):
    field = "phases.tune.learning_rate"
    rates = {"phases.tune.learning_rates": {"head": 2e-3}}
    auto = recipe_with(**SMALL, **{field: rate, **rates})

    found = trainer.train(settings_of(auto))
    resumed = trainer.train(
        settings_of(auto), paused=trainer.train(settings_of(auto), pause_after=2).paused
    )

    number = found.receipts[-1]["learning_rate"]
    named = {**rate, "peak": number} if isinstance(rate, dict) else number
    plain = trainer.train(settings_of(recipe_with(**SMALL, **{field: named, **rates})))
    assert 1e-6 < number < 10 and number != 3e-3
    assert outcome(found) == outcome(plain) == outcome(resumed)


def test_a_state_that_would_take_all_memory_is_refused_before_it_is_read(tmp_path):
    compressed, huge = tmp_path / "compressed.npz", tmp_path / "huge.npz"
    np.savez_compressed(compressed, a=np.zeros(1 << 24))
    with zipfile.ZipFile(huge, "w") as archive, archive.open("a.npy", "w") as member:
        shape = {"descr": "<f4", "fortran_order": False, "shape": (1 << 50,)}
        np.lib.format.write_array_header_1_0(member, shape)

    with pytest.raises(DataError, match="it is compressed"):
        load_paused(compressed)
    with pytest.raises(DataError, match="holds no state of a training"):
        load_paused(huge)

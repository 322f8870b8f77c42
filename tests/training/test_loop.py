"""Phases: repeatable to the bit, the best state kept over all of them, never a run on from NaN."""

import csv
import json

import numpy as np
import pytest

import tl_toolkit as tl
from tl_toolkit.errors import NonFiniteError, ReceiptError
from tl_toolkit.plan.training import StoppingRule
from tl_toolkit.training.checkpoint import Epoch, Patience, is_better
from tl_toolkit.training.optimizers import lower_rate
from tl_toolkit.transfer.receipt import _describe_outputs


def digits_recipe(**sections):
    return {
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
        "model": {"base": "lenet5", "weights": "random", "head": {"dropout": 0.3}},
        "phases": [
            {"name": "head", "epochs": 2, "learning_rate": 1e-2},
            {"name": "all", "epochs": 2, "unfreeze": 4, "learning_rate": 3e-3},
        ],
        "export": False,
        "report": False,
    } | sections


def train(tmp_path, out="run", **sections):
    """A run of the recipe, of whose base the last unit trains unless `phases` say otherwise."""
    head, tune = digits_recipe()["phases"]
    small = {"yardsticks": False, "phases": [head, tune | {"unfreeze": 1}]}
    recipe = digits_recipe(**small | sections)
    return tl.finetune(recipe, out=tmp_path / out, overwrite=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run of the recipe as it stands, for tests that only read it."""
    return train(tmp_path_factory.mktemp("plain"))


def history(run, phase):
    with open(run.path / "phases" / phase / "history.csv") as file:
        return list(csv.DictReader(file))


def weights(run):
    return np.concatenate([np.ravel(value) for value in run.model.get_weights()])


def assert_equal(first, second):
    for phase in ("1-head", "2-all"):
        texts = [
            (run.path / "phases" / phase / "history.csv").read_text() for run in (first, second)
        ]
        assert texts[0] == texts[1]
    np.testing.assert_array_equal(weights(first), weights(second))


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_history_and_weights_bit_for_bit(tmp_path, plain):
    assert_equal(train(tmp_path), plain)


@pytest.mark.slow
def test_so_it_does_where_images_are_changed_at_random(tmp_path):
    changes = {"augment": {"flip": "horizontal", "rotation": 0.05}}
    changes["phases"] = digits_recipe()["phases"]

    first = train(tmp_path, "first", **changes)

    assert_equal(train(tmp_path, "second", **changes), first)


@pytest.mark.slow
def test_another_seed_gives_another_history(tmp_path, plain):
    other = train(tmp_path, seed=1)

    assert history(plain, "1-head") != history(other, "1-head")


def test_epoch_0_is_the_state_before_the_first_step(plain):
    rows = history(plain, "1-head")

    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert rows[0]["loss"] == "" and float(rows[0]["val_loss"]) > 0


@pytest.fixture(scope="module")
def ruined(tmp_path_factory):
    """A run whose second phase ruins the weights."""
    phases = [
        {"name": "all", "epochs": 12, "unfreeze": 1, "learning_rate": 3e-3},
        {"name": "ruin", "epochs": 2, "unfreeze": 1, "optimizer": "sgd", "learning_rate": 20.0},
        {"name": "head", "epochs": 0},
    ]
    return train(tmp_path_factory.mktemp("ruined"), phases=phases)


def test_a_ruinous_phase_does_not_spoil_what_is_kept(ruined):
    run = ruined

    best = run.metrics["best"]
    assert best["phase"] == "all"
    assert run.evaluate()["accuracy"] == best["val_accuracy"] > 0.5
    assert float(history(run, "2-ruin")[-1]["val_accuracy"]) < best["val_accuracy"]


def test_a_phase_starts_from_the_best_state_so_far(ruined):
    start = history(ruined, "3-head")[0]
    best = ruined.metrics["best"]
    assert float(start["val_loss"]) == pytest.approx(best["val_loss"], rel=1e-6)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_good_weights(tmp_path):
    phases = [
        {"name": "head", "epochs": 2},
        {"name": "burst", "epochs": 3, "unfreeze": 1, "optimizer": "sgd", "learning_rate": 1e38},
    ]

    with pytest.raises(NonFiniteError, match=r"phase 'burst', epoch \d(.|\n)*learning_rate=0.001"):
        train(tmp_path, phases=phases)

    kept = tl.load_run(tmp_path / "run")
    assert json.loads(kept.folder.status.read_text())["state"] == "failed"
    assert np.isfinite(weights(kept)).all()
    assert kept.evaluate()["accuracy"] == pytest.approx(
        max(float(row["val_accuracy"]) for row in history(kept, "1-head"))
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "hint"),
    [
        (1e30, "learning_rate=0.001"),
        ({"kind": "constant", "initial": 1e30}, "rate.initial=0.001"),
    ],
    ids=["number", "schedule"],
)
def test_the_phase_whose_rate_was_too_high_is_named_not_the_one_after_it(tmp_path, rate, hint):
    phases = [
        {"name": "head", "epochs": 1, "learning_rate": rate, "optimizer": "sgd"},
        {"name": "all", "epochs": 2, "unfreeze": 4},
    ]

    with pytest.raises(NonFiniteError) as caught:
        train(tmp_path, phases=phases)

    (problem,) = caught.value.problems
    assert problem.where.startswith("phase 'all'")
    assert problem.expected == "The loss grew without bound in phase 'head' before."
    assert problem.hint.startswith("phases.head.") and problem.hint.endswith(hint)


def test_a_rate_to_try_next_is_a_tenth_or_the_default():
    assert [lower_rate(rate) for rate in (1e-3, 0.5, 1e30)] == [1e-4, 0.05, 1e-3]


def test_early_stopping_ends_a_phase(tmp_path):
    phases = [{"name": "head", "epochs": 50, "optimizer": "sgd", "learning_rate": 1e-12}]

    run = train(tmp_path, phases=phases, early_stopping={"patience": 3, "min_delta": 0.01})

    assert history(run, "1-head")[-1]["epoch"] == "4"


@pytest.mark.slow
def test_a_base_that_cannot_move_fails_its_receipt(tmp_path):
    # Random weights under frozen BatchNormalization: features too small to leave a gradient.
    data = digits_recipe()["data"] | {"examples_per_class": 2}
    model = {"base": "mobilenet", "arguments": {"alpha": 0.25}, "weights": "random"}
    phases = [{"name": "tune", "epochs": 1, "unfreeze": 1, "learning_rate": 1e-3}]

    with pytest.raises(
        ReceiptError, match="block5: trainable, but nothing in it moved(.|\n)*batch_n"
    ):
        train(tmp_path, data=data, model=model, phases=phases)

    assert not json.loads((tmp_path / "run" / "phases" / "1-tune" / "receipt.json").read_text())[
        "holds"
    ]


@pytest.mark.slow
def test_a_head_that_was_never_trained_is_not_kept_and_it_is_said(tmp_path):
    """Each trained epoch is worse than the start here: the rate is ruinous."""
    phases = [
        {"name": "head", "epochs": 2, "optimizer": "sgd", "learning_rate": 50.0},
        {"name": "more", "epochs": 0},
    ]
    events = []
    recipe = digits_recipe(phases=phases, early_stopping={"monitor": "val_loss"})
    run = tl.finetune(recipe, out=tmp_path / "run", progress=events.append)

    rows = history(run, "1-head")
    losses = [float(row["val_loss"]) for row in rows]
    assert losses[0] < min(losses[1:])
    assert run.metrics["best"]["val_loss"] == min(losses[1:])
    assert run.metrics["best"]["epoch"] > 0
    assert any("no epoch beats the untrained head" in event.text for event in events)
    assert float(history(run, "2-more")[0]["val_loss"]) == pytest.approx(min(losses[1:]))


@pytest.mark.slow
def test_without_any_epoch_the_state_is_kept_as_it_is(tmp_path):
    run = train(tmp_path, phases=[{"name": "head", "epochs": 0}])

    assert run.metrics["best"]["epoch"] == 0
    assert run.evaluate()["accuracy"] == run.metrics["best"]["val_accuracy"]


@pytest.mark.slow
def test_a_head_that_diverged_is_told_at_the_end_of_its_phase(tmp_path):
    phases = [
        {"name": "head", "epochs": 1, "optimizer": "sgd", "learning_rate": 1e10},
        {"name": "tune", "epochs": 1, "optimizer": "sgd", "learning_rate": 1e-3},
    ]

    with pytest.raises(ReceiptError) as error:
        train(tmp_path, phases=phases)

    first = json.loads((tmp_path / "run" / "phases" / "1-head" / "receipt.json").read_text())
    assert "every output is exactly 0 or 1, so that it is saturated" in first["warnings"][-1]
    assert "a lower learning_rate" in first["warnings"][-1]
    text = str(error.value)
    assert "phase 'tune': head: trainable, but nothing in it moved: its weights reach" in text
    assert "Try: a lower learning_rate for the head" in text
    assert "higher" not in text


@pytest.mark.parametrize(
    ("outputs", "activation", "said"),
    [
        ([[0.2, 0.8], [0.2, 0.8]], "softmax", "every image gets the same outputs"),
        ([[0.0, 1.0], [1.0, 0.0]], "softmax", "every output is exactly 0 or 1"),
        ([[0.0, 1.0], [1.0, 0.0]], "linear", ""),
        ([[0.0, 1.0], [0.3, 0.7]], "softmax", ""),
        ([[0.2, 0.8]], "softmax", ""),
    ],
)
def test_outputs_tell_a_dead_head_from_a_saturated_one(outputs, activation, said):
    found = _describe_outputs(np.array(outputs, np.float32), activation)

    assert found.startswith(said) and bool(found) == bool(said)


def test_receipts_and_logs_are_written(plain):
    receipt = json.loads((plain.path / "phases" / "1-head" / "receipt.json").read_text())
    states = {row["part"]: row["state"] for row in receipt["parts"]}
    assert states == {"c1": "frozen", "c3": "frozen", "c5": "frozen", "f6": "frozen"} | {
        "head": "trainable"
    }
    assert receipt["holds"] and receipt["steps"] == 6
    assert list((plain.path / "logs" / "train").glob("events.*"))


def test_patience_counts_from_the_last_improvement():
    patience = Patience(StoppingRule(patience=2))

    over = [patience.is_over(epoch(value, 1.0)) for value in (0.5, 0.6, 0.6, 0.7, 0.7, 0.7)]

    assert over == [False, False, False, False, False, True]


def epoch(val_accuracy, val_loss):
    return Epoch("head", 1, 1e-3, 0.5, 0.5, val_loss, val_accuracy)


@pytest.mark.parametrize(
    ("other", "monitor", "better"),
    [
        (epoch(0.9, 9.0), "val_accuracy", True),
        (epoch(0.8, 0.4), "val_accuracy", True),
        (epoch(0.8, 0.5), "val_accuracy", False),
        (epoch(0.9, 0.6), "val_loss", False),
        (epoch(0.1, 0.4), "val_loss", True),
    ],
)
def test_the_better_epoch_is_told_by_the_monitor_and_ties_by_the_other(other, monitor, better):
    rule = StoppingRule(monitor=monitor)

    assert is_better(other, epoch(0.8, 0.5), rule) is better


@pytest.mark.slow
def test_keras_callbacks_see_each_epoch_and_may_stop_a_phase(tmp_path):
    import keras

    class Watch(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen = []

        def on_epoch_end(self, epoch, logs=None):
            self.seen.append((epoch, logs["val_accuracy"]))
            if len(self.seen) == 3:
                self.model.stop_training = True

    watch = Watch()
    slow = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)

    run = tl.finetune(digits_recipe(), out=tmp_path / "run", callbacks=[watch, slow])

    assert [epoch for epoch, _ in watch.seen] == [0, 1, 0]
    assert len(history(run, "2-all")) == 2
    assert [float(row["learning_rate"]) for row in history(run, "1-head")] == pytest.approx(
        [1e-2, 5e-3, 2.5e-3]
    )


@pytest.mark.slow
def test_penalties_do_not_count_in_the_losses_that_choose_between_phases(tmp_path):
    """More is penalized where more trains: a loss with it could never be compared."""
    model = {"base": "lenet5", "weights": "random", "l2": 0.1, "head": {"l2": 0.01}}
    phases = digits_recipe()["phases"]

    run = train(tmp_path, model=model, phases=phases, early_stopping={"monitor": "val_loss"})

    end, start = history(run, "1-head"), history(run, "2-all")[0]
    best = min(end, key=lambda row: float(row["val_loss"]))
    assert float(start["val_loss"]) == pytest.approx(float(best["val_loss"]), rel=1e-5)
    assert float(start["regularization_loss"]) > 10 * float(best["regularization_loss"]) > 0
    assert run.metrics["validation"]["loss"] == pytest.approx(
        run.metrics["best"]["val_loss"], rel=1e-4
    )

"""Moving averages of weights: worked out by hand, validated and kept, while steps go on without."""

import keras
import numpy as np
import pytest

from tests.models import build_trainer, build_transfer, plan_values
from tests.training.test_loop import digits_recipe
from tl_toolkit.errors import RecipeError
from tl_toolkit.plan.training import PhaseSettings, training_settings
from tl_toolkit.recipe.optimizers import SGD
from tl_toolkit.training.compiled import CompiledPhases

EMA = 0.75


def average(weights):
    """The last of the moving averages of weights after each step, for each weight."""
    total = weights[0]
    for values in weights[1:]:
        total = [EMA * old + (1 - EMA) * new for old, new in zip(total, values, strict=True)]
    return total


def step_by_step(decay=1.0, accumulate=1, batches=4):
    """The weights after each of some batches, and the averages that the model then has."""
    transfer = build_transfer("lenet5", seed=1)
    phase = PhaseSettings(
        "tune", 1, SGD(ema=EMA, accumulate=accumulate), 1e-2, ("f6",), layer_decay=decay
    )
    _, steps = CompiledPhases(transfer).get(phase, 6)
    features = np.random.default_rng(0).uniform(size=(6, *steps.model.input.shape[1:]))
    weights = []
    for _ in range(batches):
        steps.train(features.astype(np.float32), np.arange(6, dtype=np.int32) % 3)
        weights.append(transfer.model.get_weights())
    steps.use_averages()
    return weights, transfer.model.get_weights(), steps, transfer


def test_averages_are_those_of_the_weights_after_each_step():
    weights, averages, steps, transfer = step_by_step(decay=0.5)

    for expected, value in zip(average(weights), averages, strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-6)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(averages, weights[-1], strict=True))
    steps.use_weights()
    for value, last in zip(transfer.model.get_weights(), weights[-1], strict=True):
        np.testing.assert_array_equal(value, last)


@pytest.mark.parametrize("accumulate", [2, pytest.param(9, marks=pytest.mark.slow)])
def test_batches_that_are_only_accumulated_add_nothing_to_averages(accumulate):
    weights, averages, _, _ = step_by_step(accumulate=accumulate, batches=8)
    changed = weights[accumulate - 1 :: accumulate] or weights[-1:]

    for expected, value in zip(average(changed), averages, strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-6)


@pytest.mark.slow
def test_they_are_those_of_keras():
    weights, averages, _, _ = step_by_step()
    variables = [keras.Variable(np.zeros_like(value)) for value in weights[0]]
    optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=EMA)
    optimizer.build(variables)
    for values in weights:  # a step of rate 1 from one to the next
        moves = [old.numpy() - new for old, new in zip(variables, values, strict=True)]
        optimizer.apply(moves, variables)

    optimizer.finalize_variable_values(variables)

    for variable, value in zip(variables, averages, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, atol=1e-6)


class Recorder(keras.callbacks.Callback):
    """Remembers the weights that each hook sees."""

    def __init__(self):
        super().__init__()
        self.steps, self.began, self.epochs = [], [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.began.append(self.model.get_weights())

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(self.model.get_weights())

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append((self.model.get_weights(), logs["val_loss"]))


@pytest.mark.slow
def test_the_averages_are_validated_and_kept_and_the_steps_go_on_from_the_weights(tmp_path):
    phase = {"name": "head", "epochs": 2, "learning_rate": 1e-2}
    plan, task = plan_values(
        digits_recipe(phases=[{**phase, "optimizer": {"kind": "adam", "ema": EMA}}])
    )
    trainer, _ = build_trainer(plan, task, tmp_path)
    recorder = Recorder()

    outcome = trainer.train(training_settings(plan), callbacks=[recorder])

    count = len(recorder.steps) // 2
    for place, (seen, loss) in enumerate(recorder.epochs, start=1):
        for value, expected in zip(seen, average(recorder.steps[: place * count]), strict=True):
            np.testing.assert_allclose(value, expected, atol=1e-6)
        assert loss == outcome.history[place].val_loss
    for value, last in zip(recorder.began[count], recorder.steps[count - 1], strict=True):
        np.testing.assert_array_equal(value, last)
    kept = recorder.epochs[outcome.best.epoch - 1][0]
    for value, expected in zip(trainer.model.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert all(receipt["holds"] for receipt in outcome.receipts)


@pytest.mark.parametrize("ema", [0, 1, -0.5, "0.9"])
def test_a_momentum_lies_between_0_and_1(ema):
    phase = {"name": "head", "epochs": 1, "optimizer": {"kind": "sgd", "ema": ema}}

    with pytest.raises(RecipeError, match=r"optimizer\.ema"):
        plan_values(digits_recipe(phases=[phase]))


def test_an_override_asks_for_it():
    plan, _ = plan_values(digits_recipe(), ["phases.head.optimizer={kind: adam, ema: 0.9}"])

    assert training_settings(plan).phases[0].optimizer.ema == 0.9

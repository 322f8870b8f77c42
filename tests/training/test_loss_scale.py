"""float16 while a base trains: losses are scaled, steps that overflow change nothing."""

import json

import keras
import numpy as np
import pytest

import tl_toolkit as tl
from tests.api.test_resume import Killed, stop_at
from tests.models import build_transfer
from tests.training.test_precision import recipe_of
from tl_toolkit.catalog.lookup import find_architecture, resolve_unfreeze
from tl_toolkit.plan.training import PhaseSettings
from tl_toolkit.recipe.optimizers import SGD, Adam
from tl_toolkit.training.checkpoint import assign_weights
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.transfer.freezing import batch_norms

COUNT, BATCH = 24, 8
LENET = ("f6",)
VGG = resolve_unfreeze(find_architecture("vgg_tiny"), 2)


class Net:
    """A small network, and the steps of its phase."""

    def __init__(self, precision, optimizer=None, base="lenet5", units=LENET, **fields):
        self.transfer = build_transfer(base, seed=1)
        phase = PhaseSettings("tune", 1, optimizer or SGD(), 1e-2, units, **fields)
        _, self.steps = CompiledPhases(self.transfer, precision).get(phase, BATCH)

    def train(self, count=COUNT):
        random = np.random.default_rng(0)
        shape = (count, *self.steps.model.input.shape[1:])
        features = random.uniform(size=shape).astype(np.float32)
        return self.steps.train(features, np.arange(count, dtype=np.int32) % 3)[0]

    @property
    def weights(self):
        return {name: each.numpy() for _, name, each in self.transfer.variables()}

    @property
    def scale(self):
        return float(self.steps.optimizer.dynamic_scale)


def moves_of(net, **settings):
    before = net.weights
    net.train(**settings)
    net.steps.use_averages()
    return {name: value - before[name] for name, value in net.weights.items()}


def distance(moves, expected):
    """How far moves of weights lie from others, in parts of their length."""
    far = np.sqrt(sum(np.square(moves[name] - expected[name]).sum() for name in moves))
    return far / np.sqrt(sum(np.square(move).sum() for move in expected.values()))


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(),
        pytest.param(SGD(momentum=0.9, clip_norm=0.1), marks=pytest.mark.slow),
        pytest.param(SGD(accumulate=2), marks=pytest.mark.slow),
        pytest.param(SGD(ema=0.75), marks=pytest.mark.slow),
    ],
    ids=["plain", "clip_norm", "accumulate", "ema"],
)
def test_steps_of_scaled_losses_are_those_of_float32_within_float16(optimizer):
    expected = moves_of(Net("float32", optimizer))

    net = Net("float16", optimizer)
    moves = moves_of(net)

    assert net.scale == 2**15
    assert 0 < distance(moves, expected) < 0.01  # 11 bits of digits in each layer


def test_gradients_that_float16_would_round_to_zero_are_kept():
    net = Net("float16")
    before = net.weights
    expected = moves_of(net, count=BATCH)
    assign_weights(net.transfer, before)
    net.steps.optimizer.dynamic_scale.assign(2.0**-24)  # gradients as small as those of a deep net

    rounded = moves_of(net, count=BATCH)

    assert distance(rounded, expected) > 0.5


@pytest.mark.parametrize(
    "fields",
    [
        {},
        pytest.param(
            {"base": "vgg_tiny", "units": VGG, "batch_norm": "train"}, marks=pytest.mark.slow
        ),
    ],
    ids=["plain", "batch_norm"],
)
def test_a_step_that_overflows_changes_nothing_and_halves_the_scale(fields):
    net = Net("float16", Adam(ema=0.9), **fields)
    net.train()
    net.steps.optimizer.dynamic_scale.assign(2.0**100)
    weights, state = net.weights, [each.numpy() for each in net.steps.state]
    assert bool(batch_norms(net.steps.model)) == bool(fields)

    losses = net.train(count=BATCH)

    assert np.isfinite(losses).all()
    for name, value in net.weights.items():
        np.testing.assert_array_equal(value, weights[name], err_msg=name)
    assert net.scale == 2.0**99
    changed = [
        each.name
        for each, before in zip(net.steps.state, state, strict=True)
        if not np.array_equal(each.numpy(), before)
    ]
    assert sorted(changed) == ["dynamic_scale", "step_counter"]


def test_losses_are_scaled_in_float16_alone():
    for precision in ("float32", "bfloat16"):
        optimizer = Net(precision).steps.optimizer
        assert not isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run in float16, and one that was killed between two steps and resumed."""
    folder = tmp_path_factory.mktemp("float16")
    tuned = {"name": "tune", "epochs": 2, "unfreeze": {"from": "c5"}, "learning_rate": 3e-3}
    tuned |= {"optimizer": {"kind": "adamw", "ema": 0.9, "accumulate": 2}}
    recipe = recipe_of("float16", tuned, checkpoint={"every": "1 step"})
    whole = tl.finetune(recipe, out=folder / "whole")
    with pytest.raises(Killed):
        tl.finetune(recipe, out=folder / "killed", progress=stop_at(8, Killed))
    return whole, tl.finetune(recipe, out=folder / "killed", resume=True)


@pytest.mark.slow
def test_a_run_in_float16_is_resumed_bit_for_bit(runs):
    whole, resumed = runs

    assert whole.metrics["weights_sha256"] == resumed.metrics["weights_sha256"]
    assert whole.history == resumed.history
    receipts = [
        json.loads((run.path / "phases/2-tune/receipt.json").read_text())
        for run in (whole, resumed)
    ]
    assert receipts[0] == receipts[1] and receipts[0]["holds"]


@pytest.mark.slow
def test_the_model_of_a_run_in_float16_is_float32(runs):
    whole, _ = runs

    assert {layer.compute_dtype for layer in whole.model.layers} == {"float32"}
    assert {weight.dtype for weight in whole.model.weights} == {"float32"}
    assert whole.evaluate()["loss"] == whole.metrics["validation"]["loss"]
    assert json.loads(whole.folder.lock.read_text())["numerics"]["precision"] == "float16"

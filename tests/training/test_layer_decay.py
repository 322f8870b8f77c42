"""Units further from the output move less, by exactly the factor that the run prints."""

import numpy as np
import pytest

from tests.models import build_transfer
from tl_toolkit.plan.training import PhaseSettings
from tl_toolkit.recipe.optimizers import OPTIMIZERS
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.training.rates import find_rate_factors

UNITS = ("c3", "c5", "f6")


def take_step(kind, decay):
    """How far each weight moves in a step, by part."""
    transfer = build_transfer("lenet5", seed=1)
    phase = PhaseSettings("tune", 1, OPTIMIZERS[kind](), 1e-2, UNITS, layer_decay=decay)
    _, compiled = CompiledPhases(transfer).get(phase, 6)
    before = [(part.name, variable, variable.numpy()) for part, _, variable in transfer.variables()]
    random = np.random.default_rng(0)
    shape = tuple(compiled.model.input.shape[1:])
    features = random.uniform(size=(6, *shape)).astype(np.float32)
    compiled.train(features, np.arange(6, dtype=np.int32) % 3)
    return [(part, variable.numpy() - start) for part, variable, start in before]


@pytest.mark.parametrize(
    "kind",
    [
        "adam",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in sorted({*OPTIMIZERS} - {"adam"})),
    ],
)
def test_a_step_of_each_unit_is_the_plain_step_times_its_factor(kind):
    plain, decayed = take_step(kind, 1.0), take_step(kind, 0.5)

    factors = {"head": 1, "f6": 0.5, "c5": 0.25, "c3": 0.125, "c1": 0}
    for (part, move), (_, smaller) in zip(plain, decayed, strict=True):
        np.testing.assert_allclose(smaller, move * factors[part], atol=1e-7)
    assert max(np.abs(move).max() for part, move in plain if part == "c3") > 0


def test_the_factor_of_each_part_shrinks_from_the_head_on():
    transfer = build_transfer("lenet5", seed=1)
    phase = PhaseSettings("tune", 1, OPTIMIZERS["adam"](), 1e-3, UNITS, layer_decay=0.5)

    factors = find_rate_factors(transfer, phase)

    assert factors == {"c3": 0.125, "c5": 0.25, "f6": 0.5, "head": 1.0}


def test_parts_that_do_not_train_do_not_count():
    transfer = build_transfer("lenet5", seed=1)
    phase = PhaseSettings("tune", 1, OPTIMIZERS["adam"](), 1e-3, ("c3",), layer_decay=0.5)

    assert find_rate_factors(transfer, phase) == {"c3": 0.5, "head": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"kind": "sgd"}, {"kind": "adamw", "clip_norm": 0.01}], ids=["sgd", "clipped"]
)
def test_accumulated_batches_move_weights_as_one_large_batch_does(settings):
    moves = []
    for batch, accumulate in ((12, 1), (4, 3)):
        transfer = build_transfer("lenet5", seed=1)
        optimizer = OPTIMIZERS[settings["kind"]](**settings, accumulate=accumulate)
        phase = PhaseSettings("tune", 1, optimizer, 1e-2, ("f6",), layer_decay=0.5)
        _, compiled = CompiledPhases(transfer).get(phase, batch)
        before = [variable.numpy() for _, _, variable in transfer.variables()]
        shape = (12, *compiled.model.input.shape[1:])
        features = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
        targets = np.arange(12, dtype=np.int32) % 3
        compiled.train(features, targets)
        after = [variable.numpy() for _, _, variable in transfer.variables()]
        compiled.train(features[:8], targets[:8])  # a rest of two batches, or a whole one
        moves.append([new - old for new, old in zip(after, before, strict=True)])
        rest = [variable.numpy() for _, _, variable in transfer.variables()]
        stays = all(np.array_equal(a, b) for a, b in zip(rest, after, strict=True))
        assert stays == (accumulate == 3)

    for together, apart in zip(*moves, strict=True):
        np.testing.assert_allclose(apart, together, rtol=2e-3, atol=1e-6)


def test_a_gradient_beyond_the_norm_is_scaled_down_to_it():
    transfer = build_transfer("lenet5", seed=1)
    optimizer = OPTIMIZERS["sgd"](clip_norm=1e-3)
    phase = PhaseSettings("tune", 1, optimizer, 1.0, ("f6",))
    _, compiled = CompiledPhases(transfer).get(phase, 6)
    before = [variable.numpy() for _, _, variable in transfer.variables()]
    shape = tuple(compiled.model.input.shape[1:])
    features = np.random.default_rng(0).uniform(size=(6, *shape)).astype(np.float32)

    compiled.train(features, np.arange(6, dtype=np.int32) % 3)

    after = [variable.numpy() for _, _, variable in transfer.variables()]
    moved = sum(((new - old) ** 2).sum() for new, old in zip(after, before, strict=True)) ** 0.5
    assert moved == pytest.approx(1e-3, rel=1e-3)

"""The flags of phases on one model, and their compiled steps."""

import numpy as np
import pytest

from tests.models import build_transfer
from tl_toolkit.catalog.lookup import find_architecture, resolve_unfreeze
from tl_toolkit.errors import RecipeError
from tl_toolkit.plan.training import PhaseSettings
from tl_toolkit.recipe.optimizers import SGD
from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.segmentation.task import Segmentation
from tl_toolkit.training.compiled import CompiledPhases


@pytest.fixture(scope="module")
def compiled():
    return CompiledPhases(build_transfer("vgg_tiny", classes=2))


def phase(**fields):
    # So small a rate that the weights stay as they are.
    return PhaseSettings(name="all", epochs=1, optimizer=SGD(), learning_rate=1e-30, **fields)


def whole(momentum):
    return phase(
        units=resolve_unfreeze(find_architecture("vgg_tiny"), 4),
        batch_norm="train",
        batch_norm_momentum=momentum,
    )


def test_units_behind_what_the_head_reads_cannot_train():
    task = Segmentation(("a", "b"), PixelSettings(taps=("block2",)))
    transfer = build_transfer("vgg_tiny", task=task)

    with pytest.raises(
        RecipeError,
        match=r"phases\.all\.unfreeze  block3, block4 would train\n"
        r"  expected block2 or a unit before it: the head reads none behind it\.",
    ):
        CompiledPhases(transfer).get(phase(units=("block3", "block4")), 4)


@pytest.mark.slow
@pytest.mark.parametrize(("momentum", "expected"), [(0.5, 0.5), (0.8, 0.8), (None, 0.9)])
def test_moving_statistics_move_by_the_phase_s_momentum(compiled, momentum, expected):
    layer = compiled.transfer.model.get_layer("block1_conv1_bn")
    grey = np.random.default_rng(0).uniform(0, 1, (4, 32, 32, 1)).astype("float32")
    settings = whole(momentum)
    moves = []
    for start in (0.0, 1.0):
        layer.moving_mean.assign(np.full(layer.moving_mean.shape, start))
        _, steps = compiled.get(settings, 4)
        steps.train(grey, np.array([0, 1, 0, 1], np.int32))
        moves.append(layer.moving_mean.numpy())

    np.testing.assert_allclose(moves[1] - moves[0], expected, rtol=1e-4)


def test_a_later_phase_has_each_layer_s_own_momentum_again(compiled):
    layer = compiled.transfer.model.get_layer("block1_conv1_bn")

    compiled.get(whole(0.5), 4)
    assert layer.momentum == 0.5
    compiled.get(phase(), 4)
    assert layer.momentum == 0.9

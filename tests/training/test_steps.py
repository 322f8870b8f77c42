"""Metric states are added up where they are computed: of all images they would take gigabytes."""

import numpy as np
import pytest

from tests.models import build_transfer
from tl_toolkit.recipe.schema import Phase
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.multilabel.task import Multilabel
from tl_toolkit.tasks.regression.task import Regression
from tl_toolkit.training.optimizers import build_optimizer
from tl_toolkit.training.steps import Steps
from tl_toolkit.transfer.freezing import split_at

COUNT = 75  # two whole batches of evaluation, and a padded one
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
NAMES = ("a", "b", "c")
TARGETS = {
    Classification: RANDOM.integers(0, 3, COUNT).astype(np.int32),
    Multilabel: RANDOM.integers(0, 2, (COUNT, 3)).astype(np.int32),
    Regression: RANDOM.normal(5, 3, (COUNT, 3)).astype(np.float32),
}


@pytest.fixture(
    scope="module",
    params=[
        Classification,
        pytest.param(Multilabel, marks=pytest.mark.slow),
        pytest.param(Regression, marks=pytest.mark.slow),
    ],
    ids=lambda kind: kind.__name__,
)
def prepared(request):
    """Steps of a task, features, targets, and the state of each image."""
    task = request.param(NAMES)
    transfer = build_transfer("lenet5", task=task)
    split = split_at(transfer, ())
    optimizer = build_optimizer(Phase(name="head", epochs=1, learning_rate=1e-30, optimizer="sgd"))
    features, targets = split.prefix(IMAGES), TARGETS[request.param]
    states = task.compare(split.suffix(features), targets)[1].numpy()
    return Steps(split, optimizer, task=task, batch_size=8), features, targets, states


def test_the_score_counts_each_image_once_and_no_padding(prepared):
    steps, features, targets, states = prepared
    parts = [slice(0, 64), slice(64, COUNT)]

    _, whole = steps.evaluate([(features, targets)])
    _, parted = steps.evaluate([(features[part], targets[part]) for part in parts])

    expected = steps.task.score_of(states.sum(axis=0))
    # Sums of whole numbers are exact, those of float64 are to their last digits.
    assert whole == parted == pytest.approx(expected, rel=1e-12 if states.dtype == float else 0)


def test_the_state_of_training_goes_on_from_chunk_to_chunk(prepared):
    steps, features, targets, states = prepared

    losses, state = steps.train(features[:40], targets[:40])
    more, state = steps.train(features[40:], targets[40:], state)

    assert len(losses) + len(more) == 10
    np.testing.assert_allclose(state, states.sum(axis=0), rtol=1e-6)
    assert state.dtype == (np.float64 if states.dtype == float else np.int64)


def test_losses_and_outputs_alone_are_kept_of_each_image(prepared):
    steps, features, targets, states = prepared

    losses, outputs, state = steps._evaluate(features[:64], targets[:64], 64, 0)

    assert (losses.shape, outputs.shape) == ((64,), (64, 3))
    assert state.shape == states.shape[1:]

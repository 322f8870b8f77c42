"""Mixed examples and noise of features, beside what they are by hand."""

import keras
import numpy as np
import pytest

from tests.models import build_trainer, build_transfer, plan_values
from tl_toolkit.architectures.batches import FixedBatch
from tl_toolkit.features.sets import LiveFeatures
from tl_toolkit.images.mixing import Mixer, mix_images
from tl_toolkit.plan.training import training_settings
from tl_toolkit.recipe.schema import Phase
from tl_toolkit.runtime import numerics, start_tensorflow
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.multilabel.task import Multilabel
from tl_toolkit.tasks.regression.task import Regression
from tl_toolkit.training.changes import MixedExamples, MixedTargets, NoisyExamples
from tl_toolkit.training.optimizers import build_optimizer
from tl_toolkit.training.steps import Steps
from tl_toolkit.transfer.freezing import split_at

COUNT = 20
RANDOM = np.random.default_rng(0)
NAMES = ("a", "b", "c")
TARGETS = {
    Classification: RANDOM.integers(0, 3, COUNT).astype(np.int32),
    Multilabel: RANDOM.integers(0, 2, (COUNT, 3)).astype(np.int32),
    Regression: RANDOM.normal(5, 3, (COUNT, 3)).astype(np.float32),
}


class Examples:
    """Examples of arrays, several batches at a time."""

    def __init__(self, features, targets, chunk):
        self.features, self.targets, self.chunk = features, targets, chunk

    def chunks(self, order, batch_size, *, epoch=0):
        several = isinstance(self.features, list)
        for start in range(0, len(order), self.chunk * batch_size):
            part = order[start : start + self.chunk * batch_size]
            taken = [feature[part] for feature in self.features] if several else self.features[part]
            yield taken, self.targets[part]


def build_steps(task, rate, batch_size=8):
    transfer = build_transfer("lenet5", task=task)
    split = split_at(transfer, ())
    phase = Phase(name="head", epochs=1, learning_rate=rate, optimizer="sgd")
    return split, Steps(split, build_optimizer(phase), task=task, batch_size=batch_size)


def draw_features(split, count=COUNT):
    return np.random.default_rng(1).normal(size=(count, *split.cut.tensors.shape[1:])).astype("f4")


@pytest.mark.parametrize(
    "kind",
    [
        Classification,
        pytest.param(Multilabel, marks=pytest.mark.slow),
        pytest.param(Regression, marks=pytest.mark.slow),
    ],
    ids=lambda kind: kind.__name__,
)
def test_the_loss_of_mixed_examples_is_that_of_both_targets_by_their_shares(kind):
    task = kind(NAMES)
    split, steps = build_steps(task, 1e-30)
    features, own = draw_features(split), TARGETS[kind]
    others, shares = own[::-1].copy(), np.linspace(0.05, 0.95, COUNT, dtype=np.float32)

    losses, state = steps.train(features, MixedTargets(own, others, shares))

    outputs = split.suffix(features)
    first, states = (values.numpy() for values in task.compare(outputs, own))
    second, other_states = (values.numpy() for values in task.compare(outputs, others))
    mixed = shares * first + (1 - shares) * second
    expected = [mixed[start : start + 8].mean() for start in (0, 8, 16)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    counted = np.where(shares[:, np.newaxis] >= 0.5, states, other_states).sum(axis=0)
    np.testing.assert_allclose(state, counted, rtol=1e-5)


def test_a_step_on_mixed_examples_moves_the_kernel_by_the_mixed_gradient():
    task = Classification(NAMES, label_smoothing=0.1)
    split, steps = build_steps(task, 1.0, batch_size=COUNT)
    features, own = draw_features(split), TARGETS[Classification]
    others, shares = own[::-1].copy(), np.linspace(0.05, 0.95, COUNT, dtype=np.float32)
    kernel, bias = (variable.numpy() for variable in split.trainable)
    logits = features.reshape(COUNT, -1) @ kernel + bias
    predicted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    smooth = [np.eye(3)[targets] * 0.9 + 0.1 / 3 for targets in (own, others)]
    wanted = shares[:, np.newaxis] * smooth[0] + (1 - shares[:, np.newaxis]) * smooth[1]
    gradient = features.reshape(COUNT, -1).T @ (predicted - wanted) / COUNT

    steps.train(features, MixedTargets(own, others, shares))

    np.testing.assert_allclose(split.trainable[0].numpy(), kernel - gradient, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_features_and_targets_are_mixed_with_those_of_the_same_batch(chunk):
    features = RANDOM.normal(size=(COUNT, 4)).astype(np.float32)
    targets = np.arange(COUNT)
    order = np.random.default_rng(3).permutation(COUNT)
    mixer = Mixer(5, mixup=1.0)

    examples = MixedExamples(Examples(features, targets, chunk), mixer, mixes_features=True)
    mixed, joined = zip(*examples.chunks(order, 8, epoch=2), strict=True)

    mixes = mixer.sample(COUNT, 8, 2)
    own, other = features[order], features[order[mixes.partners]]
    weights = mixes.shares[:, np.newaxis]
    found = np.concatenate([np.asarray(part) for part in mixed])
    np.testing.assert_allclose(found, weights * own + (1 - weights) * other, rtol=1e-6)
    assert np.concatenate([part.own for part in joined]).tolist() == order.tolist()
    others = np.concatenate([part.others for part in joined])
    assert others.tolist() == order[mixes.partners].tolist()
    np.testing.assert_array_equal(np.concatenate([part.shares for part in joined]), mixes.shares)


def noisy(features, chunk, *, epoch=1, seed=4, strength=0.2):
    source = NoisyExamples(
        Examples(features, np.arange(COUNT), chunk), strength, count=1, seed=seed
    )
    return [parts for parts, _ in source.chunks(np.arange(COUNT), 8, epoch=epoch)]


def test_a_channel_of_a_map_gets_one_number_of_its_own_range():
    maps = RANDOM.normal(size=(COUNT, 5, 6, 4)).astype(np.float32)
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)

    changed = np.concatenate(noisy(maps, 2))

    added = (changed - maps) / (high - low)
    inside = (changed > low + 1e-6) & (changed < high - 1e-6)  # the rest is cut off at the range
    assert (changed >= low).all() and (changed <= high).all()
    spread = [np.ptp(added[i, ..., c][inside[i, ..., c]]) for i in range(COUNT) for c in range(4)]
    assert max(spread) < 1e-5
    numbers = np.array([[np.median(added[i, ..., c][inside[i, ..., c]]) for c in range(4)]
                        for i in range(COUNT)])  # fmt: skip
    assert np.abs(numbers).max() <= 0.2 + 1e-5
    assert numbers.min() < -0.15 and numbers.max() > 0.15
    assert len(np.unique(numbers.round(5))) == COUNT * 4


def test_a_channel_of_a_vector_has_the_range_of_its_batch():
    vectors = RANDOM.normal(size=(COUNT, 3)).astype(np.float32) * [1, 10, 100]

    changed = np.concatenate(noisy(vectors.astype(np.float32), 5))

    for part in (slice(0, 8), slice(8, 16), slice(16, 20)):
        low, high = vectors[part].min(axis=0), vectors[part].max(axis=0)
        added = np.abs(changed[part] - vectors[part]) / (high - low)
        assert added.max() <= 0.2 + 1e-5
        assert (added.max(axis=0) > 0.05).all()  # of each channel by its own range
        assert (changed[part] >= low - 1e-4).all() and (changed[part] <= high + 1e-4).all()


@pytest.mark.parametrize("shape", [(3,), (4, 4, 3)])
def test_noise_depends_on_seed_and_epoch_and_not_on_the_chunks(shape):
    features = RANDOM.normal(size=(COUNT, *shape)).astype(np.float32)

    first = np.concatenate(noisy(features, 1))

    for chunk in (2, 5):
        np.testing.assert_array_equal(first, np.concatenate(noisy(features, chunk)))
    for other in (noisy(features, 1, epoch=2), noisy(features, 1, seed=5)):
        assert (np.concatenate(other) != first).mean() > 0.5


def test_what_is_no_feature_gets_no_noise():
    places = RANDOM.uniform(size=(COUNT, 7, 2)).astype(np.float32)
    maps = RANDOM.normal(size=(COUNT, 3, 3, 2)).astype(np.float32)

    chunks = noisy([maps, places], 2)

    assert all(len(parts) == 2 for parts in chunks)
    np.testing.assert_array_equal(np.concatenate([parts[1] for parts in chunks]), places)
    assert not np.array_equal(np.concatenate([parts[0] for parts in chunks]), maps)


RECIPE = {
    "version": 1,
    "name": "digits",
    "data": {
        "builtin": "digits", "classes": ["3", "5"], "examples_per_class": 9, "validation": 0.05,
        "image_size": 32, "batch_size": 8,
    },
    "model": {"base": "lenet5", "weights": "random", "head": {"hidden": [{"units": 4}]}},
    "phases": [{"name": "head", "epochs": 1}],
}  # fmt: skip


def test_the_prefix_sees_mixed_images_of_a_training_batch(tmp_path):
    _, images = build_trainer(*plan_values(RECIPE), tmp_path)
    image = keras.Input((32, 32, 3))
    prefix = FixedBatch(keras.Model(image, keras.layers.Rescaling(2.0)(image)), batch_size=5)
    mixer = Mixer(3, mixup=0.5, cutmix=1.0, image_size=(32, 32))
    order = np.random.default_rng(0).permutation(18)

    live = LiveFeatures(images["train"], prefix, mixer=mixer)
    found = np.concatenate([part for part, _ in live.chunks(order, 8, epoch=1)])

    mixes = mixer.sample(18, 8, 1)
    pixels = images["train"].load(order)
    others = images["train"].load(order[mixes.partners])
    expected = 2 * mix_images(pixels, others, mixes.shares, mixes.boxes)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert not np.array_equal(pixels, others)


def train(folder, **changes):
    plan, task = plan_values(RECIPE, changes)
    trainer, _ = build_trainer(plan, task, folder)
    training = trainer.train(training_settings(plan))
    return training.history, training.weights_sha256


@pytest.fixture
def deterministic():
    start_tensorflow()
    with numerics(deterministic=True):
        yield


@pytest.mark.slow
def test_noise_and_blends_are_the_same_with_the_store_and_without(tmp_path, deterministic):
    changes = {"phases.head.feature_noise": 0.3, "phases.head.feature_mixup": 0.5}

    stored = train(tmp_path / "1", **changes, **{"features.store": "always"})
    live = train(tmp_path / "2", **changes, **{"features.store": "never"})

    assert stored == live


@pytest.mark.slow
def test_a_solved_head_takes_images_as_they_are(tmp_path, deterministic):
    solved = {"model.head": {"solver": "ridge"}, "phases": []}

    assert train(tmp_path / "1", **solved, augment={"mixup": 0.5}) == train(
        tmp_path / "2", **solved
    )

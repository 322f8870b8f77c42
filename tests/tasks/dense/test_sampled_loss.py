"""The loss over drawn pixels against the one of a dense map that is masked."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.architectures.networks import fill
from tests.models import build_transfer, layers_of
from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.dense.spec import IGNORE
from tl_toolkit.tasks.segmentation.task import Segmentation

SIDE, DRAWN = 32, 200
TAPS = ("block1", "block2", "block3", "block4")


def assemble_pixels(loss):
    settings = PixelSettings(loss=loss, taps=TAPS, class_weights={"tree": 3.0})
    head = layers_of({"hidden": [{"units": 16}, {"units": 12}]})
    task = Segmentation(("sky", "tree", "road"), settings, head=head)
    transfer = build_transfer("vgg_tiny", task=task, size=(SIDE, SIDE))
    fill(transfer.model)
    return transfer


def predict_densely(transfer, images):
    """Every map as large as the image, one after the other, and the dense layers on all of that."""
    ends = {part.name: part.inputs for part in transfer.parts}
    maps = keras.Model(transfer.image, list(ends["head"]))(images, training=False)
    x = tf.concat(
        [
            keras.ops.image.resize(
                one, (SIDE, SIDE), "bilinear", antialias=False, data_format="channels_last"
            )
            for one in maps
        ],
        axis=-1,
    )
    for name in ("head_hidden1", "head_hidden2", "predictions"):
        x = transfer.model.get_layer(name)(x)
    return tf.reshape(x, (len(images), SIDE * SIDE, 3))


@pytest.mark.parametrize("loss", ["cross_entropy", "dice", "focal"])
def test_loss_and_gradients_are_those_of_a_dense_map_that_is_masked(loss):
    transfer = assemble_pixels(loss)
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (2, SIDE, SIDE, 3)).astype("float32")
    targets = random.integers(0, 3, (2, SIDE * SIDE)).astype("int32")
    drawn = np.stack([random.permutation(SIDE * SIDE)[:DRAWN] for _ in images])
    pixels = np.stack(np.unravel_index(drawn, (SIDE, SIDE)), axis=-1).astype("float32")
    labels = np.take_along_axis(targets, drawn, axis=1)
    masked = np.full_like(targets, IGNORE)
    np.put_along_axis(masked, drawn, labels, axis=1)

    def measure(ask, targets):
        variables = [variable.value for variable in transfer.model.trainable_variables]
        with tf.GradientTape() as tape:
            losses, state = transfer.task.compare(ask(), tf.constant(targets))
            total = tf.reduce_mean(losses)
        return losses.numpy(), state.numpy(), tape.gradient(total, variables)

    losses, state, gradients = measure(
        lambda: transfer.model([images, pixels], training=False), labels
    )
    expected, counted, slopes = measure(lambda: predict_densely(transfer, images), masked)

    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert np.array_equal(state, counted)
    assert len(gradients) == len(transfer.model.trainable_variables) == 7 * 3 + 3 * 2
    for actual, slope in zip(gradients, slopes, strict=True):
        actual, slope = map(tf.convert_to_tensor, (actual, slope))
        size = np.abs(slope).max()
        assert size > 1e-6
        np.testing.assert_allclose(actual, slope, rtol=0, atol=1e-4 * size)

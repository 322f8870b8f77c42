"""A head that is carried over: its outputs go by the names of classes, new ones by their means."""

import keras
import numpy as np
import pytest

from tests.models import build_transfer, layers_of
from tl_toolkit.errors import WeightsError
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.transfer.carry import carry_head, initialize_outputs

HEAD = {"hidden": [{"units": 5}]}


def build(classes, head=HEAD):
    return build_transfer("lenet5", task=Classification(classes, layers_of(head)), seed=len(head))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of three classes, and its file."""
    transfer = build(["a", "b", "c"])
    for _, _, variable in transfer.variables():
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    transfer.model.save(path)
    return transfer, path


def test_outputs_are_kept_by_the_names_of_their_classes(saved):
    before, path = saved
    after = build(["c", "new", "a", "other"])
    old, new = (t.model.get_layer("predictions") for t in (before, after))
    untouched = new.kernel.numpy()[:, [1, 3]]

    carry_head(after.parts[-1].layers, path, before=["a", "b", "c"],
               classes=["c", "new", "a", "other"])  # fmt: skip

    np.testing.assert_array_equal(new.kernel.numpy()[:, [0, 2]], old.kernel.numpy()[:, [2, 0]])
    np.testing.assert_array_equal(new.bias.numpy()[[0, 2]], old.bias.numpy()[[2, 0]])
    np.testing.assert_array_equal(new.kernel.numpy()[:, [1, 3]], untouched)
    hidden = [t.model.get_layer("head_hidden1").kernel.numpy() for t in (before, after)]
    np.testing.assert_array_equal(*hidden)


def test_a_head_of_another_shape_is_refused_before_a_weight_changes(saved):
    after = build(["a", "b", "c"], {"hidden": [{"units": 7}]})
    weights = after.model.get_weights()

    with pytest.raises(WeightsError, match="other shapes in head_hidden1"):
        carry_head(after.parts[-1].layers, saved[1], before=["a", "b", "c"], classes=["a"])

    for value, expected in zip(after.model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(value, expected)


def output_layer(kernel, bias):
    layer = keras.layers.Dense(len(bias))
    layer.build((None, len(kernel)))
    layer.set_weights([np.float32(kernel), np.float32(bias)])
    return layer


def test_a_new_output_points_to_the_mean_of_its_class_as_worked_out_by_hand():
    layer = output_layer([[6, 0, 9], [0, 8, 9]], [1, 3, 9])
    features = np.float32([[0, 0], [2, 0], [4, 6], [6, 6]])
    members = np.eye(3)[[0, 1, 2, 2]]

    initialize_outputs(layer, features, members, [2])

    # The mean of all is (3, 3), that of the class (5, 6): the direction is (2, 3) / sqrt(13). The
    # others are 6 and 8 long. Their mean logits are 6 * 3 + 1 and 8 * 3 + 3, on average 23.
    direction = np.array([2, 3]) / 13**0.5
    np.testing.assert_allclose(layer.kernel.numpy()[:, 2], 7 * direction, rtol=1e-6)
    np.testing.assert_allclose(layer.bias.numpy()[2], 23 - 7 * direction @ [3, 3], rtol=1e-6)
    np.testing.assert_array_equal(layer.kernel.numpy()[:, :2], [[6, 0], [0, 8]])


def test_without_others_a_class_has_the_logit_1_at_its_mean_and_0_at_that_of_all():
    layer = output_layer([[9, 9], [9, 9]], [9, 9])
    features = np.float32([[0, 0], [2, 4]])

    initialize_outputs(layer, features, np.eye(2), [0, 1])

    np.testing.assert_allclose(layer(features).numpy(), [[1, -1], [-1, 1]], atol=1e-6)
    np.testing.assert_allclose(layer(np.float32([[1, 2]])).numpy(), [[0, 0]], atol=1e-6)

import io
import json
import os
import re
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from tl_toolkit.architectures.graph import build_base
from tl_toolkit.catalog.lookup import ARCHITECTURES
from tl_toolkit.catalog.weight_matching import describe_misfit
from tl_toolkit.errors import WeightsError
from tl_toolkit.runs.files import hash_file
from tl_toolkit.transfer.weights import (
    inspect_weights,
    load_weights,
    save_weights,
)

MOBILENET = ARCHITECTURES["mobilenet"]


def build_toy(*, order=("a", "b"), head=False, seed=0):
    """Two dense layers of one shape and a BatchNormalization, all with values of their own."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    x = inputs
    for name in order:
        x = layers.Dense(4, name=name)(x)
    x = layers.BatchNormalization(name="bn")(x)
    if head:
        x = layers.Dense(3, name="predictions")(x)
    model = keras.Model(inputs, x)
    for index, variable in enumerate(model.weights):
        variable.assign(np.random.default_rng(seed * 100 + index).uniform(0.5, 1.5, variable.shape))
    return model


def values_by_name(model):
    return {v.path: np.array(v.value) for layer in model.layers for v in layer.weights}


def assert_same(first, second):
    ours, theirs = values_by_name(first), values_by_name(second)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[path], theirs[path]) for path in ours)


def change_names(path, change):
    """Rewrites the list of layers of a file."""
    with h5py.File(path, "a") as file:
        names = change([name.decode() for name in file.attrs["layer_names"]])
        file.attrs["layer_names"] = [name.encode() for name in names]


# ------------------------------------------------------------------------------- loading and saving


@pytest.mark.parametrize("name", ["x.h5", "x.weights.h5"])
def test_weights_that_keras_saved_load_bit_for_bit(name, tmp_path):
    source, target = build_toy(seed=1), build_toy(seed=2)
    if name == "x.h5":
        source.save(tmp_path / name)
    else:
        source.save_weights(tmp_path / name)

    loaded = load_weights(target, tmp_path / name)

    assert_same(target, source)
    assert (loaded.by, loaded.num_tensors, loaded.left_out) == ("name", 8, ())


def write_as_keras_2(model, path):
    """Writes a model as TensorFlow 2.12 to 2.15 did: no name stands beside the weights."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        write_layers_as_keras_2(model, file.create_group("_layer_checkpoint_dependencies"))
        file["metrics/mean/vars/0"] = np.float32(3)
        file["optimizer/vars/0"] = np.float32(4)
    if path.suffix != ".keras":
        path.write_bytes(content.getvalue())
        return
    with zipfile.ZipFile(path, "w") as archive:
        config = {"class_name": "Functional", "config": model.get_config()}
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", content.getvalue())


def write_layers_as_keras_2(model, group):
    used = {}
    for layer in model.layers:
        kind = re.sub("([a-z])([A-Z])", r"\1_\2", type(layer).__name__).lower()
        used[kind] = used.get(kind, -1) + 1
        inner = group.create_group(f"{kind}_{used[kind]}" if used[kind] else kind)
        if isinstance(layer, keras.Model):
            below = inner.create_group("_layer_checkpoint_dependencies")
            write_layers_as_keras_2(layer, below)
        variables = inner.create_group("vars")
        for index, variable in enumerate([] if isinstance(layer, keras.Model) else layer.weights):
            variables[str(index)] = np.asarray(variable)


@pytest.mark.parametrize("name", ["x.weights.h5", "x.keras"])
@pytest.mark.parametrize("form", ["flat", "nested"])
def test_weights_that_keras_2_saved_load_into_the_base(name, form, tmp_path):
    source, target = build_toy(seed=1), build_toy(seed=2)
    whole = source
    if form == "nested":
        inputs = keras.Input((4,))
        whole = keras.Model(inputs, layers.Dense(3, name="mine")(source(inputs)))
    write_as_keras_2(whole, tmp_path / name)

    loaded = load_weights(target, tmp_path / name)

    for layer in ("a", "b", "bn"):
        for ours, theirs in zip(
            target.get_layer(layer).weights, source.get_layer(layer).weights, strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    assert loaded.by == ("name" if name == "x.keras" else "order")
    assert len(loaded.left_out) == (form != "flat")


def test_weights_of_another_network_that_keras_2_saved_are_refused(tmp_path):
    write_as_keras_2(build_toy(order=("a", "b", "c")), tmp_path / "x.weights.h5")
    target = build_toy(order=("a",), seed=2)
    before = values_by_name(target)

    with pytest.raises(WeightsError, match="does not fit the network"):
        load_weights(target, tmp_path / "x.weights.h5")

    assert all(np.array_equal(values_by_name(target)[path], before[path]) for path in before)


def test_a_whole_model_is_a_file_of_weights(tmp_path):
    source, target = build_toy(seed=1, head=True), build_toy(seed=2)
    source.save(tmp_path / "x.keras")

    loaded = load_weights(target, tmp_path / "x.keras")

    assert (loaded.by, loaded.left_out) == ("name", ("predictions",))
    assert np.array_equal(target.get_layer("b").kernel, source.get_layer("b").kernel)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.weights.h5", "x.keras"])
def test_a_base_of_the_catalog_takes_weights_that_keras_2_saved(name, tmp_path):
    twin = keras.applications.MobileNet((32, 32, 3), alpha=0.25, include_top=False, weights=None)
    head = layers.Dense(3)(layers.GlobalAveragePooling2D()(twin.output))
    write_as_keras_2(keras.Model(twin.input, head), tmp_path / name)
    image = keras.Input((32, 32, 3))
    base = keras.Model(image, build_base(MOBILENET, image, {"alpha": 0.25}))

    load_weights(base, tmp_path / name)

    assert describe_misfit(MOBILENET, {"alpha": 0.25}, inspect_weights(tmp_path / name)) is None
    for layer in (layer for layer in base.layers if layer.weights):
        for ours, theirs in zip(layer.weights, twin.get_layer(layer.name).weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_weights_that_we_saved_load_here_and_in_keras(tmp_path):
    source, ours, theirs = build_toy(seed=1), build_toy(seed=2), build_toy(seed=3)

    save_weights(source, tmp_path / "x.h5")
    load_weights(ours, tmp_path / "x.h5")
    theirs.load_weights(tmp_path / "x.h5")

    assert_same(ours, source)
    assert_same(theirs, source)


def test_the_same_weights_give_the_same_file(tmp_path):
    save_weights(build_toy(seed=1), tmp_path / "x.h5")
    save_weights(build_toy(seed=1), tmp_path / "y.h5")

    assert hash_file(tmp_path / "x.h5") == hash_file(tmp_path / "y.h5")
    assert sorted(os.listdir(tmp_path)) == ["x.h5", "y.h5"]


def test_a_layer_made_of_layers_is_saved_and_loaded(tmp_path):
    def build(seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((3, 4))
        attention = layers.MultiHeadAttention(2, 2, name="attention")
        return keras.Model(inputs, attention(inputs, inputs))

    source, target = build(1), build(2)
    save_weights(source, tmp_path / "x.h5")

    load_weights(target, tmp_path / "x.h5")

    assert_same(target, source)


def test_a_shuffled_layer_order_loads_right(tmp_path):
    source, target = build_toy(seed=1), build_toy(seed=2)
    save_weights(source, tmp_path / "x.h5")
    change_names(tmp_path / "x.h5", lambda names: names[::-1])

    load_weights(target, tmp_path / "x.h5")

    assert_same(target, source)


def test_two_swapped_layers_of_one_shape_load_right_where_keras_swaps_them(tmp_path):
    source, ours, theirs = build_toy(seed=1), build_toy(seed=2), build_toy(seed=2)
    save_weights(source, tmp_path / "x.h5")
    change_names(tmp_path / "x.h5", lambda names: ["b", "a", *names[2:]])

    load_weights(ours, tmp_path / "x.h5")
    theirs.load_weights(tmp_path / "x.h5")

    assert_same(ours, source)
    assert np.array_equal(theirs.get_layer("a").kernel, source.get_layer("b").kernel)


def test_the_weights_of_a_nested_base_load_into_a_flat_one(tmp_path):
    source, target = build_toy(seed=1), build_toy(seed=2)
    inputs = keras.Input((4,))
    keras.Model(inputs, layers.Dense(2, name="head_output")(source(inputs))).save(tmp_path / "x.h5")

    loaded = load_weights(target, tmp_path / "x.h5")

    assert_same(target, source)
    assert loaded.left_out == ("head_output",)


def test_a_file_with_its_classifier_loads_into_the_base(tmp_path):
    source, target = build_toy(seed=1, head=True), build_toy(seed=2)
    save_weights(source, tmp_path / "x.h5")

    loaded = load_weights(target.layers, tmp_path / "x.h5")

    assert loaded.left_out == ("predictions",)
    assert np.array_equal(target.get_layer("a").kernel, source.get_layer("a").kernel)


def test_layers_of_which_no_name_is_known_load_in_order_and_it_is_said(tmp_path):
    source, target = build_toy(seed=1), build_toy(order=("x", "y"), seed=2)
    target.get_layer("bn").name = "z"
    save_weights(source, tmp_path / "x.h5")

    loaded = load_weights(target, tmp_path / "x.h5")

    assert loaded.by == "order"
    assert np.array_equal(target.get_layer("y").kernel, source.get_layer("b").kernel)


def add_layer(file):
    file.attrs["layer_names"] = [b"a", b"extra", b"b", b"bn"]
    file.create_group("extra").attrs["weight_names"] = [b"extra/kernel"]
    file["extra/extra/kernel"] = np.zeros(3)


def drop_layer(file):
    file.attrs["layer_names"] = [b"a", b"bn"]


def change_shape(file):
    del file["b/b/kernel"]
    file["b/b/kernel"] = np.zeros((4, 5), "float32")


def put_nan(file):
    file["bn/bn/gamma"][0] = np.nan


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (add_layer, "does not fit the network: the network has no extra"),
        (drop_layer, "does not fit the network: the file has no b"),
        (change_shape, r"b has 4x4 \+ 4 in the network and 4x5 \+ 4 in the file"),
        (put_nan, "holds numbers that are not finite in 'bn/gamma'"),
    ],
)
def test_a_file_that_does_not_fit_changes_no_weight(damage, expected, tmp_path):
    source, target = build_toy(seed=1), build_toy(seed=2)
    save_weights(source, tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "a") as file:
        damage(file)

    with pytest.raises(WeightsError, match=expected):
        load_weights(target, tmp_path / "x.h5")

    assert_same(target, build_toy(seed=2))


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "alpha", "application", "file"),
    [
        (
            "mobilenet",
            0.25,
            keras.applications.MobileNet,
            "mobilenet_2_5_224_tf_no_top.h5",
        ),
        (
            "mobilenet_v2",
            0.35,
            keras.applications.MobileNetV2,
            "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5",
        ),
    ],
)
def test_real_weights_are_those_that_keras_loads(name, alpha, application, file, assets):
    path = assets / "weights" / file
    inputs = keras.Input((64, 64, 3))
    ours = keras.Model(inputs, build_base(ARCHITECTURES[name], inputs, {"alpha": alpha}))
    theirs = application(alpha=alpha, include_top=False, weights=str(path), input_shape=(64, 64, 3))

    load_weights(ours, path)

    pairs = list(zip(ours.weights, theirs.weights, strict=True))
    assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.assets
def test_real_weights_of_another_alpha_are_refused_and_named(assets):
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, build_base(MOBILENET, inputs, {"alpha": 0.25}))
    before = values_by_name(model)

    with pytest.raises(WeightsError, match=r"holds the weights of mobilenet with alpha = 0\.75"):
        load_weights(model, assets / "weights" / "mobilenet_7_5_224_tf_no_top.h5")

    after = values_by_name(model)
    assert all(np.array_equal(before[path], after[path]) for path in before)

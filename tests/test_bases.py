"""Every architecture trains from a recipe; every ImageNet base takes the file of its Keras twin."""

import re
from functools import lru_cache

import h5py
import keras
import numpy as np
import pytest

import tl_toolkit as tl
from tl_toolkit.architectures.graph import build_base, find_blocks
from tl_toolkit.architectures.pixels import apply_pixel_rule
from tl_toolkit.catalog.lookup import ARCHITECTURES
from tl_toolkit.errors import WeightsError
from tl_toolkit.transfer.weights import find_weights, load_weights

TOO_LARGE = 100_000_000

OWN = {
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "resnet50": "ResNet50",
    "resnet101": "ResNet101",
    "resnet152": "ResNet152",
    "densenet121": "DenseNet121",
    "densenet169": "DenseNet169",
    "densenet201": "DenseNet201",
}
TWINS = OWN | {
    name: one.settings["application"]
    for name, one in ARCHITECTURES.items()
    if "application" in one.settings
}


def smallest_of_each_family(names):
    best = {}
    for name in sorted(names, key=lambda name: ARCHITECTURES[name].parameters):
        best.setdefault(ARCHITECTURES[name].family, name)
    return set(best.values())


def parametrize(names, *, quick=()):
    """Quick ones run by default, one of each family is slow, the rest take turns."""
    names = [name for name in names if ARCHITECTURES[name].parameters <= TOO_LARGE]
    representatives = smallest_of_each_family(names)

    def mark(name):
        if name in quick:
            return name
        turns = [] if name in representatives else [pytest.mark.turns]
        return pytest.param(name, marks=[pytest.mark.slow, *turns])

    return pytest.mark.parametrize("name", list(map(mark, names)))


@lru_cache(maxsize=2)
def draw_twin(name, size=None, **arguments):
    """Keras's own network with weights that differ from those it begins with, layer by layer.

    Tests of the same network share it, and leave it as it is.
    """
    size = size or ARCHITECTURES[name].minimum_size
    draw = getattr(keras.applications, TWINS[name])
    keras.utils.set_random_seed(1)
    settings = {"include_top": False, "weights": None, "input_shape": (size, size, 3)}
    twin = draw(**settings | arguments)
    random = np.random.default_rng(0)
    for variable in twin.weights:
        if "int" in variable.dtype:
            continue
        change = random.uniform(0.9, 1.1, variable.shape)
        shift = 0.0 if variable.name.endswith(("variance", "kernel")) else 0.02
        variable.assign(variable.numpy() * change + shift * random.normal(size=variable.shape))
    settle(twin)
    return twin


def settle(model):
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


@pytest.fixture
def save(tmp_path):
    """Writes a model as a legacy HDF5 file, whole."""

    def write(model):
        path = tmp_path / "twin.h5"
        model.save(path)
        return path

    return write


@lru_cache(maxsize=2)
def build_ours(name, **arguments):
    architecture = ARCHITECTURES[name]
    size = architecture.minimum_size
    image = keras.Input((size, size, 3), name="image")
    pixels = apply_pixel_rule(image, architecture.pixels)
    features = build_base(architecture, pixels, arguments)
    blocks = find_blocks(architecture, pixels, features)
    layers = [layer for block in blocks for layer in block.layers]
    return keras.Model(image, features), layers


def draw_ours(name, **arguments):
    """Our network, shared by tests, with weights that show where none is loaded."""
    model, layers = build_ours(name, **arguments)
    for variable in model.weights:
        if "float" in variable.dtype:
            variable.assign(np.full(variable.shape, np.nan))
    return model, layers


def expect(name, twin, images):
    """The twin's features for raw pixels, by Keras's own preprocessing."""
    module = re.sub(r".*\.", "", getattr(keras.applications, TWINS[name]).__module__)
    preprocess = getattr(keras.src.applications, module).preprocess_input
    if not re.fullmatch(r"EfficientNetB\d", TWINS[name]):
        return twin(preprocess(images.copy())).numpy()
    # Only `weights="imagenet"` draws the second rescaling: here the first one does its work.
    layer = next(x for x in twin.layers if isinstance(x, keras.layers.Normalization))
    mean, variance, count = weights = layer.get_weights()
    layer.set_weights([mean, variance * np.array([0.229, 0.224, 0.225]), count])
    layer.finalize_state()
    outputs = twin(preprocess(images.copy())).numpy()
    layer.set_weights(weights)
    layer.finalize_state()
    return outputs


def assert_equal_outputs(name, model, twin, size=None):
    size = size or ARCHITECTURES[name].minimum_size
    images = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")

    actual, expected = model(images).numpy(), expect(name, twin, images)

    assert np.isfinite(expected).all()
    # Preprocessing multiplies where Keras divides; the scale is that of the outputs.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@parametrize(TWINS)
def test_the_file_of_its_keras_twin_gives_the_twins_outputs(name, save):
    twin = draw_twin(name)
    path = save(twin)
    model, layers = draw_ours(name)

    loaded = load_weights(layers, path)

    assert loaded.num_tensors == len(twin.weights)
    assert_equal_outputs(name, model, twin)


@parametrize(OWN)
def test_a_file_with_the_top_gives_the_same_base(name, save):
    twin = draw_twin(name, include_top=True, classes=3)
    path = save(twin)
    model, layers = draw_ours(name)

    loaded = load_weights(layers, path)

    assert "predictions" in loaded.left_out
    last = [layer for layer in twin.layers if len(layer.output.shape) == 4][-1]
    assert_equal_outputs(name, model, keras.Model(twin.input, last.output))


COUNTED = ("efficientnet_b0", "inception_v3", "xception", "convnext_tiny")
each_counted = pytest.mark.parametrize(
    "name",
    ["efficientnet_b0", *(pytest.param(name, marks=pytest.mark.slow) for name in COUNTED[1:])],
)


def move_counters():
    """Draws a layer of each kind that Keras names by a counter and that has weights."""
    x = keras.layers.Conv2D(2, 1)(keras.Input((4, 4, 3)))
    x = keras.layers.SeparableConv2D(2, 1)(keras.layers.DepthwiseConv2D(1)(x))
    for kind in ("BatchNormalization", "LayerNormalization", "Normalization"):
        x = getattr(keras.layers, kind)()(x)


def put_head_on(twin):
    """A model of a user's own; Keras's counters go on from what was drawn before."""
    keras.layers.Dense(2)(keras.Input((3,)))
    keras.layers.BatchNormalization()(keras.Input((3,)))
    x = keras.layers.GlobalAveragePooling2D()(twin.output)
    x = keras.layers.BatchNormalization()(x)
    return keras.Model(twin.input, keras.layers.Dense(3, activation="softmax")(x))


@pytest.mark.slow
@each_counted
def test_a_file_with_a_head_of_the_users_own_gives_the_same_base(name, save):
    move_counters()
    twin = draw_twin.__wrapped__(name)
    path = save(put_head_on(twin))
    model, layers = draw_ours(name)

    loaded = load_weights(layers, path)

    assert loaded.num_tensors == len(twin.weights)
    assert len(loaded.left_out) == 2
    assert_equal_outputs(name, model, twin)


@each_counted
@pytest.mark.parametrize("frozen", [pytest.param(n, marks=pytest.mark.slow) for n in (0, 60)])
def test_a_file_of_a_base_nested_in_a_model_gives_the_same_base(name, frozen, save):
    """Of a nested model Keras writes what trains before what does not."""
    twin = draw_twin(name)
    for layer in twin.layers[:frozen]:
        layer.trainable = False
    pool = keras.layers.GlobalAveragePooling2D()
    path = save(keras.Sequential([twin, pool, keras.layers.Dense(3)]))
    twin.trainable = True
    model, layers = draw_ours(name)

    load_weights(layers, path)

    assert_equal_outputs(name, model, twin)


@pytest.mark.slow
@each_counted
def test_weights_of_keras_3_give_the_same_base(name, tmp_path):
    twin = draw_twin(name)
    path = tmp_path / "twin.weights.h5"
    twin.save_weights(path)
    model, layers = draw_ours(name)

    load_weights(layers, path)

    assert_equal_outputs(name, model, twin)


@pytest.mark.slow
def test_a_model_drawn_with_weights_none_needs_no_second_rescaling(save):
    twin = draw_twin("efficientnet_b0")
    path = save(twin)
    model, layers = draw_ours("efficientnet_b0", imagenet_rescaling=False)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")

    load_weights(layers, path)

    expected = twin(images).numpy()
    np.testing.assert_allclose(
        model(images).numpy(), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
    )


def with_slashes(file):
    """Renames "conv2_block1_1_conv" to "conv2/block1/1/conv", in the list of names and the file."""
    names = list(map(str, file.attrs["layer_names"]))
    for name in names:
        file.move(name, f"moved.{name}")
    for name in names:
        slashed = name.replace("_", "/")
        parts = slashed.split("/")
        for depth in range(1, len(parts)):
            file.require_group("/".join(parts[:depth]))
        if slashed in file:  # "conv1" may be the parent of "conv1/bn"
            for key in list(file[f"moved.{name}"]):
                file.move(f"moved.{name}/{key}", f"{slashed}/{key}")
            file[slashed].attrs.update(file[f"moved.{name}"].attrs)
        else:
            file.move(f"moved.{name}", slashed)
    file.attrs["layer_names"] = np.array([n.replace("_", "/") for n in names], dtype="S")


def shuffled(file):
    names = file.attrs["layer_names"]
    file.attrs["layer_names"] = names[np.random.default_rng(0).permutation(len(names))]


@parametrize(OWN, quick={"vgg16"})
@pytest.mark.parametrize("change", [with_slashes, pytest.param(shuffled, marks=pytest.mark.slow)])
def test_slashes_in_names_and_a_shuffled_order_change_nothing(name, change, save):
    twin = draw_twin(name)
    path = save(twin)
    with h5py.File(path, "r+") as file:
        change(file["model_weights"])
    model, layers = draw_ours(name)

    load_weights(layers, path)

    assert_equal_outputs(name, model, twin)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("resnet50", {"version": "v1.5"}, "resnet50 were published for version v1 only"),
        ("resnet50", {"conv_bias": False}, "resnet50 were published for conv_bias true only"),
        ("vgg16", {"batch_norm": True}, "vgg16 were published for batch_norm false only"),
        ("densenet121", {"transition_pool": "max"}, "published for transition_pool average only"),
        ("efficientnet_b0", {"imagenet_rescaling": False}, "imagenet_rescaling true only"),
        ("resnet18", {}, "no ImageNet weights of resnet18 .*\n.*base: resnet50"),
        ("alexnet", {"groups": 2}, "no ImageNet weights of alexnet were ever published"),
    ],
)
def test_a_variant_without_a_published_file_says_what_to_use(name, arguments, expected):
    size = ARCHITECTURES[name].default_size

    with pytest.raises(WeightsError, match=expected):
        find_weights(ARCHITECTURES[name], arguments, (size, size), "imagenet")


def test_every_base_of_keras_applications_has_one_entry():
    drawn = {
        name
        for name in dir(keras.applications)
        if callable(getattr(keras.applications, name)) and name[0].isupper()
    }

    assert sorted(TWINS.values()) == sorted(drawn)
    assert len(drawn) == 40


def make_recipe(name, photos, **model):
    architecture = ARCHITECTURES[name]
    units = [unit.name for unit in architecture.units]
    return {
        "version": 1,
        "name": name,
        "data": {
            "train": str(photos),
            "validation": 0.5,
            "image_size": architecture.minimum_size,
            "batch_size": 3,
        },
        # Random features may answer so surely that no gradient is left: penalties always move.
        "model": {
            "base": name,
            "weights": "random",
            "l2": 1e-3,
            "head": {"dropout": 0.1, "l2": 1e-3},
            **model,
        },
        "phases": [
            {"name": "head", "epochs": 1},
            {
                "name": "tune",
                "epochs": 1,
                "optimizer": "sgd",
                "learning_rate": 1e-3,
                "unfreeze": {"from": units[-2] if len(units) > 1 else units[-1]},
                "batch_norm": "train",
            },
        ],
        "export": False,
        "report": False,
    }


@parametrize(ARCHITECTURES, quick=())
def test_a_recipe_trains_it_from_random_weights(name, tmp_path, draw_photos):
    photos = draw_photos(tmp_path / "photos", classes=("a", "b"), count=4)

    run = tl.finetune(make_recipe(name, photos), root=tmp_path)

    assert np.isfinite(run.metrics["validation"]["loss"])
    assert [answer.error for answer in run.predict(photos / "a" / "0.jpg")] == [None]


@parametrize(TWINS, quick=())
def test_a_recipe_finetunes_it_from_the_file_of_its_twin(name, save, tmp_path, draw_photos):
    photos = draw_photos(tmp_path / "photos", classes=("a", "b"), count=4)
    path = save(draw_twin(name))

    run = tl.finetune(make_recipe(name, photos, weights=str(path)), root=tmp_path)

    assert np.isfinite(run.metrics["validation"]["loss"])


@pytest.mark.slow
def test_a_recipe_reaches_penalties_edges_and_the_papers_head(tmp_path, draw_photos):
    photos = draw_photos(tmp_path / "photos", classes=("a", "b"), count=4)
    recipe = make_recipe(
        "lenet5", photos, l1=1e-5, l2=1e-3, edge_filter="kirsch", head={"dropout": 0.1, "l2": 1e-2}
    )

    run = tl.finetune(recipe, root=tmp_path)

    assert run.model.get_layer("c3_conv").kernel_regularizer.l2 == pytest.approx(1e-3)
    layer = run.model.get_layer("pixels_edges")
    assert layer.get_config()["kind"] == "kirsch"
    assert run.model.get_layer("predictions").kernel_regularizer.l2 == pytest.approx(1e-2)

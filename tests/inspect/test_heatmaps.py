"""Heat maps: each method against figures computed by hand, and on images that are known."""

import itertools
from functools import partial

import keras
import numpy as np
import pytest

import tl_toolkit as tl
from tests.models import build_transfer
from tl_toolkit.api.subjects import open_subject
from tl_toolkit.architectures.graph import find_cuts
from tl_toolkit.errors import RecipeError
from tl_toolkit.images.pipeline import read_image
from tl_toolkit.inspect.heatmaps import (
    compute_gradcam,
    compute_gradcam_plus_plus,
    compute_heatmaps,
    compute_layercam,
    integrate_gradients,
    occlude,
)
from tl_toolkit.inspect.methods import HEAT_METHODS
from tl_toolkit.inspect.probe import render_images
from tl_toolkit.inspect.scores import ScoredModel
from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.segmentation.task import Segmentation

ROUNDING = 1e-5  # float32 sums in another order


def build_linear(kernel, activation="softmax"):
    """A map that is the image itself, and one class whose score is a weighted sum of it."""
    height, width = kernel.shape
    image = keras.Input((height, width, 1), name="image")
    x = keras.layers.Conv2D(1, 1, use_bias=False, name="map")(image)
    x = keras.layers.Flatten(name="head_flatten")(x)
    scores = keras.layers.Dense(2, activation=activation, use_bias=False, name="predictions")(x)
    model = keras.Model(image, scores)
    model.get_layer("map").set_weights([np.ones((1, 1, 1, 1))])
    columns = np.stack([np.zeros(kernel.size), kernel.ravel()], axis=1)
    model.get_layer("predictions").set_weights([columns])
    return model


def build_detector(side=16):
    """A network whose class 1 is a bright square: two blocks, average pooling, two outputs."""
    image = keras.Input((side, side, 3), name="image")
    x = keras.layers.Conv2D(2, 3, padding="same", activation="relu", name="block1_conv")(image)
    x = keras.layers.Conv2D(2, 3, padding="same", activation="relu", name="block2_conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    model = keras.Model(image, keras.layers.Dense(2, activation="softmax", name="predictions")(x))
    blur = np.full((3, 3, 3, 2), 1 / 27 / 255)
    same = np.zeros((3, 3, 2, 2))
    same[1, 1] = np.eye(2)
    for name, kernel, bias in (
        ("block1_conv", blur * [1, -1], [-0.5, 0.5]),  # bright, dark
        ("block2_conv", same, [0, 0]),
        ("predictions", [[0, 8], [0, 0]], [0, 0]),
    ):
        model.get_layer(name).set_weights([np.array(kernel), np.array(bias)])
    return model


@pytest.fixture(scope="module")
def square():
    """A dark image with a bright square, and where the square is."""
    image = np.full((1, 16, 16, 3), 30, np.float32)
    inside = np.zeros((16, 16), bool)
    inside[9:14, 2:7] = True
    image[0, inside] = 240
    return image, inside


def goals_of(scored, images, target):
    return scored.find_goals(images, [target] * len(images))


@pytest.mark.parametrize("method", HEAT_METHODS)
def test_heat_lies_on_the_object_of_the_class(square, method):
    image, inside = square

    heat = compute_heatmaps(build_detector(), image, method, targets=[1])[0]

    assert heat.dtype == np.float32 and heat.shape == (16, 16)
    assert heat.max() == 1 and heat.min() >= 0
    near = np.pad(inside, 1)  # a filter of 3 pixels, and a patch of 2, reach one pixel further
    near = np.lib.stride_tricks.sliding_window_view(near, (3, 3)).any(axis=(2, 3))
    assert heat[near].sum() > 0.99 * heat.sum()
    assert heat[inside].mean() > 0.5


def test_cascading_randomization_changes_the_heat_with_each_block():
    """Weights are shuffled block by block, from the output on (Adebayo et al., 2018)."""
    model = build_transfer("vgg_tiny", size=(32, 32)).model
    images = render_images(4, (32, 32)).astype(np.float32)
    random = np.random.default_rng(0)
    heats = [explain_shallow(model, images)]

    for block in ("predictions", "block4", "block3", "block2", "block1"):
        for layer in model.layers:
            if layer.name.startswith(block) and not layer.name.endswith("_bn"):
                shuffle(layer, random)
        heats.append(explain_shallow(model, images))

    assert max(correlate(*pair) for pair in itertools.pairwise(heats)) < 0.75
    assert max(correlate(heats[0], heat) for heat in heats[1:]) < 0.75


def shuffle(layer, random):
    values = layer.get_weights()
    layer.set_weights([random.permutation(v.ravel()).reshape(v.shape) for v in values])


@pytest.mark.assets
def test_cascading_randomization_of_real_weights_changes_the_heat_of_photos(assets):
    weights = assets / "weights" / "mobilenet_2_5_224_tf_no_top.h5"
    model = open_subject(tl.Base("mobilenet", {"alpha": 0.25}, weights=str(weights))).model
    bees = sorted((assets / "images" / "hymenoptera" / "val" / "bees").glob("*.jpg"))[:4]
    images = np.stack([read_image(path, (224, 224), "stretch") for path in bees])
    random = np.random.default_rng(0)
    options = {"method": "layercam", "layer": "conv_pw_6_relu"}
    heats = [compute_heatmaps(model, images, **options)]

    for name in ("conv_pw_13", "conv_pw_11", "conv_pw_8", "conv_pw_3"):
        shuffle(model.get_layer(name), random)
        heats.append(compute_heatmaps(model, images, **options))

    assert max(correlate(*pair) for pair in itertools.pairwise(heats)) < 0.75
    assert max(correlate(heats[0], heat) for heat in heats[1:]) < 0.75


def explain_shallow(model, images):
    layer = "block2_conv1_relu"
    return compute_heatmaps(model, images, "layercam", targets=[1] * len(images), layer=layer)


def correlate(first, second):
    pairs = zip(first, second, strict=True)
    return np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])


def test_gradcam_behind_average_pooling_and_one_dense_layer_is_cam():
    model = build_transfer("vgg_tiny", size=(32, 32)).model
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    scored = ScoredModel(model)

    heat = compute_gradcam(scored, images, goals_of(scored, images, 2))

    maps = scored.read(images).numpy()
    cam = maps @ model.get_layer("predictions").get_weights()[0][:, 2]
    positions = maps.shape[1] * maps.shape[2]
    np.testing.assert_allclose(heat * positions, cam, atol=ROUNDING * np.abs(cam).max())


KERNEL = np.array([[2.0, -1.0], [1.0, 0.0]])
IMAGE = np.array([[1.0, 3.0], [2.0, 4.0]], np.float32).reshape(1, 2, 2, 1)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # The mean gradient is 0.5.
        (compute_gradcam, [[0.5, 1.5], [1.0, 2.0]]),
        # The sum of the map is 10: 4 / (8 + 10 * 8) * 2 + 1 / (2 + 10) * 1 = 0.174242...; the
        # gradient is divided by its greatest value, 2, and so is this weight.
        (compute_gradcam_plus_plus, np.array([[1, 3], [2, 4]]) * (2 / 22 + 1 / 12) / 2),
        (compute_layercam, [[2.0, 0.0], [2.0, 0.0]]),
        (partial(integrate_gradients, steps=2), [[2.0, -3.0], [2.0, 0.0]]),
    ],
    ids=["gradcam", "gradcam++", "layercam", "integrated_gradients"],
)
def test_a_method_gives_the_figures_computed_by_hand(method, expected):
    scored = ScoredModel(build_linear(KERNEL), "map")

    heat = method(scored, IMAGE, goals_of(scored, IMAGE, 1))

    np.testing.assert_allclose(heat[0], expected, rtol=1e-5)


def test_occlusion_gives_what_the_score_loses_with_each_patch():
    kernel = np.zeros((4, 4))
    kernel[:2, 2:] = 1.0
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    scored = ScoredModel(build_linear(kernel))

    heat = occlude(scored, image, goals_of(scored, image, 1), patch=2, stride=2)[0]

    # The patch 2, 3, 6, 7 becomes four times the mean of 7.5: the score changes from 18 to 30.
    expected = np.where(kernel, -12.0, 0.0)
    np.testing.assert_allclose(heat, expected, atol=1e-4)


def test_occluding_patches_reach_the_border_and_overlap_by_half_a_side():
    scored = ScoredModel(build_linear(np.ones((5, 5))))
    image = np.ones((1, 5, 5, 1), np.float32)
    image[0, 4, 4] = 26.0  # its mean is 2

    heat = occlude(scored, image, goals_of(scored, image, 1), patch=2, stride=1)[0]

    # One patch hides the corner: 26 + 3 becomes 8. Its neighbours to the left are hidden twice.
    assert heat[4, 4] == pytest.approx(21)
    assert heat[4, 3] == pytest.approx((21 - 4) / 2)
    assert heat[0, 0] == pytest.approx(-4)


@pytest.mark.parametrize("layer", [pytest.param("image", marks=pytest.mark.slow), "block2_conv"])
def test_integrated_gradients_are_complete(layer):
    """They add up to the score of the image less that of a black one."""
    model = build_detector(8)
    random = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(random.normal(size=variable.shape))
    images = random.uniform(0, 1, (2, 8, 8, 3)).astype(np.float32)  # so that biases matter
    scored = ScoredModel(model, layer, compiled=True)
    goals = goals_of(scored, images, 1)

    heat = integrate_gradients(scored, images, goals, steps=64)

    gained = scored.score(images, goals) - scored.score(images * 0, goals)
    assert np.abs(gained).min() > 0.5
    # A network of ReLUs is linear between its kinks: a step loses something where it crosses one.
    np.testing.assert_allclose(heat.sum(axis=(1, 2)), gained, rtol=0.01)


def test_the_score_is_the_logit_and_not_the_probability():
    model = build_linear(np.full((2, 2), 100.0))

    assert model.predict(IMAGE, verbose=0)[0, 1] == 1  # so that the probability has no gradient
    assert compute_heatmaps(model, IMAGE, "layercam", targets=[1]).max() == 1


def test_one_output_of_two_classes_is_explained_for_either():
    kernel = np.array([[1.0, -2.0], [3.0, -4.0]])  # over ones: the score is -2, the first class
    model = build_linear(kernel)
    image = model.inputs[0]
    shares = keras.layers.Dense(1, activation="sigmoid", use_bias=False, name="predictions")
    single = keras.Model(image, shares(model.get_layer("head_flatten").output))
    shares.set_weights([kernel.reshape(4, 1)])
    ones = np.ones((1, 2, 2, 1), np.float32)

    maps = [
        compute_heatmaps(single, ones, "layercam", targets=target, layer="map", is_pair=True)
        for target in (None, [0], [1])
    ]

    first, second = np.maximum(-kernel, 0) / 4, np.maximum(kernel, 0) / 3
    np.testing.assert_allclose(maps, np.array([first, first, second])[:, np.newaxis], atol=1e-6)


def test_the_gradient_reaches_a_map_through_the_head_and_the_blocks_behind_it():
    image = keras.Input((2, 2, 1), name="image")
    first = keras.layers.Conv2D(1, 1, use_bias=False, name="block1")(image)
    second = keras.layers.Conv2D(1, 1, use_bias=False, name="block2")(first)
    pooled = [
        keras.layers.GlobalAveragePooling2D(name=f"head_pool{number}")(tensor)
        for number, tensor in enumerate((first, second), start=1)
    ]
    x = keras.layers.Concatenate(name="head_features")(pooled)
    model = keras.Model(image, keras.layers.Dense(1, use_bias=False, name="predictions")(x))
    for name, values in (("block1", 1), ("block2", 3), ("predictions", [5, 7])):
        weights = model.get_layer(name).get_weights()[0]
        model.get_layer(name).set_weights([np.reshape(values, weights.shape).astype(float)])
    scored = ScoredModel(model, "block1")

    _, gradients = scored.differentiate(IMAGE, goals_of(scored, IMAGE, 0))

    np.testing.assert_allclose(gradients, (5 + 3 * 7) / 4)
    assert ScoredModel(model).layer == "block2"


def build_pixels(base="vgg_tiny", size=(32, 32), classes=3, taps=("block2",), **settings):
    names = [f"class{number}" for number in range(classes)]
    task = Segmentation(names, PixelSettings(taps=taps))
    return build_transfer(base, task=task, size=size, **settings).model


@pytest.mark.slow
def test_of_pixels_the_scores_count_where_the_class_is_predicted():
    model = build_pixels()
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    scored = ScoredModel(model)
    places = np.stack(np.meshgrid(range(32), range(32), indexing="ij"), -1).reshape(-1, 2)
    probabilities = model.predict([images, np.stack([places, places])], verbose=0)
    last = model.get_layer("predictions")
    features = keras.Model(model.inputs, last.input)([images, np.stack([places, places])])
    logits = features.numpy() @ last.get_weights()[0] + last.get_weights()[1]
    best = probabilities.argmax(axis=-1)

    goals = scored.find_goals(images, None)

    most = [np.bincount(row).argmax() for row in best]
    assert goals.outputs.tolist() == most
    expected = [logits[i, best[i] == most[i], most[i]].sum() for i in range(2)]
    np.testing.assert_allclose(scored.score(images, goals), expected, rtol=1e-4)


@pytest.mark.slow
def test_a_class_that_no_pixel_is_predicted_as_has_no_heat():
    model = build_pixels()
    last = model.get_layer("predictions")
    kernel, bias = last.get_weights()
    last.set_weights([kernel, bias - [0, 0, 1e6]])
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)

    assert not compute_heatmaps(model, images, targets=[2]).any()
    assert compute_heatmaps(model, images, targets=[0]).max() == 1


def test_a_batch_gives_the_maps_of_its_images():
    model = build_detector()
    images = np.random.default_rng(0).uniform(0, 255, (5, 16, 16, 3)).astype(np.float32)

    together = compute_heatmaps(model, images, batch_size=2)

    alone = [compute_heatmaps(model, images[i : i + 1])[0] for i in range(5)]
    np.testing.assert_allclose(together, alone, atol=ROUNDING)


FIRST = {"lenet5": 32}
HEAVY = {"vgg_tiny": 32, "mobilenet": 32, "resnet50": 32, "densenet121": 32}


@pytest.mark.parametrize(
    ("name", "size"),
    [*FIRST.items(), *(pytest.param(*item, marks=pytest.mark.slow) for item in HEAVY.items())],
)
def test_by_default_the_last_cut_with_an_extent_is_explained(name, size):
    model = build_transfer(name, size=(2 * size, 2 * size)).model
    images = np.random.default_rng(0).uniform(0, 255, (1, *model.inputs[0].shape[1:]))

    scored, heat = ScoredModel(model), compute_heatmaps(model, images, "layercam")

    wide = [cut for cut in find_cuts(model) if len(cut.tensor.shape) == 4]
    assert scored.layer == wide[-1].layer
    assert heat.shape == images.shape[:3]
    assert np.isfinite(heat).all() and heat.max() == 1


def test_by_default_no_branch_is_explained():
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(1, 3, name="block1")(image)
    branches = [keras.layers.Conv2D(1, 3, strides=3, name=name)(x) for name in ("left", "right")]
    pooled = [keras.layers.MaxPooling2D(2, name=f"{b.name}_pool")(b) for b in branches]
    x = keras.layers.Concatenate(name="block2")(pooled)  # a single position
    x = keras.layers.Flatten(name="head_pool")(x)
    model = keras.Model(image, keras.layers.Dense(2, name="predictions")(x))

    assert ScoredModel(model).layer == "block1"


@pytest.mark.slow  # large networks
@pytest.mark.parametrize("name", ["pixelnet", "unet"])
def test_networks_of_pixels_are_explained(name):
    model = build_pixels(name, taps=None)
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3))

    for layer in (None, "image"):
        heat = compute_heatmaps(model, images, "layercam", layer=layer)
        assert heat.shape == (1, 32, 32) and heat.max() == 1


def test_unknown_words_are_refused_with_a_near_match(square):
    image, _ = square

    with pytest.raises(RecipeError, match="'gradcan' is no method(.|\n)* mean 'gradcam'"):
        compute_heatmaps(build_detector(), image, "gradcan")
    with pytest.raises(RecipeError, match="'block2' has no map(.|\n)* mean 'block2_conv'"):
        compute_heatmaps(build_detector(), image, layer="block2")
    with pytest.raises(RecipeError, match="occlusion changes the image itself"):
        compute_heatmaps(build_detector(), image, "occlusion", layer="block2_conv")
    with pytest.raises(ValueError, match="expected 1 numbers from 0 to 1"):
        compute_heatmaps(build_detector(), image, targets=[2])
